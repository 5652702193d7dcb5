// A kernel: a persistent interpreter and its queue of runs. States:
//
//   absent -> starting -> idle <-> busy -> (killed or died) -> absent
//
// `starting` is one of two things: init executed the interpreter, or a zygote outside of the
// session was asked to fork one into it (it "joins"). If a joiner does not arrive, the
// interpreter is executed instead and nobody is the wiser.
//
// One run at a time; the others wait in order, bounded. The interpreter is started by the
// first run that needs it. When it ends, for whatever reason, the run it was busy with gets
// the truth from the wait status and the control group, everything it left behind is
// killed, and the next run starts a new one and is told that the context was reset.
// end() is for good: the object takes no more runs and says when nothing of it is left.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sandbox/init/event_loop.h"
#include "sandbox/init/output_pipe.h"
#include "sandbox/init/reaper.h"
#include "sandbox/init/run.h"
#include "sandbox/init/run_group.h"
#include "sandbox/init/spawn.h"

namespace codespace::init {

/// Runs that may wait for one kernel beside the one it is busy with.
inline constexpr std::size_t kMaxQueued = 32;

class Kernel {
 public:
  Kernel(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string language, std::string name,
         std::unique_ptr<RunGroup> first_group);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;


  /// init's ends of a kernel's channels.
  struct JoinerEnds {
    sys::UniqueFd control, out, err;
  };
  /// Called once: true when the interpreter is there, false when it will not be.
  using Settled = std::function<void(bool)>;

  /// Expects a kernel forked by a zygote, in a moment or, if `later`, before a run has waited for
  /// long. Only while absent. The name of the run group it has to join; empty with errno if there
  /// is none.
  std::string expect_joiner(JoinerEnds ends, bool later, Settled settled);
  /// From now on a joiner that was expected later has little time.
  void limit_join();
  /// Executes the interpreter although no run asks for it yet. Only while absent.
  void start_ahead(Settled settled);
  /// Ends an interpreter that no run ever used; one that was used, or is wanted, stays.
  void end_unused();
  /// True once a run asked for it. Until then it is no context to the client, however ready it is.
  [[nodiscard]] bool used() const { return execution_count_ > 0 || had_context_ || load() > 0; }

  /// False if the image has no such language.
  [[nodiscard]] bool exists() const { return !argv_.empty(); }
  /// Takes the run, which ends as finished or refused.
  void submit(std::shared_ptr<Run> run);
  /// Ends a queued or current run as cancelled.
  void cancel(const std::shared_ptr<Run>& run);
  /// Kills the interpreter and all it started; its runs end as cancelled. `gone` is called once, when
  /// nothing is left, with this object still in use: the owner may destroy it only later.
  void end(std::function<void()> gone);
  [[nodiscard]] const std::string& language() const { return language_; }
  /// True while no interpreter ever came up here.
  [[nodiscard]] bool unused() const { return state_ == State::absent && !had_context_ && load() == 0; }
  /// Appends what a client may see: ContextState and on, as the `context` frame has it.
  void describe(wire::Writer& w) const;
  [[nodiscard]] bool alive() const { return state_ != State::absent; }
  [[nodiscard]] std::size_t load() const { return queue_.size() + (current_ ? 1 : 0); }

 private:
  enum class State { absent, starting, idle, busy, dying };

  void next();
  void start();
  bool launch(const Env& env);
  void open_channels(JoinerEnds ends);
  void close_channels();
  void settle(bool there);
  void on_ready();
  void on_join_failed();
  void abandon_joiner();
  void begin(const std::shared_ptr<Run>& run);
  void on_queue_deadline(const std::shared_ptr<Run>& run);
  void on_control(std::uint32_t events);
  void on_frame(std::uint32_t type, std::string_view payload);
  void flush_control();
  void interrupt(const std::shared_ptr<Run>& run);
  void kill_kernel();
  void on_exit(const ExitFacts& facts);
  void after_done();
  void kill_strays();
  void complete(const ExitFacts* death);
  void finish_dying();
  void fail_start(const SpawnError& error);
  void tell_gone();
  std::unique_ptr<RunGroup> make_group();

  EventLoop& loop_;
  Reaper& reaper_;
  CgroupBackend backend_;
  std::string language_;
  std::string name_;
  std::vector<std::string> argv_;

  State state_ = State::absent;
  std::deque<std::shared_ptr<Run>> queue_;
  std::shared_ptr<Run> current_;
  Settled settled_;
  bool joining_ = false;          // its process is not known yet
  bool stopped_ = false;          // by us, after a run that was ended by force
  Env env_;                       // the session's, as it has it
  wire::KernelOrigin origin_ = wire::KernelOrigin::cold;
  bool had_context_ = false;      // an earlier interpreter existed: the next run says context_reset
  std::uint32_t generation_ = 0;
  std::uint32_t execution_count_ = 0;

  std::unique_ptr<RunGroup> first_group_;  // made ahead, until it is used
  std::unique_ptr<RunGroup> group_;
  Spawned spawned_;
  sys::UniqueFd control_;
  std::vector<char> inbound_;
  std::vector<char> outbound_;
  std::size_t outbound_sent_ = 0;
  bool outbound_waits_ = false;   // epoll says when more of it can be sent
  OutputPipe stdout_;
  OutputPipe stderr_;

  // Of the current run.
  std::vector<pid_t> earlier_;    // members of the group that this run did not start
  std::uint64_t cpu_before_ = 0;
  std::uint64_t oom_before_ = 0;
  bool said_done_ = false;
  bool force_killed_ = false;
  EventLoop::TimerId deadline_timer_ = 0;
  EventLoop::TimerId kill_timer_ = 0;
  EventLoop::TimerId sweep_timer_ = 0;
  EventLoop::TimerId join_timer_ = 0;
  int sweep_rounds_ = 0;
  ExitFacts death_;

  std::function<void()> gone_;    // of end()
  std::int64_t created_wall_ms_;
};

}  // namespace codespace::init
