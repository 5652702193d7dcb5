// Gateway <-> codespace-init, over unix stream connections. One request frame in, a stream of
// frames out, the last of which is `done`, `file_done`, `ok` or `refused`. After the frames of a
// run or command the next request may follow on the same connection, at any time; after any other
// answer init closes. File writes additionally stream `data` frames in, ended by
// `end_of_data`. Field lists below are in wire order; types are those of codec.h.
//
// A run outlives its connection: its frames are kept in init, so any later `attach` with
// the same run id replays them from the start. Starting a run id that exists attaches to it,
// which makes a start exactly-once under retries.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace codespace::wire {

/// 128 random bits chosen by the gateway.
using RunId = std::array<std::uint8_t, 16>;

inline constexpr std::size_t kMaxContextName = 64;
/// Whether a context may have this name. It is a segment of a URL, where `.` and `..` could not be reached.
constexpr bool is_context_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxContextName || name == "." || name == "..") return false;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-') return false;
  }
  return true;
}

enum class InitRequest : std::uint32_t {
  // raw run id (16), bytes language, bytes context, bytes code, u64 deadline_ns, u64 kill_by_ns,
  // u32 stream_cap, u32 env_count, {bytes name, bytes value}*
  run = 1,
  // raw run id (16), bytes command, bytes cwd ("" = /workspace), bytes stdin, u64 deadline_ns,
  // u64 kill_by_ns, u32 stream_cap, u32 env_count, {bytes name, bytes value}*
  command = 2,
  attach = 3,  // raw run id (16), u8 follow. 0: what is there now, closed by `done` or, if it still runs, by `ok`
  cancel = 4,  // raw run id (16) -> ok | refused(run_not_found). The run ends as `cancelled`
  stats = 5,   // nothing -> stats
  ping = 6,    // nothing -> ok
  // From the launcher: have a kernel there before a run asks for it. bytes language, u32 joins.
  // joins 1: the kernel is forked by a zygote; init's ends of its control channel, stdout and
  // stderr come along -> ok with the name of the run group made for it, at most kMaxGroupName
  // bytes of [a-z0-9-], later ok when the kernel is there.
  // joins 2: the same, but it may be forked much later: init begins to count its time when a run
  // waits for it, or when kForkUnderWay, one byte that is no frame, comes. That it will not be
  // forked is said by closing the ends that were kept.
  // joins 0: init starts it -> ok when it is there. refused: it will not be.
  prepare = 10,
  // nothing -> ok with two descriptors: the socket that listens at kProxyPort, for the egress proxy to
  // accept from, and a pipe that ends with this init. Until then init answers there itself, that the
  // session has no network.
  open_network = 12,
  list_contexts = 7,   // nothing -> context*, ok
  delete_context = 8,  // bytes language, bytes context -> ok once nothing of it is left | refused(context_not_found)
  list_runs = 9,       // u8 commands (0: runs), u32 limit -> run_summary* newest first, ok
  // File work. Paths are absolute, or relative to /workspace; links are followed as the
  // tenant's own programs would follow them, inside the session only.
  file_read = 16,    // bytes path, u64 offset, u64 length (~0 = to the end) -> entry, data*, file_done
  file_write = 17,   // bytes path, u32 FileWriteFlags, u32 mode (0 = keep or 0644), u64 size_limit; data*, end_of_data -> file_done
  file_stat = 18,    // bytes path, u32 follow -> entry, file_done
  file_list = 19,    // bytes path, u32 depth (1..64), u32 max_entries -> entry*, file_done
  file_mkdir = 20,   // bytes path, u32 parents -> file_done
  file_move = 21,    // bytes from, bytes to, u32 overwrite -> file_done
  file_remove = 22,  // bytes path, u32 FileRemoveFlags -> file_done
  // bytes path of a directory, bytes pattern, u32 count, {bytes pattern}* to leave out, u32 max_entries
  // -> entry*, file_done. Patterns know `*` and `?`; see file_ops.h.
  file_search = 23,
};

enum FileWriteFlags : std::uint32_t {
  file_write_append = 1,     // add to the end; without it the file is replaced atomically (temp + rename)
  file_write_exclusive = 2,  // refuse if the path exists
  file_write_parents = 4,    // create missing directories above it
};

enum FileRemoveFlags : std::uint32_t {
  file_remove_recursive = 1,  // a directory with all that is in it
  file_remove_file_only = 2,  // refuse any directory, an empty one too
};

/// Client -> init while a file_write is under way.
inline constexpr std::uint32_t kInData = 64;       // raw bytes, at most kMaxChunk
inline constexpr std::uint32_t kInEndOfData = 65;  // nothing

enum class InitReply : std::uint32_t {
  ok = 1,       // nothing
  refused = 2,  // u32 Refusal, u32 errno, u32 Stage, bytes detail
  accepted = 3, // u32 position in the queue (0 = starts now), bytes language, bytes context (both empty for a command)
  output = 4,   // u8 stream (1 stdout, 2 stderr), raw bytes
  result = 5,   // u8 is_main_result, u32 count, {bytes mime, bytes data}*  binary MIME types are base64
  error = 6,    // bytes name, bytes value, u32 count, {bytes traceback line}*
  done = 7,     // see RunDone, field by field
  stats = 8,    // u32 kernels, u32 runs_active, u32 count, {bytes mount, u64 used, u64 size, u64 inodes_used, u64 inodes}*,
                // u64 runs and commands that ended for memory
  entry = 9,    // bytes name (list: relative to the listed path; else the path asked for), u8 kind,
                // u64 size, u32 mode, u32 uid, u32 gid, i64 mtime_ns, i64 ctime_ns, i64 atime_ns,
                // i64 btime_ns (0: the file system keeps none), u64 inode, bytes link_target
  data = 10,    // raw bytes
  file_done = 11, // u64 bytes transferred, u64 size of the file after, i64 mtime_ns, u8 truncated (list, search: there is more)
  context = 32,   // bytes language, bytes context, u8 ContextState, u32 queued, u32 execution_count, i64 created_wall_ms,
                  // u64 cpu_ns, u64 memory_bytes, u32 pids; the last three since its interpreter was started
  run_summary = 33, // raw run id (16), bytes language, bytes context, u8 RunPhase, u8 outcome, u8 killed_by (both 0
                    // unless finished), i64 created_wall_ms, u64 queue_ns, u64 duration_ns without the queue
};

