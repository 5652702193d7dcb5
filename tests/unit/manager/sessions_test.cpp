#include <catch2/catch.hpp>
#include <set>

#include "sandbox/manager/session.h"
#include "sandbox/manager/session_id.h"
#include "sandbox/sys/clock.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;
using namespace std::chrono_literals;
using test::World;

namespace {

SessionSpec spec_of(const std::string& owner, Labels labels = {}) {
  SessionSpec spec;
  spec.owner = owner;
  spec.labels = std::move(labels);
  return spec;
}

}  // namespace

TEST_CASE("a session is created, found, and leaves a tombstone when deleted", "[manager]") {
  World world;
  const auto info = world.create();
  CHECK(info.status == SessionStatus::running);
  CHECK(info.image == "host");
  CHECK(info.limits.pids == world.config.default_limits.pids);
  CHECK(world.launcher->has(world.key_of(info.id)));
  CHECK(world.run(world.manager->find("alice", info.id))->status == SessionStatus::running);

  REQUIRE(world.run(world.manager->remove("alice", info.id)));
  CHECK_FALSE(world.launcher->has(world.key_of(info.id)));
  const auto gone = world.run(world.manager->find("alice", info.id));
  REQUIRE(gone);
  CHECK(gone->status == SessionStatus::ended);
  CHECK(gone->end_reason == EndReason::deleted);
  CHECK(gone->ended_at_ms >= info.created_at_ms);
  CHECK(world.run(world.manager->remove("alice", info.id)));  // twice is fine
  const auto run = world.python(info.id, "print x");
  REQUIRE_FALSE(run);
  CHECK(run.error().code == ErrorCode::session_ended);
  CHECK(run.error().what.find("(deleted)") != std::string::npos);
}

TEST_CASE("another owner's session does not exist", "[manager]") {
  World world;
  const auto info = world.create();
  const auto missing = world.run(world.manager->find("alice", "session-" + std::string(26, 'a'))).error();
  CHECK(missing.code == ErrorCode::session_not_found);
  CHECK(world.run(world.manager->find("bob", info.id)).error().code == ErrorCode::session_not_found);
  CHECK(world.run(world.manager->remove("bob", info.id)).error().code == ErrorCode::session_not_found);
  CHECK(world.run(world.manager->pause("bob", info.id)).error().code == ErrorCode::session_not_found);
  CHECK(world.run(world.manager->metrics("bob", info.id)).error().code == ErrorCode::session_not_found);
  CHECK(world.run(world.manager->find("bob", "nonsense")).error().code == ErrorCode::session_not_found);
  CHECK(world.launcher->has(world.key_of(info.id)));
  REQUIRE(world.run(world.manager->remove("alice", info.id)));
  CHECK(world.run(world.manager->find("bob", info.id)).error().code == ErrorCode::session_not_found);
}

TEST_CASE("live sessions are listed page by page in a stable order", "[manager]") {
  World world;
  for (int i = 0; i < 9; ++i) world.create(spec_of("alice", {{"n", std::to_string(i % 3)}}));
  world.create(spec_of("bob"));
  SessionQuery query;
  query.owner = "alice";
  query.limit = 4;
  std::set<std::string> seen;
  std::vector<std::size_t> sizes;
  std::int64_t last = 1LL << 60;
  do {
    const auto page = world.run(world.manager->list(query));
    REQUIRE(page);
    CHECK(page->total == 9);
    sizes.push_back(page->sessions.size());
    for (const auto& info : page->sessions) {
      CHECK(info.created_at_ms <= last);
      last = info.created_at_ms;
      seen.insert(info.id);
    }
    query.cursor = page->next_cursor;
  } while (!query.cursor.empty());
  CHECK(sizes == std::vector<std::size_t>{4, 4, 1});
  CHECK(seen.size() == 9);

  query.labels = {{"n", "2"}};
  query.limit = 50;
  CHECK(world.run(world.manager->list(query))->total == 3);
  query.status = SessionStatus::paused;
  CHECK(world.run(world.manager->list(query))->total == 0);
  query.status = SessionStatus::ended;
  CHECK(world.run(world.manager->list(query))->total == 0);
  query.limit = 0;
  CHECK_FALSE(world.run(world.manager->list(query)));
  query.limit = 5;
  query.status.reset();
  query.cursor = "zz";
  CHECK(world.run(world.manager->list(query)).error().code == ErrorCode::invalid_request);
}

