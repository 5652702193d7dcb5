// Range checks, each with its sentence.
#include "sandbox/manager/validation.h"

#include <algorithm>
#include <cstdio>
#include <set>

#include "sandbox/egress/rules.h"
#include "sandbox/wire/codec.h"

namespace codespace::manager {
namespace {

constexpr std::size_t kMaxEnvBytes = 64 * 1024;
constexpr std::size_t kMaxEnvEntries = 512;  // init takes 1024, those of session and command together
constexpr std::size_t kMaxLabels = 32;
constexpr std::size_t kMaxLabelKey = 128;
constexpr std::size_t kMaxLabelValue = 256;
constexpr std::size_t kMaxIdempotencyKey = 256;
constexpr std::size_t kMaxPath = 4095;  // PATH_MAX with its NUL
// A year: longer ones are mistakes of unit.
constexpr std::chrono::seconds kMaxSessionTime{366 * 86'400};
// Ids, times and lengths of a run's frame, beside its strings.
constexpr std::size_t kFrameOverhead = 4096;

std::unexpected<Error> invalid(const std::string& what) {
  return client_error(ErrorCode::invalid_request, what);
}

std::string cores(std::uint64_t milli) {
  char text[32];
  (void)std::snprintf(text, sizeof text, "%g", static_cast<double>(milli) / 1000.0);
  return text;
}

template <class N>
Result<void> settle(std::string_view field, N& value, N standard, N least, N most, bool is_cores = false) {
  if (value == 0) value = standard;
  if (value >= least && value <= most) return {};
  const auto show = [is_cores](N n) { return is_cores ? cores(n) : std::to_string(n); };
  return invalid("`" + std::string(field) + "` is " + show(value) + "; allowed here are " + show(least) +
                 " to " + show(most));
}

bool is_env_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !name.empty() && letter(name[0]) &&
         std::ranges::all_of(name, [&](char c) { return letter(c) || digit(c); });
}

Result<void> check_timeout(std::chrono::milliseconds timeout) {
  if (timeout.count() > 0 && timeout <= kMaxRunTime) return {};
  char text[160];
  (void)std::snprintf(text, sizeof text, "`timeout_s` is %g; it must be more than 0 and at most %d seconds",
                      static_cast<double>(timeout.count()) / 1000.0, static_cast<int>(kMaxRunTime.count()));
  return invalid(text);
}

std::string_view cut(std::string_view text) { return text.substr(0, 64); }

}  // namespace

Result<void> settle_limits(wire::SessionLimits& limits, const ManagerConfig& config, const KeyLimits& key, const std::string& image) {
  fill(limits, key.standard);
  if (const auto of_image = config.image_limits.find(image); of_image != config.image_limits.end()) fill(limits, of_image->second);
  const wire::SessionLimits& standard = config.default_limits;
  const wire::SessionLimits& least = wire::kMinLimits;
  const wire::SessionLimits& most = config.max_limits;
  Result<void> ok = settle("limits.memory_bytes", limits.memory_bytes, standard.memory_bytes,
                           least.memory_bytes, most.memory_bytes);
  if (ok)
    ok = settle("limits.workspace_bytes", limits.workspace_bytes, standard.workspace_bytes,
                least.workspace_bytes, most.workspace_bytes);
  if (ok)
    ok = settle("limits.scratch_bytes", limits.scratch_bytes, standard.scratch_bytes, least.scratch_bytes,
                most.scratch_bytes);
  if (ok) ok = settle("limits.inodes", limits.inodes, standard.inodes, least.inodes, most.inodes);
  if (ok)
    ok = settle("limits.cpus", limits.cpu_milli, standard.cpu_milli, least.cpu_milli, most.cpu_milli, true);
  if (ok) ok = settle("limits.pids", limits.pids, standard.pids, least.pids, most.pids);
  clamp(limits, config.most_limits);
  clamp(limits, key.most);
  return ok;
}

Result<void> check_network(const Network& network) {
  const auto wrong = [](const std::string& pointer, const std::string& what) -> Result<void> {
    return std::unexpected(Error{ErrorCode::invalid_request, Fault::client, 0, what, pointer});
  };
  if (network.mode != wire::NetworkMode::allowlist) {
    if (network.allow.empty()) return {};
    return wrong("/network/allow", "`network.allow` is for the mode `allowlist` only");
  }
  if (network.allow.empty())
    return wrong("/network/allow", "`network.allow` must name at least one host; without any, use the mode `none`");
  if (network.allow.size() > wire::kMaxRules)
    return wrong("/network/allow", "`network.allow` has " + std::to_string(network.allow.size()) + " entries; at most " +
                                       std::to_string(wire::kMaxRules) + " are allowed");
  for (std::size_t i = 0; i < network.allow.size(); ++i) {
    const std::string& text = network.allow[i];
    const auto rule = text.size() > wire::kMaxRuleBytes ? std::unexpected(std::string("it is too long")) : egress::parse_rule(text);
    if (!rule)
      return wrong("/network/allow/" + std::to_string(i), "`network.allow[" + std::to_string(i) + "]` is no host pattern: " + rule.error() +
                                                              "; write `host`, `*.host` or an address, each with or without `:port`");
  }
  return {};
}

Result<void> check_env(const Env& env) {
  if (env.size() > kMaxEnvEntries)
    return invalid("`env` has " + std::to_string(env.size()) + " entries; at most " +
                   std::to_string(kMaxEnvEntries) + " are allowed");
  std::size_t bytes = 0;
  std::set<std::string_view> seen;
  for (const auto& [name, value] : env) {
    const std::string shown(cut(name));
    if (!is_env_name(name))
      return invalid("`env` has the name `" + shown +
                     "`; a name is letters, digits and `_`, and no digit first");
    // The dynamic linker would read it before anything else in every program of the session.
    if (name.starts_with("LD_"))
      return invalid("`env." + shown + "` is refused: names that begin with LD_ are");
    if (value.find('\0') != std::string::npos)
      return invalid("`env." + shown + "` has a NUL byte in its value");
    if (!seen.insert(name).second) return invalid("`env." + shown + "` is given twice");
    bytes += name.size() + value.size() + 2;
  }
  if (bytes > kMaxEnvBytes)
    return invalid("`env` has " + std::to_string(bytes) + " bytes in all; at most " +
                   std::to_string(kMaxEnvBytes) + " are allowed. Put large values into a file");
  return {};
}

Result<void> check_labels(const Labels& labels) {
  if (labels.size() > kMaxLabels)
    return invalid("`labels` has " + std::to_string(labels.size()) + " entries; at most " +
                   std::to_string(kMaxLabels) + " are allowed");
  for (const auto& [name, value] : labels) {
    if (name.empty() || name.size() > kMaxLabelKey || name.find('\0') != std::string::npos)
      return invalid("`labels` has a key of " + std::to_string(name.size()) + " bytes; it must have 1 to " +
                     std::to_string(kMaxLabelKey) + " and no NUL");
    if (value.size() > kMaxLabelValue || value.find('\0') != std::string::npos)
      return invalid("`labels." + std::string(cut(name)) + "` has " + std::to_string(value.size()) +
                     " bytes; a value may have " + std::to_string(kMaxLabelValue) + " and no NUL");
  }
  return {};
}

Result<void> check_session_times(std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime) {
  const auto check = [](const char* field, std::chrono::seconds value) -> Result<void> {
    if (value.count() >= 0 && value <= kMaxSessionTime) return {};
    return invalid("`" + std::string(field) + "` is " + std::to_string(value.count()) +
                   "; allowed are 0 (never) to " + std::to_string(kMaxSessionTime.count()));
  };
  if (auto ok = check("idle_timeout_s", idle_timeout); !ok) return ok;
  return check("max_lifetime_s", max_lifetime);
}

Result<void> check_run(const RunSpec& spec) {
  if (auto ok = check_timeout(spec.timeout); !ok) return ok;
  if (auto ok = check_idempotency_key(spec.idempotency_key); !ok) return ok;
  if (!wire::is_context_name(spec.context))
    return invalid("`context` is not a name of 1 to " + std::to_string(wire::kMaxContextName) +
                   " of the characters A-Z a-z 0-9 _ . -");
  if (spec.code.size() + kMaxEnvBytes + kFrameOverhead > wire::kMaxFrame)
    return client_error(ErrorCode::payload_too_large,
                        "`code` has " + std::to_string(spec.code.size()) +
                            " bytes, which is too much for one run; put it into a file and import that");
  return {};
}

Result<void> check_command(const CommandSpec& spec) {
  if (auto ok = check_timeout(spec.timeout); !ok) return ok;
  if (auto ok = check_idempotency_key(spec.idempotency_key); !ok) return ok;
  if (auto ok = check_env(spec.env); !ok) return ok;
  if (!spec.cwd.empty()) {
    if (auto ok = check_path(spec.cwd, "cwd"); !ok) return ok;
  }
  if (spec.command.empty()) return invalid("`command` is empty");
  if (spec.command.find('\0') != std::string::npos) return invalid("`command` has a NUL byte");
  // Linux passes at most 128 KiB in one argument (MAX_ARG_STRLEN), and sh -c gets one.
  if (spec.command.size() >= 128 * 1024)
    return client_error(
        ErrorCode::payload_too_large,
        "`command` has " + std::to_string(spec.command.size()) +
            " bytes; the shell takes fewer than 131072. Put it into a script file and run that");
  if (spec.stdin_data.size() + spec.command.size() + 3 * kMaxEnvBytes > wire::kMaxFrame)
    return client_error(ErrorCode::payload_too_large,
                        "`stdin` has " + std::to_string(spec.stdin_data.size()) + " bytes; at most " +
                            std::to_string(wire::kMaxFrame - 3 * kMaxEnvBytes - spec.command.size()) +
                            " fit. Write it to a file and redirect from that");
  return {};
}

Result<void> check_idempotency_key(std::string_view key) {
  if (key.size() <= kMaxIdempotencyKey) return {};
  return invalid("the Idempotency-Key has " + std::to_string(key.size()) + " bytes; at most " +
                 std::to_string(kMaxIdempotencyKey) + " are allowed");
}

Result<void> check_path(std::string_view path, std::string_view field) {
  const std::string name = "`" + std::string(field) + "`";
  if (path.empty()) return invalid(name + " is empty");
  if (path.find('\0') != std::string_view::npos) return invalid(name + " has a NUL byte");
  if (path.size() > kMaxPath)
    return invalid(name + " has " + std::to_string(path.size()) + " bytes; at most " +
                   std::to_string(kMaxPath) + " are allowed");
  return {};
}

Env merge_env(const Env& session, const Env& command) {
  Env merged;
  merged.reserve(session.size() + command.size());
  for (const auto& entry : session) {
    const bool replaced =
        std::ranges::any_of(command, [&](const auto& own) { return own.first == entry.first; });
    if (!replaced) merged.push_back(entry);
  }
  merged.insert(merged.end(), command.begin(), command.end());
  return merged;
}

}  // namespace codespace::manager
