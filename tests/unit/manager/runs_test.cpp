#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <catch2/catch.hpp>

#include "sandbox/manager/session_id.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using namespace std::chrono_literals;
using test::World;

namespace {

using Answer = std::future<Result<RunRecord>>;

Answer start(World& world, const std::string& session, const std::string& code, const std::string& key = "") {
  RunSpec spec;
  spec.language = "python";
  spec.code = code;
  spec.idempotency_key = key;
  return boost::asio::co_spawn(
      world.io, world.manager->run("alice", session, std::move(spec), std::chrono::steady_clock::now()),
      boost::asio::use_future);
}

/// The id of the only run of a session, once it has printed something.
std::string wait_for_run(World& world, const std::string& session) {
  REQUIRE(World::eventually([&] {
    const auto runs = world.init_of(session)->runs();
    return runs.size() == 1 && runs.begin()->second.log.size() >= 37;  // accepted and "so far"
  }));
  return format_id(kRunPrefix, world.init_of(session)->runs().begin()->first);
}

}  // namespace

TEST_CASE("the runs of a session share a connection", "[manager]") {
  World world;
  const auto session = world.create();
  const auto init = world.init_of(session.id);
  const int before = init->connections;
  for (const char* code : {"print one", "result", "print three"}) REQUIRE(world.python(session.id, code));
  CHECK(init->connections == before + 1);
  // One that is busy is left alone.
  const auto hanging = start(world, session.id, "hang");
  REQUIRE(World::eventually([&] { return init->runs().size() == 4; }));
  REQUIRE(world.python(session.id, "print five"));
  CHECK(init->connections == before + 2);
}

TEST_CASE("a connection that an older init closes after a run costs nobody a run", "[manager]") {
  World world;
  const auto session = world.create();
  const auto init = world.init_of(session.id);
  init->keeps_connections = false;
  for (int i = 0; i < 5; ++i) {
    const auto record = world.python(session.id, "print again");
    REQUIRE(record);
    CHECK(record->stdout_data == "again");
  }
  for (const auto& [id, run] : init->runs()) CHECK(run.starts == 1);
}

TEST_CASE("a run gives its record, and again by its id", "[manager]") {
  World world;
  const auto session = world.create();
  const auto record = world.python(session.id, "print hello");
  REQUIRE(record);
  CHECK(record->id.starts_with("run-"));
  CHECK(record->session_id == session.id);
  CHECK(record->finished);
  CHECK(record->stdout_data == "hello");
  CHECK(record->done.outcome == wire::Outcome::ok);
  CHECK(record->done.exit_code == -1);
  CHECK(record->done.execution_count == 7);
  CHECK(record->done.memory_peak_bytes == 4096);
  const auto again = world.run(world.manager->find_run("alice", session.id, record->id));
  REQUIRE(again);
  CHECK(again->stdout_data == "hello");
  CHECK(world.run(world.manager->find_run("bob", session.id, record->id)).error().code ==
        ErrorCode::session_not_found);
  std::string as_command = record->id;
  as_command.replace(0, 4, "cmd-");
  CHECK(world.run(world.manager->find_run("alice", session.id, as_command)).error().code ==
        ErrorCode::run_not_found);
  CHECK(world.run(world.manager->find_run("alice", session.id, "run-nonsense")).error().code ==
        ErrorCode::run_not_found);
}

TEST_CASE("results and the error of a run are taken over in order", "[manager]") {
  World world;
  const auto session = world.create();
  const auto record = world.python(session.id, "result");
  REQUIRE(record);
  REQUIRE(record->results.size() == 1);
  CHECK(record->results[0].is_main_result);
  CHECK(record->results[0].data[0].second == "42");
  REQUIRE(record->failure);
  CHECK(record->failure->name == "ValueError");
  CHECK(record->failure->traceback.size() == 1);
  CHECK(record->done.outcome == wire::Outcome::error);
}

