// A connected unix socket with a deadline: when it passes, the socket is shut down, which
// wakes whatever waits on it. One owner, one coroutine; the deadline may fire on any thread.
#pragma once

#include <sys/socket.h>

#include <memory>
#include <mutex>
#include <utility>

#include "sandbox/async/deadline_queue.h"

namespace codespace::manager {

class TimedSocket {
 public:
  TimedSocket() = default;
  TimedSocket(const TimedSocket&) = delete;
  TimedSocket& operator=(const TimedSocket&) = delete;
  ~TimedSocket() { disarm(); }

  /// From now until disarm(), or the end of this object, `fd` must stay open.
  void arm(async::DeadlineQueue& deadlines, async::TimePoint until, int fd) {
    disarm();
    gate_ = std::make_shared<Gate>();
    gate_->fd = fd;
    deadline_ = deadlines.add(until, [gate = gate_] {
      const std::lock_guard lock(gate->mutex);
      if (gate->fd < 0) return;
      gate->expired = true;
      // shutdown(2) from another thread: the reader sees end-of-file, without a data race on
      // the Asio object, which only its own coroutine may touch.
      ::shutdown(gate->fd, SHUT_RDWR);
    });
  }
  void disarm() {
    deadline_.cancel();
    if (!gate_) return;
    const std::lock_guard lock(gate_->mutex);
    gate_->fd = -1;
  }
  [[nodiscard]] bool expired() const {
    if (!gate_) return false;
    const std::lock_guard lock(gate_->mutex);
    return gate_->expired;
  }

 private:
  struct Gate {
    std::mutex mutex;
    int fd = -1;
    bool expired = false;
  };
  std::shared_ptr<Gate> gate_;  // second owner: the action in the deadline queue
  async::Deadline deadline_;
};

}  // namespace codespace::manager
