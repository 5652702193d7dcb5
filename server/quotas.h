// What a key may do, and how often. Beside Auth, which says whose a request is. Any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "sandbox/sys/result.h"

namespace codespace::server {

enum Scope : std::uint32_t {
  scope_read = 1,     // look at sessions, runs and files
  scope_use = 2,      // and make, use, change and end them
  scope_metrics = 4,  // GET /metrics, which tells of all keys' sessions together
};
inline constexpr std::uint32_t kAllScopes = scope_read | scope_use | scope_metrics;

/// "use,metrics"; `use` has `read` in it. The mistake, if a name is not known.
Result<std::uint32_t> parse_scopes(std::string_view names);
std::string scope_names(std::uint32_t scopes);

struct KeyTerms {
  std::uint32_t scopes = kAllScopes;
  std::uint32_t requests_per_minute = 0;  // 0: no limit. As many may come at once
};

class Quotas {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Refusal {
    Error error;
    unsigned retry_after_s = 0;
  };

  /// Instead of those before; what keys have used up stays used up.
  void set(std::map<std::string, KeyTerms> terms);
  /// Counts a request of the key `owner`, which wants one of the scopes.
  std::optional<Refusal> admit(const std::string& owner, Scope wanted, Time now);

 private:
  struct Bucket {
    double tokens = 0;
    Time filled;
  };
  std::mutex mutex_;
  std::map<std::string, KeyTerms> terms_;
  std::map<std::string, Bucket> buckets_;
};

}  // namespace codespace::server
