// The processors a session may use, so that what a program counts is what it has (sched(7)).
// Not a limit, which the CPU quota is: a tenant may widen it again and gains nothing.
#pragma once

#include <sched.h>

#include <cstdint>

namespace codespace::sys {

/// `count` of the processors this process may use, from the one at `first` on, around the end.
/// 0: all of them.
struct Processors {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

/// How many this process may use.
inline std::uint32_t usable_processors() {
  cpu_set_t all;
  if (::sched_getaffinity(0, sizeof all, &all) != 0) return 1;  // more than 1024 of them
  return static_cast<std::uint32_t>(CPU_COUNT(&all));
}

/// Confines the calling process, and all it starts. False with errno.
inline bool use_processors(Processors wanted) {
  cpu_set_t all;
  if (wanted.count == 0) return true;
  if (::sched_getaffinity(0, sizeof all, &all) != 0) return false;
  const auto usable = static_cast<std::uint32_t>(CPU_COUNT(&all));
  if (wanted.count >= usable) return true;
  cpu_set_t chosen;
  CPU_ZERO(&chosen);
  std::uint32_t at = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &all)) continue;
    if ((at + usable - wanted.first % usable) % usable < wanted.count) CPU_SET(cpu, &chosen);
    ++at;
  }
  return ::sched_setaffinity(0, sizeof chosen, &chosen) == 0;
}

}  // namespace codespace::sys
