// The daemons' log: lines on stderr, in UTC. Where stderr is the journal, which knows the time itself, a line begins with its
// priority instead (sd-daemon(3)), so that `journalctl -p warning` works.
#pragma once

#include <memory>
#include <spdlog/logger.h>
#include <string>

namespace codespace::daemon {

std::shared_ptr<spdlog::logger> make_log(const std::string& name);

}  // namespace codespace::daemon
