// The kernel's state machine. Everything an interpreter says is hostile: frames are
// bounded, unknown ones end it, and nothing it says decides about time, memory or status.
#include "sandbox/init/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sandbox/init/scratch.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::init {
namespace {

using wire::KilledBy;
using wire::Outcome;
using wire::Refusal;
using wire::Stage;

constexpr std::uint32_t kExecute = 1;  // images/kernels/PROTOCOL.md
constexpr std::uint32_t kConfigure = 2;
constexpr std::uint32_t kReady = 16;
constexpr std::uint32_t kResult = 17;
constexpr std::uint32_t kError = 18;
constexpr std::uint32_t kDone = 19;

/// Between the interrupt and the kill, but never beyond the run's kill_by.
constexpr std::uint64_t kGraceNs = 500 * sys::kNsPerMs;
constexpr std::uint64_t kSweepNs = 2 * sys::kNsPerMs;
/// A zygote forks in a millisecond; one that does not is not waited for.
constexpr std::uint64_t kJoinTimeoutNs = 2 * sys::kNsPerSecond;
/// Rounds of killing strays next to a living interpreter before it is taken down with them.
constexpr int kMaxSweeps = 250;

std::vector<std::string> read_argv(const std::string& language) {
  for (const char c : language) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_') return {};
  }
  if (language.empty() || language.size() > 32) return {};
  const std::string text = sys::read_file_at(AT_FDCWD, ("/opt/codespace/kernels/" + language + "/argv").c_str());
  std::vector<std::string> argv;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    if (end > at) argv.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return argv;
}

std::vector<char> configure_frame(const Env& env) {
  wire::Writer w;
  w.u32(static_cast<std::uint32_t>(env.size()));
  for (const auto& [name, value] : env) {
    w.bytes(name);
    w.bytes(value);
  }
  return w.frame(kConfigure);
}

}  // namespace

Kernel::Kernel(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string language, std::string name,
               std::unique_ptr<RunGroup> first_group)
    : loop_(loop), reaper_(reaper), backend_(backend), language_(std::move(language)), name_(std::move(name)),
      argv_(read_argv(language_)), first_group_(std::move(first_group)), stdout_(loop), stderr_(loop), created_wall_ms_(sys::wall_ms()) {}

/// Of the next interpreter.
std::unique_ptr<RunGroup> Kernel::make_group() {
  if (auto ahead = std::move(first_group_); ahead && ahead->ok()) return ahead;
  return std::make_unique<RunGroup>(backend_, name_ + "-" + std::to_string(++generation_));
}

void Kernel::submit(std::shared_ptr<Run> run) {
  if (queue_.size() >= kMaxQueued)
    return run->refuse(Refusal::overloaded, 0, Stage::none, "the kernel's queue of 32 runs is full");
  if (!used()) created_wall_ms_ = sys::wall_ms();  // to the client a context begins with its first run
  run->accept(static_cast<std::uint32_t>(load()));
  queue_.push_back(run);
  run->queue_timer = loop_.at(run->request().deadline_ns, [this, run] { on_queue_deadline(run); });
  limit_join();
  next();
}

void Kernel::on_queue_deadline(const std::shared_ptr<Run>& run) {
  const auto found = std::find(queue_.begin(), queue_.end(), run);
  if (found == queue_.end()) return;
  queue_.erase(found);
  run->refuse(Refusal::queue_timeout, 0, Stage::none, "its deadline passed before the kernel was free");
}

void Kernel::next() {
  if (current_ || queue_.empty()) return;
  if (state_ == State::absent) return start();
  if (state_ != State::idle) return;
  const std::shared_ptr<Run> run = queue_.front();
  queue_.pop_front();
  begin(run);
}

void Kernel::start() {
  queue_.front()->started_ns = sys::monotonic_ns();  // what follows is its start, not its wait
  origin_ = wire::KernelOrigin::cold;
  env_ = queue_.front()->request().env;
  if (!launch(env_)) return;
  // The first run does not wait for `ready`: its code is sent at once and read by the
  // driver when it is up. One round trip less, and its deadline covers the start.
  const std::shared_ptr<Run> run = queue_.front();
  queue_.pop_front();
  begin(run);
}

