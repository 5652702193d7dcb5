// Id leases: disjoint, and reused as late as possible.
#include "sandbox/launcher/id_lease.h"

#include <catch2/catch.hpp>

#include <set>

using codespace::launcher::IdLeases;
using codespace::launcher::kIdsPerSession;

TEST_CASE("live leases never overlap and never contain id 0", "[launcher]") {
  IdLeases leases(kIdsPerSession * 100);
  std::set<std::uint32_t> ids;
  for (int i = 0; i < 100; ++i) {
    const auto first = leases.acquire();
    REQUIRE(first);
    for (std::uint32_t id = *first; id < *first + kIdsPerSession; ++id) {
      CHECK(id != 0);
      CHECK(ids.insert(id).second);
    }
  }
  CHECK_FALSE(leases.acquire());
  CHECK(leases.leased() == 100);
}

TEST_CASE("a returned lease is served only after every never-used one", "[launcher]") {
  IdLeases leases(kIdsPerSession * 3);
  const auto a = leases.acquire();
  leases.release(*a);
  CHECK(leases.leased() == 0);
  CHECK(leases.acquire() != a);
  CHECK(leases.acquire() != a);
  CHECK(leases.acquire() == a);
}

TEST_CASE("1,000 sessions in a row on a small range stay disjoint from the live ones", "[launcher]") {
  IdLeases leases(kIdsPerSession * 8);
  std::deque<std::uint32_t> live;
  for (int i = 0; i < 1000; ++i) {
    if (live.size() == 5) {
      leases.release(live.front());
      live.pop_front();
    }
    const auto lease = leases.acquire();
    REQUIRE(lease);
    for (const std::uint32_t other : live) CHECK(other != *lease);
    live.push_back(*lease);
  }
}
