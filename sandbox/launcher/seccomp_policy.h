// The system calls a session may make, as data: one table, a reason per rule, and the two
// programs generated from it. The only file that knows libseccomp. The programs are built
// once at start and handed to every session's init as bytes.
//
// Filter A: allow list; what is refused on purpose gets EPERM, everything else ENOSYS so that
// libc falls back as on an older kernel. Filter B: default allow, vetoes on the low 32 bits
// of arguments. The kernel takes the stricter verdict of the two (seccomp(2)).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sandbox/sys/result.h"

namespace codespace::launcher {

enum class Verdict : std::uint8_t { allow, eperm };

/// One unconditional rule of filter A. Calls the architecture does not have are skipped.
struct CallRule {
  const char* name;
  Verdict verdict;
};

/// All unconditional rules; `clone`, `socket`, `personality`, `mknod`, `mknodat` have
/// argument rules of their own in the source.
std::span<const CallRule> seccomp_table();

/// BPF programs (arrays of struct sock_filter) for this machine's architecture.
struct SeccompPrograms {
  std::vector<std::uint8_t> a;
  std::vector<std::uint8_t> b;
};
Result<SeccompPrograms> build_seccomp_programs();

}  // namespace codespace::launcher
