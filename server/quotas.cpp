// See quotas.h. The rate is a bucket of tokens that holds a minute's worth.
#include "server/quotas.h"

#include <algorithm>
#include <cmath>

namespace codespace::server {
namespace {

constexpr std::pair<std::string_view, std::uint32_t> kNames[] = {{"read", scope_read}, {"use", scope_use | scope_read}, {"metrics", scope_metrics}};
constexpr double kMinute = 60;

}  // namespace

Result<std::uint32_t> parse_scopes(std::string_view names) {
  std::uint32_t scopes = 0;
  for (std::string_view rest = names;;) {
    const std::size_t comma = rest.find(',');
    const auto found = std::ranges::find(kNames, rest.substr(0, comma), [](const auto& known) { return known.first; });
    if (found == std::end(kNames))
      return client_error(ErrorCode::invalid_request, "`" + std::string(rest.substr(0, comma)) + "` is no scope; there are read, use and metrics");
    scopes |= found->second;
    if (comma == std::string_view::npos) return scopes;
    rest.remove_prefix(comma + 1);
  }
}

std::string scope_names(std::uint32_t scopes) {
  std::string out = (scopes & scope_use) != 0 ? "use" : (scopes & scope_read) != 0 ? "read" : "";
  if ((scopes & scope_metrics) != 0) out += out.empty() ? "metrics" : ",metrics";
  return out;
}

void Quotas::set(std::map<std::string, KeyTerms> terms) {
  const std::lock_guard lock(mutex_);
  terms_ = std::move(terms);
  std::erase_if(buckets_, [this](const auto& bucket) { return !terms_.contains(bucket.first); });
}

std::optional<Quotas::Refusal> Quotas::admit(const std::string& owner, Scope wanted, Time now) {
  const std::lock_guard lock(mutex_);
  const auto terms = terms_.find(owner);
  if (terms == terms_.end()) return std::nullopt;  // a key that a reload is just bringing
  if ((terms->second.scopes & wanted) == 0)
    return Refusal{Error{ErrorCode::forbidden, Fault::client, 0,
                         "this key has the scopes `" + scope_names(terms->second.scopes) + "`, and this needs `" + scope_names(wanted) + "`", {}},
                   0};
  const double most = terms->second.requests_per_minute;
  if (most == 0) return std::nullopt;
  auto [bucket, fresh] = buckets_.try_emplace(owner, Bucket{most, now});
  const double waited = std::chrono::duration<double>(now - bucket->second.filled).count();
  bucket->second = {std::min(most, bucket->second.tokens + waited * most / kMinute), now};
  if (bucket->second.tokens >= 1) {
    bucket->second.tokens -= 1;
    return std::nullopt;
  }
  const double wait = (1 - bucket->second.tokens) * kMinute / most;
  return Refusal{Error{ErrorCode::quota_exceeded, Fault::client, 0,
                       "this key may send " + std::to_string(terms->second.requests_per_minute) + " requests a minute and has", {}},
                 static_cast<unsigned>(std::ceil(wait))};
}

}  // namespace codespace::server
