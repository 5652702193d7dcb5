// The policy of the pool: what is kept ready, and who is expected to run JavaScript.
#include "sandbox/manager/pool.h"

#include <catch2/catch.hpp>

namespace codespace::manager {
namespace {

using wire::Flavour;
using wire::Origin;

constexpr std::uint64_t kImage = 7;
const PoolPolicy::Time kStart{std::chrono::hours(1)};

std::uint32_t count_of(const std::vector<PoolTarget>& targets, Flavour flavour, bool javascript) {
  for (const PoolTarget& target : targets) {
    if (target.image == kImage && target.flavour == flavour && target.javascript == javascript) return target.count;
  }
  return 0;
}

TEST_CASE("a base is kept of each kind, and more while it is asked for") {
  PoolPolicy policy({.size = 2, .most = 5, .data = 1, .javascript = 1});
  auto targets = policy.targets(kImage, true, kStart);
  CHECK(count_of(targets, Flavour::min, false) == 2);
  CHECK(count_of(targets, Flavour::min, true) == 1);
  CHECK(count_of(targets, Flavour::data, false) == 1);
  for (int i = 0; i < 9; ++i) policy.count(kImage, Flavour::min, true, Origin::pool, kStart);
  targets = policy.targets(kImage, true, kStart);
  CHECK(count_of(targets, Flavour::min, true) == 5);
  CHECK(count_of(targets, Flavour::min, false) == 2);
  CHECK(count_of(policy.targets(kImage, true, kStart + std::chrono::seconds(11)), Flavour::min, true) == 1);
}

TEST_CASE("a pool that is off has no session with Node.js either") {
  PoolPolicy policy({.size = 0, .data = 0});
  policy.count(kImage, Flavour::min, true, Origin::cold, kStart);
  for (const PoolTarget& target : policy.targets(kImage, true, kStart)) CHECK(target.count == 0);
}

TEST_CASE("the memory of the pool bounds the sessions with Node.js by their size") {
  PoolPolicy policy({.size = 1, .data = 0, .javascript = 4, .memory_bytes = 2 * kReadyMinBytes + kReadyJavascriptBytes});
  const auto targets = policy.targets(kImage, true, kStart);
  CHECK(count_of(targets, Flavour::min, false) == 1);
  CHECK(count_of(targets, Flavour::min, true) == 1);
}

TEST_CASE("who ran JavaScript is expected to for eight more sessions") {
  PoolPolicy policy({});
  CHECK_FALSE(policy.expects_javascript("a", false));
  CHECK(policy.expects_javascript("a", true));
  policy.begin_session("a");
  policy.saw_javascript("a");
  CHECK_FALSE(policy.expects_javascript("b", false));
  for (int i = 0; i < 7; ++i) {
    policy.begin_session("a");
    CHECK(policy.expects_javascript("a", false));
  }
  policy.begin_session("a");
  CHECK_FALSE(policy.expects_javascript("a", false));
  PoolPolicy none({.javascript = 0});
  none.saw_javascript("a");
  CHECK_FALSE(none.expects_javascript("a", false));
  CHECK_FALSE(none.expects_javascript("a", true));
}

}  // namespace
}  // namespace codespace::manager