TEST_CASE("a command is run with its own environment over the session's", "[manager]") {
  World world;
  SessionSpec with_env;
  with_env.env = {{"A", "session"}, {"B", "session"}};
  const auto session = world.create(with_env);
  CommandSpec spec;
  spec.command = "print from-sh";
  spec.env = {{"B", "command"}};
  spec.timeout = 2s;
  const auto arrived = std::chrono::steady_clock::now();
  const auto record = world.run(world.manager->command("alice", session.id, spec, arrived));
  REQUIRE(record);
  CHECK(record->id.starts_with("cmd-"));
  CHECK(record->language.empty());
  CHECK(record->stdout_data == "from-sh");
  const auto init = world.init_of(session.id);
  CHECK(init->last_env == std::map<std::string, std::string>{{"A", "session"}, {"B", "command"}});
  const auto arrived_ns = static_cast<std::uint64_t>(arrived.time_since_epoch() / 1ns);
  CHECK(init->last_deadline_ns == arrived_ns + 2'000'000'000);
  CHECK(init->last_kill_by_ns == arrived_ns + 3'000'000'000);
}

TEST_CASE("a run under way can be looked at", "[manager]") {
  World world;
  const auto session = world.create();
  auto answer = start(world, session.id, "hang");
  const std::string id = wait_for_run(world, session.id);
  CHECK(World::eventually([&] {
    const auto so_far = world.run(world.manager->find_run("alice", session.id, id));
    return so_far && !so_far->finished && so_far->stdout_data == "so far";
  }));
  CHECK(world.run(world.manager->cancel_run("alice", session.id, id)));
  CHECK(
      world.run(world.manager->cancel_run("alice", session.id, "run-" + std::string(26, 'a'))).error().code ==
      ErrorCode::run_not_found);
  CHECK(world.run(world.manager->pause("alice", session.id)).error().code == ErrorCode::conflict);
  REQUIRE(world.run(world.manager->remove("alice", session.id)));
  (void)answer.get();
}

TEST_CASE("deleting a session cancels its run and keeps what it printed", "[manager]") {
  World world;
  const auto session = world.create();
  auto answer = start(world, session.id, "hang");
  const std::string id = wait_for_run(world, session.id);
  REQUIRE(world.run(world.manager->remove("alice", session.id)));
  const auto record = answer.get();
  REQUIRE(record);
  CHECK(record->done.outcome == wire::Outcome::cancelled);
  CHECK(record->done.killed_by == wire::KilledBy::client);
  CHECK(record->stdout_data == "so far");
  CHECK(world.run(world.manager->find_run("alice", session.id, id))->finished);
}

TEST_CASE("a client that hangs up does not end its run", "[manager]") {
  World world;
  const auto session = world.create();
  boost::asio::cancellation_signal hang_up;
  const auto strand = boost::asio::make_strand(world.io);
  RunSpec spec;
  spec.language = "python";
  spec.code = "hang";
  std::promise<std::exception_ptr> ended;
  boost::asio::co_spawn(
      strand, world.manager->run("alice", session.id, spec, std::chrono::steady_clock::now()),
      boost::asio::bind_cancellation_slot(
          hang_up.slot(), [&](std::exception_ptr e, const Result<RunRecord>&) { ended.set_value(e); }));
  const std::string id = wait_for_run(world, session.id);
  boost::asio::post(strand, [&] { hang_up.emit(boost::asio::cancellation_type::terminal); });
  CHECK(ended.get_future().get() != nullptr);  // the wait was cancelled
  const auto still = world.run(world.manager->find_run("alice", session.id, id));
  REQUIRE(still);
  CHECK_FALSE(still->finished);
  REQUIRE(world.run(world.manager->remove("alice", session.id)));
  CHECK(World::eventually(
      [&] { return world.run(world.manager->find_run("alice", session.id, id))->finished; }));
}

TEST_CASE("a run repeated with its idempotency key is run once", "[manager]") {
  World world;
  const auto session = world.create();
  const auto first = world.python(session.id, "print once", "k");
  REQUIRE(first);
  const auto second = world.python(session.id, "print once", "k");
  REQUIRE(second);
  CHECK(second->id == first->id);
  CHECK(second->stdout_data == "once");
  CHECK(world.init_of(session.id)->runs().size() == 1);
  CHECK(world.python(session.id, "print twice", "k").error().code == ErrorCode::idempotency_mismatch);
  // Over a restart the answer comes from init.
  world.restart();
  const auto third = world.python(session.id, "print once", "k");
  REQUIRE(third);
  CHECK(third->id == first->id);
  CHECK(third->stdout_data == "once");
  CHECK(world.init_of(session.id)->runs().begin()->second.starts == 1);
}

TEST_CASE("two at once with one idempotency key share one run", "[manager]") {
  World world;
  const auto session = world.create();
  auto one = start(world, session.id, "print shared", "k");
  auto two = start(world, session.id, "print shared", "k");
  const auto a = one.get();
  const auto b = two.get();
  REQUIRE(a);
  REQUIRE(b);
  CHECK(a->id == b->id);
  CHECK(world.init_of(session.id)->runs().size() == 1);
}

TEST_CASE("a run that was refused frees its idempotency key", "[manager]") {
  World world;
  const auto session = world.create();
  CHECK(world.python(session.id, "refuse 4 0", "k").error().code == ErrorCode::overloaded);
  CHECK(World::eventually([&] {
    const auto other = world.python(session.id, "print now", "k");
    return other && other->stdout_data == "now";
  }));
}

TEST_CASE("refusals of a run arrive as errors", "[manager]") {
  World world;
  const auto session = world.create();
  CHECK(world.python(session.id, "refuse 3 0").error().code == ErrorCode::unknown_language);
  CHECK(world.python(session.id, "refuse 3 0").error().what.find("it has: python, javascript") !=
        std::string::npos);
  CHECK(world.python(session.id, "refuse 5 0").error().code == ErrorCode::queue_timeout);
  CHECK(world.python(session.id, "refuse 6 2").error().code == ErrorCode::kernel_unavailable);
}

TEST_CASE("shutting down leaves a run to its session, and a later start finds it", "[manager]") {
  World world;
  const auto session = world.create();
  auto answer = start(world, session.id, "hang");
  const std::string id = wait_for_run(world, session.id);
  world.stop_manager();
  const auto interrupted = answer.get();
  REQUIRE_FALSE(interrupted);
  CHECK(interrupted.error().what.find("the run goes on") != std::string::npos);
  world.start_manager();
  const auto found = world.run(world.manager->find_run("alice", session.id, id));
  REQUIRE(found);
  CHECK_FALSE(found->finished);
  CHECK(found->language == "python");
  CHECK(found->stdout_data == "so far");
  world.init_of(session.id)->finish(world.init_of(session.id)->runs().begin()->first);
  CHECK(world.run(world.manager->find_run("alice", session.id, id))->finished);
}
