// What a client may ask of a session: limits, environment, labels, timeouts. A value out of range is an error that
// names the field, the value and the range.
#pragma once

#include "sandbox/manager/session_manager.h"

namespace codespace::manager {

/// Fills zero fields of `limits` from the key's, the image's and the server's defaults, in this order, checks them, and cuts them to
/// what operator and key permit; the session's record shows what came of it.
Result<void> settle_limits(wire::SessionLimits& limits, const ManagerConfig& config, const KeyLimits& key = {}, const std::string& image = {});
Result<void> check_network(const Network& network);
Result<void> check_env(const Env& env);
Result<void> check_labels(const Labels& labels);
Result<void> check_session_times(std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime);
Result<void> check_run(const RunSpec& spec);
Result<void> check_command(const CommandSpec& spec);
Result<void> check_idempotency_key(std::string_view key);
Result<void> check_path(std::string_view path, std::string_view field);

/// The session's environment with that of one command over it.
Env merge_env(const Env& session, const Env& command);

}  // namespace codespace::manager
