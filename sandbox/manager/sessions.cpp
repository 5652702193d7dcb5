// Sessions: creating, finding and changing them. See session.h for the states.
#include <errno.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "sandbox/async/event.h"
#include "sandbox/manager/impl.h"
#include "sandbox/manager/keyed.h"
#include "sandbox/manager/validation.h"
#include "sandbox/sys/clock.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// A creation takes milliseconds; this is for a machine that swaps or a launcher that hangs.
constexpr auto kCreatePatience = 15s;
constexpr auto kSwitchPatience = 10s;
// Init gives a kernel two seconds to join.
constexpr auto kJoinPatience = 5s;
constexpr std::uint32_t kMaxPage = 1000;

}  // namespace

// --- create ---------------------------------------------------------------------------------------

Task<ImageInfo> SessionManager::Impl::find_image(std::string name) {
  auto image = images_.find(name);
  if (image) co_return image;
  // It may have been built since; look once, on the thread that may block.
  auto reload = [this, name](Store&) {
    images_.load();
    return images_.find(name);
  };
  co_return co_await store_.call<Result<ImageInfo>>(std::move(reload));
}

Task<SessionInfo> SessionManager::Impl::create(SessionSpec spec, std::string idempotency_key) {
  if (auto ok = check_idempotency_key(idempotency_key); !ok) co_return std::unexpected(ok.error());
  if (auto ok = check_env(spec.env); !ok) co_return std::unexpected(ok.error());
  if (auto ok = check_labels(spec.labels); !ok) co_return std::unexpected(ok.error());
  if (auto ok = check_session_times(spec.idle_timeout, spec.max_lifetime); !ok)
    co_return std::unexpected(ok.error());
  const Network network = spec.network.value_or(config_.default_network);
  if (auto ok = check_network(network); !ok) co_return std::unexpected(ok.error());
  std::optional<Claim> claim;
  if (!idempotency_key.empty()) {
    claim.emplace();
    claim->owner = spec.owner;
    claim->key = std::move(idempotency_key);
    claim->request = digest_create(spec);  // of what was asked, before defaults fill in
  }
  auto image = co_await find_image(spec.image);
  if (!image) co_return std::unexpected(image.error());
  if (auto ok = settle_limits(spec.limits, config_, limits_of(spec.owner), image->name); !ok) co_return std::unexpected(ok.error());

  SessionRow row;
  row.key = random_id();
  row.info.id = format_id(kSessionPrefix, row.key);
  row.info.owner = std::move(spec.owner);
  row.info.image = image->name;
  row.info.image_handle = image->handle;
  row.info.labels = std::move(spec.labels);
  row.info.env = std::move(spec.env);
  row.info.limits = spec.limits;
  row.info.network = network;
  row.info.idle_timeout = spec.idle_timeout;
  row.info.max_lifetime = spec.max_lifetime;
  row.info.created_at_ms = next_creation_ms();
  row.info.last_used_at_ms = row.info.created_at_ms;
  if (claim) claim->object = row.key;
  auto work = create_now(std::move(row), spec.flavour, spec.javascript, std::move(claim));
  co_return co_await finish_anyway(std::move(work));
}

std::int64_t SessionManager::Impl::next_creation_ms() {
  const std::lock_guard lock(mutex_);
  const std::int64_t now = sys::wall_ms();
  // A clock that was set back by more than this is believed.
  const bool same_burst = now <= last_creation_ms_ && last_creation_ms_ - now < 1000;
  last_creation_ms_ = same_burst ? last_creation_ms_ + 1 : now;
  return last_creation_ms_;
}

void SessionManager::Impl::limit_keys(std::map<std::string, KeyLimits> limits) {
  const std::lock_guard lock(mutex_);
  key_limits_ = std::move(limits);
}

KeyLimits SessionManager::Impl::limits_of(const std::string& owner) {
  const std::lock_guard lock(mutex_);
  const auto found = key_limits_.find(owner);
  return found == key_limits_.end() ? KeyLimits{} : found->second;
}

