// The launcher's table of sessions and everything done to them: create, kill, freeze,
// count, and the tidying after an end. Single-threaded; nothing here blocks for longer
// than a system call, waits are events of the loop in main.cpp.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sandbox/launcher/cgroup.h"
#include "sandbox/launcher/id_lease.h"
#include "sandbox/launcher/image_templates.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"
#include "sandbox/wire/setup_protocol.h"

namespace codespace::launcher {

/// preparing -> spare -> starting -> running -> ending. The first two belong to no request yet.
enum class SessionState { preparing, spare, starting, running, ending };

/// Children kept ready in their namespaces and control groups, so that a creation waits for
/// neither a network namespace nor, on v2, the kernel's grace period of a cgroup move.
inline constexpr std::size_t kSpares = 2;

struct Session {
  wire::SessionKey key{};          // from assignment on
  std::string hex;                 // of the key; names the runtime directory
  std::string group;               // name in Cgroups, by lease
  std::uint64_t image = 0;
  wire::SessionLimits limits;
  std::uint32_t lease = 0;
  SessionState state = SessionState::preparing;
  std::uint64_t template_generation = 0;
  bool paused = false;
  std::uint64_t posture_digest = 0;
  std::int64_t created_wall_ms = 0;
  std::uint64_t setup_deadline_ns = 0;
  pid_t pid = -1;                 // only to write its id maps; everything else goes by pidfd
  sys::UniqueFd pidfd;
  sys::UniqueFd channel;          // to the child, until init is ready
  bool reaped = false;
  wire::LauncherReply end;        // facts of the end, once reaped
};

class Sessions {
 public:
  /// `status_ok`, `ended`, `setup_failed`... for the one who asked and for the watchers.
  using Notify = std::function<void(const wire::SessionKey&, const wire::LauncherReply&)>;

  Sessions(Cgroups& cgroups, std::uint32_t id_count, sys::UniqueFd init_program, sys::UniqueFd seccomp);

  /// Called when a creation finishes, one way or the other.
  Notify on_created;
  /// Called when nothing of a session is left.
  Notify on_gone;

  /// Starts a creation; the outcome comes by on_created. A reply at once if it is refused.
  std::optional<wire::LauncherReply> create(const wire::LauncherRequest& request);
  /// Starts the end of a session; its outcome comes by on_gone.
  void kill(Session& session);
  [[nodiscard]] wire::LauncherReply freeze(Session& session, bool frozen);
  [[nodiscard]] wire::LauncherReply describe(const Session& session);
  /// The session with this key, from its assignment to its end.
  Session* find(const wire::SessionKey& key);
  /// True if a creation with this key waits for a prepared child; then it is cancelled.
  bool cancel_pending(const wire::SessionKey& key);
  /// Every child there is, spares included, by lease.
  [[nodiscard]] const std::map<std::uint32_t, std::unique_ptr<Session>>& all() const { return table_; }
  [[nodiscard]] Session* at(std::uint32_t lease);

  /// Events of the loop: a child's report, the end of an init, time passing.
  void on_channel(Session& session);
  void on_exit(Session& session);
  void on_tick();
  /// Prepares children until kSpares are on the way; called when no request is waiting.
  void replenish();
  /// Ends everything; the launcher stops.
  void kill_all();
  /// True while something waits for time to pass (a set-up deadline, a group that is not yet empty).
  [[nodiscard]] bool needs_tick() const;

 private:
  Result<void> prepare(wire::Stage& stage);
  void on_joined(Session& session);
  void assign_pending();
  Result<void> assign(Session& session, const wire::LauncherRequest& request, wire::Stage& stage);
  Result<sys::UniqueFd> listen(const Session& session, wire::Stage& stage);
  Result<void> clone_child(Session& session, wire::Stage& stage);
  void refuse(const wire::LauncherRequest& request, wire::Stage stage, const Error& error);
  void fail_pending(wire::Stage stage, int sys_errno);
  void finish_creation(Session& session, const wire::LauncherReply& reply);
  bool try_remove(Session& session);

  Cgroups& cgroups_;
  IdLeases leases_;
  ImageTemplates templates_;
  sys::UniqueFd init_program_;
  sys::UniqueFd seccomp_;
  std::map<std::uint32_t, std::unique_ptr<Session>> table_;   // by lease
  std::map<wire::SessionKey, Session*> by_key_;
  std::deque<wire::LauncherRequest> pending_;                // creations that wait for a child
};

/// Lower-case hex of a session key: the name of its runtime directory and cgroup.
std::string hex_of(const wire::SessionKey& key);

}  // namespace codespace::launcher
