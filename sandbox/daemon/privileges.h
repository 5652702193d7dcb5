// What the daemons that meet the network do at their start: each holds no privilege. Started as root it becomes its user first.
#pragma once

#include <string>

#include "sandbox/sys/result.h"

namespace codespace::daemon {

/// Root without `user` is refused; root with one becomes that user, without capabilities, for
/// good. Anyone else only gives up what is left. Before any thread, socket or file.
Result<void> drop_privileges(const std::string& user);

}  // namespace codespace::daemon
