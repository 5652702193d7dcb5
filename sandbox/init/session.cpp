// See session.h.
#include "sandbox/init/session.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sandbox/init/file_ops.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::init {

Session::Session(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string_view processors)
    : loop_(loop), reaper_(reaper), backend_(backend), first_group_(std::make_unique<RunGroup>(backend, "k0")) {
  // Libraries of linear algebra that do not ask the kernel.
  if (processors.empty()) return;
  for (const char* name : {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"})
    thread_limits_.emplace_back(name, processors);
}

/// What the session's processors say of threads, unless the client says something else.
void Session::add_thread_limits(Env& env) const {
  for (const auto& variable : thread_limits_) {
    if (std::ranges::none_of(env, [&](const auto& given) { return given.first == variable.first; })) env.push_back(variable);
  }
}

std::shared_ptr<Run> Session::find(const wire::RunId& id) const {
  const auto found = runs_.find(id);
  return found == runs_.end() ? nullptr : found->second;
}

std::shared_ptr<Run> Session::start(RunRequest request) {
  if (auto existing = find(request.id)) return existing;
  if (!std::exchange(used_, true)) on_first_use();
  forget_old_runs();
  add_thread_limits(request.env);
  auto run = std::make_shared<Run>(std::move(request));
  run->created_ns = sys::monotonic_ns();
  run->created_wall_ms = sys::wall_ms();
  run->on_finished = [this](const Run& ended) {
    if (ended.done.outcome == wire::Outcome::out_of_memory) ++out_of_memory_ends_;
  };
  runs_.emplace(run->request().id, run);
  order_.push_back(run->request().id);
  if (run->request().is_command) {
    start_command(run);
  } else {
    start_in_kernel(run);
  }
  return run;
}

void Session::on_first_use() {
  loop_.at(sys::monotonic_ns() + kUnusedKernelNs, [this] {
    for (auto& [key, kernel] : kernels_) kernel->end_unused();
  });
}

bool Session::prepare_kernel(const std::string& language, std::optional<Kernel::JoinerEnds> ends, bool later, Kernel::Settled settled,
                             std::string& group) {
  std::erase_if(replaced_, [](const auto& kernel) { return !kernel->alive(); });
  if (used_ || kernels_.size() + replaced_.size() >= kMaxKernels) return false;
  auto kernel = std::make_unique<Kernel>(loop_, reaper_, backend_, language, "k" + std::to_string(next_group_++), std::move(first_group_));
  if (!kernel->exists()) return false;
  std::unique_ptr<Kernel>& place = kernels_[language + "/" + wire::kDefaultContext];
  if (place && !ends) return false;
  if (place) {
    place->end_unused();
    replaced_.push_back(std::move(place));
  }
  place = std::move(kernel);
  if (!ends) {
    place->start_ahead(std::move(settled));
    return true;
  }
  group = place->expect_joiner(std::move(*ends), later, std::move(settled));
  return !group.empty();
}

void Session::limit_joins() {
  for (auto& [key, kernel] : kernels_) kernel->limit_join();
}

void Session::start_command(const std::shared_ptr<Run>& run) {
  if (commands_.size() >= kMaxCommands)
    return run->refuse(wire::Refusal::overloaded, 0, wire::Stage::none,
                       "64 commands of this session are running or left processes behind");
  const std::uint64_t number = next_group_++;
  auto command = std::make_unique<Command>(loop_, reaper_, backend_, "c" + std::to_string(number), run, [this, number] {
    // Later: the command is still on the stack.
    loop_.at(0, [this, number] { commands_.erase(number); });
  });
  Command& started = *command;
  commands_.emplace(number, std::move(command));
  started.start();
}

void Session::start_in_kernel(const std::shared_ptr<Run>& run) {
  const std::string key = run->request().language + "/" + run->request().context;
  auto found = kernels_.find(key);
  if (found == kernels_.end() || !found->second->used()) {
    drop_unused_kernels();
    const auto used = static_cast<std::size_t>(std::ranges::count_if(kernels_, [](const auto& entry) { return entry.second->used(); }));
    if (used + ending_.size() >= kMaxKernels)
      return run->refuse(wire::Refusal::too_many_contexts, 0, wire::Stage::none, std::to_string(kMaxKernels));
    found = kernels_.find(key);
  }
  if (found == kernels_.end()) {
    auto kernel = std::make_unique<Kernel>(loop_, reaper_, backend_, run->request().language,
                                           "k" + std::to_string(next_group_++), std::move(first_group_));
    if (!kernel->exists())
      return run->refuse(wire::Refusal::unknown_language, 0, wire::Stage::none, run->request().language);
    found = kernels_.emplace(key, std::move(kernel)).first;
  }
  found->second->submit(run);
}

bool Session::cancel(const wire::RunId& id) {
  const auto run = find(id);
  if (!run) return false;
  if (run->finished()) return true;
  if (run->request().is_command) {
    for (const auto& [number, command] : commands_) {
      if (command->run() == run) {
        command->cancel();
        break;
      }
    }
    return true;
  }
  const auto kernel = kernels_.find(run->request().language + "/" + run->request().context);
  if (kernel != kernels_.end()) kernel->second->cancel(run);
  return true;
}

void Session::forget_old_runs() {
  std::size_t bytes = 0;
  for (const auto& [id, run] : runs_) bytes += run->log().size() + run->request().code.size() + run->request().stdin_data.size();
  for (auto it = order_.begin(); it != order_.end() && (order_.size() > kMaxKeptRuns || bytes > kMaxKeptBytes);) {
    const auto run = find(*it);
    if (run && !run->finished()) {
      ++it;
      continue;
    }
    if (run) bytes -= run->log().size() + run->request().code.size() + run->request().stdin_data.size();
    runs_.erase(*it);
    it = order_.erase(it);
  }
}

bool Session::takes_file_request(std::size_t bytes) const {
  if (file_helpers_ < kMaxFileHelpers) return true;
  std::size_t waiting = bytes;
  for (const WaitingFile& other : waiting_files_) waiting += other.payload.size() + other.early.size();
  return waiting_files_.size() < kMaxWaitingFiles && waiting <= kMaxWaitingBytes;
}

void Session::serve_file(sys::UniqueFd connection, std::uint32_t type, std::string_view payload, std::string_view early) {
  if (waiting_files_.empty() && start_file_helper(connection.get(), type, payload, early)) return;
  // A helper that has answered may take a while to be gone on a busy machine; its client has the answer and asks the next thing.
  WaitingFile& waiting = waiting_files_.emplace_back();
  waiting.connection = std::move(connection);
  waiting.type = type;
  waiting.payload = payload;
  waiting.early = early;
  waiting.timer = loop_.at(sys::monotonic_ns() + kFilePatienceNs, [this, &waiting] {
    // Closed without an answer, which the gateway tells as a session that is overloaded.
    waiting_files_.remove_if([&waiting](const WaitingFile& other) { return &other == &waiting; });
  });
}

void Session::serve_waiting_files() {
  while (!waiting_files_.empty()) {
    WaitingFile& next = waiting_files_.front();
    if (!start_file_helper(next.connection.get(), next.type, next.payload, next.early)) return;
    loop_.cancel(next.timer);
    waiting_files_.pop_front();
  }
}

bool Session::start_file_helper(int connection, std::uint32_t type, std::string_view payload, std::string_view early) {
  if (file_helpers_ >= kMaxFileHelpers) return false;
  // The pages of a tmpfs are charged to the group of who writes them: an upload must not fill
  // init's own reserve, so its helper works inside the tenant's limit.
  const bool writes = writes_file_data(type);
  if (writes && !upload_group_) upload_group_ = std::make_unique<RunGroup>(backend_, "uploads");
  if (writes && !upload_group_->ok()) return false;
  const pid_t pid = ::fork();
  if (pid < 0) return false;
  if (pid == 0) {
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    if (writes && !upload_group_->join_self()) ::_exit(2);
    // Nothing but the connection: no other client's, no kernel's channel, no cgroup.
    constexpr int kConnection = 3;
    if (connection != kConnection && ::dup2(connection, kConnection) < 0) ::_exit(2);
    if (sys::close_range(kConnection + 1, ~0U) != 0) ::_exit(2);
    serve_file_request(kConnection, type, payload, early);
  }
  ++file_helpers_;
  const EventLoop::TimerId limit =
      loop_.at(sys::monotonic_ns() + file_time_limit_ns(type), [pid] { (void)::kill(pid, SIGKILL); });
  reaper_.expect(pid, [this, limit](const ExitFacts&) {
    loop_.cancel(limit);
    --file_helpers_;
    serve_waiting_files();
  });
  return true;
}

std::uint32_t Session::kernels_alive() const {
  std::uint32_t n = 0;
  // One that nobody used yet is not the tenant's.
  for (const auto& [key, kernel] : kernels_) n += kernel->alive() && kernel->used() ? 1 : 0;
  return n;
}

std::uint32_t Session::runs_active() const {
  std::uint32_t n = 0;
  for (const auto& [id, run] : runs_) n += run->finished() ? 0 : 1;
  return n;
}

}  // namespace codespace::init
