// One session as the daemon keeps it.
//
// States: starting -> running <-> paused -> ending -> ended. `starting` until the launcher
// answered; `ending` from the decision to end it until the launcher said that nothing is
// left, over restarts too; an `ended` one leaves memory and lives on as a row in the store.
// A run in flight keeps a Use, which keeps the session from idling away; it does not keep it
// from being deleted. There is no strand per session: every step under the manager's mutex is
// short and never waits, and runs of one session need not know of each other (init orders them).
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/async/event.h"
#include "sandbox/manager/records.h"

namespace codespace::manager {

struct Session {
  Session(const wire::SessionKey& session_key, SessionInfo session_info);

  const wire::SessionKey key;

  // Guarded by the manager's mutex. `info` without its last_used_at_ms and expires_at_ms.
  SessionInfo info;
  bool ran_javascript = false;  // since this process knows it
  bool fresh = false;     // made by this process and never yet used for a run or command
  bool creating = false;  // a create() of this process will say how it went
  async::TimePoint created;
  std::shared_ptr<async::Event> attempt;    // the latest attempt to end it; happened = over
  std::shared_ptr<async::Event> switching;  // the latest pause or resume; happened = over
  async::Deadline expiry;

  // Any thread.
  std::atomic<int> in_flight{0};
  std::atomic<std::uint64_t> last_used_ns{0};  // CLOCK_MONOTONIC, for deciding
  std::atomic<std::int64_t> last_used_ms{0};   // wall clock, for showing
  std::atomic<bool> unsaved_use{false};
  async::Event started;  // the launcher answered the creation, either way
  async::Event gone;     // ended

  void touch();
};

/// A request that is using a session. Made under the manager's mutex, dropped anywhere.
class Use {
 public:
  explicit Use(std::shared_ptr<Session> session);
  Use(Use&&) noexcept = default;
  Use& operator=(Use&&) = delete;
  ~Use();
  [[nodiscard]] const std::shared_ptr<Session>& session() const { return session_; }

 private:
  std::shared_ptr<Session> session_;
};

/// The info as a client sees it now. Under the manager's mutex.
SessionInfo snapshot(const Session& session);
/// When the session has to be looked at for expiry; none if never. Under the manager's mutex.
std::optional<async::TimePoint> next_expiry(const Session& session, async::TimePoint now);
/// Why it should end now; `none` if it should not. Under the manager's mutex.
EndReason expired(const Session& session, async::TimePoint now);

}  // namespace codespace::manager
