// The manager's start, housekeeping and end, and the thin outer class.
#include "sandbox/manager/session_manager.h"

#include <spdlog/spdlog.h>

#include <boost/asio/use_awaitable.hpp>

#include "sandbox/manager/impl.h"
#include "sandbox/sys/clock.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// How much of `last_used` a crash may lose.
constexpr auto kSaveUsesEvery = 5s;
constexpr auto kPurgeEvery = 1h;
// The launcher answers a list in well under a millisecond; at start we wait this long at most.
constexpr auto kStartPatience = 2s;

std::function<void(std::exception_ptr)> log_escapes(std::shared_ptr<spdlog::logger> log) {
  return [log = std::move(log)](std::exception_ptr escaped) {
    if (!log) return;
    try {
      std::rethrow_exception(escaped);
    } catch (const std::exception& error) {
      log->error("task failed, a bug to report: {}", error.what());
    } catch (...) {
      log->error("task failed, a bug to report: unknown exception");
    }
  };
}

}  // namespace

SessionManager::Impl::Impl(asio::any_io_executor executor, ManagerConfig config, Store store)
    : executor_(std::move(executor)),
      config_(std::move(config)),
      images_(config_.image_store, config_.default_image),
      deadlines_(executor_),
      launcher_(config_.runtime_dir + "/launcher.sock", deadlines_),
      egress_(config_.egress_socket, deadlines_),
      pool_policy_(config_.pool),
      work_(log_escapes(config_.log)),
      background_(log_escapes(config_.log)),
      store_(std::move(store)) {}

void SessionManager::Impl::log_failure(const char* what, const Error& error) {
  if (config_.log) config_.log->error("{} failed errno={} what={}", what, error.sys_errno, error.what);
}

Result<void> SessionManager::Impl::load() {
  images_.load();
  auto rows = store_.call_blocking<Result<std::vector<SessionRow>>>(
      [](Store& store) -> Result<std::vector<SessionRow>> {
        if (auto done = store.expire(sys::wall_ms()); !done) return std::unexpected(done.error());
        return store.live_sessions();
      });
  if (!rows) return std::unexpected(rows.error());

  std::map<wire::SessionKey, wire::LauncherReply> listed;
  const auto list = launcher_.list_blocking(kStartPatience);
  if (list) {
    for (const auto& reply : *list) listed.emplace(reply.session, reply);
    launcher_up_ = true;
  } else if (config_.log) {
    config_.log->warn("launcher not reachable at start, sessions={} are kept as they were; {}", rows->size(),
                      list.error().what);
  }
  for (SessionRow& row : *rows) adopt(std::move(row), list ? &listed : nullptr);
  return {};
}

/// Takes a row of an earlier life into the table, or closes it if the launcher, when it
/// could be asked, does not have the session any more.
void SessionManager::Impl::adopt(SessionRow row,
                                 const std::map<wire::SessionKey, wire::LauncherReply>* listed) {
  auto session = std::make_shared<Session>(row.key, std::move(row.info));
  session->started.set();
  {
    const std::lock_guard lock(mutex_);
    sessions_.emplace(row.key, session);
    const auto found = listed != nullptr ? listed->find(row.key) : decltype(listed->find(row.key)){};
    if (listed == nullptr || found != listed->end()) {
      if (listed != nullptr && session->info.status != SessionStatus::ending)
        session->info.status = status_of(found->second);
      schedule_expiry(session);
      return;
    }
  }
  mark_ended(session, EndReason::lost_at_reboot);
}

void SessionManager::Impl::start_background() {
  background_.spawn(new_strand(), watch_launcher());
  background_.spawn(new_strand(), keep_pools());
  background_.spawn(new_strand(), watch_egress());
  schedule_housekeeping();
  schedule_purge();
}

void SessionManager::Impl::schedule_housekeeping() {
  housekeeping_ = deadlines_.add(std::chrono::steady_clock::now() + kSaveUsesEvery, [this] {
    save_uses();
    runs_.expire(std::chrono::steady_clock::now());
    schedule_housekeeping();
  });
}

void SessionManager::Impl::schedule_purge() {
  purge_ = deadlines_.add(std::chrono::steady_clock::now() + kPurgeEvery, [this] {
    write_later([](Store& store) { return store.expire(sys::wall_ms()); }, "removal of old records");
    schedule_purge();
  });
}

void SessionManager::Impl::save_uses() {
  std::vector<std::pair<wire::SessionKey, std::int64_t>> used;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, session] : sessions_) {
      if (session->unsaved_use.exchange(false)) used.emplace_back(key, session->last_used_ms);
    }
  }
  if (used.empty()) return;
  write_later([used = std::move(used)](Store& store) { return store.touch(used); },
              "saving the last use of sessions");
}

