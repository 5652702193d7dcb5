// The daemon's own: it holds no privilege. Started as root it becomes its user first.
#pragma once

#include <string>

#include "sandbox/sys/result.h"

namespace codespace::server {

/// Root without `user` is refused; root with one becomes that user, without capabilities, for
/// good. Anyone else only gives up what is left. Before any thread, socket or file.
Result<void> drop_privileges(const std::string& user);

}  // namespace codespace::server
