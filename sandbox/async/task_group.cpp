// TaskGroup: the only place in the daemon, beside main, that calls co_spawn.
#include "sandbox/async/task_group.h"

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/system/system_error.hpp>
#include <list>
#include <mutex>
#include <utility>
#include <vector>

#include "sandbox/async/event.h"

namespace codespace::async {

namespace asio = boost::asio;

namespace {

/// A mark on a context. A strand where none is needed costs each step of a request a queue and a lock.
class OneThread : public asio::execution_context::service {
 public:
  using key_type = OneThread;
  static inline asio::execution_context::id id;
  explicit OneThread(asio::execution_context& context) : service(context) {}

 private:
  void shutdown() override {}
};

}  // namespace

void promise_one_thread(asio::execution_context& context) { asio::make_service<OneThread>(context); }

asio::any_io_executor serial(const asio::any_io_executor& executor) {
  if (executor.target<asio::strand<asio::any_io_executor>>() != nullptr ||
      executor.target<asio::strand<asio::io_context::executor_type>>() != nullptr ||
      asio::has_service<OneThread>(asio::query(executor, asio::execution::context)))
    return executor;
  return asio::make_strand(executor);
}

struct TaskGroup::State {
  struct Entry {
    asio::any_io_executor executor;
    asio::cancellation_signal signal;
  };
  // Entries are shared because a posted cancellation may be overtaken by the task's own end.
  using Entries = std::list<std::shared_ptr<Entry>>;

  std::function<void(std::exception_ptr)> on_escape;
  mutable std::mutex mutex;
  bool closed = false;
  Entries entries;
  Event empty;

  void finished(Entries::iterator entry, const std::exception_ptr& escaped) {
    if (escaped) report(escaped);
    std::shared_ptr<Entry> dropped;
    bool last = false;
    {
      const std::lock_guard lock(mutex);
      dropped = std::move(*entry);
      entries.erase(entry);
      last = closed && entries.empty();
    }
    if (last) empty.set();
  }

  void report(const std::exception_ptr& escaped) const {
    try {
      std::rethrow_exception(escaped);
    } catch (const boost::system::system_error& error) {
      // How a cancelled wait ends; not an escape but the normal way out.
      if (error.code() == asio::error::operation_aborted) return;
      on_escape(escaped);
    } catch (...) {
      on_escape(escaped);
    }
  }
};

TaskGroup::TaskGroup(std::function<void(std::exception_ptr)> on_escape) : state_(std::make_shared<State>()) {
  state_->on_escape = std::move(on_escape);
}

TaskGroup::~TaskGroup() = default;

bool TaskGroup::spawn(const asio::any_io_executor& executor, asio::awaitable<void> task) {
  auto entry = std::make_shared<State::Entry>();
  entry->executor = executor;
  State::Entries::iterator where;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->closed) return false;
    where = state_->entries.insert(state_->entries.end(), entry);
  }
  // co_spawn fills the signal's slot, which only the task's own executor may touch.
  auto start = [state = state_, where, entry, task = std::move(task)]() mutable {
    auto finished = [state, where](std::exception_ptr escaped) { state->finished(where, escaped); };
    asio::co_spawn(entry->executor, std::move(task),
                   asio::bind_cancellation_slot(entry->signal.slot(), std::move(finished)));
  };
  asio::dispatch(executor, std::move(start));
  return true;
}

void TaskGroup::stop() {
  std::vector<std::shared_ptr<State::Entry>> running;
  {
    const std::lock_guard lock(state_->mutex);
    state_->closed = true;
    running.assign(state_->entries.begin(), state_->entries.end());
  }
  if (running.empty()) state_->empty.set();
  for (auto& entry : running)
    asio::post(entry->executor, [entry] { entry->signal.emit(asio::cancellation_type::terminal); });
}

void TaskGroup::close() {
  const std::lock_guard lock(state_->mutex);
  state_->closed = true;
  if (state_->entries.empty()) state_->empty.set();
}

std::size_t TaskGroup::size() const {
  const std::lock_guard lock(state_->mutex);
  return state_->entries.size();
}

asio::awaitable<bool> TaskGroup::wait_empty(DeadlineQueue& deadlines, TimePoint until) {
  const auto state = state_;
  co_return co_await state->empty.wait_until(deadlines, until);
}

}  // namespace codespace::async
