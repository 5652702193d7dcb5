// See command.h.
#include "sandbox/init/command.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/sys/clock.h"

namespace codespace::init {
namespace {

using wire::KilledBy;
using wire::Outcome;
using wire::Refusal;
using wire::Stage;

constexpr std::uint64_t kGraceNs = 300 * sys::kNsPerMs;  // between SIGTERM and SIGKILL
constexpr std::uint64_t kSweepNs = 2 * sys::kNsPerMs;
constexpr std::uint64_t kLeftOverCheckNs = 1 * sys::kNsPerSecond;

}  // namespace

Command::Command(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string name, std::shared_ptr<Run> run,
                 std::function<void()> on_gone)
    : loop_(loop), reaper_(reaper), run_(std::move(run)), on_gone_(std::move(on_gone)),
      group_(backend, std::move(name)), stdout_(loop), stderr_(loop) {}

Command::~Command() {
  loop_.cancel(deadline_timer_);
  loop_.cancel(kill_timer_);
  loop_.cancel(sweep_timer_);
  if (stdin_writer_) loop_.remove(stdin_writer_.get());
}

void Command::start() {
  const RunRequest& request = run_->request();
  const auto refuse = [&](Stage stage, int error) {
    run_->refuse(Refusal::spawn_failed, error, stage, "the shell did not start");
    on_gone_();
  };
  if (!group_.ok()) return refuse(Stage::spawn_cgroup, errno);
  sys::UniqueFd out_reader, out_writer, err_reader, err_writer, in_reader;
  if (!make_pipe(out_reader, out_writer) || !make_pipe(err_reader, err_writer)) return refuse(Stage::spawn_pipe, errno);
  if (!request.stdin_data.empty() && !make_pipe(in_reader, stdin_writer_)) return refuse(Stage::spawn_pipe, errno);

  SpawnSpec spec;
  const bool has_bash = ::access("/bin/bash", X_OK) == 0;
  spec.argv = {has_bash ? "/bin/bash" : "/bin/sh", "-c", request.code};
  spec.cwd = request.cwd;
  spec.env = request.env;
  spec.group = &group_;
  spec.stdin_fd = in_reader.get();
  spec.stdout_fd = out_writer.get();
  spec.stderr_fd = err_writer.get();
  run_->started_ns = sys::monotonic_ns();
  run_->done.started_wall_ms = sys::wall_ms();
  auto spawned = spawn(spec);
  if (!spawned) return refuse(Stage::spawn_fork, errno);
  spawned_ = std::move(*spawned);
  run_->sent_ns = sys::monotonic_ns();
  run_->accept(0);
  reaper_.expect(spawned_.pid, [this](const ExitFacts& facts) { on_exit(facts); });
  stdout_.set_sink([this](std::string_view bytes) { run_->add_output(1, bytes); });
  stderr_.set_sink([this](std::string_view bytes) { run_->add_output(2, bytes); });
  stdout_.open(std::move(out_reader));
  stderr_.open(std::move(err_reader));
  if (stdin_writer_) {
    (void)::fcntl(stdin_writer_.get(), F_SETFL, O_NONBLOCK);
    loop_.add(stdin_writer_.get(), EPOLLOUT, [this](std::uint32_t) { feed_stdin(); });
  }
  deadline_timer_ = loop_.at(request.deadline_ns, [this] { stop(true); });
}

void Command::feed_stdin() {
  const std::string& data = run_->request().stdin_data;
  const ssize_t n = ::write(stdin_writer_.get(), data.data() + stdin_sent_, data.size() - stdin_sent_);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n > 0) stdin_sent_ += static_cast<std::size_t>(n);
  if (n < 0 || stdin_sent_ == data.size()) {  // all of it, or nobody reads any more
    loop_.remove(stdin_writer_.get());
    stdin_writer_.reset();
  }
}

void Command::cancel() {
  run_->cancel_requested = true;
  stop(false);
}

void Command::stop(bool by_deadline) {
  if (run_->finished() || stopping_) return;
  stopping_ = true;
  if (by_deadline) run_->deadline_hit = true;
  group_.signal_all(SIGTERM);
  group_.signal_all(SIGCONT);  // the stopped take their signal only when continued
  const std::uint64_t now = sys::monotonic_ns();
  const std::uint64_t kill_by = run_->request().kill_by_ns;
  const std::uint64_t latest = kill_by > kGraceNs ? kill_by - kGraceNs : now;
  kill_timer_ = loop_.at(std::min(now + kGraceNs, std::max(now, latest)), [this] { kill_all(); });
}

void Command::kill_all() {
  if (run_->finished()) return;
  const bool gone = group_.kill_all_but({});
  if (gone && exited_) return complete();
  sweep_timer_ = loop_.at(sys::monotonic_ns() + kSweepNs, [this] { kill_all(); });
}

void Command::on_exit(const ExitFacts& facts) {
  exited_ = true;
  facts_ = facts;
  run_->ended_ns = sys::monotonic_ns();
  if (const auto error = spawn_error(spawned_)) {
    const bool bad_cwd = error->stage == Stage::spawn_cwd;
    run_->refuse(Refusal::spawn_failed, error->sys_errno, error->stage,
                 bad_cwd ? "the working directory cannot be entered" : "the shell did not start");
    return on_gone_();
  }
  // Told to stop: the answer waits until everything it started is gone. Else the end of the
  // main process is the end, whoever still holds the pipes.
  if (stopping_) {
    loop_.cancel(kill_timer_);
    return kill_all();
  }
  complete();
}

void Command::complete() {
  loop_.cancel(deadline_timer_);
  loop_.cancel(kill_timer_);
  stdout_.drain();
  stderr_.drain();
  wire::RunDone& done = run_->done;
  const std::uint64_t now = sys::monotonic_ns();
  done.queue_ns = run_->started_ns - run_->created_ns;
  done.spawn_ns = run_->sent_ns - run_->started_ns;
  done.run_ns = run_->ended_ns - run_->sent_ns;
  done.collect_ns = now - run_->ended_ns;
  done.cpu_ns = group_.cpu_ns();
  done.memory_peak_bytes = group_.memory_peak_bytes();
  done.pids_peak = group_.pids_peak();
  done.exit_code = facts_.code;
  done.signal = static_cast<std::uint32_t>(facts_.signal);
  const bool memory = group_.oom_kills() > 0;
  if (run_->cancel_requested) {
    done.outcome = Outcome::cancelled;
    done.killed_by = KilledBy::client;
  } else if (run_->deadline_hit) {
    done.outcome = Outcome::timed_out;
    done.killed_by = KilledBy::deadline;
  } else if (memory && facts_.code != 0) {
    done.outcome = Outcome::out_of_memory;
    done.killed_by = KilledBy::memory;
  } else {
    done.outcome = facts_.code == 0 ? Outcome::ok : Outcome::error;
    if (facts_.signal != 0) done.killed_by = KilledBy::signal;
  }
  // From now on the pipes are drained into nothing, so that a server left in the
  // background can go on printing.
  stdout_.set_sink(nullptr);
  stderr_.set_sink(nullptr);
  if (stdin_writer_) {
    loop_.remove(stdin_writer_.get());
    stdin_writer_.reset();
  }
  run_->finish();
  watch_left_overs();
}

void Command::watch_left_overs() {
  if (group_.empty()) return on_gone_();
  sweep_timer_ = loop_.at(sys::monotonic_ns() + kLeftOverCheckNs, [this] { watch_left_overs(); });
}

}  // namespace codespace::init