Task<Readiness> SessionManager::Impl::readiness() {
  Readiness readiness;
  auto probe = [](Store& store) { return store.probe_write(sys::wall_ms()); };
  const auto written = co_await store_.call<Result<void>>(std::move(probe));
  Readiness::Check database{"database", written.has_value(), ""};
  if (!written) database.detail = "cannot be written; look at the space and the modes of the state directory";
  readiness.checks.push_back(std::move(database));

  Readiness::Check launcher{"launcher", launcher_up_.load(), ""};
  if (!launcher.ok)
    launcher.detail = "does not answer; start it, for example with `systemctl start codespace-launcher`";
  readiness.checks.push_back(std::move(launcher));

  // Not a reason to be unready: sessions without a network need none.
  Readiness::Check egress{"egress", true, ""};
  if (!egress_up_) egress.detail = "no egress proxy at " + config_.egress_socket + ", so sessions can have no network";
  readiness.checks.push_back(std::move(egress));

  if (images_.all().empty()) {
    auto reload = [this](Store&) -> Result<void> {
      images_.load();
      return {};
    };
    (void)co_await store_.call<Result<void>>(std::move(reload));
  }
  Readiness::Check images{"images", !images_.all().empty(), ""};
  if (!images.ok)
    images.detail = "there is none; build one with images/host/build.sh or images/code_latest/build.sh";
  for (const std::string& problem : images_.problems())
    images.detail += (images.detail.empty() ? "" : "; ") + problem;
  readiness.checks.push_back(std::move(images));

  readiness.ready = true;
  for (const auto& check : readiness.checks) readiness.ready = readiness.ready && check.ok;
  co_return readiness;
}

asio::awaitable<void> SessionManager::Impl::measure() {
  if (!config_.metrics) co_return;
  std::map<SessionStatus, double> count{
      {SessionStatus::starting, 0}, {SessionStatus::running, 0}, {SessionStatus::paused, 0}, {SessionStatus::ending, 0}};
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, session] : sessions_) ++count[session->info.status];
  }
  for (const auto& [status, number] : count) config_.metrics->set_sessions(name_of(status), number);
  config_.metrics->set_launcher_up(launcher_up_);
  const auto egress = co_await egress_.totals();
  config_.metrics->set_egress_up(egress.has_value());
  if (!egress) co_return;
  for (const auto& [verdict, decisions] : egress->decisions) config_.metrics->set_egress_decisions(verdict, decisions);
  config_.metrics->set_egress_traffic(egress->connections, egress->bytes_up, egress->bytes_down);
}

asio::awaitable<void> SessionManager::Impl::shutdown(std::chrono::milliseconds bound) {
  background_.stop();
  housekeeping_.cancel();
  purge_.cancel();
  work_.close();
  const bool finished = co_await work_.wait_empty(deadlines_, std::chrono::steady_clock::now() + bound);
  if (!finished) {
    if (config_.log)
      config_.log->info("requests still under way at shutdown, left to the sessions count={}", work_.size());
    work_.stop();
  }
  // Cancelled tasks end as soon as they are told; the bound is against a bug of ours.
  const auto soon = std::chrono::steady_clock::now() + 2s;
  (void)co_await work_.wait_empty(deadlines_, soon);
  (void)co_await background_.wait_empty(deadlines_, soon);
  save_uses();
  auto flush = [](Store&) -> Result<void> { return {}; };
  (void)co_await store_.call<Result<void>>(std::move(flush));
  deadlines_.stop();
}

// --- the outer class ----------------------------------------------------------------------------