Result<SessionManager::Impl::SessionPtr> SessionManager::Impl::reserve(const SessionRow& row) {
  auto session = std::make_shared<Session>(row.key, row.info);
  session->creating = true;
  const std::lock_guard lock(mutex_);
  if (sessions_.size() >= config_.max_sessions)
    return client_error(ErrorCode::quota_exceeded,
                        "this server has its " + std::to_string(config_.max_sessions) +
                            " sessions (max_sessions) already; delete one, or wait for one to end");
  const auto found = key_limits_.find(row.info.owner);
  const std::uint32_t most = found == key_limits_.end() ? 0 : found->second.max_sessions;
  if (most != 0 && std::ranges::count_if(sessions_, [&](const auto& other) { return other.second->info.owner == row.info.owner; }) >= most)
    return client_error(ErrorCode::quota_exceeded, "this key has the " + std::to_string(most) +
                                                       " sessions it may have; delete one, or wait for one to end");
  sessions_.emplace(row.key, session);
  return session;
}

void SessionManager::Impl::drop_reservation(const SessionPtr& session) {
  {
    const std::lock_guard lock(mutex_);
    session->creating = false;
    session->info.status = SessionStatus::ended;
    sessions_.erase(session->key);
  }
  session->started.set();
  session->gone.set();
}

namespace {
/// What became of a session's row, told by the store's thread.
struct Saved {
  Result<Claimed> claimed = server_error(ErrorCode::internal, "the row was not written");
  async::Event done;
};
}  // namespace

Task<SessionInfo> SessionManager::Impl::create_now(SessionRow row, wire::Flavour flavour, bool javascript, std::optional<Claim> claim) {
  const auto reserved = reserve(row);
  if (!reserved) co_return std::unexpected(reserved.error());
  const SessionPtr session = *reserved;
  wire::LauncherRequest request;
  request.op = wire::LauncherOp::create;
  request.session = row.key;
  request.image = row.info.image_handle;
  request.limits = row.info.limits;
  request.flavour = config_.zygotes ? flavour : wire::Flavour::none;
  if (flavour != wire::Flavour::data) {
    const std::lock_guard lock(mutex_);
    request.ahead = pool_policy_.expects_javascript(row.info.owner, javascript) ? wire::kAheadJavascript : 0;
  }

  // The row is written while the launcher works, unless the answer may be that the session is there
  // already. A session whose row a crash has lost is ended when the next daemon takes stock.
  const auto saved = std::make_shared<Saved>();
  store_.post([row, claim, saved](Store& store) {
    saved->claimed = store.insert_session(row, claim);
    saved->done.set();
  });
  if (claim) co_await saved->done.wait();
  if (claim && (!saved->claimed || !saved->claimed->fresh)) {
    drop_reservation(session);
    if (!saved->claimed) co_return std::unexpected(saved->claimed.error());
    co_return co_await settled_info(saved->claimed->object);
  }
  const auto begun = std::chrono::steady_clock::now();
  const auto reply = co_await launcher_.ask(request, kCreatePatience);
  co_await saved->done.wait();
  Result<void> way_out{};
  if (reply && reply->status == wire::LauncherStatus::ok && row.info.network.mode != wire::NetworkMode::none)
    way_out = co_await open_way_out(row.key, row.info.id, row.info.network);
  if (!saved->claimed || !way_out || !reply || reply->status != wire::LauncherStatus::ok) {
    Error error = !saved->claimed ? saved->claimed.error() : !way_out ? way_out.error() : reply ? explain_launcher(*reply) : reply.error();
    if (!reply || reply->status == wire::LauncherStatus::ok) {
      // It was made, or may have been, and nobody would ever use or end it.
      request.op = wire::LauncherOp::kill;
      (void)co_await launcher_.ask(request, kKillPatience);
    }
    const wire::SessionKey key = row.key;
    write_later([key, claim](Store& store) { return store.forget_session(key, claim); },
                "forgetting a failed session");
    drop_reservation(session);
    if (config_.metrics) config_.metrics->session_failed();
    co_return std::unexpected(std::move(error));
  }
  if (config_.metrics)
    config_.metrics->session_created(name_of(reply->origin), std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count());

  std::optional<SessionInfo> info;
  {
    const std::lock_guard lock(mutex_);
    session->creating = false;
    session->fresh = config_.zygotes && flavour == wire::Flavour::min;
    pool_policy_.begin_session(row.info.owner);
    pool_policy_.count(row.info.image_handle, request.flavour, request.ahead != 0, reply->origin, std::chrono::steady_clock::now());
    if (session->info.status == SessionStatus::starting) {
      session->info.status = SessionStatus::running;
      session->touch();
      schedule_expiry(session);
      info = snapshot(*session);
    }
  }
  session->started.set();
  if (!info) co_return std::unexpected(session_ended(row.info.id, 0, EndReason::deleted));
  const wire::SessionKey key = row.key;
  write_later([key](Store& store) { return store.set_status(key, SessionStatus::running, EndReason::none); },
              "saving a new session");
  if (config_.log) config_.log->info("session created session_id={} image={} origin={}", info->id, info->image, name_of(reply->origin));
  co_return std::move(*info);
}

