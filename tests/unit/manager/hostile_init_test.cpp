#include <catch2/catch.hpp>

#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using test::World;

TEST_CASE("bytes that are no frames end the run with an error, and nothing else", "[manager]") {
  World world;
  const auto session = world.create();
  const auto code = [&](const char* what) {
    return world.python(session.id, std::string("raw ") + what).error().code;
  };
  CHECK(code("oversize") == ErrorCode::sandbox_failed);
  CHECK(code("truncated") == ErrorCode::sandbox_failed);
  CHECK(code("wrongtype") == ErrorCode::sandbox_failed);
  CHECK(code("unknowntype") == ErrorCode::sandbox_failed);
  CHECK(code("garbage_done") == ErrorCode::sandbox_failed);
  CHECK(code("badstream") == ErrorCode::sandbox_failed);
  CHECK(code("silent") == ErrorCode::overloaded);
  const auto after = world.python(session.id, "print still here");
  REQUIRE(after);
  CHECK(after->stdout_data == "still here");
}

TEST_CASE("output beyond the cap is dropped and said to be", "[manager]") {
  World world;
  const auto session = world.create();
  const auto record = world.python(session.id, "raw chatty");
  REQUIRE(record);
  CHECK(record->stdout_data.size() == world.config.stream_cap_bytes);
  CHECK((record->done.flags & wire::kStdoutTruncated) != 0);
  CHECK(record->done.stdout_bytes == 12 * wire::kMaxChunk);
}
