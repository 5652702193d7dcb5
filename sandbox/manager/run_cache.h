// Runs this daemon knows of: those under way, and the finished ones for a while, so that a
// result can be asked for again by its id. Bounded by number, bytes and age. Any thread.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "sandbox/async/event.h"
#include "sandbox/manager/records.h"
#include "sandbox/manager/session_manager.h"

namespace codespace::manager {

/// One run or command. Owned by the cache and by whoever drives it or waits for it.
struct RunState {
  RunState(wire::RunId run, std::string owner_id, std::string session)
      : id(run), owner(std::move(owner_id)), session_id(std::move(session)) {}

  const wire::RunId id;
  const std::string owner;
  const std::string session_id;
  async::Event settled;  // record.finished, or error, will not change any more

  std::mutex mutex;  // guards what follows
  RunRecord record;
  std::optional<Error> error;

  /// What a waiter, or find_run, gets.
  Result<RunRecord> answer() {
    const std::lock_guard lock(mutex);
    if (error) return std::unexpected(*error);
    return record;
  }
};

class RunCache {
 public:
  static constexpr std::size_t kMaxRecords = 256;
  static constexpr std::size_t kMaxBytes = 256U << 20;
  static constexpr std::chrono::minutes kMaxAge{15};

  /// The state of this id; true if it is new and the caller has to drive it.
  std::pair<std::shared_ptr<RunState>, bool> begin(const wire::RunId& id, const std::string& owner,
                                                   const std::string& session_id);
  [[nodiscard]] std::shared_ptr<RunState> find(const wire::RunId& id);
  /// Keeps a settled run with a record for a while; one that ended in an error is dropped,
  /// because init may still know more about it than we do.
  void settle(const std::shared_ptr<RunState>& state, TimePoint now);
  void expire(TimePoint now);

 private:
  struct Kept {
    wire::RunId id;
    std::size_t bytes;
    TimePoint since;
  };
  void trim(TimePoint now);

  std::mutex mutex_;
  std::map<wire::RunId, std::shared_ptr<RunState>> runs_;
  std::deque<Kept> kept_;  // oldest first
  std::size_t kept_bytes_ = 0;
};

}  // namespace codespace::manager
