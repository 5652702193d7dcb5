#include <sys/stat.h>

#include <catch2/catch.hpp>

#include "sandbox/manager/store.h"
#include "sandbox/sys/clock.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace;
using namespace codespace::manager;

namespace {

SessionRow row_of(const std::string& owner, std::int64_t created_ms, Labels labels = {}) {
  SessionRow row;
  row.key = random_id();
  row.info.id = format_id(kSessionPrefix, row.key);
  row.info.owner = owner;
  row.info.image = "host";
  row.info.image_handle = 0xfedcba9876543210;
  row.info.labels = std::move(labels);
  row.info.env = {{"TOKEN", "s3cret"}, {"EMPTY", ""}};
  row.info.limits = {
      .memory_bytes = 1, .workspace_bytes = 2, .scratch_bytes = 3, .inodes = 4, .cpu_milli = 5, .pids = 6};
  row.info.idle_timeout = std::chrono::seconds(10);
  row.info.created_at_ms = row.info.last_used_at_ms = created_ms;
  return row;
}

Store open_store(const test::TempDir& dir) {
  auto store = Store::open(dir.path() + "/db");
  REQUIRE(store);
  return std::move(*store);
}

}  // namespace

TEST_CASE("a session's row comes back whole", "[manager]") {
  const test::TempDir dir;
  const SessionRow row = row_of("alice", 1000, {{"k", "v"}});
  {
    Store store = open_store(dir);
    REQUIRE(store.insert_session(row, std::nullopt));
  }
  Store store = open_store(dir);
  const auto rows = store.live_sessions();
  REQUIRE(rows);
  REQUIRE(rows->size() == 1);
  const SessionInfo& info = rows->front().info;
  CHECK(rows->front().key == row.key);
  CHECK(info.id == row.info.id);
  CHECK(info.image_handle == row.info.image_handle);
  CHECK(info.labels == row.info.labels);
  CHECK(info.env == row.info.env);
  CHECK(info.limits.pids == 6);
  CHECK(info.idle_timeout == row.info.idle_timeout);
  CHECK(info.status == SessionStatus::starting);
}

