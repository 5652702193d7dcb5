// The tables, their migrations, and the text forms of what is kept in them.
#include <algorithm>
#include <cstring>

#include "sandbox/manager/store.h"

namespace codespace::manager {
namespace {

// user_version 1
constexpr const char* kSchema1 = R"(
  CREATE TABLE sessions (
    key BLOB NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL, image TEXT NOT NULL, image_handle INTEGER NOT NULL,
    status TEXT NOT NULL, end_reason TEXT NOT NULL, env BLOB NOT NULL,
    memory_bytes INTEGER NOT NULL, workspace_bytes INTEGER NOT NULL, scratch_bytes INTEGER NOT NULL,
    inodes INTEGER NOT NULL, cpu_milli INTEGER NOT NULL, pids INTEGER NOT NULL,
    idle_timeout_s INTEGER NOT NULL, max_lifetime_s INTEGER NOT NULL,
    created_ms INTEGER NOT NULL, last_used_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX sessions_by_owner ON sessions (owner, status, created_ms);
  CREATE INDEX sessions_by_end ON sessions (ended_ms);
  CREATE TABLE labels (
    session BLOB NOT NULL REFERENCES sessions (key) ON DELETE CASCADE,
    name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (session, name)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE claims (
    owner TEXT NOT NULL, key TEXT NOT NULL, request BLOB NOT NULL, object BLOB NOT NULL,
    started INTEGER NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY (owner, key)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX claims_by_age ON claims (created_ms);
  CREATE TABLE api_keys (
    id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL, sha256 BLOB NOT NULL UNIQUE, created_ms INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), written_ms INTEGER NOT NULL) STRICT;
)";
// user_version 2: the way out
constexpr const char* kSchema2 = R"(
  ALTER TABLE sessions ADD COLUMN network_mode TEXT NOT NULL DEFAULT 'none';
  ALTER TABLE sessions ADD COLUMN network_allow TEXT NOT NULL DEFAULT '';
)";
// user_version 3: what a key may do
constexpr const char* kSchema3 = R"(
  ALTER TABLE api_keys ADD COLUMN scopes INTEGER NOT NULL DEFAULT 4294967295;
  ALTER TABLE api_keys ADD COLUMN requests_per_minute INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE api_keys ADD COLUMN max_sessions INTEGER NOT NULL DEFAULT 0;
)";
// user_version 4: limits of a key's sessions
constexpr const char* kSchema4 = R"(
  ALTER TABLE api_keys ADD COLUMN limits TEXT NOT NULL DEFAULT '';
  ALTER TABLE api_keys ADD COLUMN most TEXT NOT NULL DEFAULT '';
)";
constexpr const char* kSchemas[] = {kSchema1, kSchema2, kSchema3, kSchema4};
constexpr int kNewest = std::size(kSchemas);

}  // namespace

Result<void> migrate(sqlite::Database& db) {
  // NORMAL in WAL mode loses at most the last transactions in a power cut, which takes the
  // sessions with it anyway; a crash of the daemon loses nothing.
  for (const char* pragma : {"PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON",
                             "PRAGMA secure_delete=ON"}) {
    if (auto set = db.execute(pragma); !set) return set;
  }
  std::int64_t version = 0;
  {
    auto query = db.prepare("PRAGMA user_version");
    if (!query) return std::unexpected(query.error());
    const auto row = query->step();
    if (!row) return std::unexpected(row.error());
    if (*row) version = query->integer(0);
  }
  if (version > kNewest)
    return server_error(ErrorCode::internal,
                        "the database was written by a newer version of this program (schema " +
                            std::to_string(version) + ", known here: " + std::to_string(kNewest) +
                            "); start that version again or use another state directory");
  if (version == kNewest) return {};
  auto transaction = sqlite::Transaction::begin(db);
  if (!transaction) return std::unexpected(transaction.error());
  for (; version < kNewest; ++version) {
    if (auto made = db.execute(kSchemas[version]); !made) return made;
  }
  if (auto set = db.execute(("PRAGMA user_version=" + std::to_string(kNewest)).c_str()); !set) return set;
  return transaction->commit();
}

std::string_view name_of(SessionStatus status) {
  switch (status) {
    case SessionStatus::starting:
      return "starting";
    case SessionStatus::running:
      return "running";
    case SessionStatus::paused:
      return "paused";
    case SessionStatus::ending:
      return "ending";
    case SessionStatus::ended:
      return "ended";
  }
  return "ended";
}

std::string_view name_of(EndReason reason) {
  switch (reason) {
    case EndReason::none:
      return "none";
    case EndReason::deleted:
      return "deleted";
    case EndReason::idle:
      return "idle";
    case EndReason::lifetime:
      return "lifetime";
    case EndReason::out_of_memory:
      return "out_of_memory";
    case EndReason::init_died:
      return "init_died";
    case EndReason::lost_at_reboot:
      return "lost_at_reboot";
  }
  return "none";
}

std::string encode_cursor(std::int64_t created_at_ms, const wire::SessionKey& key) {
  std::string bytes(sizeof created_at_ms + key.size(), 0);
  std::memcpy(bytes.data(), &created_at_ms, sizeof created_at_ms);
  std::memcpy(bytes.data() + sizeof created_at_ms, key.data(), key.size());
  return base32_encode(bytes);
}

Result<std::pair<std::int64_t, wire::SessionKey>> decode_cursor(std::string_view cursor) {
  std::pair<std::int64_t, wire::SessionKey> position;
  const auto bytes = base32_decode(cursor);
  if (!bytes || bytes->size() != sizeof position.first + position.second.size())
    return client_error(ErrorCode::invalid_request,
                        "`cursor` is not one this server gave out; leave it away to get the first page");
  std::memcpy(&position.first, bytes->data(), sizeof position.first);
  std::memcpy(position.second.data(), bytes->data() + sizeof position.first, position.second.size());
  return position;
}

}  // namespace codespace::manager
