// Leases of user-id ranges. Each session gets kIdsPerSession ids that no live or dying
// session has; a lease comes back only after the session's last process is gone, and then
// goes to the end of the line, so an id is reused as late as possible.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

namespace codespace::launcher {

/// Ids of a session, relative to the lease: 0 = its root (set-up only), 1 = init, 2 = the tenant.
inline constexpr std::uint32_t kIdsPerSession = 16;

class IdLeases {
 public:
  /// Serves ids 1..count of the launcher's own user namespace (0 is the launcher itself).
  explicit IdLeases(std::uint32_t count) : slots_(count / kIdsPerSession) {}

  /// First id of a free range; nothing when every range is leased.
  std::optional<std::uint32_t> acquire() {
    if (next_ < slots_) return first_of(next_++);
    if (returned_.empty()) return std::nullopt;
    const std::uint32_t first = returned_.front();
    returned_.pop_front();
    return first;
  }
  void release(std::uint32_t first) { returned_.push_back(first); }

  [[nodiscard]] std::uint32_t capacity() const { return slots_; }
  [[nodiscard]] std::uint32_t leased() const {
    return next_ - static_cast<std::uint32_t>(returned_.size());
  }

 private:
  static std::uint32_t first_of(std::uint32_t slot) { return 1 + slot * kIdsPerSession; }
  std::uint32_t slots_;
  std::uint32_t next_ = 0;  // never-used slots come first
  std::deque<std::uint32_t> returned_;
};

}  // namespace codespace::launcher
