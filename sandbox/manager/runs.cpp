// Runs and commands. Whoever asks first makes a RunState and a task that drives it; the
// asker, later askers with the same idempotency key, and find_run only look at the state, so
// none of them hanging up changes what happens to the run.
#include <algorithm>

#include "sandbox/manager/impl.h"
#include "sandbox/manager/keyed.h"
#include "sandbox/manager/validation.h"
#include "sandbox/sys/clock.h"

namespace codespace::manager {

namespace asio = boost::asio;
using namespace std::chrono_literals;

namespace {

// init answers by kill_by on its own; past this it is init that hangs.
constexpr auto kInitGrace = 3s;
// For requests that init answers from what it has in memory.
constexpr auto kQuickPatience = 5s;

/// Whatever way a drive ends, its waiters are told.
class Settle {
 public:
  Settle(RunCache& runs, std::shared_ptr<RunState> state) : runs_(runs), state_(std::move(state)) {}
  Settle(const Settle&) = delete;
  Settle& operator=(const Settle&) = delete;
  ~Settle() {
    // Reached unsettled only if the task was cancelled at shutdown.
    if (!done_)
      settle(Error{
          ErrorCode::overloaded, Fault::server, 0,
          "the server is stopping; the run goes on, and its result can be read by its id, or with the same "
          "Idempotency-Key, once the server is back"});
  }
  void settle(std::optional<Error> error) {
    done_ = true;
    {
      const std::lock_guard lock(state_->mutex);
      state_->error = std::move(error);
    }
    runs_.settle(state_, std::chrono::steady_clock::now());
    state_->settled.set();
  }

