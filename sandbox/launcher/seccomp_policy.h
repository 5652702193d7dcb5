// The system calls a session may make, as data: one table of rules, each with its reason, and the
// two programs compiled from it. The programs are built once at start and handed to every
// session's init as bytes.
//
// Filter A: allow list; what is refused on purpose gets an errno of its own, everything else ENOSYS so that
// libc falls back as on an older kernel. Filter B: default allow, vetoes on the low 32 bits
// of arguments. The kernel takes the stricter verdict of the two, and of two errnos that of B,
// which is loaded last (seccomp(2)).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "sandbox/sys/result.h"

namespace codespace::launcher {

enum class Filter : std::uint8_t { a, b };
enum class Architecture : std::uint8_t { x86_64, aarch64 };

#if defined(__aarch64__)
inline constexpr Architecture kNative = Architecture::aarch64;
#else
inline constexpr Architecture kNative = Architecture::x86_64;
#endif

inline constexpr std::uint64_t kAll64 = ~0ULL;
inline constexpr std::uint64_t kLow32 = 0xffffffff;  // where the kernel itself looks at 32 bits (CVE-2019-10063)

/// Holds if `argument & mask == value`. A rule without a mask is one without this condition.
struct Condition {
  unsigned argument = 0;
  std::uint64_t mask = 0, value = 0;
};

struct SeccompRule {
  Filter filter = Filter::a;
  int error = 0;                  // 0: allowed; otherwise the errno of the refusal
  const char* calls = "";         // names with blanks between; an architecture's missing ones are skipped
  const char* why = "";
  std::array<Condition, 3> when;  // all of them
};

/// What no rule names.
inline constexpr int kUnknownCallError = 38;  // ENOSYS

std::span<const SeccompRule> seccomp_table();

/// BPF programs (arrays of struct sock_filter).
struct SeccompPrograms {
  std::vector<std::uint8_t> a;
  std::vector<std::uint8_t> b;
};
Result<SeccompPrograms> build_seccomp_programs(Architecture architecture = kNative);

}  // namespace codespace::launcher
