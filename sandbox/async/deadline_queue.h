// Absolute deadlines for many things at once, told by a single timer. Runs in the daemon, on
// whichever thread of the io_context the timer fires; adding and dropping a deadline is a
// map operation, so a request may take one without making a timer of its own.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <functional>
#include <memory>

namespace codespace::async {

using TimePoint = std::chrono::steady_clock::time_point;

class DeadlineQueue;

/// One pending deadline. Destroying it takes the deadline back, without waiting for an
/// action that has already begun on another thread.
class Deadline {
 public:
  Deadline() = default;
  Deadline(Deadline&& other) noexcept = default;
  Deadline& operator=(Deadline&& other) noexcept;
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  ~Deadline() { cancel(); }
  void cancel();

 private:
  friend class DeadlineQueue;
  struct Shared;
  // Second owner: the queue. A deadline may outlive it and then has nothing to take back.
  std::weak_ptr<Shared> shared_;
  TimePoint at_;
  std::uint64_t id_ = 0;
};

class DeadlineQueue {
 public:
  explicit DeadlineQueue(const boost::asio::any_io_executor& executor);
  ~DeadlineQueue();
  DeadlineQueue(const DeadlineQueue&) = delete;
  DeadlineQueue& operator=(const DeadlineQueue&) = delete;

  /// `action` runs once, at or soon after `at`, with no lock held. It must not throw and must
  /// own, or hold weakly, whatever it touches.
  [[nodiscard]] Deadline add(TimePoint at, std::move_only_function<void()> action);
  /// Drops every deadline and takes no more. Waits for an action that runs on another thread,
  /// so it must not be called by one.
  void stop();

 private:
  std::shared_ptr<Deadline::Shared> shared_;  // second owner: the timer's handler in flight
};

}  // namespace codespace::async