SessionManager::SessionManager(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SessionManager::~SessionManager() = default;

Result<std::unique_ptr<SessionManager>> SessionManager::open(asio::any_io_executor executor,
                                                             ManagerConfig config) {
  auto store = Store::open(config.state_dir + "/codespace.db");
  if (!store) return std::unexpected(store.error());
  auto impl = std::make_unique<Impl>(std::move(executor), std::move(config), std::move(*store));
  if (auto loaded = impl->load(); !loaded) return std::unexpected(loaded.error());
  impl->start_background();
  return std::unique_ptr<SessionManager>(new SessionManager(std::move(impl)));
}

Task<SessionInfo> SessionManager::create(SessionSpec spec, std::string idempotency_key) {
  return impl_->create(std::move(spec), std::move(idempotency_key));
}
Task<SessionInfo> SessionManager::find(std::string owner, std::string session_id) {
  return impl_->find(std::move(owner), std::move(session_id));
}
Task<SessionPage> SessionManager::list(SessionQuery query) { return impl_->list(std::move(query)); }
Task<SessionInfo> SessionManager::patch(std::string owner, std::string session_id, SessionPatch patch) {
  return impl_->patch(std::move(owner), std::move(session_id), std::move(patch));
}
Task<void> SessionManager::remove(std::string owner, std::string session_id) {
  return impl_->remove(std::move(owner), std::move(session_id));
}
Task<SessionInfo> SessionManager::pause(std::string owner, std::string session_id) {
  return impl_->pause(std::move(owner), std::move(session_id));
}
Task<SessionInfo> SessionManager::resume(std::string owner, std::string session_id) {
  return impl_->resume(std::move(owner), std::move(session_id));
}
Task<SessionMetrics> SessionManager::metrics(std::string owner, std::string session_id) {
  return impl_->metrics(std::move(owner), std::move(session_id));
}
Task<RunRecord> SessionManager::run(std::string owner, std::string session_id, RunSpec spec,
                                    TimePoint arrived) {
  return impl_->run(std::move(owner), std::move(session_id), std::move(spec), arrived);
}
Task<RunRecord> SessionManager::command(std::string owner, std::string session_id, CommandSpec spec,
                                        TimePoint arrived) {
  return impl_->command(std::move(owner), std::move(session_id), std::move(spec), arrived);
}
Task<RunRecord> SessionManager::find_run(std::string owner, std::string session_id, std::string run_id) {
  return impl_->find_run(std::move(owner), std::move(session_id), std::move(run_id));
}
Task<void> SessionManager::cancel_run(std::string owner, std::string session_id, std::string run_id) {
  return impl_->cancel_run(std::move(owner), std::move(session_id), std::move(run_id));
}
Task<std::vector<RunSummary>> SessionManager::list_runs(std::string owner, std::string session_id,
                                                        bool commands, std::uint32_t limit) {
  return impl_->list_runs(std::move(owner), std::move(session_id), commands, limit);
}
Task<std::vector<ContextInfo>> SessionManager::list_contexts(std::string owner, std::string session_id) {
  return impl_->list_contexts(std::move(owner), std::move(session_id));
}
Task<void> SessionManager::delete_context(std::string owner, std::string session_id, std::string language,
                                          std::string context) {
  return impl_->delete_context(std::move(owner), std::move(session_id), std::move(language), std::move(context));
}
Task<std::unique_ptr<FileReader>> SessionManager::read_file(std::string owner, std::string session_id,
                                                            std::string path, FileRange range) {
  return impl_->read_file(std::move(owner), std::move(session_id), std::move(path), range);
}
Task<std::unique_ptr<FileWriter>> SessionManager::write_file(std::string owner, std::string session_id,
                                                             std::string path, FileWriteOptions options) {
  return impl_->write_file(std::move(owner), std::move(session_id), std::move(path), options);
}
Task<FileEntry> SessionManager::stat(std::string owner, std::string session_id, std::string path) {
  return impl_->stat(std::move(owner), std::move(session_id), std::move(path));
}
Task<FileListing> SessionManager::list_files(std::string owner, std::string session_id, std::string path,
                                             std::uint32_t depth) {
  return impl_->list_files(std::move(owner), std::move(session_id), std::move(path), depth);
}
Task<FileListing> SessionManager::search_files(std::string owner, std::string session_id, std::string path,
                                               std::string pattern, std::vector<std::string> excluded) {
  return impl_->search_files(std::move(owner), std::move(session_id), std::move(path), std::move(pattern), std::move(excluded));
}

std::vector<ImageInfo> SessionManager::images() const { return impl_->images().all(); }
asio::awaitable<void> SessionManager::measure() { return impl_->measure(); }
Task<Readiness> SessionManager::readiness() { return impl_->readiness(); }

Result<std::vector<SessionManager::KeyRow>> SessionManager::keys() {
  return impl_->store().call_blocking<Result<std::vector<KeyRow>>>([](Store& store) { return store.keys(); });
}
Result<void> SessionManager::add_key(const KeyRow& key) {
  return impl_->store().call_blocking<Result<void>>(
      [&key](Store& store) { return store.add_key(key, sys::wall_ms()); });
}

void SessionManager::limit_keys(std::map<std::string, KeyLimits> limits) { impl_->limit_keys(std::move(limits)); }

asio::awaitable<void> SessionManager::shutdown(std::chrono::milliseconds bound) {
  return impl_->shutdown(bound);
}

}  // namespace codespace::manager
