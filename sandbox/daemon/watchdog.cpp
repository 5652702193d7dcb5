// See watchdog.h.
#include "sandbox/daemon/watchdog.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>

namespace codespace::daemon {

boost::asio::awaitable<void> feed_watchdog(const sys::ServiceManager& manager) {
  if (manager.watchdog_ms() == 0) co_return;
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor);
  for (;;) {
    manager.tell("WATCHDOG=1");
    timer.expires_after(std::chrono::milliseconds(manager.watchdog_ms()));
    const auto [stopped] = co_await timer.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    if (stopped) co_return;
  }
}

}  // namespace codespace::daemon
