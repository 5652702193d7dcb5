// Bookkeeping of known runs.
#include "sandbox/manager/run_cache.h"

#include "sandbox/manager/run_frames.h"

namespace codespace::manager {

std::pair<std::shared_ptr<RunState>, bool> RunCache::begin(const wire::RunId& id, const std::string& owner,
                                                           const std::string& session_id) {
  const std::lock_guard lock(mutex_);
  auto& slot = runs_[id];
  if (slot) return {slot, false};
  slot = std::make_shared<RunState>(id, owner, session_id);
  return {slot, true};
}

std::shared_ptr<RunState> RunCache::find(const wire::RunId& id) {
  const std::lock_guard lock(mutex_);
  const auto found = runs_.find(id);
  return found == runs_.end() ? nullptr : found->second;
}

void RunCache::settle(const std::shared_ptr<RunState>& state, TimePoint now) {
  std::optional<std::size_t> bytes;
  {
    const std::lock_guard lock(state->mutex);
    if (!state->error) bytes = size_of(state->record);
  }
  const std::lock_guard lock(mutex_);
  if (!bytes) {
    runs_.erase(state->id);
    return;
  }
  kept_.push_back({state->id, *bytes, now});
  kept_bytes_ += *bytes;
  trim(now);
}

void RunCache::expire(TimePoint now) {
  const std::lock_guard lock(mutex_);
  trim(now);
}

void RunCache::trim(TimePoint now) {
  while (!kept_.empty() &&
         (kept_.size() > kMaxRecords || kept_bytes_ > kMaxBytes || kept_.front().since + kMaxAge <= now)) {
    kept_bytes_ -= kept_.front().bytes;
    runs_.erase(kept_.front().id);
    kept_.pop_front();
  }
}

}  // namespace codespace::manager
