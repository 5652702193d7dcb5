// A command: one `sh -c` with its own run group, output pipes and deadline. It ends when
// its main process ends; what it left in the background lives on, drained, until the
// session ends. What a timed-out or cancelled command started dies with it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "sandbox/init/event_loop.h"
#include "sandbox/init/output_pipe.h"
#include "sandbox/init/reaper.h"
#include "sandbox/init/run.h"
#include "sandbox/init/run_group.h"
#include "sandbox/init/spawn.h"

namespace codespace::init {

class Command {
 public:
  /// `on_gone` is called when the command and all it left behind are gone; it may destroy it.
  Command(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string name, std::shared_ptr<Run> run,
          std::function<void()> on_gone);
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  ~Command();

  void start();
  void cancel();
  [[nodiscard]] const std::shared_ptr<Run>& run() const { return run_; }

 private:
  void feed_stdin();
  void stop(bool by_deadline);
  void kill_all();
  void on_exit(const ExitFacts& facts);
  void complete();
  void watch_left_overs();

  EventLoop& loop_;
  Reaper& reaper_;
  std::shared_ptr<Run> run_;
  std::function<void()> on_gone_;
  RunGroup group_;
  OutputPipe stdout_;
  OutputPipe stderr_;
  Spawned spawned_;
  sys::UniqueFd stdin_writer_;
  std::size_t stdin_sent_ = 0;
  bool exited_ = false;
  bool stopping_ = false;
  ExitFacts facts_;
  EventLoop::TimerId deadline_timer_ = 0;
  EventLoop::TimerId kill_timer_ = 0;
  EventLoop::TimerId sweep_timer_ = 0;
};

}  // namespace codespace::init
