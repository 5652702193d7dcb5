// A session's way out: handed from its init to the egress proxy at the session's creation, and
// again when the proxy is a new one.
#include <spdlog/spdlog.h>

#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "sandbox/manager/impl.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {
constexpr auto kFirstPause = 100ms;
constexpr auto kLongestPause = 1000ms;
}  // namespace

Task<void> SessionManager::Impl::open_way_out(wire::SessionKey key, std::string session_id, Network network) {
  auto way_out = co_await take_way_out(socket_path(key), deadlines_);
  if (!way_out) co_return std::unexpected(way_out.error());
  co_return co_await egress_.open(key, std::move(session_id), std::move(network), std::move(*way_out));
}

/// Hands every way out over to a proxy that was just reached. One it knows already it leaves as it is.
asio::awaitable<void> SessionManager::Impl::open_all_ways_out() {
  struct Open {
    wire::SessionKey key;
    std::string id;
    Network network;
  };
  std::vector<Open> all;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, session] : sessions_) {
      const SessionInfo& info = session->info;
      const bool live = info.status == SessionStatus::running || info.status == SessionStatus::paused;
      if (live && info.network.mode != wire::NetworkMode::none) all.push_back({key, info.id, info.network});
    }
  }
  for (Open& session : all) {
    const auto opened = co_await open_way_out(session.key, session.id, std::move(session.network));
    // A session that is paused cannot answer; its connections wait until the next time.
    if (!opened && config_.log)
      config_.log->warn("a session's way out could not be opened session_id={} what={}", session.id, opened.error().what);
  }
}

asio::awaitable<void> SessionManager::Impl::watch_egress() {
  const auto executor = co_await asio::this_coro::executor;
  asio::steady_timer timer(executor);
  std::chrono::milliseconds pause = kFirstPause;
  bool reported = false;
  for (;;) {
    std::function<void()> connected = [&] {
      egress_up_ = true;
      if (config_.log) config_.log->info("egress proxy connected");
      pause = kFirstPause;
      reported = false;
      background_.spawn(new_strand(), open_all_ways_out());
    };
    const Error lost = co_await egress_.watch(std::move(connected));
    const bool was_up = egress_up_.exchange(false);
    if (!reported && was_up && config_.log)
      config_.log->warn("egress proxy not connected, trying again errno={} what={}", lost.sys_errno, lost.what);
    reported = true;
    timer.expires_after(pause);
    co_await timer.async_wait(asio::use_awaitable);
    pause = std::min(pause * 2, std::chrono::milliseconds(kLongestPause));
  }
}

}  // namespace codespace::manager
