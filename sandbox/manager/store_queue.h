// The one thread on which everything blocking of the manager happens: the database, and
// reading image descriptions. Calls run in the order they are made.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "sandbox/manager/store.h"
#include "sandbox/sys/priority.h"

namespace codespace::manager {

class StoreQueue {
 public:
  explicit StoreQueue(Store store) : store_(std::move(store)), thread_([this] { serve(); }) {}
  /// Does what was asked so far, then ends the thread.
  ~StoreQueue() {
    enqueue(nullptr);
    thread_.join();
  }
  StoreQueue(const StoreQueue&) = delete;
  StoreQueue& operator=(const StoreQueue&) = delete;

  /// Runs `work(store)`, which gives a Result<T>, and resumes the caller with it. The call is
  /// made even if the caller has been cancelled meanwhile.
  template <class Answer, class Work>
  boost::asio::awaitable<Answer> call(Work work) {
    namespace asio = boost::asio;
    auto initiate = [this](auto handler, Work moved) {
      auto executor = asio::get_associated_executor(handler);
      auto job = [this, handler = std::move(handler), work = std::move(moved),
                  guard = asio::make_work_guard(executor)]() mutable {
        auto answer = std::make_unique<Answer>(work(store_));
        auto resume = [handler = std::move(handler), answer = std::move(answer)]() mutable {
          std::move(handler)(std::move(answer));
        };
        asio::post(guard.get_executor(), std::move(resume));
      };
      enqueue(std::move(job));
    };
    auto answer = co_await asio::async_initiate<const asio::use_awaitable_t<>, void(std::unique_ptr<Answer>)>(
        std::move(initiate), asio::use_awaitable, std::move(work));
    co_return std::move(*answer);
  }

  /// Runs `work(store)` some time later, after everything asked before.
  template <class Work>
  void post(Work work) {
    enqueue([this, work = std::move(work)]() mutable { work(store_); });
  }

  /// Runs `work(store)` and waits for it; blocks the calling thread, so only at start and for rare calls.
  template <class Answer, class Work>
  Answer call_blocking(Work work) {
    std::packaged_task<Answer()> task([this, &work] { return work(store_); });
    auto answer = task.get_future();
    enqueue([task = std::move(task)]() mutable { task(); });
    return answer.get();
  }

 private:
  using Job = std::move_only_function<void()>;  // an empty one ends the thread

  void enqueue(Job job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    // Under the mutex: the job may be the last thing that anybody waited for, and this object
    // be gone right after it.
    wake_.notify_one();
  }
  void serve() {
    sys::let_wakers_go_on();
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return !jobs_.empty(); });
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      if (!job) return;
      job();
    }
  }

  Store store_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  std::thread thread_;  // last: started when the rest is there
};

}  // namespace codespace::manager
