// The launcher's table of sessions and everything done to them: create, kill, freeze,
// count, and the tidying after an end. Single-threaded; nothing here blocks for longer
// than a system call, waits are events of the loop in main.cpp.
#pragma once

#include <sys/types.h>

#include <cstdint>
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

enum class SessionState { starting, running, ending };

struct Session {
  wire::SessionKey key{};
  std::string hex;
  std::uint64_t image = 0;
  wire::SessionLimits limits;
  std::uint32_t lease = 0;
  SessionState state = SessionState::starting;
  bool paused = false;
  std::uint64_t posture_digest = 0;
  std::int64_t created_wall_ms = 0;
  std::uint64_t setup_deadline_ns = 0;
  pid_t pid = -1;                 // only to write its id maps; everything else goes by pidfd
  sys::UniqueFd pidfd;
  sys::UniqueFd status;           // from the child until init is ready
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
  Session* find(const wire::SessionKey& key);
  [[nodiscard]] const std::map<wire::SessionKey, std::unique_ptr<Session>>& all() const { return table_; }

  /// Events of the loop: a child's report, the end of an init, time passing.
  void on_status(Session& session);
  void on_exit(Session& session);
  void on_tick();
  /// True while something waits for time to pass (a set-up deadline, a group that is not yet empty).
  [[nodiscard]] bool needs_tick() const;

 private:
  Result<void> start(Session& session, const wire::LauncherRequest& request, wire::Stage& stage);
  Result<sys::UniqueFd> listen(const Session& session, wire::Stage& stage);
  Result<void> clone_child(Session& session, const sys::UniqueFd& listener, wire::Stage& stage);
  void finish_creation(Session& session, const wire::LauncherReply& reply);
  bool try_remove(Session& session);

  Cgroups& cgroups_;
  IdLeases leases_;
  ImageTemplates templates_;
  sys::UniqueFd init_program_;
  sys::UniqueFd seccomp_;
  std::map<wire::SessionKey, std::unique_ptr<Session>> table_;
};

/// Lower-case hex of a session key: the name of its runtime directory and cgroup.
std::string hex_of(const wire::SessionKey& key);

}  // namespace codespace::launcher
