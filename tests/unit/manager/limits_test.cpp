// Limits as an operator writes them, and how those of request, key, image and server become one.
#include "sandbox/manager/limits.h"

#include <catch2/catch.hpp>

#include "sandbox/manager/validation.h"

namespace codespace::manager {

TEST_CASE("limits are read as they are written", "[manager]") {
  const auto limits = parse_limits("  cpus=1.5 memory_bytes=67108864   pids=100");
  REQUIRE(limits);
  CHECK(limits->cpu_milli == 1500);
  CHECK(limits->memory_bytes == 64U << 20);
  CHECK(limits->inodes == 0);
  CHECK(limits_text(*limits) == "memory_bytes=67108864 cpus=1.5 pids=100");
  CHECK(limits_text(*parse_limits("")).empty());
  for (const char* bad : {"cpus", "cpus=", "cpus=x", "cpus=0.01", "cpus=-1", "cpus=nan", "memory=1", "memory_bytes=1", "memory_bytes=1e9", "pids=99999999999999999999", "pids=100x", "=", "a b"})
    CHECK_FALSE(parse_limits(bad));
  CHECK(parse_limits("memory_bytes=5").error().what.find("33554432 to 68719476736") != std::string::npos);
}

TEST_CASE("limits of images are read by name", "[manager]") {
  const auto images = parse_image_limits("code_latest cpus=4 pids=512, host pids=64,");
  REQUIRE(images);
  REQUIRE(images->size() == 2);
  CHECK(images->at("code_latest").cpu_milli == 4000);
  CHECK(images->at("host").pids == 64);
  CHECK(parse_image_limits("")->empty());
  for (const char* bad : {"code_latest", "cpus=4", "code_latest cpus=x", "code_latest, host pids=64"}) CHECK_FALSE(parse_image_limits(bad));
}

TEST_CASE("request before key before image before server, and nothing above what is permitted", "[manager]") {
  ManagerConfig config;
  config.image_limits = *parse_image_limits("big memory_bytes=4294967296 cpus=8 pids=1000");
  config.most_limits = *parse_limits("cpus=6");
  KeyLimits key;
  key.standard = *parse_limits("memory_bytes=2147483648");
  key.most = *parse_limits("pids=500");
  wire::SessionLimits limits;
  limits.workspace_bytes = 5U << 20;
  REQUIRE(settle_limits(limits, config, key, "big"));
  CHECK(limits.workspace_bytes == 5U << 20);                         // the request's
  CHECK(limits.memory_bytes == 2147483648);                          // the key's
  CHECK(limits.cpu_milli == 6000);                                   // the image's, cut to the server's
  CHECK(limits.pids == 500);                                         // the image's, cut to the key's
  CHECK(limits.inodes == config.default_limits.inodes);              // the server's
  wire::SessionLimits other;
  REQUIRE(settle_limits(other, config, {}, "small"));
  CHECK(other.cpu_milli == config.default_limits.cpu_milli);
  // Beyond what any session could have is a mistake, and told.
  wire::SessionLimits absurd;
  absurd.pids = wire::kMaxLimits.pids + 1;
  CHECK_FALSE(settle_limits(absurd, config, key, "big"));
}

}  // namespace codespace::manager
