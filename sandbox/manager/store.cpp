// The store's statements. See store.h for what is kept and why.
#include "sandbox/manager/store.h"

#include <algorithm>
#include <cstring>

#include "sandbox/wire/codec.h"

namespace codespace::manager {
namespace {

using sqlite::Statement;
using sqlite::Transaction;

std::string_view blob(const auto& array) {
  return {reinterpret_cast<const char*>(array.data()), array.size()};
}

template <class Array>
bool read_array(std::string_view bytes, Array& out) {
  if (bytes.size() != out.size()) return false;
  std::memcpy(out.data(), bytes.data(), out.size());
  return true;
}

std::vector<char> encode_env(const Env& env) {
  wire::Writer writer;
  writer.u32(static_cast<std::uint32_t>(env.size()));
  for (const auto& [name, value] : env) {
    writer.bytes(name);
    writer.bytes(value);
  }
  return writer.data();
}

Env decode_env(std::string_view bytes) {
  wire::Reader reader(bytes);
  Env env;
  for (std::uint32_t left = reader.u32(); left > 0 && reader.ok(); --left) {
    const std::string_view name = reader.bytes();
    const std::string_view value = reader.bytes();
    if (reader.ok()) env.emplace_back(name, value);
  }
  return env;
}

/// Rules have no line feeds.
std::string join_lines(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

std::vector<std::string> split_lines(std::string_view text) {
  std::vector<std::string> lines;
  for (std::size_t end; (end = text.find('\n')) != std::string_view::npos; text.remove_prefix(end + 1))
    lines.emplace_back(text.substr(0, end));
  return lines;
}

template <class E>
E parse_name(std::string_view text, std::initializer_list<E> all, E otherwise) {
  for (const E e : all)
    if (name_of(e) == text) return e;
  return otherwise;
}

SessionStatus parse_status(std::string_view text) {
  using enum SessionStatus;
  return parse_name(text, {starting, running, paused, ending}, ended);
}

EndReason parse_reason(std::string_view text) {
  using enum EndReason;
  return parse_name(text, {deleted, idle, lifetime, out_of_memory, init_died, lost_at_reboot}, none);
}

#define ROW_COLUMNS                                                                  \
  "key,owner,image,image_handle,status,end_reason,env,memory_bytes,workspace_bytes," \
  "scratch_bytes,inodes,cpu_milli,pids,idle_timeout_s,max_lifetime_s,created_ms,last_used_ms,ended_ms," \
  "network_mode,network_allow"

constexpr const char* kSelectLive = "SELECT " ROW_COLUMNS " FROM sessions WHERE status<>'ended'";
constexpr const char* kSelectOne = "SELECT " ROW_COLUMNS " FROM sessions WHERE key=?";
constexpr const char* kInsert =
    "INSERT INTO sessions (" ROW_COLUMNS ") VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";

Result<void> bind_and_insert(Statement& insert, const SessionRow& row) {
  const SessionInfo& info = row.info;
  const auto env = encode_env(info.env);
  insert.bind_blob(blob(row.key)).bind(info.owner).bind(info.image).bind(info.image_handle);
  insert.bind(name_of(info.status)).bind(name_of(info.end_reason)).bind_blob({env.data(), env.size()});
  insert.bind(info.limits.memory_bytes).bind(info.limits.workspace_bytes).bind(info.limits.scratch_bytes);
  insert.bind(info.limits.inodes).bind(info.limits.cpu_milli).bind(info.limits.pids);
  insert.bind(std::int64_t{info.idle_timeout.count()}).bind(std::int64_t{info.max_lifetime.count()});
  insert.bind(info.created_at_ms).bind(info.last_used_at_ms).bind(info.ended_at_ms);
  insert.bind(wire::name_of(info.network.mode)).bind(join_lines(info.network.allow));
  return insert.run();
}

}  // namespace

Result<Store> Store::open(const std::string& path) {
  auto db = sqlite::Database::open(path);
  if (!db) return std::unexpected(db.error());
  if (auto ready = migrate(*db); !ready) return with_context(ready.error(), "prepare " + path);
  return Store(std::move(*db));
}

Result<Statement*> Store::statement(const char* sql) {
  const auto found = statements_.find(sql);
  if (found != statements_.end()) {
    found->second.reset();  // an earlier use may have stopped at an error, in the middle of its rows
    return &found->second;
  }
  auto made = db_.prepare(sql);
  if (!made) return std::unexpected(made.error());
  return &statements_.emplace(sql, std::move(*made)).first->second;
}

Result<SessionRow> Store::read_row(const Statement& row) {
  SessionRow out;
  if (!read_array(row.bytes(0), out.key))
    return server_error(ErrorCode::internal, "database: a session row has a malformed key");
  SessionInfo& info = out.info;
  info.id = format_id(kSessionPrefix, out.key);
  info.owner = row.bytes(1);
  info.image = row.bytes(2);
  info.image_handle = static_cast<std::uint64_t>(row.integer(3));
  info.status = parse_status(row.bytes(4));
  info.end_reason = parse_reason(row.bytes(5));
  info.env = decode_env(row.bytes(6));
  info.limits.memory_bytes = static_cast<std::uint64_t>(row.integer(7));
  info.limits.workspace_bytes = static_cast<std::uint64_t>(row.integer(8));
  info.limits.scratch_bytes = static_cast<std::uint64_t>(row.integer(9));
  info.limits.inodes = static_cast<std::uint64_t>(row.integer(10));
  info.limits.cpu_milli = static_cast<std::uint32_t>(row.integer(11));
  info.limits.pids = static_cast<std::uint32_t>(row.integer(12));
  info.idle_timeout = std::chrono::seconds(row.integer(13));
  info.max_lifetime = std::chrono::seconds(row.integer(14));
  info.created_at_ms = row.integer(15);
  info.last_used_at_ms = row.integer(16);
  info.ended_at_ms = row.integer(17);
  info.network.mode = wire::network_mode(row.bytes(18)).value_or(wire::NetworkMode::none);
  info.network.allow = split_lines(row.bytes(19));
  auto labels = read_labels(out.key);
  if (!labels) return std::unexpected(labels.error());
  info.labels = std::move(*labels);
  return out;
}

Result<Labels> Store::read_labels(const wire::SessionKey& key) {
  auto query = statement("SELECT name,value FROM labels WHERE session=?");
  if (!query) return std::unexpected(query.error());
  (*query)->bind_blob(blob(key));
  Labels labels;
  for (;;) {
    const auto row = (*query)->step();
    if (!row) return std::unexpected(row.error());
    if (!*row) return labels;
    labels.emplace((*query)->bytes(0), (*query)->bytes(1));
  }
}

Result<std::vector<SessionRow>> Store::live_sessions() {
  auto query = statement(kSelectLive);
  if (!query) return std::unexpected(query.error());
  std::vector<SessionRow> rows;
  for (;;) {
    const auto row = (*query)->step();
    if (!row) return std::unexpected(row.error());
    if (!*row) return rows;
    auto decoded = read_row(**query);
    if (!decoded) return std::unexpected(decoded.error());
    rows.push_back(std::move(*decoded));
  }
}

Result<std::optional<SessionInfo>> Store::find_session(const wire::SessionKey& key) {
  auto query = statement(kSelectOne);
  if (!query) return std::unexpected(query.error());
  const auto row = (*query)->bind_blob(blob(key)).step();
  if (!row) return std::unexpected(row.error());
  if (!*row) return std::nullopt;
  auto decoded = read_row(**query);
  (*query)->reset();
  if (!decoded) return std::unexpected(decoded.error());
  return std::move(decoded->info);
}

Result<SessionPage> Store::list_ended(const SessionQuery& query) {
  // The text varies with the number of labels only, never with what the client sent.
  std::string where = " FROM sessions WHERE owner=? AND status='ended'";
  for (std::size_t i = 0; i < query.labels.size(); ++i)
    where += " AND EXISTS (SELECT 1 FROM labels WHERE session=sessions.key AND name=? AND value=?)";
  const auto bind_where = [&query](Statement& to) {
    to.bind(query.owner);
    for (const auto& [name, value] : query.labels) to.bind(name).bind(value);
  };
  SessionPage page;
  auto count = db_.prepare("SELECT count(*)" + where);
  if (!count) return std::unexpected(count.error());
  bind_where(*count);
  if (const auto row = count->step(); !row) return std::unexpected(row.error());
  page.total = static_cast<std::uint64_t>(count->integer(0));

  if (!query.cursor.empty()) where += " AND (created_ms<? OR (created_ms=? AND key>?))";
  auto select = db_.prepare("SELECT " ROW_COLUMNS + where + " ORDER BY created_ms DESC, key LIMIT ?");
  if (!select) return std::unexpected(select.error());
  bind_where(*select);
  if (!query.cursor.empty()) {
    const auto after = decode_cursor(query.cursor);
    if (!after) return std::unexpected(after.error());
    select->bind(after->first).bind(after->first).bind_blob(blob(after->second));
  }
  select->bind(std::int64_t{query.limit} + 1);
  wire::SessionKey last{};
  for (;;) {
    const auto row = select->step();
    if (!row) return std::unexpected(row.error());
    if (!*row) return page;
    if (page.sessions.size() == query.limit) {
      page.next_cursor = encode_cursor(page.sessions.back().created_at_ms, last);
      return page;
    }
    auto decoded = read_row(*select);
    if (!decoded) return std::unexpected(decoded.error());
    last = decoded->key;
    page.sessions.push_back(std::move(decoded->info));
  }
}

Result<Claimed> Store::insert_session(const SessionRow& row, const std::optional<Claim>& claim) {
  auto transaction = Transaction::begin(db_);
  if (!transaction) return std::unexpected(transaction.error());
  Claimed claimed{.fresh = true, .started = false, .object = row.key};
  if (claim) {
    auto made = claim_in_transaction(*claim, row.info.created_at_ms);
    if (!made || !made->fresh) return made;
    claimed = *made;
  }
  auto insert = statement(kInsert);
  if (!insert) return std::unexpected(insert.error());
  if (auto done = bind_and_insert(**insert, row); !done) return std::unexpected(done.error());
  if (auto done = write_labels(row.key, row.info.labels); !done) return std::unexpected(done.error());
  if (auto done = transaction->commit(); !done) return std::unexpected(done.error());
  return claimed;
}

Result<void> Store::write_labels(const wire::SessionKey& key, const Labels& labels) {
  if (labels.empty()) return {};
  auto insert = statement("INSERT INTO labels (session,name,value) VALUES (?,?,?)");
  if (!insert) return std::unexpected(insert.error());
  for (const auto& [name, value] : labels) {
    if (auto done = (*insert)->bind_blob(blob(key)).bind(name).bind(value).run(); !done) return done;
  }
  return {};
}

Result<void> Store::forget_session(const wire::SessionKey& key, const std::optional<Claim>& claim) {
  if (claim) {
    if (auto done = release(*claim); !done) return done;
  }
  auto erase = statement("DELETE FROM sessions WHERE key=?");
  if (!erase) return std::unexpected(erase.error());
  return (*erase)->bind_blob(blob(key)).run();
}

Result<void> Store::set_status(const wire::SessionKey& key, SessionStatus status, EndReason reason) {
  auto update = statement("UPDATE sessions SET status=?, end_reason=? WHERE key=? AND status<>'ended'");
  if (!update) return std::unexpected(update.error());
  return (*update)->bind(name_of(status)).bind(name_of(reason)).bind_blob(blob(key)).run();
}

Result<void> Store::set_ended(const wire::SessionKey& key, std::int64_t ended_at_ms, EndReason reason) {
  auto update =
      statement("UPDATE sessions SET status='ended', end_reason=?, ended_ms=?, env=x'00000000' WHERE key=?");
  if (!update) return std::unexpected(update.error());
  return (*update)->bind(name_of(reason)).bind(ended_at_ms).bind_blob(blob(key)).run();
}

Result<void> Store::set_settings(const wire::SessionKey& key, const SessionInfo& info) {
  auto transaction = Transaction::begin(db_);
  if (!transaction) return std::unexpected(transaction.error());
  auto update = statement("UPDATE sessions SET idle_timeout_s=?, max_lifetime_s=?, env=? WHERE key=?");
  if (!update) return std::unexpected(update.error());
  const auto env = encode_env(info.env);
  (*update)->bind(std::int64_t{info.idle_timeout.count()}).bind(std::int64_t{info.max_lifetime.count()});
  (*update)->bind_blob({env.data(), env.size()});
  if (auto done = (*update)->bind_blob(blob(key)).run(); !done) return done;
  auto erase = statement("DELETE FROM labels WHERE session=?");
  if (!erase) return std::unexpected(erase.error());
  if (auto done = (*erase)->bind_blob(blob(key)).run(); !done) return done;
  if (auto done = write_labels(key, info.labels); !done) return done;
  return transaction->commit();
}

Result<void> Store::touch(const std::vector<std::pair<wire::SessionKey, std::int64_t>>& last_used_ms) {
  auto transaction = Transaction::begin(db_);
  if (!transaction) return std::unexpected(transaction.error());
  auto update = statement("UPDATE sessions SET last_used_ms=? WHERE key=?");
  if (!update) return std::unexpected(update.error());
  for (const auto& [key, at] : last_used_ms) {
    if (auto done = (*update)->bind(at).bind_blob(blob(key)).run(); !done) return done;
  }
  return transaction->commit();
}

Result<Claimed> Store::claim(const Claim& claim, std::int64_t now_ms) {
  auto transaction = Transaction::begin(db_);
  if (!transaction) return std::unexpected(transaction.error());
  auto claimed = claim_in_transaction(claim, now_ms);
  if (!claimed) return claimed;
  if (auto done = transaction->commit(); !done) return std::unexpected(done.error());
  return claimed;
}

Result<Claimed> Store::claim_in_transaction(const Claim& claim, std::int64_t now_ms) {
  auto query =
      statement("SELECT request,object,started FROM claims WHERE owner=? AND key=? AND created_ms>?");
  if (!query) return std::unexpected(query.error());
  const auto row = (*query)->bind(claim.owner).bind(claim.key).bind(now_ms - kClaimMs).step();
  if (!row) return std::unexpected(row.error());
  if (*row) {
    Claimed claimed{.fresh = false, .started = (*query)->integer(2) != 0, .object = {}};
    const bool same = (*query)->bytes(0) == blob(claim.request);
    const bool readable = read_array((*query)->bytes(1), claimed.object);
    (*query)->reset();
    if (!readable) return server_error(ErrorCode::internal, "database: a claim has a malformed object id");
    if (!same)
      return client_error(ErrorCode::idempotency_mismatch,
                          "this Idempotency-Key was used in the last 24 hours with another request; "
                          "use a new key for a new request");
    return claimed;
  }
  auto insert = statement(
      "INSERT OR REPLACE INTO claims (owner,key,request,object,started,created_ms) VALUES (?,?,?,?,0,?)");
  if (!insert) return std::unexpected(insert.error());
  (*insert)->bind(claim.owner).bind(claim.key).bind_blob(blob(claim.request)).bind_blob(blob(claim.object));
  if (auto done = (*insert)->bind(now_ms).run(); !done) return std::unexpected(done.error());
  return Claimed{.fresh = true, .started = false, .object = claim.object};
}

Result<void> Store::mark_started(const Claim& claim) {
  auto update = statement("UPDATE claims SET started=1 WHERE owner=? AND key=? AND object=?");
  if (!update) return std::unexpected(update.error());
  return (*update)->bind(claim.owner).bind(claim.key).bind_blob(blob(claim.object)).run();
}

Result<void> Store::release(const Claim& claim) {
  auto erase = statement("DELETE FROM claims WHERE owner=? AND key=? AND object=?");
  if (!erase) return std::unexpected(erase.error());
  return (*erase)->bind(claim.owner).bind(claim.key).bind_blob(blob(claim.object)).run();
}

Result<std::vector<SessionManager::KeyRow>> Store::keys() {
  auto query = statement("SELECT id,name,sha256,scopes,requests_per_minute,max_sessions,limits,most FROM api_keys ORDER BY created_ms, id");
  if (!query) return std::unexpected(query.error());
  std::vector<SessionManager::KeyRow> keys;
  for (;;) {
    const auto row = (*query)->step();
    if (!row) return std::unexpected(row.error());
    if (!*row) return keys;
    SessionManager::KeyRow key;
    key.id = (*query)->bytes(0);
    key.name = (*query)->bytes(1);
    // A digest of another size could never match; refuse it loudly instead.
    if (!read_array((*query)->bytes(2), key.sha256)) {
      (*query)->reset();
      return server_error(ErrorCode::internal, "database: API key " + key.id + " has a malformed digest");
    }
    key.scopes = static_cast<std::uint32_t>((*query)->integer(3));
    key.requests_per_minute = static_cast<std::uint32_t>((*query)->integer(4));
    key.limits.max_sessions = static_cast<std::uint32_t>((*query)->integer(5));
    for (const auto& [column, out] : {std::pair(6, &key.limits.standard), std::pair(7, &key.limits.most)}) {
      const auto limits = parse_limits((*query)->bytes(column));
      if (!limits) {
        (*query)->reset();
        return server_error(ErrorCode::internal, "database: the limits of API key " + key.id + ": " + limits.error().what);
      }
      *out = *limits;
    }
    keys.push_back(std::move(key));
  }
}

Result<void> Store::add_key(const SessionManager::KeyRow& key, std::int64_t now_ms) {
  auto insert = statement("INSERT INTO api_keys (id,name,sha256,created_ms,scopes,requests_per_minute,max_sessions,limits,most) VALUES (?,?,?,?,?,?,?,?,?)");
  if (!insert) return std::unexpected(insert.error());
  return (*insert)->bind(key.id).bind(key.name).bind_blob(blob(key.sha256)).bind(now_ms)
      .bind(std::int64_t{key.scopes}).bind(std::int64_t{key.requests_per_minute}).bind(std::int64_t{key.limits.max_sessions})
      .bind(limits_text(key.limits.standard)).bind(limits_text(key.limits.most)).run();
}

Result<void> Store::expire(std::int64_t now_ms) {
  auto sessions = statement("DELETE FROM sessions WHERE status='ended' AND ended_ms<?");
  if (!sessions) return std::unexpected(sessions.error());
  if (auto done = (*sessions)->bind(now_ms - kTombstoneMs).run(); !done) return done;
  auto claims = statement("DELETE FROM claims WHERE created_ms<?");
  if (!claims) return std::unexpected(claims.error());
  return (*claims)->bind(now_ms - kClaimMs).run();
}

Result<void> Store::probe_write(std::int64_t now_ms) {
  auto write = statement("INSERT OR REPLACE INTO probe (id,written_ms) VALUES (1,?)");
  if (!write) return std::unexpected(write.error());
  return (*write)->bind(now_ms).run();
}

}  // namespace codespace::manager