TEST_CASE("the database is for its owner's eyes only", "[manager]") {
  const test::TempDir dir;
  const Store store = open_store(dir);
  struct stat status{};
  REQUIRE(::stat((dir.path() + "/db").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("an ended session keeps its reason for seven days, and no environment", "[manager]") {
  const test::TempDir dir;
  Store store = open_store(dir);
  const SessionRow row = row_of("alice", 1000);
  REQUIRE(store.insert_session(row, std::nullopt));
  REQUIRE(store.set_ended(row.key, 5000, EndReason::idle));
  auto found = store.find_session(row.key);
  REQUIRE((found && *found));
  CHECK((*found)->status == SessionStatus::ended);
  CHECK((*found)->end_reason == EndReason::idle);
  CHECK((*found)->ended_at_ms == 5000);
  CHECK((*found)->env.empty());
  CHECK(store.live_sessions()->empty());
  REQUIRE(store.set_status(row.key, SessionStatus::running, EndReason::none));  // too late
  CHECK((*store.find_session(row.key))->status == SessionStatus::ended);

  REQUIRE(store.expire(5000 + kTombstoneMs));
  CHECK(store.find_session(row.key)->has_value());
  REQUIRE(store.expire(5001 + kTombstoneMs));
  CHECK_FALSE(store.find_session(row.key)->has_value());
}

TEST_CASE("ended sessions are listed page by page, by owner and labels", "[manager]") {
  const test::TempDir dir;
  Store store = open_store(dir);
  for (int i = 0; i < 7; ++i) {
    const SessionRow row =
        row_of("alice", 1000 + i / 2, {{"parity", i % 2 == 0 ? "even" : "odd"}, {"all", "yes"}});
    REQUIRE(store.insert_session(row, std::nullopt));
    REQUIRE(store.set_ended(row.key, 2000, EndReason::deleted));
  }
  const SessionRow other = row_of("bob", 1000);
  REQUIRE(store.insert_session(other, std::nullopt));
  REQUIRE(store.set_ended(other.key, 2000, EndReason::deleted));

  SessionQuery query;
  query.owner = "alice";
  query.limit = 3;
  std::vector<std::string> seen;
  std::int64_t last = 1LL << 60;
  for (;;) {
    const auto page = store.list_ended(query);
    REQUIRE(page);
    CHECK(page->total == 7);
    for (const auto& info : page->sessions) {
      CHECK(info.created_at_ms <= last);
      last = info.created_at_ms;
      seen.push_back(info.id);
    }
    if (page->next_cursor.empty()) break;
    query.cursor = page->next_cursor;
  }
  std::ranges::sort(seen);
  CHECK(seen.size() == 7);
  CHECK(std::ranges::adjacent_find(seen) == seen.end());

  query.cursor.clear();
  query.limit = 50;
  query.labels = {{"parity", "odd"}, {"all", "yes"}};
  CHECK(store.list_ended(query)->sessions.size() == 3);
  query.labels = {{"parity", "odd"}, {"all", "no"}};
  CHECK(store.list_ended(query)->total == 0);
  query.cursor = "nonsense!";
  CHECK(store.list_ended(query).error().code == ErrorCode::invalid_request);
}

TEST_CASE("a cursor comes back as what it was", "[manager]") {
  const auto key = random_id();
  const auto position = decode_cursor(encode_cursor(1'700'000'000'000, key));
  REQUIRE(position);
  CHECK(position->first == 1'700'000'000'000);
  CHECK(position->second == key);
  CHECK_FALSE(decode_cursor("aaaa"));
}

TEST_CASE("an idempotency key means one request for a day", "[manager]") {
  const test::TempDir dir;
  Store store = open_store(dir);
  Claim first{"alice", "k1", {}, random_id()};
  REQUIRE(store.claim(first, 1000)->fresh);
  Claim retry = first;
  retry.object = random_id();
  auto again = store.claim(retry, 2000);
  REQUIRE(again);
  CHECK_FALSE(again->fresh);
  CHECK_FALSE(again->started);
  CHECK(again->object == first.object);
  REQUIRE(store.mark_started(first));
  CHECK(store.claim(retry, 2000)->started);

  Claim other = retry;
  other.request[0] = 1;
  CHECK(store.claim(other, 2000).error().code == ErrorCode::idempotency_mismatch);
  other.owner = "bob";
  CHECK(store.claim(other, 2000)->fresh);
  CHECK(store.claim(retry, 1000 + kClaimMs)->fresh);
  REQUIRE(store.release(retry));
  CHECK(store.claim(retry, 2000)->fresh);
}

TEST_CASE("API keys are kept as digests", "[manager]") {
  const test::TempDir dir;
  Store store = open_store(dir);
  SessionManager::KeyRow key;
  key.id = "key-1";
  key.name = "first";
  key.sha256[31] = 9;
  key.limits = {3, *parse_limits("memory_bytes=67108864 cpus=1.5"), *parse_limits("pids=100")};
  REQUIRE(store.add_key(key, 1));
  CHECK_FALSE(store.add_key(key, 1));
  const auto keys = store.keys();
  REQUIRE(keys);
  REQUIRE(keys->size() == 1);
  CHECK(keys->front().sha256 == key.sha256);
  CHECK(keys->front().name == "first");
  CHECK(keys->front().limits.max_sessions == 3);
  CHECK(limits_text(keys->front().limits.standard) == "memory_bytes=67108864 cpus=1.5");
  CHECK(limits_text(keys->front().limits.most) == "pids=100");
}

TEST_CASE("a database of a newer version is refused with a sentence", "[manager]") {
  const test::TempDir dir;
  {
    open_store(dir);
  }
  auto db = sqlite::Database::open(dir.path() + "/db");
  REQUIRE(db);
  REQUIRE(db->execute("PRAGMA user_version=99"));
  const auto store = Store::open(dir.path() + "/db");
  REQUIRE_FALSE(store);
  CHECK(store.error().what.find("newer version") != std::string::npos);
}

TEST_CASE("a failing statement says which, and the next one works", "[manager]") {
  const test::TempDir dir;
  auto db = sqlite::Database::open(dir.path() + "/x");
  REQUIRE(db);
  CHECK_FALSE(db->prepare("SELECT nothing FROM nowhere"));
  REQUIRE(db->execute("CREATE TABLE t (a INTEGER PRIMARY KEY) STRICT"));
  auto insert = db->prepare("INSERT INTO t VALUES (?)");
  REQUIRE(insert);
  CHECK(insert->bind(std::int64_t{1}).run());
  CHECK_FALSE(insert->bind(std::int64_t{1}).run());
  CHECK(insert->bind(std::int64_t{2}).run());
  CHECK(Store::open("/nonexistent/dir/db").error().sys_errno == ENOENT);
}
