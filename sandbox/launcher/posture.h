// What a session's init must find true of itself, and the comparison with what it did find.
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "sandbox/wire/setup_protocol.h"

namespace codespace::launcher {

/// The facts of a correct session; `cgroup_descriptors` is 1 on v2 and 3 on v1.
wire::PostureFacts expected_posture(std::size_t cgroup_descriptors);

/// Name of the first field that differs, or nullptr if all agree.
const char* posture_difference(const wire::PostureFacts& expected, const wire::PostureFacts& found);

/// 64-bit FNV-1a over the facts: equal for equally confined sessions.
std::uint64_t posture_digest(const wire::PostureFacts& facts);

/// True if all seven namespaces of `pid` differ from the caller's own.
bool namespaces_differ(pid_t pid);

}  // namespace codespace::launcher
