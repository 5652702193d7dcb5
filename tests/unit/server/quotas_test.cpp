// Scopes and rates of keys.
#include "server/quotas.h"

#include <catch2/catch.hpp>

using namespace codespace;
using namespace codespace::server;
using namespace std::chrono_literals;

TEST_CASE("scopes are read and written", "[server]") {
  CHECK(*parse_scopes("read") == scope_read);
  CHECK(*parse_scopes("use") == (scope_use | scope_read));
  CHECK(*parse_scopes("use,metrics") == kAllScopes);
  CHECK(scope_names(*parse_scopes("metrics,read")) == "read,metrics");
  for (const char* wrong : {"", "all", "use,", ",use", "use, metrics", "USE"}) CHECK_FALSE(parse_scopes(wrong));
}

TEST_CASE("a key does what its scopes say", "[server]") {
  Quotas quotas;
  quotas.set({{"all", {}}, {"viewer", {scope_read, 0}}, {"scraper", {scope_metrics, 0}}});
  const auto now = Quotas::Time(1h);
  for (const Scope scope : {scope_read, scope_use, scope_metrics}) CHECK_FALSE(quotas.admit("all", scope, now));
  CHECK_FALSE(quotas.admit("viewer", scope_read, now));
  const auto refused = quotas.admit("viewer", scope_use, now);
  REQUIRE(refused);
  CHECK(refused->error.code == ErrorCode::forbidden);
  CHECK(refused->error.what.find("`use`") != std::string::npos);
  CHECK(quotas.admit("scraper", scope_read, now));
  CHECK_FALSE(quotas.admit("scraper", scope_metrics, now));
}

TEST_CASE("a rate holds over a minute, and says when to come again", "[server]") {
  Quotas quotas;
  quotas.set({{"slow", {kAllScopes, 6}}});
  auto now = Quotas::Time(1h);
  for (int i = 0; i < 6; ++i) CHECK_FALSE(quotas.admit("slow", scope_use, now));
  const auto refused = quotas.admit("slow", scope_use, now);
  REQUIRE(refused);
  CHECK(refused->error.code == ErrorCode::quota_exceeded);
  CHECK(refused->retry_after_s == 10);
  quotas.set({{"slow", {kAllScopes, 6}}});  // a reload forgives nothing
  CHECK(quotas.admit("slow", scope_use, now + 9s));
  CHECK_FALSE(quotas.admit("slow", scope_use, now + 10s));
  CHECK(quotas.admit("slow", scope_use, now + 10s));
  now += 1h;
  for (int i = 0; i < 6; ++i) CHECK_FALSE(quotas.admit("slow", scope_use, now));
  CHECK(quotas.admit("slow", scope_use, now));
}
