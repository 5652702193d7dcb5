// What must survive a restart of the daemon: sessions and why they ended, idempotency keys,
// digests of API keys. SQLite in WAL mode; every call blocks and runs on the one store
// thread (StoreQueue), so there is no locking here and writes happen in the order given.
//
// The environment given to a session is stored with it, because kernels started after a
// restart need it. It may hold the client's secrets: the file is readable by the daemon's
// user alone, and a session's environment is erased when the session has ended.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "sandbox/manager/records.h"
#include "sandbox/manager/session_id.h"
#include "sandbox/manager/session_manager.h"
#include "sandbox/manager/sqlite.h"

namespace codespace::manager {

inline constexpr std::int64_t kTombstoneMs = 7LL * 24 * 3600 * 1000;
inline constexpr std::int64_t kClaimMs = 24LL * 3600 * 1000;

using Digest = std::array<std::uint8_t, 32>;

struct SessionRow {
  wire::SessionKey key{};
  SessionInfo info;
};

/// An idempotency key with the request it stands for and the object that request makes.
struct Claim {
  std::string owner;
  std::string key;
  Digest request{};
  IdBits object{};
};

/// What became of a claim.
struct Claimed {
  bool fresh = true;     // nobody had used the key; `object` is the caller's own
  bool started = false;  // of an old one: init accepted the run
  IdBits object{};
};

class Store {
 public:
  static Result<Store> open(const std::string& path);

  Result<std::vector<SessionRow>> live_sessions();
  Result<std::optional<SessionInfo>> find_session(const wire::SessionKey& key);
  Result<SessionPage> list_ended(const SessionQuery& query);
  /// Claim and row in one transaction; with an old claim nothing is written.
  Result<Claimed> insert_session(const SessionRow& row, const std::optional<Claim>& claim);
  /// A session that could not be created leaves no trace and frees its key for a retry.
  Result<void> forget_session(const wire::SessionKey& key, const std::optional<Claim>& claim);
  Result<void> set_status(const wire::SessionKey& key, SessionStatus status, EndReason reason);
  Result<void> set_ended(const wire::SessionKey& key, std::int64_t ended_at_ms, EndReason reason);
  Result<void> set_settings(const wire::SessionKey& key, const SessionInfo& info);
  Result<void> touch(const std::vector<std::pair<wire::SessionKey, std::int64_t>>& last_used_ms);

  Result<Claimed> claim(const Claim& claim, std::int64_t now_ms);
  Result<void> mark_started(const Claim& claim);
  Result<void> release(const Claim& claim);

  Result<std::vector<SessionManager::KeyRow>> keys();
  Result<void> add_key(const SessionManager::KeyRow& key, std::int64_t now_ms);

  /// Drops tombstones and claims that are past their time.
  Result<void> expire(std::int64_t now_ms);
  /// Writes something, to know that it can.
  Result<void> probe_write(std::int64_t now_ms);

 private:
  explicit Store(sqlite::Database db) : db_(std::move(db)) {}
  /// Prepared once per SQL literal.
  Result<sqlite::Statement*> statement(const char* sql);
  Result<Claimed> claim_in_transaction(const Claim& claim, std::int64_t now_ms);
  Result<void> write_labels(const wire::SessionKey& key, const Labels& labels);
  Result<Labels> read_labels(const wire::SessionKey& key);
  Result<SessionRow> read_row(const sqlite::Statement& row);

  sqlite::Database db_;
  std::unordered_map<const char*, sqlite::Statement> statements_;
};

/// Brings the schema up to date; one step per user_version.
Result<void> migrate(sqlite::Database& db);

std::string_view name_of(SessionStatus status);
std::string_view name_of(EndReason reason);

/// Position of a session in a listing, as opaque text and back.
std::string encode_cursor(std::int64_t created_at_ms, const wire::SessionKey& key);
Result<std::pair<std::int64_t, wire::SessionKey>> decode_cursor(std::string_view cursor);

}  // namespace codespace::manager
