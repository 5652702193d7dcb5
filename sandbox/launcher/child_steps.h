// Steps that a freshly cloned child takes, whether it becomes a session or a zygote: a
// kernel must come out the same from both. Runs in the child; each says whether it worked.
#pragma once

#include <cstdint>

namespace codespace::launcher {

/// Limits every process of a session has; none can be raised again.
bool set_resource_limits();
/// Default dispositions, nothing blocked.
void reset_signals();
/// capset(2) of the calling thread.
bool set_capabilities(std::uint64_t keep, std::uint64_t inheritable);
/// Empties the capability bounding set.
bool drop_bounding_set();

/// Sessions, and the zygotes their kernels come from, are the first to go when the host's
/// memory runs out.
inline constexpr const char* kOomScore = "500";

}  // namespace codespace::launcher
