// The values that pass between the API and the session manager: what is asked for, and
// what was true of it afterwards. Plain structs without behaviour; JSON is api/json's.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/wire/egress_protocol.h"
#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

/// The longest a run or command may take from the arrival of its request; the public promise.
inline constexpr std::chrono::seconds kMaxRunTime{60};

using Labels = std::map<std::string, std::string>;
using Env = std::vector<std::pair<std::string, std::string>>;
/// When a request arrived and by when it must be answered; fixed once, in the connection.
using TimePoint = std::chrono::steady_clock::time_point;  // CLOCK_MONOTONIC in libstdc++

enum class SessionStatus { starting, running, paused, ending, ended };

/// Why a session is gone. Closed set, part of the API.
enum class EndReason {
  none,
  deleted,
  idle,
  lifetime,
  out_of_memory,   // its init was killed for memory
  init_died,       // its init ended for another reason
  lost_at_reboot,  // the host or the launcher restarted without it
};

/// The way out a session has. A rule is as sandbox/egress/rules.h has them.
struct Network {
  wire::NetworkMode mode = wire::NetworkMode::none;
  std::vector<std::string> allow;         // of allowlist only
};

struct SessionSpec {
  std::string owner;         // id of the key that creates it
  std::string image;         // name; empty means the configured default
  Labels labels;
  Env env;
  std::chrono::seconds idle_timeout{0};   // 0: never
  std::chrono::seconds max_lifetime{0};   // 0: never
  wire::SessionLimits limits;             // fields that are 0 take the configured default
  std::optional<Network> network;         // none: the configured default
  wire::Flavour flavour = wire::Flavour::min;  // what the Python kernel finds imported
  bool javascript = false;                     // its first run is known to be JavaScript
};

struct SessionInfo {
  std::string id;            // "session-" and 26 characters of [a-z2-7]
  std::string owner;
  std::string image;
  std::uint64_t image_handle = 0;
  SessionStatus status = SessionStatus::starting;
  Labels labels;
  Env env;
  wire::SessionLimits limits;
  Network network;
  std::chrono::seconds idle_timeout{0};
  std::chrono::seconds max_lifetime{0};
  std::int64_t created_at_ms = 0;
  std::int64_t last_used_at_ms = 0;
  std::optional<std::int64_t> expires_at_ms;  // earliest of idle and lifetime; none if neither
  std::int64_t ended_at_ms = 0;
  EndReason end_reason = EndReason::none;
};

struct SessionPatch {
  std::optional<Labels> labels;           // instead of those it has
  Env env;                                // on top of what it has; seen by runs and commands that begin later
  std::optional<std::chrono::seconds> idle_timeout;
  std::optional<std::chrono::seconds> max_lifetime;
};

struct SessionQuery {
  std::string owner;
  Labels labels;                          // every pair must match
  std::optional<SessionStatus> status;
  std::uint32_t limit = 50;
  std::string cursor;                     // opaque; empty for the first page
};

struct SessionPage {
  std::vector<SessionInfo> sessions;
  std::string next_cursor;                // empty on the last page
  std::uint64_t total = 0;
};

struct RunSpec {
  std::string language;                   // canonical: python, javascript
  std::string context = "default";
  std::string code;
  std::chrono::milliseconds timeout{kMaxRunTime};
  std::string idempotency_key;            // empty: none
};

struct CommandSpec {
  std::string command;
  std::string cwd;                        // empty: /workspace
  Env env;
  std::string stdin_data;
  std::chrono::milliseconds timeout{kMaxRunTime};
  std::string idempotency_key;
  std::string traceparent;                // TRACEPARENT of the command, if `env` has none; no part of what a retry must repeat
};

struct MimeResult {
  bool is_main_result = false;
  std::vector<std::pair<std::string, std::string>> data;  // MIME type, text (base64 for binary types)
};

struct RunFailure {
  std::string name;
  std::string value;
  std::vector<std::string> traceback;
};

/// What is known of a run or command. `done` is meaningful once `finished` is true.
struct RunRecord {
  std::string id;                         // "run-" or "cmd-" and 26 characters of [a-z2-7]
  std::string session_id;
  std::string language;                   // empty for a command
  std::string context;                    // likewise
  bool finished = false;
  std::string stdout_data;                // any bytes
  std::string stderr_data;
  std::vector<MimeResult> results;
  std::optional<RunFailure> failure;
  wire::RunDone done;
};

/// One line of the list of a session's runs, or of its commands.
struct RunSummary {
  std::string id;
  std::string language;                   // empty for a command
  std::string context;
  wire::RunPhase phase = wire::RunPhase::queued;
  wire::Outcome outcome = wire::Outcome::ok;             // if finished
  wire::KilledBy killed_by = wire::KilledBy::none;
  std::int64_t created_at_ms = 0;
  std::uint64_t queue_ns = 0;
  std::uint64_t duration_ns = 0;          // without the queue; so far, if it runs
};

/// A named interpreter state of a session. Usage is since its interpreter was started.
struct ContextInfo {
  std::string language;
  std::string context;
  wire::ContextState state = wire::ContextState::idle;
  std::uint32_t queued = 0;               // runs that wait beside the one under way
  std::uint32_t execution_count = 0;
  std::int64_t created_at_ms = 0;
  std::uint64_t cpu_ns = 0, memory_bytes = 0;
  std::uint32_t pids = 0;
};

struct FileEntry {
  std::string name;
  wire::FileKind kind = wire::FileKind::other;
  std::uint64_t size = 0;
  std::uint32_t mode = 0;
  std::uint32_t uid = 0, gid = 0;         // as the session sees them
  std::int64_t mtime_ns = 0, ctime_ns = 0, atime_ns = 0;
  std::int64_t btime_ns = 0;              // 0: not known
  std::uint64_t inode = 0;
  std::string link_target;
};

struct FileWritten {
  std::uint64_t bytes = 0;
  std::uint64_t size = 0;
};

struct DiskUsage {
  std::string mount;
  std::uint64_t used = 0, size = 0, inodes_used = 0, inodes = 0;
};

struct SessionMetrics {
  std::uint64_t memory_bytes = 0, memory_peak_bytes = 0, cpu_ns = 0, oom_kills = 0;
  std::uint32_t pids = 0;
  std::uint32_t kernels = 0, runs_active = 0;
  std::optional<wire::EgressCounts> egress;  // of a session with a network, if the proxy answers
  std::vector<DiskUsage> disks;
};

struct ImageInfo {
  std::string name;                       // "code_latest"
  std::uint64_t handle = 0;
  std::string description;
  std::vector<std::string> languages;     // canonical names
  std::map<std::string, std::string> versions;  // "python" -> "3.11.2"
  std::vector<std::string> aliases;       // "linux_latest"
  bool is_default = false;
};

}  // namespace codespace::manager
