// Everything the daemon spawns belongs to a TaskGroup: it holds the cancellation signals,
// reports exceptions that escaped, and is waited for before its owner is destroyed. Spawned
// from any thread; each task runs on the executor it was given.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/execution_context.hpp>
#include <exception>
#include <functional>
#include <memory>

#include "sandbox/async/deadline_queue.h"

namespace codespace::async {

/// To be called before anything uses the context, which then only one thread may run.
void promise_one_thread(boost::asio::execution_context& context);

/// The executor itself if its handlers never run at the same time (a strand, or one thread was
/// promised), else a new strand over it. A task needs one because it is cancelled from outside.
boost::asio::any_io_executor serial(const boost::asio::any_io_executor& executor);

class TaskGroup {
 public:
  /// `on_escape` hears of an exception that left a task: a bug, to be logged.
  explicit TaskGroup(std::function<void(std::exception_ptr)> on_escape);
  ~TaskGroup();
  TaskGroup(const TaskGroup&) = delete;
  TaskGroup& operator=(const TaskGroup&) = delete;

  /// Starts the task on `executor`, which must be serial. False, and the task never runs, if
  /// the group has been stopped.
  bool spawn(const boost::asio::any_io_executor& executor, boost::asio::awaitable<void> task);
  /// Takes no more tasks and cancels those that run, each on its own executor.
  void stop();
  /// Takes no more tasks but lets those that run go on.
  void close();
  [[nodiscard]] std::size_t size() const;
  /// Returns when no task is left, or false at `until`. Only after close() or stop().
  boost::asio::awaitable<bool> wait_empty(DeadlineQueue& deadlines, TimePoint until);

 private:
  struct State;
  std::shared_ptr<State> state_;  // second owner: the completion handler of each task
};

}  // namespace codespace::async
