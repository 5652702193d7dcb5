// epoll and timers of init. PID 1 must never die of an error here: what cannot be watched
// is a broken invariant and ends the session, which is the safe side.
#include "sandbox/init/event_loop.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sandbox/sys/assert.h"
#include "sandbox/sys/clock.h"

namespace codespace::init {

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  CODESPACE_ASSERT(epoll_ >= 0, "init cannot work without epoll");
}

void EventLoop::add(int fd, std::uint32_t events, Handler handler) {
  // The generation tells a late event of a closed descriptor from one of its successor.
  Source source{std::move(handler), ++generation_};
  epoll_event event{};
  event.events = events;
  event.data.u64 = (source.generation << 20) | static_cast<std::uint32_t>(fd);
  CODESPACE_ASSERT(fd < (1 << 20), "descriptors are limited to 4096");
  CODESPACE_ASSERT(::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0, "a fresh descriptor can be watched");
  sources_[fd] = std::move(source);
}

void EventLoop::modify(int fd, std::uint32_t events) {
  const auto found = sources_.find(fd);
  if (found == sources_.end()) return;
  epoll_event event{};
  event.events = events;
  event.data.u64 = (found->second.generation << 20) | static_cast<std::uint32_t>(fd);
  (void)::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event);
}

void EventLoop::remove(int fd) {
  if (sources_.erase(fd) > 0) (void)::epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::at(std::uint64_t when_ns, Task task) {
  const TimerId id = next_timer_++;
  timers_.emplace(std::pair(when_ns, id), std::move(task));
  timer_times_.emplace(id, when_ns);
  return id;
}

void EventLoop::cancel(TimerId id) {
  const auto found = timer_times_.find(id);
  if (found == timer_times_.end()) return;
  timers_.erase({found->second, id});
  timer_times_.erase(found);
}

int EventLoop::timeout_ms() const {
  if (timers_.empty()) return -1;
  const std::uint64_t now = sys::monotonic_ns();
  const std::uint64_t when = timers_.begin()->first.first;
  if (when <= now) return 0;
  const std::uint64_t ms = (when - now + sys::kNsPerMs - 1) / sys::kNsPerMs;
  return static_cast<int>(std::min<std::uint64_t>(ms, 3'600'000));
}

void EventLoop::run_due_timers() {
  const std::uint64_t now = sys::monotonic_ns();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    auto node = timers_.extract(timers_.begin());
    timer_times_.erase(node.key().second);
    node.mapped()();
  }
}

void EventLoop::run() {
  epoll_event events[64];
  for (;;) {
    const int n = ::epoll_wait(epoll_, events, 64, timeout_ms());
    for (int i = 0; i < n; ++i) {
      const int fd = static_cast<int>(events[i].data.u64 & 0xfffff);
      const auto found = sources_.find(fd);
      if (found == sources_.end() || found->second.generation != events[i].data.u64 >> 20) continue;
      const Handler handler = found->second.handler;  // a copy: the handler may remove itself
      handler(events[i].events);
    }
    run_due_timers();
  }
}

}  // namespace codespace::init
