// The posture comparison notices every single difference.
#include "sandbox/launcher/posture.h"

#include <catch2/catch.hpp>

using namespace codespace;

TEST_CASE("equal postures have no difference and one digest", "[posture]") {
  const auto plan = launcher::expected_posture(3);
  CHECK(launcher::posture_difference(plan, plan) == nullptr);
  CHECK(launcher::posture_digest(plan) == launcher::posture_digest(launcher::expected_posture(3)));
  CHECK(launcher::posture_digest(plan) != launcher::posture_digest(launcher::expected_posture(1)));
}

TEST_CASE("any one weakened fact is a named difference", "[posture]") {
  const auto plan = launcher::expected_posture(1);
  const auto weakened = [&](auto change) {
    auto facts = plan;
    change(facts);
    return launcher::posture_difference(plan, facts);
  };
  using F = wire::PostureFacts;
  CHECK(weakened([](F& f) { f.cap_effective |= 1ULL << 21; }) != nullptr);
  CHECK(weakened([](F& f) { f.cap_permitted |= 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.cap_inheritable = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.cap_bounding = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.cap_ambient = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.uid = 0; }) != nullptr);
  CHECK(weakened([](F& f) { f.gid = 0; }) != nullptr);
  CHECK(weakened([](F& f) { f.groups = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.no_new_privs = 0; }) != nullptr);
  CHECK(weakened([](F& f) { f.seccomp_mode = 0; }) != nullptr);
  CHECK(weakened([](F& f) { f.seccomp_filters = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.dumpable = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.securebits = 0; }) != nullptr);
  CHECK(weakened([](F& f) { f.open_descriptors |= 1ULL << 20; }) != nullptr);
  CHECK(weakened([](F& f) { f.mounts_writable = 7; }) != nullptr);
  CHECK(weakened([](F& f) { f.mounts_bad = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.user_namespaces_max = 1; }) != nullptr);
  CHECK(weakened([](F& f) { f.interfaces = 2; }) != nullptr);
}
