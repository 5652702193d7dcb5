// The one clock that deadlines are told on. CLOCK_MONOTONIC is the same clock in the
// daemon, the launcher and every session, because sessions get no time namespace.
#pragma once

#include <time.h>

#include <cstdint>

namespace codespace::sys {

/// Nanoseconds of CLOCK_MONOTONIC now; clock_gettime(2).
inline std::uint64_t monotonic_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// Milliseconds since the epoch by CLOCK_REALTIME; for records people read, never for deadlines.
inline std::int64_t wall_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1000 + now.tv_nsec / 1'000'000;
}

inline constexpr std::uint64_t kNsPerMs = 1'000'000;
inline constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

}  // namespace codespace::sys
