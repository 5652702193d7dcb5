// The one loop of init: epoll(7) over sources, and one deadline per source-independent
// timer. Single-threaded; a source may remove itself or others while being called.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <functional>
#include <map>
#include <unordered_map>

namespace codespace::init {

class EventLoop {
 public:
  using Handler = std::function<void(std::uint32_t events)>;
  using Task = std::function<void()>;
  using TimerId = std::uint64_t;

  EventLoop();

  /// Watches a descriptor; `events` as in epoll_ctl(2). Level-triggered.
  void add(int fd, std::uint32_t events, Handler handler);
  void modify(int fd, std::uint32_t events);
  void remove(int fd);

  /// Calls `task` once at or after `when_ns` of CLOCK_MONOTONIC. 0 is never a valid id.
  TimerId at(std::uint64_t when_ns, Task task);
  void cancel(TimerId id);

  [[noreturn]] void run();

 private:
  int timeout_ms() const;
  void run_due_timers();

  int epoll_ = -1;
  struct Source {
    Handler handler;
    std::uint64_t generation = 0;
  };
  std::unordered_map<int, Source> sources_;
  std::uint64_t generation_ = 0;
  std::map<std::pair<std::uint64_t, TimerId>, Task> timers_;
  std::unordered_map<TimerId, std::uint64_t> timer_times_;
  TimerId next_timer_ = 1;
};

}  // namespace codespace::init
