#include <catch2/catch.hpp>

#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using test::World;

namespace {

Result<FileWritten> write(World& world, const std::string& session, const std::string& path,
                          std::string content) {
  auto writer = world.run(world.manager->write_file("alice", session, path, {}));
  if (!writer) return std::unexpected(writer.error());
  if (const auto sent = world.run((*writer)->write(std::move(content))); !sent)
    return std::unexpected(sent.error());
  return world.run((*writer)->finish());
}

}  // namespace

TEST_CASE("a file goes in and comes out unchanged, in pieces", "[manager]") {
  World world;
  const auto session = world.create();
  std::string content;
  for (int i = 0; i < 1'500'000; ++i) content += static_cast<char>(i * 31);
  const auto written = write(world, session.id, "big", content);
  REQUIRE(written);
  CHECK(written->bytes == content.size());
  CHECK(world.init_of(session.id)->files().at("big") == content);

  auto reader = world.run(world.manager->read_file("alice", session.id, "big", {}));
  REQUIRE(reader);
  CHECK((*reader)->entry().size == content.size());
  std::string back;
  for (;;) {
    const auto piece = world.run((*reader)->next());
    REQUIRE(piece);
    if (piece->empty()) break;
    CHECK(piece->size() <= wire::kMaxChunk);
    back += *piece;
  }
  CHECK(back == content);
  CHECK(world.run((*reader)->next())->empty());
}

TEST_CASE("errors of file work name the file", "[manager]") {
  World world;
  const auto session = world.create();
  const auto missing = world.run(world.manager->read_file("alice", session.id, "none", {}));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == ErrorCode::file_not_found);
  CHECK(missing.error().what == "`none` does not exist");
  CHECK(world.run(world.manager->make_directory("alice", session.id, "d", true)).error().code ==
        ErrorCode::file_not_found);
  CHECK(world.run(world.manager->move("alice", session.id, "a", "", false)).error().code ==
        ErrorCode::invalid_request);
  CHECK(world.run(world.manager->remove_file("alice", session.id, "", RemoveScope::file)).error().code ==
        ErrorCode::invalid_request);
  CHECK(world.run(world.manager->list_files("alice", session.id, "d", 0)).error().code ==
        ErrorCode::invalid_request);
}

TEST_CASE("a write that init refuses half-way gives init's reason", "[manager]") {
  World world;
  const auto session = world.create();
  const auto written = write(world, session.id, "full", std::string(3U << 20, 'x'));
  REQUIRE_FALSE(written);
  CHECK(written.error().code == ErrorCode::no_space);
}

TEST_CASE("a read that breaks off is an error and not a short file", "[manager]") {
  World world;
  const auto session = world.create();
  REQUIRE(write(world, session.id, "breaks off", "half"));
  auto reader = world.run(world.manager->read_file("alice", session.id, "breaks off", {}));
  REQUIRE(reader);
  CHECK(*world.run((*reader)->next()) == "half");
  const auto end = world.run((*reader)->next());
  REQUIRE_FALSE(end);
  CHECK(end.error().code == ErrorCode::sandbox_failed);
}

TEST_CASE("a transfer counts as use of the session until it is over", "[manager]") {
  World world;
  const auto session = world.create();
  auto writer = world.run(world.manager->write_file("alice", session.id, "f", {}));
  REQUIRE(writer);
  CHECK(world.run(world.manager->pause("alice", session.id)).error().code == ErrorCode::conflict);
  writer->reset();
  CHECK(world.run(world.manager->pause("alice", session.id)));
}