TEST_CASE("creating twice with one idempotency key makes one session", "[manager]") {
  World world;
  const auto first = world.run(world.manager->create(spec_of("alice", {{"a", "1"}}), "key"));
  REQUIRE(first);
  const auto second = world.run(world.manager->create(spec_of("alice", {{"a", "1"}}), "key"));
  REQUIRE(second);
  CHECK(first->id == second->id);
  CHECK(world.launcher->creates == 1);
  CHECK(world.run(world.manager->create(spec_of("alice", {{"a", "2"}}), "key")).error().code ==
        ErrorCode::idempotency_mismatch);
  CHECK(world.run(world.manager->create(spec_of("bob", {{"a", "1"}}), "key"))->id != first->id);
  world.restart();
  CHECK(world.run(world.manager->create(spec_of("alice", {{"a", "1"}}), "key"))->id == first->id);
}

TEST_CASE("a creation that fails leaves nothing and frees its idempotency key", "[manager]") {
  World world;
  world.launcher->create_status = wire::LauncherStatus::setup_failed;
  const auto failed = world.run(world.manager->create(spec_of("alice"), "key"));
  REQUIRE_FALSE(failed);
  CHECK(failed.error().code == ErrorCode::sandbox_failed);
  CHECK(failed.error().what.find("mount_root") != std::string::npos);
  SessionQuery query;
  query.owner = "alice";
  CHECK(world.run(world.manager->list(query))->total == 0);
  query.status = SessionStatus::ended;
  CHECK(world.run(world.manager->list(query))->total == 0);
  world.launcher->create_status = wire::LauncherStatus::ok;
  CHECK(world.run(world.manager->create(spec_of("alice"), "key")));
}

TEST_CASE("the number of sessions is bounded", "[manager]") {
  World world;
  world.stop_manager();
  world.config.max_sessions = 2;
  world.start_manager();
  world.create();
  const auto second = world.create();
  const auto third = world.run(world.manager->create(spec_of("alice"), ""));
  REQUIRE_FALSE(third);
  CHECK(third.error().code == ErrorCode::quota_exceeded);
  REQUIRE(world.run(world.manager->remove("alice", second.id)));
  CHECK(world.run(world.manager->create(spec_of("alice"), "")));
}

TEST_CASE("a paused session refuses work and names the way out", "[manager]") {
  World world;
  const auto info = world.create();
  const auto paused = world.run(world.manager->pause("alice", info.id));
  REQUIRE(paused);
  CHECK(paused->status == SessionStatus::paused);
  CHECK(world.run(world.manager->pause("alice", info.id))->status == SessionStatus::paused);
  const auto run = world.python(info.id, "print x");
  REQUIRE_FALSE(run);
  CHECK(run.error().code == ErrorCode::session_paused);
  CHECK(run.error().what.find("/v1/sessions/" + info.id + "/resume") != std::string::npos);
  CHECK(world.run(world.manager->stat("alice", info.id, "x")).error().code == ErrorCode::session_paused);
  CHECK(world.run(world.manager->metrics("alice", info.id))->disks.empty());

  world.restart();
  CHECK(world.run(world.manager->find("alice", info.id))->status == SessionStatus::paused);
  CHECK(world.run(world.manager->resume("alice", info.id))->status == SessionStatus::running);
  CHECK(world.python(info.id, "print x"));
  CHECK(world.run(world.manager->metrics("alice", info.id))->disks.size() == 1);
  REQUIRE(world.run(world.manager->pause("alice", info.id)));
  CHECK(world.run(world.manager->remove("alice", info.id)));
}