bool Kernel::launch(const Env& env) {
  const auto fail = [this](Stage stage) {
    fail_start({stage, errno});
    return false;
  };
  group_ = make_group();
  if (!group_->ok()) return fail(Stage::spawn_cgroup);
  int pair[2];
  sys::UniqueFd out_writer;
  sys::UniqueFd err_writer;
  sys::UniqueFd out_reader;
  sys::UniqueFd err_reader;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) return fail(Stage::spawn_pipe);
  control_.reset(pair[0]);
  const sys::UniqueFd driver_end(pair[1]);
  if (!make_pipe(out_reader, out_writer) || !make_pipe(err_reader, err_writer)) return fail(Stage::spawn_pipe);

  SpawnSpec spec;
  spec.argv = argv_;
  spec.env = env;
  spec.group = group_.get();
  spec.stdout_fd = out_writer.get();
  spec.stderr_fd = err_writer.get();
  spec.control_fd = driver_end.get();
  auto spawned = spawn(spec);
  if (!spawned) return fail(Stage::spawn_fork);
  spawned_ = std::move(*spawned);
  state_ = State::starting;
  reaper_.expect(spawned_.pid, [this](const ExitFacts& facts) { on_exit(facts); });
  open_channels({std::move(control_), std::move(out_reader), std::move(err_reader)});
  return true;
}

void Kernel::open_channels(JoinerEnds ends) {
  control_ = std::move(ends.control);
  outbound_waits_ = false;
  (void)::fcntl(control_.get(), F_SETFL, O_NONBLOCK);
  loop_.add(control_.get(), EPOLLIN, [this](std::uint32_t events) { on_control(events); });
  stdout_.open(std::move(ends.out));
  stderr_.open(std::move(ends.err));
}

// --- kernels made ready before a run asks for them ------------------------------------------------

void Kernel::start_ahead(Settled settled) {
  settled_ = std::move(settled);
  origin_ = wire::KernelOrigin::ahead;
  env_.clear();
  if (!launch({})) return;
  // Nothing to set: the first frame takes a driver several times as long to read as the next.
  outbound_ = configure_frame({});
  outbound_sent_ = 0;
  flush_control();
}

std::string Kernel::expect_joiner(JoinerEnds ends, bool later, Settled settled) {
  auto group = make_group();
  if (!group->ok()) return {};
  group_ = std::move(group);
  settled_ = std::move(settled);
  origin_ = wire::KernelOrigin::zygote;
  env_.clear();
  joining_ = true;
  state_ = State::starting;
  open_channels(std::move(ends));
  if (!later) limit_join();
  return group_->name();
}

void Kernel::limit_join() {
  if (!joining_ || join_timer_ != 0) return;
  join_timer_ = loop_.at(sys::monotonic_ns() + kJoinTimeoutNs, [this] { on_join_failed(); });
}

void Kernel::settle(bool there) {
  if (const Settled settled = std::exchange(settled_, nullptr)) settled(there);
}

/// `ready`: a joiner is in its group by now and, its parent having ended, init's own child.
void Kernel::on_ready() {
  if (state_ != State::starting) return;
  if (joining_) {
    const std::vector<pid_t> members = group_->members();
    siginfo_t info{};
    if (members.size() != 1 || ::waitid(P_PID, static_cast<id_t>(members[0]), &info, WEXITED | WNOHANG | WNOWAIT) != 0)
      return on_join_failed();
    loop_.cancel(std::exchange(join_timer_, 0));
    joining_ = false;
    spawned_ = {};
    spawned_.pid = members[0];
    reaper_.expect(spawned_.pid, [this](const ExitFacts& facts) { on_exit(facts); });
  }
  state_ = current_ ? State::busy : State::idle;
  if (current_) current_->sent_ns = sys::monotonic_ns();
  settle(true);
  next();
}

void Kernel::on_join_failed() {
  if (!joining_) return;
  joining_ = false;
  state_ = State::dying;
  loop_.cancel(std::exchange(join_timer_, 0));
  close_channels();
  abandon_joiner();
}

/// Whatever did arrive goes; then the interpreter is executed, if anybody waits for it.
void Kernel::abandon_joiner() {
  if (!group_->kill_all_but({})) {
    sweep_timer_ = loop_.at(sys::monotonic_ns() + kSweepNs, [this] { abandon_joiner(); });
    return;
  }
  group_.reset();
  state_ = State::absent;
  execution_count_ = 0;
  if (const std::shared_ptr<Run> run = std::exchange(current_, nullptr)) {
    loop_.cancel(deadline_timer_);
    queue_.push_front(run);
    run->queue_timer = loop_.at(run->request().deadline_ns, [this, run] { on_queue_deadline(run); });
  }
  settle(false);
  if (gone_) {
    const auto waiting = queue_;
    for (const auto& run : waiting) cancel(run);
    return tell_gone();
  }
  next();
}

