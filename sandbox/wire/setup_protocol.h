// What the half-made sandbox tells the launcher: either the step that failed, or, once init
// is in charge, the facts of its own confinement. Fixed structs over a SEQPACKET pair that
// init closes before it serves its first request.
#pragma once

#include <cstdint>

#include "sandbox/wire/launcher_protocol.h"

namespace codespace::wire {

inline constexpr std::uint32_t kSetupMagic = 0x43535531;  // "CSU1"

/// Descriptors a fresh init finds, beside 0-2 on /dev/null. Nothing else is open.
inline constexpr int kInitListenFd = 3;   // listening unix socket on the host side
inline constexpr int kInitStatusFd = 4;   // to the launcher
inline constexpr int kInitSeccompFd = 5;  // sealed memfd: u32 size A, u32 size B, A, B
inline constexpr int kInitCgroupFd = 6;   // v2: one directory; v1: memory, pids, cpuacct
inline constexpr int kInitProgramFd = 9;  // init's own binary, close-on-exec

/// Ids inside every session.
inline constexpr std::uint32_t kInitUid = 1;
inline constexpr std::uint32_t kTenantUid = 1000;

/// The environment every program of a tenant starts with; the session's and the request's
/// own variables come on top.
inline constexpr const char* kBaseEnvironment[] = {
    "PATH=/home/sandbox/.local/bin:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
    "HOME=/home/sandbox", "USER=sandbox", "LOGNAME=sandbox", "SHELL=/bin/bash",
    "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=dumb", "TMPDIR=/tmp",
    // The one way out, kProxyPort, whether it is open or says why not.
    "HTTP_PROXY=http://127.0.0.1:3128", "HTTPS_PROXY=http://127.0.0.1:3128",
    "http_proxy=http://127.0.0.1:3128", "https_proxy=http://127.0.0.1:3128",
    "NO_PROXY=localhost,127.0.0.1,::1", "no_proxy=localhost,127.0.0.1,::1",
    "npm_config_proxy=http://127.0.0.1:3128", "npm_config_https_proxy=http://127.0.0.1:3128"};

/// Exactly what init may keep: CAP_SETGID, CAP_SETUID (to become the tenant in a child) and CAP_KILL.
inline constexpr std::uint64_t kInitCapabilities = (1U << 5) | (1U << 6) | (1U << 7);

/// What init found true of itself. Compared field by field with the plan; any difference
/// and the session is destroyed before the gateway hears of it.
struct PostureFacts {
  std::uint64_t cap_effective = 0, cap_permitted = 0, cap_inheritable = 0, cap_bounding = 0, cap_ambient = 0;
  std::uint32_t uid = 0, gid = 0, groups = 0;
  std::uint32_t no_new_privs = 0, seccomp_mode = 0, seccomp_filters = 0, dumpable = 0, securebits = 0;
  std::uint64_t open_descriptors = 0;    // bit n = descriptor n, up to 63; a higher one sets bit 63
  std::uint32_t mounts_writable = 0;     // mounts that are not read-only
  std::uint32_t mounts_bad = 0;          // lacking nosuid, or nodev outside /dev, or unknown and writable
  std::uint32_t user_namespaces_max = 0; // the session's own limit on nested ones
  std::uint32_t interfaces = 0;          // network interfaces; 1 = lo
};

struct SetupReport {
  std::uint32_t magic = kSetupMagic;
  Stage stage = Stage::none;       // none: ready
  std::int32_t sys_errno = 0;
  std::uint32_t reserved = 0;
  PostureFacts facts{};
};

}  // namespace codespace::wire