 private:
  RunCache& runs_;
  std::shared_ptr<RunState> state_;
  bool done_ = false;
};

struct ParsedRun {
  wire::RunId id{};
  bool is_command = false;
};

std::optional<ParsedRun> parse_run(const std::string& run_id) {
  if (const auto id = parse_id(kRunPrefix, run_id)) return ParsedRun{*id, false};
  if (const auto id = parse_id(kCommandPrefix, run_id)) return ParsedRun{*id, true};
  return std::nullopt;
}

Error run_not_found(const std::string& run_id) {
  return {ErrorCode::run_not_found, Fault::client, 0,
          "this session has no run or command `" + run_id.substr(0, 64) +
              "`; results are kept for a while, not for ever"};
}

}  // namespace

// --- start ----------------------------------------------------------------------------------------

Task<RunRecord> SessionManager::Impl::run(std::string owner, std::string session_id, RunSpec spec,
                                          TimePoint arrived) {
  if (auto ok = check_run(spec); !ok) co_return std::unexpected(ok.error());
  auto use = co_await this->use(owner, session_id);
  if (!use) co_return std::unexpected(use.error());
  RunStart start;
  start.id = random_id();
  start.prefix = kRunPrefix;
  start.language = spec.language;
  start.context = spec.context;
  start.times = run_times(arrived, spec.timeout);
  co_await choose_kernel(use->session(), spec);
  {
    const std::lock_guard lock(mutex_);
    const SessionInfo& info = use->session()->info;
    start.asked.language = spec.language;
    start.asked.languages = images_.languages_of(info.image_handle);
    start.request = encode_run(start.id, spec, info.env, start.times, config_.stream_cap_bytes);
  }
  if (!spec.idempotency_key.empty())
    start.claim.emplace(Claim{owner, spec.idempotency_key, digest_run(session_id, spec), start.id});
  auto shared = std::make_shared<const Use>(std::move(*use));  // second owner: the task that drives it
  co_return co_await start_run(std::move(shared), std::move(start));
}

Task<RunRecord> SessionManager::Impl::command(std::string owner, std::string session_id, CommandSpec spec,
                                              TimePoint arrived) {
  if (auto ok = check_command(spec); !ok) co_return std::unexpected(ok.error());
  auto use = co_await this->use(owner, session_id);
  if (!use) co_return std::unexpected(use.error());
  RunStart start;
  start.id = random_id();
  start.prefix = kCommandPrefix;
  start.times = run_times(arrived, spec.timeout);
  start.asked.cwd = spec.cwd;
  {
    const std::lock_guard lock(mutex_);
    use->session()->fresh = false;
    Env env = merge_env(use->session()->info.env, spec.env);
    const bool has_own = std::ranges::any_of(env, [](const auto& entry) { return entry.first == "TRACEPARENT"; });
    if (!spec.traceparent.empty() && !has_own) env.emplace_back("TRACEPARENT", spec.traceparent);
    start.request = encode_command(start.id, spec, env, start.times, config_.stream_cap_bytes);
  }
  if (!spec.idempotency_key.empty())
    start.claim.emplace(Claim{owner, spec.idempotency_key, digest_command(session_id, spec), start.id});
  auto shared = std::make_shared<const Use>(std::move(*use));
  co_return co_await start_run(std::move(shared), std::move(start));
}

asio::awaitable<void> SessionManager::Impl::choose_kernel(SessionPtr session, const RunSpec& spec) {
  {
    const std::lock_guard lock(mutex_);
    if (spec.language == "javascript" && !std::exchange(session->ran_javascript, true)) pool_policy_.saw_javascript(session->info.owner);
    if (!std::exchange(session->fresh, false) || spec.language != "python") co_return;
  }
  if (!wants_libraries(spec.code)) co_return;
  wire::LauncherRequest request;
  request.op = wire::LauncherOp::kernel;
  request.session = session->key;
  request.flavour = wire::Flavour::data;
  // A refusal is no failure: the kernel that is there imports the libraries itself.
  (void)co_await launcher_.ask(request, kQuickPatience);
}

Task<RunRecord> SessionManager::Impl::start_run(std::shared_ptr<const Use> use, RunStart start) {
  bool attach = false;
  if (start.claim) {
    auto ask = [claim = *start.claim](Store& store) { return store.claim(claim, sys::wall_ms()); };
    const auto claimed = co_await store_.call<Result<Claimed>>(std::move(ask));
    if (!claimed) co_return std::unexpected(claimed.error());
    if (!claimed->fresh) {
      // A run that init has accepted is only attached to: should init have forgotten it, a
      // second start under the old id would run the code again. One that never got that far
      // is started now; if init did get it after all, the same id makes that an attach too.
      start.id = start.claim->object = claimed->object;
      set_run_id(start.request, start.id);
      attach = claimed->started;
    }
  }
  const SessionPtr session = use->session();
  const auto [state, created] = runs_.begin(start.id, session->info.owner, session->info.id);
  if (created) {
    state->record.id = format_id(start.prefix, start.id);
    state->record.session_id = session->info.id;
    state->record.language = start.language;
    state->record.context = start.context;
    auto executor = async::serial(co_await asio::this_coro::executor);
    auto task = drive_run(std::move(use), state, std::move(start), attach);
    if (!work_.spawn(std::move(executor), std::move(task))) {
      Settle(runs_, state)
          .settle(Error{ErrorCode::overloaded, Fault::server, 0,
                        "the server is stopping; send the request again in a moment"});
    }
  }
  co_await state->settled.wait();
  co_return state->answer();
}

// --- drive ----------------------------------------------------------------------------------------

void SessionManager::Impl::count_run(RunState& state) {
  if (!config_.metrics) return;
  const std::lock_guard lock(state.mutex);
  const RunRecord& record = state.record;
  const wire::RunDone& done = record.done;
  metrics::EndedRun run;
  run.language = record.language.empty() ? std::string_view("shell") : std::string_view(record.language);
  run.outcome = name_of(done.outcome);
  run.kernel = record.language.empty() ? std::string_view("none") : name_of(done.kernel_origin);
  run.queue_s = static_cast<double>(done.queue_ns) / 1e9;
  run.run_s = static_cast<double>(done.spawn_ns + done.run_ns + done.collect_ns) / 1e9;
  run.stdout_bytes = done.stdout_bytes;
  run.stderr_bytes = done.stderr_bytes;
  config_.metrics->run_ended(run);
}

asio::awaitable<void> SessionManager::Impl::drive_run(std::shared_ptr<const Use> use,
                                                      std::shared_ptr<RunState> state, RunStart start,
                                                      bool attach) {
  Settle settle(runs_, state);
  const SessionPtr session = use->session();
  auto error = co_await collect_run(session, *state, start, attach);
  if (error && start.claim && !attach && error->fault == Fault::client) {
    // Refused before it began: a retry with the same key may try again.
    const Claim claim = *start.claim;
    write_later([claim](Store& store) { return store.release(claim); }, "releasing an idempotency key");
  }
  if (!error && !attach) count_run(*state);
  // The session is no longer in use when the answer is seen, so that a pause right after it works.
  use.reset();
  settle.settle(std::move(error));
}

asio::awaitable<std::optional<Error>> SessionManager::Impl::collect_run(SessionPtr session, RunState& state,
                                                                        RunStart& start, bool attach) {
  const TimePoint began = std::chrono::steady_clock::now();
  const auto executor = co_await asio::this_coro::executor;
  const TimePoint until = start.times.kill_by + kInitGrace;
  const auto new_link = [&] { return std::make_unique<InitConnection>(executor, deadlines_, socket_path(session->key)); };
  std::vector<char> request = attach ? encode_attach(start.id, true) : std::move(start.request);
  auto link = idle_links_.take(session->key);
  // An init of an earlier release closes after each run; it may not have done so yet. The id of the
  // run keeps it from being run twice.
  std::vector<char> again = link ? request : std::vector<char>();
  if (!link) link = new_link();
  LinkFault fault = co_await link->begin(std::move(request), until);
  RunCollector collector(config_.stream_cap_bytes);
  while (fault == LinkFault::none || fault == LinkFault::closed) {
    // Even if sending failed, init may have said why before it closed.
    const auto frame = co_await link->next();
    if (!frame) {
      fault = frame.error();
      if (fault == LinkFault::closed && !link->heard() && !again.empty()) {
        link = new_link();
        std::vector<char> repeated = std::exchange(again, {});
        fault = co_await link->begin(std::move(repeated), until);
        continue;
      }
      break;
    }
    if (frame->type == wire::InitReply::refused) {
      const auto refused = decode_refused(frame->payload);
      if (!refused) {
        fault = LinkFault::malformed;
        break;
      }
      co_return explain_refusal(*refused, start.asked);
    }
    if (frame->type == wire::InitReply::accepted && start.claim && !attach) {
      const Claim claim = *start.claim;
      write_later([claim](Store& store) { return store.mark_started(claim); }, "saving that a run began");
    }
    const std::lock_guard lock(state.mutex);
    if (!collector.take(*frame, state.record)) {
      fault = LinkFault::malformed;
      break;
    }
    if (!state.record.finished) continue;
    if (link->rest()) idle_links_.keep(session->key, std::move(link));
    if (session->gone.is_set()) idle_links_.drop(session->key);
    co_return std::nullopt;
  }
  Error error = co_await explain_loss(session, fault, "run", link->heard());
  if (end_as_cancelled(session, state, began)) co_return std::nullopt;
  co_return error;
}

/// A run that ended because its session was deleted is a cancelled one, with what it printed.
bool SessionManager::Impl::end_as_cancelled(const SessionPtr& session, RunState& state, TimePoint began) {
  {
    const std::lock_guard lock(mutex_);
    const SessionInfo& info = session->info;
    if ((info.status != SessionStatus::ending && info.status != SessionStatus::ended) ||
        info.end_reason != EndReason::deleted)
      return false;
  }
  const auto ran = std::chrono::steady_clock::now() - began;
  const std::lock_guard lock(state.mutex);
  wire::RunDone& done = state.record.done;
  done.outcome = wire::Outcome::cancelled;
  done.killed_by = wire::KilledBy::client;
  done.stdout_bytes = state.record.stdout_data.size();
  done.stderr_bytes = state.record.stderr_data.size();
  done.run_ns = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(ran).count());
  done.started_wall_ms = sys::wall_ms() - std::chrono::duration_cast<std::chrono::milliseconds>(ran).count();
  state.record.finished = true;
  return true;
}

