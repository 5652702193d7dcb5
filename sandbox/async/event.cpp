// Event: a flag and the list of those who wait for it. Each waiter is completed exactly once,
// by whoever takes it off the list: set(), its cancellation, or its deadline.
#include "sandbox/async/event.h"

#include <atomic>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <functional>
#include <list>
#include <mutex>
#include <utility>

namespace codespace::async {

namespace asio = boost::asio;
using boost::system::error_code;

struct Event::State {
  struct Waiter {
    std::uint64_t id;
    std::move_only_function<void(error_code)> complete;  // posts to the waiter's executor
  };
  std::atomic<bool> happened{false};
  std::mutex mutex;
  std::uint64_t next_id = 0;
  std::list<Waiter> waiters;

  /// Ends one wait early; nothing happens if it has already ended.
  void finish(std::uint64_t id, error_code error) {
    std::move_only_function<void(error_code)> complete;
    {
      const std::lock_guard lock(mutex);
      for (auto it = waiters.begin(); it != waiters.end(); ++it) {
        if (it->id != id) continue;
        complete = std::move(it->complete);
        waiters.erase(it);
        break;
      }
    }
    if (complete) complete(error);
  }
};

namespace {

/// When to give up, if ever, and where the pending deadline is kept.
struct Patience {
  DeadlineQueue* deadlines = nullptr;
  TimePoint until;
  Deadline pending;
};

template <class State>
asio::awaitable<error_code> wait_for(std::shared_ptr<State> state, Patience* patience) {
  error_code result;
  auto initiate = [state, patience](auto handler) {
    auto executor = asio::get_associated_executor(handler);
    auto slot = asio::get_associated_cancellation_slot(handler);
    auto complete = [handler = std::move(handler), slot,
                     work = asio::make_work_guard(executor)](error_code error) mutable {
      auto run = [handler = std::move(handler), slot, error]() mutable {
        // On the waiter's executor, where its slot may be touched.
        if (slot.is_connected()) slot.clear();
        std::move(handler)(error);
      };
      asio::post(work.get_executor(), std::move(run));
    };
    // From the moment the waiter is on the list and the mutex free, the coroutine may resume on
    // another thread and be gone: so everything else is done before, and nothing after.
    std::unique_lock lock(state->mutex);
    if (state->happened) {
      lock.unlock();
      complete({});
      return;
    }
    const std::uint64_t id = ++state->next_id;
    if (slot.is_connected())
      slot.assign(
          [state, id](asio::cancellation_type) { state->finish(id, asio::error::operation_aborted); });
    if (patience != nullptr)
      patience->pending = patience->deadlines->add(
          patience->until, [state, id] { state->finish(id, asio::error::timed_out); });
    state->waiters.push_back({id, std::move(complete)});
  };
  auto token = asio::redirect_error(asio::use_awaitable, result);
  co_await asio::async_initiate<decltype(token), void(error_code)>(std::move(initiate), token);
  co_return result;
}

}  // namespace

Event::Event() : state_(std::make_shared<State>()) {}
Event::~Event() = default;

bool Event::is_set() const { return state_->happened; }

void Event::set() {
  std::list<State::Waiter> woken;
  {
    const std::lock_guard lock(state_->mutex);
    state_->happened = true;
    woken.swap(state_->waiters);
  }
  for (auto& waiter : woken) waiter.complete({});
}

asio::awaitable<void> Event::wait() {
  if (state_->happened) co_return;
  const auto state = state_;
  const error_code error = co_await wait_for(state, nullptr);
  if (error) throw boost::system::system_error(error);
}

asio::awaitable<bool> Event::wait_until(DeadlineQueue& deadlines, TimePoint until) {
  if (state_->happened) co_return true;
  const auto state = state_;
  Patience patience{&deadlines, until, {}};
  const error_code error = co_await wait_for(state, &patience);
  if (error == asio::error::timed_out) co_return false;
  if (error) throw boost::system::system_error(error);
  co_return true;
}

}  // namespace codespace::async
