#include <catch2/catch.hpp>

#include "sandbox/manager/session_id.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using test::World;

TEST_CASE("a context's name has 1 to 64 harmless characters and is no relative path", "[manager]") {
  for (const char* name : {"a", "Z", "0", "-", "_", "a.b", "...", "default"}) CHECK(wire::is_context_name(name));
  CHECK(wire::is_context_name(std::string(64, 'x')));
  CHECK_FALSE(wire::is_context_name(std::string(65, 'x')));
  for (const char* name : {"", ".", "..", "a/b", "a b", "a\n", "\xc3\xa4", "@", "[", "`", "{"}) CHECK_FALSE(wire::is_context_name(name));
  CHECK_FALSE(wire::is_context_name(std::string_view("a\0", 2)));
}

TEST_CASE("contexts are listed as init tells them", "[manager]") {
  World world;
  const auto session = world.create();
  const auto listed = world.run(world.manager->list_contexts("alice", session.id));
  REQUIRE(listed);
  REQUIRE(listed->size() == 1);
  const ContextInfo& one = listed->front();
  CHECK(one.language == "python");
  CHECK(one.context == "analysis");
  CHECK(one.state == wire::ContextState::busy);
  CHECK(one.queued == 2);
  CHECK(one.execution_count == 7);
  CHECK(one.created_at_ms == 1'000);
  CHECK(one.cpu_ns == 3'000'000);
  CHECK(one.memory_bytes == 4096);
  CHECK(one.pids == 5);
  CHECK(world.run(world.manager->list_contexts("bob", session.id)).error().code == ErrorCode::session_not_found);
}

TEST_CASE("a context is deleted, and one that never was is named in the error", "[manager]") {
  World world;
  const auto session = world.create();
  CHECK(world.run(world.manager->delete_context("alice", session.id, "python", "analysis")));
  const auto missing = world.run(world.manager->delete_context("alice", session.id, "python", "other"));
  REQUIRE_FALSE(missing);
  CHECK(missing.error().code == ErrorCode::context_not_found);
  CHECK(missing.error().what.find("`other`") != std::string::npos);
  CHECK(world.run(world.manager->delete_context("bob", session.id, "python", "analysis")).error().code ==
        ErrorCode::session_not_found);
}

TEST_CASE("runs are listed with their public ids, at most as many as asked for", "[manager]") {
  World world;
  const auto session = world.create();
  const auto one = world.python(session.id, "print 1");
  const auto two = world.python(session.id, "print 2");
  REQUIRE((one && two));
  const auto listed = world.run(world.manager->list_runs("alice", session.id, false, 10));
  REQUIRE(listed);
  REQUIRE(listed->size() == 2);
  for (const RunSummary& run : *listed) {
    CHECK((run.id == one->id || run.id == two->id));
    CHECK(run.context == "analysis");
    CHECK(run.phase == wire::RunPhase::finished);
    CHECK(run.outcome == wire::Outcome::ok);
    CHECK(run.duration_ns == 3'000'000);
  }
  CHECK(world.run(world.manager->list_runs("alice", session.id, false, 1))->size() == 1);
  const auto commands = world.run(world.manager->list_runs("alice", session.id, true, 1));
  REQUIRE(commands);
  CHECK(commands->front().id.starts_with("cmd-"));
}

TEST_CASE("a list with a value outside of its set is not believed", "[manager]") {
  World world;
  const auto session = world.create();
  REQUIRE(world.python(session.id, "print 1"));
  world.init_of(session.id)->hostile_lists = true;
  CHECK(world.run(world.manager->list_contexts("alice", session.id)).error().code == ErrorCode::sandbox_failed);
  CHECK(world.run(world.manager->list_runs("alice", session.id, false, 10)).error().code == ErrorCode::sandbox_failed);
}

TEST_CASE("a run's record carries its context, and a name that is none is refused", "[manager]") {
  World world;
  const auto session = world.create();
  RunSpec spec;
  spec.language = "python";
  spec.code = "print x";
  spec.context = "analysis";
  const auto record = world.run(world.manager->run("alice", session.id, spec, std::chrono::steady_clock::now()));
  REQUIRE(record);
  CHECK(record->context == "analysis");
  spec.context = "a/b";
  CHECK(world.run(world.manager->run("alice", session.id, spec, std::chrono::steady_clock::now())).error().code ==
        ErrorCode::invalid_request);
  // One context too many is the client's to solve, and the sentence says how.
  spec.context = "one-more";
  spec.code = "refuse 32 0";
  const auto refused = world.run(world.manager->run("alice", session.id, spec, std::chrono::steady_clock::now()));
  CHECK(refused.error().code == ErrorCode::quota_exceeded);
  CHECK(refused.error().what.find("DELETE") != std::string::npos);
}
