#include <catch2/catch.hpp>

#include "sandbox/manager/run_frames.h"
#include "sandbox/manager/validation.h"

using namespace codespace;
using namespace codespace::manager;

TEST_CASE("limits take defaults and are never clamped", "[manager]") {
  const ManagerConfig config;
  wire::SessionLimits limits;
  REQUIRE(settle_limits(limits, config));
  CHECK(limits.memory_bytes == config.default_limits.memory_bytes);
  CHECK(limits.pids == config.default_limits.pids);

  limits = {};
  limits.cpu_milli = 10;
  const auto cpu = settle_limits(limits, config);
  REQUIRE_FALSE(cpu);
  CHECK(cpu.error().fault == Fault::client);
  CHECK(cpu.error().what == "`limits.cpus` is 0.01; allowed here are 0.05 to 64");
  limits = {};
  limits.memory_bytes = 1;
  CHECK(settle_limits(limits, config).error().what.find("`limits.memory_bytes` is 1;") == 0);
  limits.memory_bytes = config.max_limits.memory_bytes + 1;
  CHECK_FALSE(settle_limits(limits, config));
}

TEST_CASE("environment names and values are checked", "[manager]") {
  CHECK(check_env({{"A_b1", "x"}, {"_", ""}}));
  for (const char* name : {"", "1a", "a-b", "a=b", "a b", "LD_PRELOAD", "\xc3\xa9"})
    CHECK_FALSE(check_env({{name, "x"}}));
  CHECK_FALSE(check_env({{"A", std::string("a\0b", 3)}}));
  CHECK_FALSE(check_env({{"A", "1"}, {"A", "2"}}));
  CHECK(check_env({{"A", std::string(60'000, 'x')}}));
  CHECK_FALSE(check_env({{"A", std::string(70'000, 'x')}}));
}

TEST_CASE("labels, timeouts and paths are checked", "[manager]") {
  Labels many;
  for (int i = 0; i < 33; ++i) many[std::to_string(i)] = "v";
  CHECK_FALSE(check_labels(many));
  CHECK_FALSE(check_labels({{"", "v"}}));
  CHECK_FALSE(check_labels({{std::string(129, 'k'), "v"}}));
  CHECK_FALSE(check_labels({{"k", std::string(257, 'v')}}));
  CHECK(check_labels({{"k", std::string(256, 'v')}}));
  CHECK_FALSE(check_session_times(std::chrono::seconds(-1), std::chrono::seconds(0)));

  RunSpec run;
  run.language = "python";
  CHECK(check_run(run));
  run.timeout = std::chrono::milliseconds(60'001);
  CHECK(check_run(run).error().what ==
        "`timeout_s` is 60.001; it must be more than 0 and at most 60 seconds");
  run.timeout = std::chrono::milliseconds(0);
  CHECK_FALSE(check_run(run));

  CommandSpec command;
  CHECK_FALSE(check_command(command));
  command.command = "ls";
  CHECK(check_command(command));
  command.stdin_data = std::string(5U << 20, 'x');
  CHECK(check_command(command).error().code == ErrorCode::payload_too_large);
  CHECK_FALSE(check_path("", "path"));
  CHECK_FALSE(check_path(std::string_view("a\0b", 3), "path"));
  CHECK_FALSE(check_path(std::string(5000, 'a'), "path"));
}

TEST_CASE("a command's environment wins over its session's", "[manager]") {
  const Env merged = merge_env({{"A", "1"}, {"B", "2"}}, {{"B", "3"}, {"C", "4"}});
  CHECK(merged == Env{{"A", "1"}, {"B", "3"}, {"C", "4"}});
}

TEST_CASE("everything of a run is to be dead 60 s after it arrived", "[manager]") {
  using namespace std::chrono_literals;
  const TimePoint arrived{};
  CHECK(run_times(arrived, 2s).deadline == arrived + 2s);
  CHECK(run_times(arrived, 2s).kill_by == arrived + 3s);
  CHECK(run_times(arrived, 60s).deadline == arrived + 59s);
  CHECK(run_times(arrived, 60s).kill_by == arrived + 60s);
  CHECK(run_times(arrived, 59500ms).kill_by == arrived + 60s);
}
