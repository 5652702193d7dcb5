// What `codespaced` does besides serving: each command prints its result and gives the exit status.
#pragma once

#include <cstdint>
#include <string>

#include "sandbox/manager/session_manager.h"
#include "sandbox/sys/result.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/quotas.h"

namespace codespace::server {

inline constexpr int kExitRuntime = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitConfig = 78;  // EX_CONFIG of sysexits.h, so that a unit need not restart us

/// Says on stderr what went wrong, and gives `status`.
int fail(const Error& error, int status = kExitRuntime);

/// A row with a new id and the key's digest.
manager::SessionManager::KeyRow new_key_row(const std::string& name, const std::string& key);

/// The exports clients need, for a shell. The state directory is the gateway's user's, and not trusted.
int print_env(const Config& config);
int create_key(const Config& config, const std::string& name, const KeyTerms& terms, const manager::KeyLimits& limits);
int list_keys(const Config& config);
/// A line for each fact; 1 if something is lacking that is required.
int print_host();
int show_config(const Loaded& loaded, bool origin);
int back_up(const Config& config, const std::string& file);
int restore(const Config& config, const std::string& file);

}  // namespace codespace::server
