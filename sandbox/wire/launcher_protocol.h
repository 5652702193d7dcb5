// The launcher's whole language: fixed-size structs over a SOCK_SEQPACKET socket, one
// request and one reply per connection (watch: replies until either side closes). There is
// no path, user id, command or free text in it, so a gateway that was taken over can ask
// for sessions of this one shape and for nothing else.
#pragma once

#include <array>
#include <cstdint>

namespace codespace::wire {

inline constexpr std::uint32_t kLauncherMagic = 0x43534c33;  // "CSL3"; changes with the layout

/// 128 random bits. The public id is "session-" and its base32 form (see session_id.h).
using SessionKey = std::array<std::uint8_t, 16>;

enum class LauncherOp : std::uint32_t {
  create = 1,  // -> LauncherReply, after init reported a correct posture
  kill = 2,    // -> LauncherReply, after the last process, mount and cgroup is gone; idempotent
  pause = 3,   // freezes every process of the session
  resume = 4,
  stat = 5,    // -> LauncherReply with usage
  list = 6,    // -> one LauncherReply per live session, then one with status end_of_list
  watch = 7,   // -> one LauncherReply with status ended for each session that ends from now on
  pool = 8,    // keep `count` sessions ready with this image, flavour, `ahead` and limits; 0 ends it -> ok
  kernel = 9,  // fork a kernel of `flavour` into a session in which nothing of the tenant ran yet -> ok
};

/// What a Python kernel finds already imported: the zygote it is forked from. An image offers
/// some or none (its file kernels/python/zygotes).
enum class Flavour : std::uint32_t {
  none = 0,  // no zygote: init starts the interpreter when the first run asks for it
  min = 1,   // the driver and what most first cells need of the standard library
  data = 2,  // also numpy, pandas, pyplot and IPython
};

/// Bits of `ahead`: interpreters that no zygote can make, started before anybody asks.
inline constexpr std::uint32_t kAheadJavascript = 1;

/// Where a created session came from.
enum class Origin : std::uint32_t {
  cold = 0,    // made for this request, without a zygote
  zygote = 1,  // made for this request; its kernel is being forked from a zygote
  pool = 2,    // had been made before
};

/// What a session may use. The launcher refuses values outside kMin/kMax below.
struct SessionLimits {
  std::uint64_t memory_bytes = 0;     // of the tenant's processes; swap is always 0
  std::uint64_t workspace_bytes = 0;  // size of the /workspace tmpfs
  std::uint64_t scratch_bytes = 0;    // size of /tmp, of /dev/shm and of the home, each
  std::uint64_t inodes = 0;           // of each writable file system
  std::uint32_t cpu_milli = 0;        // 1000 = one core
  std::uint32_t pids = 0;             // processes and threads
};

inline constexpr SessionLimits kMinLimits{.memory_bytes = 32ULL << 20,
                                          .workspace_bytes = 1ULL << 20,
                                          .scratch_bytes = 1ULL << 20,
                                          .inodes = 64,
                                          .cpu_milli = 50,
                                          .pids = 16};
inline constexpr SessionLimits kMaxLimits{.memory_bytes = 64ULL << 30,
                                          .workspace_bytes = 64ULL << 30,
                                          .scratch_bytes = 16ULL << 30,
                                          .inodes = 4'000'000,
                                          .cpu_milli = 64'000,
                                          .pids = 32'768};

struct LauncherRequest {
  std::uint32_t magic = kLauncherMagic;
  LauncherOp op = LauncherOp::list;
  SessionKey session{};
  std::uint64_t image = 0;  // handle: the name of a directory in the image store, as a number
  SessionLimits limits{};
  Flavour flavour = Flavour::none;
  std::uint32_t ahead = 0;          // pool: what its sessions have; create: what one of a pool should have
  std::uint32_t count = 0;  // of pool
};

enum class LauncherStatus : std::uint32_t {
  ok = 0,
  end_of_list = 1,
  ended = 2,            // watch: `session` is gone; `exit_*` and `oom_kills` say how
  bad_request = 3,      // wrong size, magic, op or limit
  unknown_session = 4,
  session_exists = 5,
  unknown_image = 6,
  no_capacity = 7,      // the id range is used up
  setup_failed = 8,     // `stage` and `sys_errno` say where; nothing is left behind
  posture_mismatch = 9, // init found itself confined differently from the plan
};

/// The steps of a session's creation in order. A failure names one of these.
enum class Stage : std::uint32_t {
  none = 0,
  id_lease,
  listen_socket,
  cgroup_create,
  cgroup_limits,
  clone_namespaces,
  cgroup_join,
  id_map,
  child_sync,
  become_root,
  mount_private,
  mount_root,
  mount_tmpfs,
  mount_dev,
  mount_proc,
  mask_proc,
  processors,
  pivot_root,
  network_loopback,
  hostname,
  limit_namespaces,
  close_descriptors,
  rlimits,
  oom_score,
  securebits,
  bounding_set,
  become_init,
  no_new_privs,
  exec_init,
  init_seccomp,
  init_posture,
  init_ready,
  // stages of starting a program inside a live session, reported by init
  spawn_pipe,
  spawn_fork,
  spawn_cgroup,
  spawn_identity,
  spawn_cwd,
  spawn_posture,
  spawn_exec,
};

struct LauncherReply {
  std::uint32_t magic = kLauncherMagic;
  LauncherStatus status = LauncherStatus::ok;
  SessionKey session{};
  Stage stage = Stage::none;
  std::int32_t sys_errno = 0;
  std::uint64_t image = 0;
  SessionLimits limits{};
  std::uint64_t posture_digest = 0;
  // stat and ended
  std::uint64_t memory_bytes = 0;       // in use now
  std::uint64_t memory_peak_bytes = 0;  // since creation
  std::uint64_t cpu_ns = 0;
  std::uint64_t oom_kills = 0;
  std::uint32_t pids = 0;
  std::uint32_t paused = 0;
  std::int32_t exit_code = -1;    // of init, if it exited; -1 otherwise
  std::int32_t exit_signal = 0;   // of init, if a signal ended it
  std::int64_t created_wall_ms = 0;
  Origin origin = Origin::cold;   // create
  std::uint32_t pool_ready = 0;   // create and pool: ready sessions of this kind that are left
};

/// Bounds of what a gateway may have kept ready.
inline constexpr std::uint32_t kMaxPooled = 256;
inline constexpr std::uint32_t kMaxPools = 16;

}  // namespace codespace::wire