TEST_CASE("settings change and are kept", "[manager]") {
  World world;
  const auto info = world.create();
  SessionPatch patch;
  patch.labels = Labels{{"x", "y"}};
  patch.idle_timeout = 100s;
  patch.max_lifetime = 50s;
  const auto after = world.run(world.manager->patch("alice", info.id, patch));
  REQUIRE(after);
  CHECK(after->labels.at("x") == "y");
  CHECK(after->expires_at_ms == after->created_at_ms + 50'000);
  world.restart();
  const auto kept = world.run(world.manager->find("alice", info.id));
  CHECK(kept->labels.at("x") == "y");
  CHECK(kept->idle_timeout == 100s);
}

TEST_CASE("a session whose init dies ends with the reason the kernel gave", "[manager]") {
  World world;
  const auto killed = world.create();
  const auto crashed = world.create();
  REQUIRE(World::eventually([&] { return world.launcher->watchers == 1; }));
  world.launcher->lose(world.key_of(killed.id), 9, 2);
  world.launcher->lose(world.key_of(crashed.id), 11, 0);
  const auto reason = [&](const std::string& id) {
    return world.run(world.manager->find("alice", id))->end_reason;
  };
  CHECK(World::eventually([&] { return reason(killed.id) == EndReason::out_of_memory; }));
  CHECK(World::eventually([&] { return reason(crashed.id) == EndReason::init_died; }));
}

TEST_CASE("a session that vanished without notice is found out by the next request", "[manager]") {
  World world;
  REQUIRE(World::eventually([&] { return world.launcher->lists == 2; }));  // at the start, and after: or taking stock finds it out
  const auto info = world.create();
  world.launcher->forget(world.key_of(info.id));
  const auto run = world.python(info.id, "print x");
  REQUIRE_FALSE(run);
  CHECK(run.error().code == ErrorCode::session_ended);
  CHECK(world.run(world.manager->find("alice", info.id))->end_reason == EndReason::init_died);
}

TEST_CASE("idle time and lifetime are told apart, and use counts against idling", "[manager]") {
  SessionInfo info;
  info.created_at_ms = sys::wall_ms() - 100'000;
  info.last_used_at_ms = sys::wall_ms() - 60'000;
  info.status = SessionStatus::running;
  info.idle_timeout = 50s;
  const auto session = std::make_shared<Session>(random_id(), info);
  const auto now = std::chrono::steady_clock::now();
  CHECK(expired(*session, now) == EndReason::idle);
  session->info.status = SessionStatus::paused;
  CHECK(expired(*session, now) == EndReason::none);
  CHECK_FALSE(next_expiry(*session, now));
  session->info.max_lifetime = 90s;
  CHECK(expired(*session, now) == EndReason::lifetime);
  session->info.max_lifetime = 1000s;
  session->info.status = SessionStatus::running;
  {
    const Use use(session);
    CHECK(session->in_flight == 1);
    CHECK(expired(*session, now + 500s) == EndReason::none);
    CHECK(expired(*session, now + 950s) == EndReason::lifetime);
  }
  CHECK(expired(*session, std::chrono::steady_clock::now()) == EndReason::none);
  CHECK(expired(*session, std::chrono::steady_clock::now() + 51s) == EndReason::idle);
  CHECK(snapshot(*session).expires_at_ms == snapshot(*session).last_used_at_ms + 50'000);
}

TEST_CASE("the lifetime ends a session that works", "[manager]") {
  World world;
  auto spec = spec_of("alice");
  spec.max_lifetime = 1s;
  const auto info = world.create(spec);
  const auto run = world.python(info.id, "hang");
  REQUIRE_FALSE(run);
  CHECK(run.error().code == ErrorCode::session_ended);
  CHECK(world.run(world.manager->find("alice", info.id))->end_reason == EndReason::lifetime);
}

TEST_CASE("requests that are wrong are refused before anything is made", "[manager]") {
  World world;
  auto spec = spec_of("alice");
  spec.image = "nope";
  CHECK(world.run(world.manager->create(spec, "")).error().code == ErrorCode::unknown_image);
  spec = spec_of("alice");
  spec.env = {{"LD_PRELOAD", "x"}};
  CHECK(world.run(world.manager->create(spec, "")).error().code == ErrorCode::invalid_request);
  spec = spec_of("alice");
  spec.limits.pids = 1;
  CHECK(world.run(world.manager->create(spec, "")).error().code == ErrorCode::invalid_request);
  CHECK(world.launcher->creates == 0);
}

TEST_CASE("two hundred sessions come and go at once", "[manager]") {
  World world;
  const auto cycle = [&]() -> boost::asio::awaitable<bool> {
    auto made = co_await world.manager->create(spec_of("alice"), "");
    if (!made) co_return false;
    RunSpec spec;
    spec.language = "python";
    spec.code = "print hello";
    const auto run = co_await world.manager->run("alice", made->id, spec, std::chrono::steady_clock::now());
    const auto gone = co_await world.manager->remove("alice", made->id);
    co_return run && run->stdout_data == "hello" && gone;
  };
  std::vector<std::future<bool>> all;
  for (int i = 0; i < 200; ++i)
    all.push_back(boost::asio::co_spawn(world.io, cycle(), boost::asio::use_future));
  int good = 0;
  for (auto& one : all) good += one.get() ? 1 : 0;
  CHECK(good == 200);
  CHECK(world.launcher->count() == 0);
}
