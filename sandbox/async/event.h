// Something that happens once and that any number of coroutines may wait for. Runs in the
// daemon; set() and wait() may be called on any thread, a waiter resumes on its own executor.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <memory>

#include "sandbox/async/deadline_queue.h"

namespace codespace::async {

class Event {
 public:
  Event();
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void set();
  [[nodiscard]] bool is_set() const;
  /// Returns at once if it has happened. Cancelling the waiter ends the wait with
  /// operation_aborted, promptly; the event itself does not notice.
  boost::asio::awaitable<void> wait();
  /// The same, but gives up at `until`. True if the event happened.
  boost::asio::awaitable<bool> wait_until(DeadlineQueue& deadlines, TimePoint until);

 private:
  struct State;
  std::shared_ptr<State> state_;  // second owner: a waiter's cancellation handler or deadline
};

}  // namespace codespace::async
