// Staying in step with the launcher: a connection that hears of every end, and a comparison
// of its list with our table after each (re)connect.
#include <spdlog/spdlog.h>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <set>

#include "sandbox/manager/impl.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

constexpr auto kFirstPause = 100ms;
constexpr auto kLongestPause = 1000ms;
constexpr auto kPoolPause = 500ms;
constexpr auto kListPatience = 10s;
constexpr auto kStatPatience = 2s;
// The notice of an end follows the end itself by the teardown of the session.
constexpr auto kNoticePatience = 500ms;

EndReason reason_of(const wire::LauncherReply& end) {
  return end.exit_signal == SIGKILL && end.oom_kills > 0 ? EndReason::out_of_memory : EndReason::init_died;
}

}  // namespace

asio::awaitable<void> SessionManager::Impl::watch_launcher() {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  std::chrono::milliseconds pause = kFirstPause;
  bool reported = false;
  for (;;) {
    std::function<void()> connected = [&] {
      if (!launcher_up_.exchange(true) && config_.log) config_.log->info("launcher connected");
      pause = kFirstPause;
      reported = false;
      background_.spawn(new_strand(), reconcile());
    };
    std::function<void(const wire::LauncherReply&)> ended = [this](const auto& reply) { on_ended(reply); };
    const Error lost = co_await launcher_.watch(std::move(connected), std::move(ended));
    launcher_up_ = false;
    if (!reported && config_.log)
      config_.log->warn("launcher not connected, trying again errno={} what={}", lost.sys_errno, lost.what);
    reported = true;
    timer.expires_after(pause);
    co_await timer.async_wait(asio::use_awaitable);
    pause = std::min(pause * 2, std::chrono::milliseconds(kLongestPause));
  }
}

/// Tells the launcher what to keep ready, whenever that changed or the launcher is a new one.
asio::awaitable<void> SessionManager::Impl::keep_pools() {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  std::vector<PoolTarget> told;
  for (;;) {
    const auto image = images_.find("");
    std::vector<PoolTarget> wanted;
    {
      const std::lock_guard lock(mutex_);
      wanted = pool_policy_.targets(image ? image->handle : 0, config_.zygotes, std::chrono::steady_clock::now());
    }
    if (!launcher_up_) told.clear();
    for (const PoolTarget& target : changes(told, wanted)) {
      wire::LauncherRequest request;
      request.op = wire::LauncherOp::pool;
      request.image = target.image;
      request.flavour = target.flavour;
      request.ahead = target.javascript ? wire::kAheadJavascript : 0;
      request.limits = config_.default_limits;
      request.count = target.count;
      const auto reply = co_await launcher_.ask(request, kStatPatience);
      if (!reply) {
        wanted.clear();  // told again when it is back
      } else if (config_.metrics) {
        const char* kind = target.flavour == wire::Flavour::data ? "data" : target.javascript ? "javascript" : "min";
        config_.metrics->set_pool(kind, reply->pool_ready, target.count);
      }
    }
    told = std::move(wanted);
    timer.expires_after(kPoolPause);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

asio::awaitable<void> SessionManager::Impl::reconcile() {
  // Only what was settled before the list was asked for can be missing from it by right.
  std::map<wire::SessionKey, SessionPtr> settled;
  // And the list says nothing new of a session that was paused or resumed while it came: the
  // latest switch, if it was over by then, tells.
  std::map<wire::SessionKey, std::shared_ptr<async::Event>> at_rest;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, session] : sessions_) {
      if (session->creating) continue;
      settled.emplace(key, session);
      if (!under_way(session->switching)) at_rest.emplace(key, session->switching);
    }
  }
  const auto list = co_await launcher_.list(kListPatience);
  if (!list) co_return;  // the watch will reconnect, and this comes again

  std::vector<std::pair<SessionPtr, EndReason>> to_end;
  std::vector<wire::SessionKey> orphans;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& reply : *list) {
      settled.erase(reply.session);
      const auto found = sessions_.find(reply.session);
      if (found == sessions_.end()) {
        orphans.push_back(reply.session);
        continue;
      }
      Session& session = *found->second;
      const auto before = at_rest.find(reply.session);
      if (session.creating || before == at_rest.end() || before->second != session.switching) continue;
      if (session.info.status == SessionStatus::ending) {
        to_end.emplace_back(found->second, session.info.end_reason);
      } else if (session.info.status != status_of(reply)) {
        session.info.status = status_of(reply);
        schedule_expiry(found->second);
      }
    }
  }
  for (const auto& [key, session] : settled) mark_ended(session, EndReason::lost_at_reboot);
  for (const auto& [session, reason] : to_end) end_in_background(session, reason);
  for (const wire::SessionKey& key : orphans) {
    if (config_.log) config_.log->warn("killing a session that has no record key={}", hex(key));
    (void)co_await ask_launcher(wire::LauncherOp::kill, key, kListPatience);
  }
}

void SessionManager::Impl::on_ended(const wire::LauncherReply& reply) {
  SessionPtr session;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sessions_.find(reply.session);
    // A creation that failed is told to its creator.
    if (found == sessions_.end() || found->second->creating) return;
    session = found->second;
  }
  mark_ended(session, reason_of(reply));
}

Task<wire::LauncherReply> SessionManager::Impl::ask_launcher(wire::LauncherOp op, wire::SessionKey key,
                                                             std::chrono::seconds patience) {
  wire::LauncherRequest request;
  request.op = op;
  request.session = key;
  co_return co_await launcher_.ask(request, patience);
}

asio::awaitable<Error> SessionManager::Impl::explain_loss(std::shared_ptr<Session> session, LinkFault fault,
                                                          const char* what, bool heard) {
  const auto ending = [&]() -> std::optional<Error> {
    const std::lock_guard lock(mutex_);
    const SessionInfo& info = session->info;
    if (info.status != SessionStatus::ending && info.status != SessionStatus::ended) return std::nullopt;
    return session_ended(info.id, info.ended_at_ms, info.end_reason);
  };
  if (auto ended = ending()) co_return std::move(*ended);
  if (fault == LinkFault::no_listener || fault == LinkFault::closed) {
    const auto reply = co_await ask_launcher(wire::LauncherOp::stat, session->key, kStatPatience);
    if (reply && reply->status == wire::LauncherStatus::unknown_session) {
      const auto until = std::chrono::steady_clock::now() + kNoticePatience;
      if (!co_await session->gone.wait_until(deadlines_, until)) mark_ended(session, EndReason::init_died);
    }
    if (auto ended = ending()) co_return std::move(*ended);
  }
  co_return explain_link(fault, what, heard);
}

}  // namespace codespace::manager
