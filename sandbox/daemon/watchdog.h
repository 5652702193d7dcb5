// The sign of life a service manager waits for (sd_watchdog_enabled(3)).
#pragma once

#include <boost/asio/awaitable.hpp>

#include "sandbox/sys/service_manager.h"

namespace codespace::daemon {

/// Says "WATCHDOG=1" as often as asked for, from the event loop it runs on, so that a loop that hangs is found
/// out; returns at once if nobody watches. `manager` must outlive it.
boost::asio::awaitable<void> feed_watchdog(const sys::ServiceManager& manager);

}  // namespace codespace::daemon
