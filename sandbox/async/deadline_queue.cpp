// The single timer behind DeadlineQueue. All access to the timer object is under one mutex,
// which is what makes it usable from any thread; actions run after the mutex is released.
#include "sandbox/async/deadline_queue.h"

#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace codespace::async {

struct Deadline::Shared : std::enable_shared_from_this<Deadline::Shared> {
  explicit Shared(const boost::asio::any_io_executor& executor) : timer(executor) {}

  std::mutex mutex;
  boost::asio::steady_timer timer;
  TimePoint armed_for = TimePoint::max();  // max: not armed
  std::uint64_t next_id = 0;
  bool stopped = false;
  int firing = 0;  // threads that run actions now
  std::condition_variable quiet;
  std::map<std::pair<TimePoint, std::uint64_t>, std::move_only_function<void()>> pending;

  /// With the mutex held. A timer set too early only fires once for nothing, so it is moved
  /// forward in time by its own expiry and never on the path of a request.
  void arm() {
    if (stopped || pending.empty()) return;
    const TimePoint first = pending.begin()->first.first;
    if (first >= armed_for) return;
    armed_for = first;
    timer.expires_at(first);
    timer.async_wait([self = shared_from_this(), first](boost::system::error_code) { self->fire(first); });
  }

  void fire(TimePoint armed) {
    std::vector<std::move_only_function<void()>> due;
    {
      const std::lock_guard lock(mutex);
      if (stopped || armed_for != armed) return;  // an earlier deadline came in between and re-armed
      armed_for = TimePoint::max();
      const TimePoint now = std::chrono::steady_clock::now();
      while (!pending.empty() && pending.begin()->first.first <= now) {
        due.push_back(std::move(pending.begin()->second));
        pending.erase(pending.begin());
      }
      arm();
      ++firing;
    }
    for (auto& action : due) action();
    due.clear();
    const std::lock_guard lock(mutex);
    if (--firing == 0) quiet.notify_all();
  }
};

Deadline& Deadline::operator=(Deadline&& other) noexcept {
  if (this != &other) {
    cancel();
    shared_ = std::move(other.shared_);
    at_ = other.at_;
    id_ = other.id_;
  }
  return *this;
}

void Deadline::cancel() {
  const auto shared = shared_.lock();
  shared_.reset();
  if (!shared) return;
  std::move_only_function<void()> dropped;  // destroyed after the lock: it may own anything
  const std::lock_guard lock(shared->mutex);
  const auto found = shared->pending.find({at_, id_});
  if (found == shared->pending.end()) return;
  dropped = std::move(found->second);
  shared->pending.erase(found);
}

DeadlineQueue::DeadlineQueue(const boost::asio::any_io_executor& executor)
    : shared_(std::make_shared<Deadline::Shared>(executor)) {}

DeadlineQueue::~DeadlineQueue() { stop(); }

Deadline DeadlineQueue::add(TimePoint at, std::move_only_function<void()> action) {
  Deadline deadline;
  const std::lock_guard lock(shared_->mutex);
  if (shared_->stopped) return deadline;
  deadline.shared_ = shared_;
  deadline.at_ = at;
  deadline.id_ = ++shared_->next_id;
  shared_->pending.emplace(std::pair{at, deadline.id_}, std::move(action));
  shared_->arm();
  return deadline;
}

void DeadlineQueue::stop() {
  decltype(shared_->pending) dropped;
  std::unique_lock lock(shared_->mutex);
  shared_->stopped = true;
  dropped.swap(shared_->pending);
  shared_->timer.cancel();
  shared_->quiet.wait(lock, [this] { return shared_->firing == 0; });
}

}  // namespace codespace::async