void Kernel::end_unused() {
  if (used() || state_ == State::absent || state_ == State::dying) return;
  if (joining_) return on_join_failed();
  kill_kernel();
}

void Kernel::close_channels() {
  if (control_) {
    loop_.remove(control_.get());
    control_.reset();
  }
  stdout_.close();
  stderr_.close();
  inbound_.clear();
  outbound_.clear();
  outbound_sent_ = 0;
}

Kernel::~Kernel() {
  for (const EventLoop::TimerId timer : {deadline_timer_, kill_timer_, sweep_timer_, join_timer_}) loop_.cancel(timer);
  close_channels();
  if (spawned_.pid > 0) reaper_.forget(spawned_.pid);
}

void Kernel::fail_start(const SpawnError& error) {
  close_channels();
  group_.reset();
  spawned_ = {};
  state_ = State::absent;
  settle(false);
  // Nothing would be different for the next in the queue, so all hear the same.
  auto waiting = std::move(queue_);
  queue_.clear();
  // Nobody was told of the reset yet; the next run must be.
  if (current_ && (current_->done.flags & wire::kContextReset) != 0) had_context_ = true;
  if (current_) waiting.push_front(std::exchange(current_, nullptr));
  for (const auto& run : waiting) {
    loop_.cancel(run->queue_timer);
    run->refuse(Refusal::kernel_failed, error.sys_errno, error.stage, "the interpreter for " + language_ + " did not start");
  }
  tell_gone();
}

void Kernel::begin(const std::shared_ptr<Run>& run) {
  current_ = run;
  loop_.cancel(run->queue_timer);
  const std::uint64_t now = sys::monotonic_ns();
  if (run->started_ns == 0) run->started_ns = now;
  run->done.started_wall_ms = sys::wall_ms();
  run->done.execution_count = ++execution_count_;
  if (had_context_) run->done.flags |= wire::kContextReset;
  had_context_ = false;
  said_done_ = false;
  force_killed_ = false;
  if (std::exchange(stopped_, false)) (void)::kill(spawned_.pid, SIGCONT);
  // In an interpreter that has run nothing there is nothing of before.
  const bool first = execution_count_ == 1;
  // What ran in the background before stays when this run is cleaned up; one thread is the interpreter alone.
  earlier_ = first || group_->pids_now() == 1 ? std::vector<pid_t>{} : group_->members();
  cpu_before_ = first ? 0 : group_->cpu_ns();
  oom_before_ = first ? 0 : group_->oom_kills();
  if (!first) {
    group_->reset_memory_peak();
    // Late output of an earlier run's left-overs belongs to nobody.
    stdout_.drain();
    stderr_.drain();
  }
  const bool there = state_ != State::starting;
  if (there) {
    state_ = State::busy;
    run->sent_ns = now;
  }
  stdout_.set_sink([run](std::string_view bytes) { run->add_output(1, bytes); });
  stderr_.set_sink([run](std::string_view bytes) { run->add_output(2, bytes); });

  run->done.kernel_origin = first ? origin_ : wire::KernelOrigin::running;
  outbound_.clear();
  outbound_sent_ = 0;
  if (const Env& env = run->request().env; env != env_) {
    // Not known when this interpreter was made, or given to the session since.
    outbound_ = configure_frame(env);
    env_ = env;
  }
  wire::Writer w;
  w.u32(execution_count_);
  w.raw(run->request().code);
  const std::vector<char> execute = w.frame(kExecute);
  outbound_.insert(outbound_.end(), execute.begin(), execute.end());
  flush_control();
  // After the code is on its way: what the start of the interpreter took is no part of the run.
  if (first && there) {
    cpu_before_ = group_->cpu_ns();
    group_->reset_memory_peak();
  }
  deadline_timer_ = loop_.at(run->request().deadline_ns, [this, run] {
    if (current_ != run) return;
    run->deadline_hit = true;
    interrupt(run);
  });
}