/// The session that an earlier request with the same idempotency key made, or is making.
Task<SessionInfo> SessionManager::Impl::settled_info(wire::SessionKey key) {
  SessionPtr session;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sessions_.find(key);
    if (found != sessions_.end()) session = found->second;
  }
  if (session) {
    co_await session->started.wait();
    const std::lock_guard lock(mutex_);
    if (session->info.status != SessionStatus::ended) co_return snapshot(*session);
  }
  auto query = [key](Store& store) { return store.find_session(key); };
  auto row = co_await store_.call<Result<std::optional<SessionInfo>>>(std::move(query));
  if (!row) co_return std::unexpected(row.error());
  if (!*row)
    co_return client_error(
        ErrorCode::conflict,
        "the first request with this Idempotency-Key could not create its session; send it again");
  co_return std::move(**row);
}

// --- find, list, change ---------------------------------------------------------------------------

SessionManager::Impl::SessionPtr SessionManager::Impl::find_live(const std::string& owner,
                                                                 const wire::SessionKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(key);
  if (found == sessions_.end() || found->second->info.owner != owner) return nullptr;
  return found->second;
}

asio::awaitable<Error> SessionManager::Impl::explain_absence(std::string owner, std::string session_id) {
  const auto key = parse_id(kSessionPrefix, session_id);
  if (!key) co_return session_not_found(session_id);
  auto query = [key = *key](Store& store) { return store.find_session(key); };
  const auto row = co_await store_.call<Result<std::optional<SessionInfo>>>(std::move(query));
  if (!row) co_return row.error();
  if (!*row || (*row)->owner != owner) co_return session_not_found(session_id);
  co_return session_ended(session_id, (*row)->ended_at_ms, (*row)->end_reason);
}

Task<SessionManager::Impl::SessionPtr> SessionManager::Impl::get_live(std::string owner,
                                                                      std::string session_id) {
  if (const auto key = parse_id(kSessionPrefix, session_id)) {
    if (auto session = find_live(owner, *key)) co_return session;
  }
  co_return std::unexpected(co_await explain_absence(std::move(owner), std::move(session_id)));
}

Task<Use> SessionManager::Impl::use(std::string owner, std::string session_id) {
  const auto session = co_await get_live(owner, session_id);
  if (!session) co_return std::unexpected(session.error());
  if (!(*session)->started.is_set()) co_await (*session)->started.wait();
  const std::lock_guard lock(mutex_);
  const SessionInfo& info = (*session)->info;
  switch (info.status) {
    case SessionStatus::running:
      co_return Use(*session);
    case SessionStatus::paused:
      co_return std::unexpected(session_paused(session_id));
    case SessionStatus::starting:
      co_return server_error(
          ErrorCode::launcher_unavailable,
          "this session was being created when the server stopped, and the launcher, which knows "
          "how that ended, does not answer yet");
    case SessionStatus::ending:
    case SessionStatus::ended:
      break;
  }
  co_return std::unexpected(session_ended(session_id, info.ended_at_ms, info.end_reason));
}

