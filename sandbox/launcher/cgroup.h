// The launcher's side of control groups: one directory tree per session, its limits, its
// counters and its end. One interface, two backends, chosen once at start: v2 (unified) is
// the first choice; v1 serves hosts whose controllers are mounted one hierarchy each.
//
// Layout of a session, the same in both:
//   <base>/s<n>            memory of the tenant plus init's reserve; cpu; freeze and kill
//   <base>/s<n>/user       memory and pids as asked for; delegated to init, which makes one
//                          child group below it for each kernel and command
// v2 puts init into s<n>/init, because a v2 group with children has no processes.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::launcher {

/// Directories handed to init: what it needs to make, read, kill and remove run groups.
/// v2 uses only `user[0]`; v1 has one per controller, in this order.
struct DelegatedGroups {
  static constexpr std::size_t kMax = 3;  // v1: memory, pids, cpuacct
  std::array<sys::UniqueFd, kMax> user;
  std::size_t count = 0;
};

struct CgroupUsage {
  std::uint64_t memory_bytes = 0, memory_peak_bytes = 0, cpu_ns = 0, oom_kills = 0;
  std::uint32_t pids = 0;
};

/// Memory init may use beside the tenant's limit: kept output of finished runs, file work.
inline constexpr std::uint64_t kInitReserveBytes = 96ULL << 20;
/// Processes init may have beside the tenant's limit: itself and its file helpers.
inline constexpr std::uint32_t kInitReservePids = 40;

class Cgroups {
 public:
  /// Finds a usable hierarchy, makes the base group, gives it to `owner` and removes what a
  /// dead launcher of the same name left there. Needs the caller's starting privilege.
  static Result<std::unique_ptr<Cgroups>> open(std::string_view name, uid_t owner, gid_t group);
  virtual ~Cgroups() = default;

  /// Once in the launcher's own mount namespace: makes the base group the root of its mount, so that no
  /// descriptor of a group, given to whom it may be, leads to anything above it (open_tree(2)).
  virtual Result<void> cut_off() = 0;
  [[nodiscard]] virtual std::string_view backend() const = 0;  // "v1" or "v2"
  /// Makes the groups of a session.
  virtual Result<void> create(std::string_view session) = 0;
  /// After the child joined: delegates `user` to init and, on v2, enables the controllers,
  /// which a group with processes in it could not have.
  virtual Result<void> settle(std::string_view session, uid_t init_uid, gid_t init_gid) = 0;
  /// Writes every limit; done before the session's first program is executed.
  virtual Result<void> limit(std::string_view session, const wire::SessionLimits& limits) = 0;
  virtual Result<DelegatedGroups> delegate(std::string_view session) = 0;
  /// v2: the directory for CLONE_INTO_CGROUP (Linux 5.7), so that no process of the session ever ran
  /// outside its limits. v1 has no such thing and gives none; join_self() must then follow the clone.
  virtual sys::UniqueFd birth_group(std::string_view session) = 0;
  /// In the cloned child, while it still has the launcher's user id (v1 asks for that): moves it
  /// in and gives it a cgroup namespace whose root is the session's group. It
  /// can wait for an RCU grace period, some 10 ms, so the child does it, not the launcher's loop.
  virtual Result<void> join_self(std::string_view session) = 0;
  /// What moves a kernel that a zygote forks into the run group `run` that init made for it, and
  /// into the groups of its session that init's own children are in by birth. v2: one directory,
  /// for CLONE_INTO_CGROUP. v1: a `tasks` file of each controller, to be written "0" to by the
  /// kernel itself while it has the launcher's user id, in this order.
  virtual Result<std::vector<sys::UniqueFd>> entrances(std::string_view session, std::string_view run) = 0;
  virtual Result<void> freeze(std::string_view session, bool frozen) = 0;
  /// Reaches what the end of the session's init does not reach, or only later: v2, everything in
  /// the group; v1, nothing unless it is `frozen`, for the frozen take no signal.
  virtual void kill(std::string_view session, bool frozen) = 0;
  virtual CgroupUsage usage(std::string_view session) = 0;
  /// True once every directory is gone; false while a dying process still holds one.
  virtual bool remove(std::string_view session) = 0;
  /// Removes what is below the base group; the launcher's last act. The base itself lies in a
  /// directory that belongs to whoever started us: it stays, empty, and the next start takes it
  /// over; systemd removes it with the service's own group, quickstart.sh --stop by hand.
  virtual void clear_base() = 0;
};

}  // namespace codespace::launcher
