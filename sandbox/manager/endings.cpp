// The end of sessions: by request, by time, or because the launcher says so. See session.h for
// the states; whichever way it comes, mark_ended() is the last step and happens once.
#include <spdlog/spdlog.h>

#include "sandbox/manager/impl.h"
#include "sandbox/sys/clock.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// After a failed attempt to end a session.
constexpr auto kEndAgainAfter = 5s;

}  // namespace

Task<void> SessionManager::Impl::remove(std::string owner, std::string session_id) {
  const auto key = parse_id(kSessionPrefix, session_id);
  auto session = key ? find_live(owner, *key) : nullptr;
  if (!session) {
    Error why = co_await explain_absence(std::move(owner), std::move(session_id));
    if (why.code == ErrorCode::session_ended) co_return Result<void>{};
    co_return std::unexpected(std::move(why));
  }
  auto work = end_session(std::move(session), EndReason::deleted);
  co_return co_await finish_anyway(std::move(work));
}

Task<void> SessionManager::Impl::end_session(SessionPtr session, EndReason reason) {
  const Over over{std::make_shared<async::Event>()};
  std::shared_ptr<async::Event> other;
  {
    const std::lock_guard lock(mutex_);
    SessionInfo& info = session->info;
    if (info.status == SessionStatus::ended) co_return Result<void>{};
    if (under_way(session->attempt)) {
      other = session->attempt;
    } else {
      session->attempt = over.event;
      if (info.status != SessionStatus::ending) {
        info.status = SessionStatus::ending;
        info.end_reason = reason;
      }
      // Before the kill, so that a crash in between does not turn a deletion into a loss.
      if (!session->creating)
        write_later([key = session->key, why = info.end_reason](
                        Store& store) { return store.set_status(key, SessionStatus::ending, why); },
                    "saving the end of a session");
    }
  }
  if (other) {
    co_await other->wait();
    const std::lock_guard lock(mutex_);
    if (session->info.status == SessionStatus::ended) co_return Result<void>{};
    co_return server_error(
        ErrorCode::launcher_unavailable,
        "the session is being ended, but the launcher has not confirmed it; it is tried again");
  }
  co_await session->started.wait();
  if (session->gone.is_set()) co_return Result<void>{};

  const auto reply = co_await ask_launcher(wire::LauncherOp::kill, session->key, kKillPatience);
  if (!reply ||
      (reply->status != wire::LauncherStatus::ok && reply->status != wire::LauncherStatus::unknown_session)) {
    const std::lock_guard lock(mutex_);
    const std::weak_ptr<Session> weak = session;
    session->expiry = deadlines_.add(std::chrono::steady_clock::now() + kEndAgainAfter, [this, weak, reason] {
      if (const auto again = weak.lock()) end_in_background(again, reason);
    });
    co_return std::unexpected(reply ? explain_launcher(*reply) : reply.error());
  }
  mark_ended(session, reason);
  co_return Result<void>{};
}

void SessionManager::Impl::mark_ended(const SessionPtr& session, EndReason reason) {
  async::Deadline dropped;
  {
    const std::lock_guard lock(mutex_);
    SessionInfo& info = session->info;
    if (info.status == SessionStatus::ended) return;
    if (info.status != SessionStatus::ending || info.end_reason == EndReason::none) info.end_reason = reason;
    info.status = SessionStatus::ended;
    info.ended_at_ms = sys::wall_ms();
    dropped = std::move(session->expiry);
    sessions_.erase(session->key);
    // Asked before the mutex is free: whoever misses it in the table finds it in the store.
    write_later([key = session->key, at = info.ended_at_ms,
                 why = info.end_reason](Store& store) { return store.set_ended(key, at, why); },
                "saving the end of a session");
    if (config_.metrics) config_.metrics->session_ended(name_of(info.end_reason));
    if (config_.log)
      config_.log->info("session ended session_id={} end_reason={}", info.id, name_of(info.end_reason));
  }
  session->started.set();
  session->gone.set();
  idle_links_.drop(session->key);  // last: a run that keeps its connection now sees `gone`
}

void SessionManager::Impl::schedule_expiry(const SessionPtr& session) {
  const auto at = next_expiry(*session, std::chrono::steady_clock::now());
  if (!at) {
    session->expiry.cancel();
    return;
  }
  const std::weak_ptr<Session> weak = session;
  session->expiry = deadlines_.add(*at, [this, weak] {
    if (const auto due = weak.lock()) on_expiry(due);
  });
}

void SessionManager::Impl::on_expiry(const SessionPtr& session) {
  EndReason reason = EndReason::none;
  {
    const std::lock_guard lock(mutex_);
    if (session->info.status != SessionStatus::running && session->info.status != SessionStatus::paused &&
        session->info.status != SessionStatus::starting)
      return;
    reason = expired(*session, std::chrono::steady_clock::now());
    if (reason == EndReason::none) {
      schedule_expiry(session);  // it was used since
      return;
    }
    // From here on nothing new begins in it.
    session->info.status = SessionStatus::ending;
    session->info.end_reason = reason;
  }
  end_in_background(session, reason);
}

void SessionManager::Impl::end_in_background(const SessionPtr& session, EndReason reason) {
  auto task = [](Task<void> work, std::shared_ptr<spdlog::logger> log,
                 std::string id) -> asio::awaitable<void> {
    const auto done = co_await std::move(work);
    if (!done && log)
      log->warn("session not ended yet, tried again session_id={} errno={} what={}", id,
                done.error().sys_errno, done.error().what);
  };
  auto work = end_session(session, reason);
  work_.spawn(new_strand(), task(std::move(work), config_.log, session->info.id));
}

}  // namespace codespace::manager
