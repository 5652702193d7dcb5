// Launcher <-> zygote: fixed structs over a SOCK_SEQPACKET pair. A zygote is a preloaded
// interpreter that waits, outside of every session, to be forked into a new one.
#pragma once

#include <cstdint>

#include "sandbox/sys/affinity.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::wire {

inline constexpr std::uint32_t kZygoteMagic = 0x43535a32;  // "CSZ2"; changes with the layout

/// Descriptors a zygote finds beside 0-2. The library and the filters are sealed memfds.
inline constexpr int kZygoteChannelFd = 3;
inline constexpr int kZygoteLibraryFd = 4;
inline constexpr int kZygoteSeccompFd = 5;

/// "Fork a kernel into this session." Its descriptors, in this order: pidfd of the session's
/// init; the driver's end of the control channel; stdout; stderr; then what moves the kernel
/// into its control groups (Cgroups::entrances).
struct ZygoteRequest {
  std::uint32_t magic = kZygoteMagic;
  sys::Processors processors;         // of the session
  std::uint32_t group_by_clone = 0;  // 1: v2, CLONE_INTO_CGROUP; 0: v1, by writing to `tasks`
};
inline constexpr int kZygoteFixedFds = 4;
inline constexpr int kZygoteMaxFds = kZygoteFixedFds + 5;

/// Sent once when the zygote is preloaded, and once for each request. A kernel that was forked
/// may still fail on its way in; its session's init sees that at the control channel.
struct ZygoteReply {
  std::uint32_t magic = kZygoteMagic;
  std::int32_t sys_errno = 0;  // 0: ready, or forked
};

}  // namespace codespace::wire