// --- look and cancel ------------------------------------------------------------------------------

Task<RunRecord> SessionManager::Impl::find_run(std::string owner, std::string session_id,
                                               std::string run_id) {
  const auto parsed = parse_run(run_id);
  if (parsed) {
    const auto state = runs_.find(parsed->id);
    if (state && state->owner == owner && state->session_id == session_id) {
      auto answer = state->answer();
      // The id must be spelled as it was given out: a run is not a command.
      if (answer && answer->id != run_id) co_return std::unexpected(run_not_found(run_id));
      co_return answer;
    }
  }
  const auto use = co_await this->use(owner, session_id);
  if (!use) co_return std::unexpected(use.error());
  if (!parsed) co_return std::unexpected(run_not_found(run_id));

  const SessionPtr session = use->session();
  const auto until = std::chrono::steady_clock::now() + kQuickPatience;
  auto link = co_await connect(session, encode_attach(parsed->id, false), until, "find run");
  if (!link) co_return std::unexpected(link.error());
  RunRecord record;
  record.id = run_id;
  record.session_id = session_id;
  RunCollector collector(config_.stream_cap_bytes);
  LinkFault fault = LinkFault::none;
  while (fault == LinkFault::none) {
    const auto frame = co_await (*link)->next();
    if (!frame) {
      fault = frame.error();
    } else if (frame->type == wire::InitReply::refused) {
      const auto refused = decode_refused(frame->payload);
      if (refused && refused->why == wire::Refusal::run_not_found)
        co_return std::unexpected(run_not_found(run_id));
      if (refused) co_return std::unexpected(explain_refusal(*refused, Asked{}));
      fault = LinkFault::malformed;
    } else if (frame->type == wire::InitReply::ok || record.finished) {
      break;
    } else if (!collector.take(*frame, record)) {
      fault = LinkFault::malformed;
    } else if (record.finished) {
      break;
    }
  }
  if (fault != LinkFault::none)
    co_return std::unexpected(co_await explain_loss(session, fault, "find run", (*link)->heard()));
  if (record.language.empty() != parsed->is_command) co_return std::unexpected(run_not_found(run_id));
  co_return record;
}