Task<SessionInfo> SessionManager::Impl::find(std::string owner, std::string session_id) {
  const auto key = parse_id(kSessionPrefix, session_id);
  if (!key) co_return std::unexpected(session_not_found(session_id));
  if (const auto session = find_live(owner, *key)) {
    const std::lock_guard lock(mutex_);
    co_return snapshot(*session);
  }
  auto query = [key = *key](Store& store) { return store.find_session(key); };
  auto row = co_await store_.call<Result<std::optional<SessionInfo>>>(std::move(query));
  if (!row) co_return std::unexpected(row.error());
  if (!*row || (*row)->owner != owner) co_return std::unexpected(session_not_found(session_id));
  co_return std::move(**row);
}

Task<SessionPage> SessionManager::Impl::list(SessionQuery query) {
  if (query.limit == 0 || query.limit > kMaxPage)
    co_return client_error(ErrorCode::invalid_request, "`limit` is " + std::to_string(query.limit) +
                                                           "; allowed are 1 to " + std::to_string(kMaxPage));
  if (auto ok = check_labels(query.labels); !ok) co_return std::unexpected(ok.error());
  if (query.status != SessionStatus::ended) co_return list_live(query);
  auto work = [query](Store& store) { return store.list_ended(query); };
  co_return co_await store_.call<Result<SessionPage>>(std::move(work));
}

Result<SessionPage> SessionManager::Impl::list_live(const SessionQuery& query) {
  std::optional<std::pair<std::int64_t, wire::SessionKey>> after;
  if (!query.cursor.empty()) {
    const auto position = decode_cursor(query.cursor);
    if (!position) return std::unexpected(position.error());
    after = *position;
  }
  // Newest first; by key where the clock was set back.
  const auto place = [](const Session& s) { return std::pair(-s.info.created_at_ms, s.key); };
  const auto matches = [&query](const SessionInfo& info) {
    if (info.owner != query.owner || (query.status && info.status != *query.status)) return false;
    return std::ranges::all_of(query.labels, [&info](const auto& wanted) {
      const auto found = info.labels.find(wanted.first);
      return found != info.labels.end() && found->second == wanted.second;
    });
  };
  SessionPage page;
  std::vector<const Session*> found;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, session] : sessions_) {
    if (!matches(session->info)) continue;
    ++page.total;
    if (!after || place(*session) > std::pair(-after->first, after->second)) found.push_back(session.get());
  }
  std::ranges::sort(found, {}, [&place](const Session* s) { return place(*s); });
  const std::size_t n = std::min<std::size_t>(found.size(), query.limit);
  for (std::size_t i = 0; i < n; ++i) page.sessions.push_back(snapshot(*found[i]));
  if (n < found.size()) page.next_cursor = encode_cursor(found[n - 1]->info.created_at_ms, found[n - 1]->key);
  return page;
}

Task<SessionInfo> SessionManager::Impl::patch(std::string owner, std::string session_id, SessionPatch patch) {
  if (patch.labels) {
    if (auto ok = check_labels(*patch.labels); !ok) co_return std::unexpected(ok.error());
  }
  if (auto ok = check_env(patch.env); !ok) co_return std::unexpected(ok.error());
  if (auto ok = check_session_times(patch.idle_timeout.value_or(0s), patch.max_lifetime.value_or(0s)); !ok)
    co_return std::unexpected(ok.error());
  const auto session = co_await get_live(owner, session_id);
  if (!session) co_return std::unexpected(session.error());
  SessionInfo after;
  {
    const std::lock_guard lock(mutex_);
    SessionInfo& info = (*session)->info;
    if (info.status == SessionStatus::ending || info.status == SessionStatus::ended)
      co_return std::unexpected(session_ended(session_id, info.ended_at_ms, info.end_reason));
    Env env = merge_env(info.env, patch.env);
    if (auto ok = check_env(env); !ok) co_return std::unexpected(ok.error());  // grown too large
    info.env = std::move(env);
    if (patch.labels) info.labels = std::move(*patch.labels);
    if (patch.idle_timeout) info.idle_timeout = *patch.idle_timeout;
    if (patch.max_lifetime) info.max_lifetime = *patch.max_lifetime;
    (*session)->touch();
    schedule_expiry(*session);
    after = snapshot(**session);
    // Asked under the mutex, so that two patches reach the store in the order they took effect.
    write_later([key = (*session)->key, after](Store& store) { return store.set_settings(key, after); },
                "saving changed settings");
  }
  auto flush = [](Store&) -> Result<void> { return {}; };
  (void)co_await store_.call<Result<void>>(std::move(flush));
  co_return after;
}