/// Of a context: `stopped` has no interpreter, because it died; the next run starts one and says so.
enum class ContextState : std::uint8_t { starting = 1, idle = 2, busy = 3, stopped = 4 };
enum class RunPhase : std::uint8_t { queued = 1, running = 2, finished = 3 };

enum class FileKind : std::uint8_t { regular = 1, directory = 2, symlink = 3, other = 4 };

/// Why init would not do what was asked. Closed set; the gateway maps it to ErrorCode.
enum class Refusal : std::uint32_t {
  bad_request = 1,      // does not decode, or a value is out of range
  run_not_found = 2,
  unknown_language = 3, // the image has no such kernel
  overloaded = 4,       // the kernel's queue or the session's bound on commands or file work is full
  queue_timeout = 5,    // the deadline passed before the run could start
  kernel_failed = 6,    // the interpreter could not be started: `errno` and Stage say where
  spawn_failed = 7,     // the shell could not be started: likewise
  file_error = 8,       // `errno` is that of the failing call on the tenant's file system
  not_regular = 9,      // FIFO, device, socket where a regular file is needed
  is_directory = 10,
  too_large = 11,       // more than size_limit bytes arrived; the old file is unchanged
  invalid_path = 12,    // empty, NUL, or too long
  deadline = 13,        // the file operation exceeded its time limit
  too_many_contexts = 32,
  context_not_found = 33,  // no context of this name now, nor among those deleted lately
};

enum class Outcome : std::uint8_t {
  ok = 1,
  error = 2,
  timed_out = 3,
  out_of_memory = 4,
  kernel_died = 5,  // of a command: never; a command's end is its exit_code or signal
  cancelled = 6,
};

/// As the API and the metrics spell it.
constexpr std::string_view name_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::ok: return "ok";
    case Outcome::error: return "error";
    case Outcome::timed_out: return "timed_out";
    case Outcome::out_of_memory: return "out_of_memory";
    case Outcome::kernel_died: return "kernel_died";
    case Outcome::cancelled: return "cancelled";
  }
  return "error";
}

/// What ended a run or command by force; none if nothing did.
enum class KilledBy : std::uint8_t { none = 0, deadline = 1, memory = 2, client = 3, signal = 4 };

inline constexpr std::uint8_t kStdoutTruncated = 1;
inline constexpr std::uint8_t kStderrTruncated = 2;
inline constexpr std::uint8_t kResultsTruncated = 4;
inline constexpr std::uint8_t kContextReset = 8;

/// Where the interpreter of a run came from.
enum class KernelOrigin : std::uint8_t {
  running = 0,  // an earlier run had started it
  cold = 1,     // executed for this run
  zygote = 2,   // forked into the session from a zygote
  ahead = 3,    // executed before anybody asked
};
constexpr std::string_view name_of(KernelOrigin origin) {
  switch (origin) {
    case KernelOrigin::running: return "running";
    case KernelOrigin::cold: return "cold";
    case KernelOrigin::zygote: return "zygote";
    case KernelOrigin::ahead: return "ahead";
  }
  return "";
}

inline constexpr std::size_t kMaxGroupName = 32;
/// After a `prepare` with joins 2.
inline constexpr char kForkUnderWay = 1;

/// The name of the context a run has if it names none.
inline constexpr const char* kDefaultContext = "default";

/// The facts of a finished run. In wire order: u8 outcome, u8 killed_by, u8 flags,
/// u32 exit_code + 1 (0 = none), u32 signal, u64 stdout_bytes, u64 stderr_bytes,
/// u32 execution_count, u64 queue_ns, u64 spawn_ns, u64 run_ns, u64 collect_ns, u64 cpu_ns,
/// u64 memory_peak_bytes, u32 pids_peak, i64 started_wall_ms, u8 kernel_origin.
/// All of it comes from the kernel of the host, but for outcome `error`, which an
/// interpreter that still lives says about itself.
struct RunDone {
  Outcome outcome = Outcome::ok;
  KilledBy killed_by = KilledBy::none;
  std::uint8_t flags = 0;
  std::int32_t exit_code = -1;  // -1: did not exit (a kernel that lives on, or a signal)
  std::uint32_t signal = 0;
  std::uint64_t stdout_bytes = 0;  // written by the tenant, kept or not
  std::uint64_t stderr_bytes = 0;
  std::uint32_t execution_count = 0;  // 0 for commands
  std::uint64_t queue_ns = 0;
  std::uint64_t spawn_ns = 0;
  std::uint64_t run_ns = 0;
  std::uint64_t collect_ns = 0;
  std::uint64_t cpu_ns = 0;
  std::uint64_t memory_peak_bytes = 0;
  std::uint32_t pids_peak = 0;
  std::int64_t started_wall_ms = 0;
  KernelOrigin kernel_origin = KernelOrigin::running;  // of a command: running, and means nothing
};

}  // namespace codespace::wire
