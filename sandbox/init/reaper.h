// Collecting of ended processes. PID 1 inherits every orphan of the session, so it reaps
// all and tells the owner of those it started itself.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <functional>
#include <unordered_map>

namespace codespace::init {

/// How a process ended, from wait4(2).
struct ExitFacts {
  int code = -1;    // -1 if a signal ended it
  int signal = 0;
};

class Reaper {
 public:
  using OnExit = std::function<void(const ExitFacts&)>;
  void expect(pid_t pid, OnExit on_exit) { expected_[pid] = std::move(on_exit); }
  void forget(pid_t pid) { expected_.erase(pid); }
  /// Reaps whatever has ended; called on SIGCHLD.
  void collect();

 private:
  std::unordered_map<pid_t, OnExit> expected_;
};

}  // namespace codespace::init