// --- pause and resume -----------------------------------------------------------------------------

Task<SessionInfo> SessionManager::Impl::pause(std::string owner, std::string session_id) {
  auto session = co_await get_live(std::move(owner), std::move(session_id));
  if (!session) co_return std::unexpected(session.error());
  auto work = switch_to(std::move(*session), SessionStatus::paused);
  co_return co_await finish_anyway(std::move(work));
}

Task<SessionInfo> SessionManager::Impl::resume(std::string owner, std::string session_id) {
  auto session = co_await get_live(std::move(owner), std::move(session_id));
  if (!session) co_return std::unexpected(session.error());
  auto work = switch_to(std::move(*session), SessionStatus::running);
  co_return co_await finish_anyway(std::move(work));
}

/// With the mutex held: false if the session is in that state already.
Result<bool> SessionManager::Impl::begin_switch(const SessionPtr& session, SessionStatus to) {
  SessionInfo& info = session->info;
  if (info.status == to) return false;
  if (info.status == SessionStatus::starting)
    return client_error(ErrorCode::conflict, "the session is still starting; try again when it is running");
  if (info.status != SessionStatus::running && info.status != SessionStatus::paused)
    return std::unexpected(session_ended(info.id, info.ended_at_ms, info.end_reason));
  if (to == SessionStatus::paused) {
    // A frozen run would miss its deadline, and its client would wait for nothing.
    if (session->in_flight > 0)
      return client_error(
          ErrorCode::conflict,
          "the session is at work; wait for its runs, commands and transfers, or cancel them, and "
          "pause it then");
    info.status = SessionStatus::paused;  // at once, so that nothing new begins
  }
  return true;
}

Task<SessionInfo> SessionManager::Impl::switch_to(SessionPtr session, SessionStatus to) {
  co_await session->started.wait();
  const Over over{std::make_shared<async::Event>()};
  for (;;) {  // one pause or resume at a time, in the order they came
    std::shared_ptr<async::Event> other;
    {
      const std::lock_guard lock(mutex_);
      if (!under_way(session->switching)) {
        session->switching = over.event;
        const auto needed = begin_switch(session, to);
        if (!needed) co_return std::unexpected(needed.error());
        if (!*needed) co_return snapshot(*session);
        break;
      }
      other = session->switching;
    }
    co_await other->wait();
  }
  const bool pausing = to == SessionStatus::paused;
  const auto op = pausing ? wire::LauncherOp::pause : wire::LauncherOp::resume;
  auto reply = co_await ask_launcher(op, session->key, kSwitchPatience);
  // A new session's kernel may still be on its way in, and must not be frozen there.
  const auto patient_until = std::chrono::steady_clock::now() + kJoinPatience;
  while (reply && reply->status == wire::LauncherStatus::setup_failed && reply->sys_errno == EBUSY &&
         std::chrono::steady_clock::now() < patient_until) {
    asio::steady_timer pause(co_await asio::this_coro::executor, 2ms);
    co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
    reply = co_await ask_launcher(op, session->key, kSwitchPatience);
  }
  const bool done = reply && reply->status == wire::LauncherStatus::ok;
  if (reply && reply->status == wire::LauncherStatus::unknown_session)
    mark_ended(session, EndReason::init_died);
  const std::lock_guard lock(mutex_);
  SessionInfo& info = session->info;
  if (info.status != SessionStatus::running && info.status != SessionStatus::paused)
    co_return std::unexpected(session_ended(info.id, info.ended_at_ms, info.end_reason));
  info.status = done == pausing ? SessionStatus::paused : SessionStatus::running;
  if (!done) co_return std::unexpected(reply ? explain_launcher(*reply) : reply.error());
  session->touch();
  schedule_expiry(session);
  write_later([key = session->key, to](Store& store) { return store.set_status(key, to, EndReason::none); },
              "saving a session's state");
  co_return snapshot(*session);
}

}  // namespace codespace::manager