void Kernel::flush_control() {
  while (control_ && outbound_sent_ < outbound_.size()) {
    const ssize_t n = ::send(control_.get(), outbound_.data() + outbound_sent_, outbound_.size() - outbound_sent_,
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) break;
      return;  // the driver closed its end: its exit, or the deadline, tells the rest
    }
    outbound_sent_ += static_cast<std::size_t>(n);
  }
  const bool pending = outbound_sent_ < outbound_.size();
  if (control_ && std::exchange(outbound_waits_, pending) != pending) loop_.modify(control_.get(), pending ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void Kernel::on_control(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush_control();
  const ssize_t n = ::recv(control_.get(), scratch(), kScratchBytes, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    if (joining_) return on_join_failed();
    // Without a control channel there is no kernel, whatever the process still does.
    loop_.remove(control_.get());
    control_.reset();
    return kill_kernel();
  }
  inbound_.insert(inbound_.end(), scratch(), scratch() + n);
  std::size_t at = 0;
  while (inbound_.size() - at >= wire::kHeaderSize) {
    wire::FrameHeader header;
    std::memcpy(&header, inbound_.data() + at, sizeof header);
    if (header.length > wire::kMaxFrame || header.type < kReady || header.type > kDone) {
      inbound_.clear();
      return kill_kernel();  // not our driver any more
    }
    if (inbound_.size() - at < wire::kHeaderSize + header.length) break;
    on_frame(header.type, {inbound_.data() + at + wire::kHeaderSize, header.length});
    if (!control_ || inbound_.empty()) return;  // the frame ended the kernel
    at += wire::kHeaderSize + header.length;
  }
  inbound_.erase(inbound_.begin(), inbound_.begin() + static_cast<std::ptrdiff_t>(at));
}

void Kernel::on_frame(std::uint32_t type, std::string_view payload) {
  if (type == kReady) return on_ready();
  if (!current_ || said_done_) return;  // between runs nothing it says means anything
  // Frames and output travel on different channels: take in first what was written before.
  if (type == kResult) current_->add_result(payload);
  if (type == kError) current_->add_error(payload);
  if (type == kDone) {
    said_done_ = true;
    current_->ended_ns = sys::monotonic_ns();
    after_done();
  }
}

void Kernel::after_done() {
  stdout_.drain();
  stderr_.drain();
  loop_.cancel(kill_timer_);
  if (current_->deadline_hit || current_->cancel_requested) {
    // The interpreter obeyed; what else this run started still has to go.
    sweep_rounds_ = 0;
    return kill_strays();
  }
  complete(nullptr);
}

void Kernel::kill_strays() {
  if (state_ == State::dying) return;  // its end takes the strays along
  std::vector<pid_t> spare = earlier_;
  spare.push_back(spawned_.pid);
  if (group_->kill_all_but(spare)) {
    group_->allow_forks();
    return complete(nullptr);
  }
  if (++sweep_rounds_ > kMaxSweeps) return kill_kernel();
  sweep_timer_ = loop_.at(sys::monotonic_ns() + kSweepNs, [this] { kill_strays(); });
}

void Kernel::interrupt(const std::shared_ptr<Run>& run) {
  if (current_ != run || state_ == State::dying) return;
  if (!joining_) {
    (void)::kill(spawned_.pid, SIGINT);
    (void)::kill(spawned_.pid, SIGCONT);  // a stopped interpreter takes its interrupt only then
  }
  const std::uint64_t now = sys::monotonic_ns();
  const std::uint64_t latest = run->request().kill_by_ns > kGraceNs ? run->request().kill_by_ns - kGraceNs / 2 : now;
  kill_timer_ = loop_.at(std::min(now + kGraceNs, std::max(now, latest)), [this, run] {
    if (current_ == run) kill_kernel();
  });
}

void Kernel::cancel(const std::shared_ptr<Run>& run) {
  if (run->finished()) return;
  run->cancel_requested = true;
  if (current_ == run) return interrupt(run);
  const auto found = std::find(queue_.begin(), queue_.end(), run);
  if (found == queue_.end()) return;
  queue_.erase(found);
  loop_.cancel(run->queue_timer);
  run->done.outcome = Outcome::cancelled;
  run->done.killed_by = KilledBy::client;
  run->finish();
}

void Kernel::kill_kernel() {
  if (state_ == State::absent || state_ == State::dying) return;
  state_ = State::dying;
  force_killed_ = true;
  if (joining_) {
    // There is no process to wait for, but one may still be on its way into the group.
    joining_ = false;
    loop_.cancel(std::exchange(join_timer_, 0));
    death_ = {};
    return finish_dying();
  }
  (void)::kill(spawned_.pid, SIGKILL);
  (void)group_->kill_all_but({});
}

void Kernel::on_exit(const ExitFacts& facts) {
  if (current_ && current_->ended_ns == 0) current_->ended_ns = sys::monotonic_ns();
  if (const auto error = spawn_error(spawned_)) {
    loop_.cancel(deadline_timer_);
    return fail_start(*error);
  }
  death_ = facts;
  state_ = State::dying;
  sweep_rounds_ = 0;
  finish_dying();
}

/// The interpreter is gone; what it started must follow before anybody hears of it.
void Kernel::finish_dying() {
  if (!group_->kill_all_but({})) {
    sweep_timer_ = loop_.at(sys::monotonic_ns() + kSweepNs, [this] { finish_dying(); });
    return;
  }
  stdout_.drain();
  stderr_.drain();
  // What it said before its death counts, as results and errors; its status comes from Linux.
  close_channels();
  loop_.cancel(kill_timer_);
  complete(&death_);
}

void Kernel::complete(const ExitFacts* death) {
  loop_.cancel(deadline_timer_);
  loop_.cancel(kill_timer_);
  stdout_.set_sink(nullptr);
  stderr_.set_sink(nullptr);
  const std::shared_ptr<Run> run = std::move(current_);
  current_.reset();
  if (run) {
    wire::RunDone& done = run->done;
    const std::uint64_t now = sys::monotonic_ns();
    const std::uint64_t sent = run->sent_ns != 0 ? run->sent_ns : run->ended_ns;
    done.queue_ns = run->started_ns - run->created_ns;
    done.spawn_ns = sent - run->started_ns;
    done.run_ns = run->ended_ns > sent ? run->ended_ns - sent : 0;
    done.collect_ns = now - run->ended_ns;
    done.cpu_ns = group_->cpu_ns() - cpu_before_;
    done.memory_peak_bytes = group_->memory_peak_bytes();
    done.pids_peak = group_->pids_peak();
    const bool memory = death != nullptr && group_->oom_kills() > oom_before_;
    if (death != nullptr && !(said_done_ && !force_killed_)) {
      done.exit_code = death->code;
      done.signal = static_cast<std::uint32_t>(death->signal);
    }
    if (run->cancel_requested) {
      done.outcome = Outcome::cancelled;
      done.killed_by = KilledBy::client;
    } else if (run->deadline_hit) {
      done.outcome = Outcome::timed_out;
      done.killed_by = KilledBy::deadline;
    } else if (death != nullptr && !said_done_) {
      done.outcome = memory ? Outcome::out_of_memory : Outcome::kernel_died;
      done.killed_by = memory ? KilledBy::memory : death->signal != 0 ? KilledBy::signal : KilledBy::none;
    } else {
      done.outcome = run->errored ? Outcome::error : Outcome::ok;
    }
  }
  if (death != nullptr) {
    group_.reset();
    spawned_ = {};
    stopped_ = false;
    state_ = State::absent;
    had_context_ = had_context_ || execution_count_ > 0;
    execution_count_ = 0;
    settle(false);
  } else {
    state_ = State::idle;
    // The interpreter obeyed, but threads and timers of that run may live in it: until another run
    // wants the context, none of them may go on.
    if (run && (run->deadline_hit || run->cancel_requested) && queue_.empty()) {
      stopped_ = true;
      (void)::kill(spawned_.pid, SIGSTOP);
    }
  }
  if (run) run->finish();
  next();
  if (state_ == State::absent) tell_gone();
}

void Kernel::end(std::function<void()> gone) {
  gone_ = std::move(gone);
  const auto waiting = queue_;
  for (const auto& run : waiting) cancel(run);
  if (state_ == State::absent) return tell_gone();
  // What ended the run already stays the truth about it.
  if (current_ && state_ != State::dying && !current_->deadline_hit) current_->cancel_requested = true;
  kill_kernel();
}

void Kernel::tell_gone() {
  if (!gone_) return;
  const auto gone = std::exchange(gone_, nullptr);
  gone();
}

void Kernel::describe(wire::Writer& w) const {
  using wire::ContextState;
  ContextState state = current_ ? ContextState::busy : ContextState::stopped;
  if (state_ == State::starting) state = ContextState::starting;
  if (state_ == State::idle) state = ContextState::idle;
  w.u8(static_cast<std::uint8_t>(state));
  w.u32(static_cast<std::uint32_t>(queue_.size()));
  w.u32(execution_count_);
  w.i64(created_wall_ms_);
  w.u64(group_ ? group_->cpu_ns() : 0);
  w.u64(group_ ? group_->memory_bytes() : 0);
  w.u32(group_ ? group_->pids_now() : 0);
}

}  // namespace codespace::init