Task<void> SessionManager::Impl::cancel_run(std::string owner, std::string session_id, std::string run_id) {
  const auto use = co_await this->use(std::move(owner), std::move(session_id));
  if (!use) co_return std::unexpected(use.error());
  const auto parsed = parse_run(run_id);
  if (!parsed) co_return std::unexpected(run_not_found(run_id));
  const SessionPtr session = use->session();
  const auto until = std::chrono::steady_clock::now() + kQuickPatience;
  auto link = co_await connect(session, encode_cancel(parsed->id), until, "cancel run");
  if (!link) co_return std::unexpected(link.error());
  const auto frame = co_await (*link)->next();
  if (frame && frame->type == wire::InitReply::ok) co_return Result<void>{};
  LinkFault fault = frame ? LinkFault::malformed : frame.error();
  if (frame && frame->type == wire::InitReply::refused) {
    const auto refused = decode_refused(frame->payload);
    if (refused && refused->why == wire::Refusal::run_not_found)
      co_return std::unexpected(run_not_found(run_id));
    if (refused) co_return std::unexpected(explain_refusal(*refused, Asked{}));
  }
  co_return std::unexpected(co_await explain_loss(session, fault, "cancel run", (*link)->heard()));
}

std::string SessionManager::Impl::socket_path(const wire::SessionKey& key) const {
  return config_.runtime_dir + "/sessions/" + hex(key) + ".sock";
}

Task<std::unique_ptr<InitConnection>> SessionManager::Impl::connect(SessionPtr session,
                                                                    std::vector<char> request,
                                                                    TimePoint until, const char* what) {
  const auto executor = co_await asio::this_coro::executor;
  auto link = std::make_unique<InitConnection>(executor, deadlines_, socket_path(session->key));
  const LinkFault fault = co_await link->begin(std::move(request), until);
  // `closed`: init closed while we were sending; what it said before that is still to be read.
  if (fault == LinkFault::none || fault == LinkFault::closed) co_return link;
  co_return std::unexpected(co_await explain_loss(session, fault, what, false));
}

// --- metrics --------------------------------------------------------------------------------------

namespace {

constexpr std::uint32_t kMaxMounts = 64;

bool take_stats(std::span<const char> payload, SessionMetrics& metrics) {
  wire::Reader reader(payload);
  metrics.kernels = reader.u32();
  metrics.runs_active = reader.u32();
  const std::uint32_t count = reader.u32();
  if (count > kMaxMounts) return false;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    DiskUsage disk;
    disk.mount = std::string(reader.bytes()).substr(0, 256);
    disk.used = reader.u64();
    disk.size = reader.u64();
    disk.inodes_used = reader.u64();
    disk.inodes = reader.u64();
    metrics.disks.push_back(std::move(disk));
  }
  // A v1 group does not count the kills of its children, so the launcher's figure may be low.
  metrics.oom_kills = std::max(metrics.oom_kills, reader.u64());
  return reader.done();
}

}  // namespace

Task<SessionMetrics> SessionManager::Impl::metrics(std::string owner, std::string session_id) {
  const auto live = co_await get_live(std::move(owner), std::move(session_id));
  if (!live) co_return std::unexpected(live.error());
  const SessionPtr session = *live;  // looking at it is no use of it, so it may idle away
  co_await session->started.wait();
  const auto reply = co_await ask_launcher(wire::LauncherOp::stat, session->key, 5s);
  if (!reply) co_return std::unexpected(reply.error());
  if (reply->status != wire::LauncherStatus::ok)
    co_return std::unexpected(co_await explain_loss(session, LinkFault::no_listener, "metrics", false));
  SessionMetrics metrics;
  metrics.memory_bytes = reply->memory_bytes;
  metrics.memory_peak_bytes = reply->memory_peak_bytes;
  metrics.cpu_ns = reply->cpu_ns;
  metrics.oom_kills = reply->oom_kills;
  metrics.pids = reply->pids;
  if (session->info.network.mode != wire::NetworkMode::none && egress_up_) {
    const auto counts = co_await egress_.counts(session->key);
    if (counts) metrics.egress = *counts;
  }
  if (reply->paused != 0) co_return metrics;  // its init is frozen too and would not answer

  const auto request = wire::Writer().frame(static_cast<std::uint32_t>(wire::InitRequest::stats));
  const auto until = std::chrono::steady_clock::now() + kQuickPatience;
  auto link = co_await connect(session, request, until, "metrics");
  if (!link) co_return std::unexpected(link.error());
  const auto frame = co_await (*link)->next();
  if (frame && frame->type == wire::InitReply::stats && take_stats(frame->payload, metrics))
    co_return metrics;
  const LinkFault fault = frame ? LinkFault::malformed : frame.error();
  co_return std::unexpected(co_await explain_loss(session, fault, "metrics", (*link)->heard()));
}

}  // namespace codespace::manager
