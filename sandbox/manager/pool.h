// What the launcher is to keep ready: a base for the default image, and for every image and
// flavour as many as were asked for lately, within a budget of memory. Also two guesses of what a
// session will run: the quick look at a first cell, and what its owner's last sessions ran. Values in, values out; the caller guards the policy.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "sandbox/manager/session_manager.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

struct PoolTarget {
  std::uint64_t image = 0;
  wire::Flavour flavour{};
  bool javascript = false;  // with a Node.js kernel
  std::uint32_t count = 0;
  bool operator==(const PoolTarget&) const = default;
};

/// Estimates of what a ready session takes, measured on Debian 12 (docs/benchmarks.md).
inline constexpr std::uint64_t kReadyMinBytes = 2ULL << 20;
inline constexpr std::uint64_t kReadyDataBytes = 4ULL << 20;
inline constexpr std::uint64_t kReadyJavascriptBytes = 16ULL << 20;

class PoolPolicy {
 public:
  using Time = std::chrono::steady_clock::time_point;
  explicit PoolPolicy(PoolConfig config) : config_(config) {}

  /// A session was asked for and came from `origin`.
  void count(std::uint64_t image, wire::Flavour flavour, bool javascript, wire::Origin origin, Time now);
  /// True if a session is to run JavaScript, `known` or guessed from the owner's last eight, and ready ones may have it at all.
  [[nodiscard]] bool expects_javascript(const std::string& owner, bool known) const;
  /// The owner has one more session.
  void begin_session(const std::string& owner);
  /// It, or one before it, runs JavaScript.
  void saw_javascript(const std::string& owner);
  /// What to keep ready from now on. Demand is that of the last ten seconds.
  [[nodiscard]] std::vector<PoolTarget> targets(std::uint64_t default_image, bool zygotes, Time now);
  /// Creations so far, by origin.
  [[nodiscard]] std::uint64_t created(wire::Origin origin) const { return created_[static_cast<std::size_t>(origin)]; }

 private:
  using Kind = std::tuple<std::uint64_t, wire::Flavour, bool>;
  const PoolConfig config_;
  std::map<Kind, std::deque<Time>> asked_;
  std::unordered_map<std::string, std::uint8_t> javascript_;  // by owner, a bit for each of the last sessions
  std::uint64_t created_[3] = {0, 0, 0};
};

/// What has to be said to get from one list of targets to another: new ones, changed ones, and
/// those that are no longer wanted with a count of 0.
std::vector<PoolTarget> changes(const std::vector<PoolTarget>& told, const std::vector<PoolTarget>& wanted);

/// True if the code imports numpy, pandas, matplotlib or IPython at the start of a line, or has
/// a line that only IPython understands (`%magic`, `!command`). A guess that may be wrong either
/// way: it decides how fast the first run is, never what it does.
bool wants_libraries(std::string_view code);

/// "cold", "zygote", "pool": for logs and metrics.
const char* name_of(wire::Origin origin);

}  // namespace codespace::manager
