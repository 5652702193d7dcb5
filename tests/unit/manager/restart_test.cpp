#include <catch2/catch.hpp>

#include "sandbox/manager/session_id.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using test::World;

namespace {

bool check_of(const Readiness& readiness, const std::string& name) {
  for (const auto& check : readiness.checks)
    if (check.name == name) return check.ok;
  return false;
}

}  // namespace

TEST_CASE("requests to the launcher share a connection, and a launcher that comes back gets a new one", "[manager]") {
  World world;
  (void)world.create();
  const int before = world.launcher->connections;
  for (int i = 0; i < 5; ++i) {
    const auto session = world.create();
    REQUIRE(world.run(world.manager->remove("alice", session.id)));
  }
  CHECK(world.launcher->connections <= before + 1);  // one more while the pool is adjusted
  world.launcher->go_away();
  world.launcher->come_back();
  const auto session = world.create();
  REQUIRE(world.run(world.manager->remove("alice", session.id)));
  CHECK(world.launcher->connections > before);
}

TEST_CASE("a restart keeps live sessions and marks the others lost", "[manager]") {
  World world;
  const auto kept = world.create();
  const auto lost = world.create();
  world.stop_manager();
  world.launcher->forget(world.key_of(lost.id));
  world.start_manager();
  CHECK(world.run(world.manager->find("alice", kept.id))->status == SessionStatus::running);
  const auto gone = world.run(world.manager->find("alice", lost.id));
  REQUIRE(gone);
  CHECK(gone->status == SessionStatus::ended);
  CHECK(gone->end_reason == EndReason::lost_at_reboot);
  CHECK(world.python(kept.id, "print back"));
}

TEST_CASE("a session without a record is killed", "[manager]") {
  World world;
  world.stop_manager();
  const auto orphan = random_id();
  world.launcher->add(orphan);
  world.start_manager();
  CHECK(World::eventually([&] { return !world.launcher->has(orphan); }));
}

TEST_CASE("while the launcher is away sessions work and creation says why not", "[manager]") {
  World world;
  const auto session = world.create();
  world.launcher->go_away();
  CHECK(world.python(session.id, "print works"));
  SessionSpec spec;
  spec.owner = "alice";
  const auto refused = world.run(world.manager->create(spec, ""));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().code == ErrorCode::launcher_unavailable);
  CHECK(World::eventually([&] {
    const auto readiness = world.run(world.manager->readiness());
    return !readiness->ready && !check_of(*readiness, "launcher");
  }));

  // A deletion is remembered and carried out when the launcher is back.
  CHECK(world.run(world.manager->remove("alice", session.id)).error().code ==
        ErrorCode::launcher_unavailable);
  CHECK(world.run(world.manager->find("alice", session.id))->status == SessionStatus::ending);
  CHECK(world.python(session.id, "print no").error().code == ErrorCode::session_ended);
  world.launcher->come_back();
  CHECK(World::eventually([&] {
    return world.run(world.manager->find("alice", session.id))->end_reason == EndReason::deleted &&
           world.run(world.manager->find("alice", session.id))->status == SessionStatus::ended;
  }));
  CHECK_FALSE(world.launcher->has(world.key_of(session.id)));
  CHECK(World::eventually([&] { return world.run(world.manager->readiness())->ready; }));
}

TEST_CASE("a start without a launcher keeps the rows until it can be asked", "[manager]") {
  World world;
  const auto kept = world.create();
  const auto lost = world.create();
  world.stop_manager();
  world.launcher->go_away();
  world.launcher->forget(world.key_of(lost.id));
  world.start_manager();
  CHECK(world.run(world.manager->find("alice", lost.id))->status == SessionStatus::running);
  CHECK(world.python(kept.id, "print works"));
  world.launcher->come_back();
  CHECK(World::eventually([&] {
    return world.run(world.manager->find("alice", lost.id))->end_reason == EndReason::lost_at_reboot;
  }));
  CHECK(world.run(world.manager->find("alice", kept.id))->status == SessionStatus::running);
}

TEST_CASE("a deletion cut short by a crash is completed as a deletion", "[manager]") {
  World world;
  const auto session = world.create();
  world.launcher->go_away();
  CHECK_FALSE(world.run(world.manager->remove("alice", session.id)));
  world.stop_manager();
  world.launcher->come_back();
  world.start_manager();
  CHECK(World::eventually([&] { return !world.launcher->has(world.key_of(session.id)); }));
  CHECK(World::eventually([&] {
    const auto info = world.run(world.manager->find("alice", session.id));
    return info->status == SessionStatus::ended && info->end_reason == EndReason::deleted;
  }));
}

TEST_CASE("readiness names what is missing", "[manager]") {
  World world;
  CHECK(World::eventually([&] { return world.run(world.manager->readiness())->ready; }));
  std::filesystem::remove(world.config.image_store + "/host");
  world.restart();
  const auto readiness = world.run(world.manager->readiness());
  CHECK_FALSE(readiness->ready);
  CHECK_FALSE(check_of(*readiness, "images"));
  CHECK(check_of(*readiness, "database"));
}

TEST_CASE("API keys can be added and read at any time", "[manager]") {
  World world;
  SessionManager::KeyRow key;
  key.id = "key-a";
  key.name = "name";
  key.sha256[0] = 1;
  REQUIRE(world.manager->add_key(key));
  world.restart();
  CHECK(world.manager->keys()->size() == 1);
}
