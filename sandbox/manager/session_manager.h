// The session manager: everything the API can do, as one coroutine each. It owns the
// sessions' state machine, talks to the launcher (creation and end) and to each session's
// init (runs, commands, files), and keeps metadata in the store. It knows no HTTP and no JSON.
//
// Threads: any thread of the io_context may call any function; results arrive on the
// caller's executor. Cancelling a caller stops the caller waiting, never what was started.
//
// Ownership: every function that names a session takes the caller's owner id and treats a
// session of another owner exactly as one that never existed.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "sandbox/manager/limits.h"
#include "sandbox/manager/records.h"
#include "sandbox/sys/result.h"

namespace spdlog {
class logger;
}
namespace codespace::metrics {
class Metrics;
}

namespace codespace::manager {

template <class T>
using Task = boost::asio::awaitable<Result<T>>;

/// Sessions kept ready before they are asked for.
struct PoolConfig {
  std::uint32_t size = 4;          // of the default image, always
  std::uint32_t most = 32;         // of one image and flavour, when many are asked for
  std::uint32_t data = 1;          // of the default image with the big libraries
  std::uint32_t javascript = 1;    // of the default image that have a Node.js kernel too; 0: none ever has
  std::uint64_t memory_bytes = 1ULL << 30;  // all ready sessions together, as estimated
};

struct ManagerConfig {
  std::string runtime_dir;    // holds launcher.sock and sessions/<hex key>.sock
  std::string state_dir;      // holds codespace.db
  std::string image_store;    // holds <handle as 16 hex digits>/{rootfs, image.json}
  std::string default_image = "code_latest";
  wire::SessionLimits default_limits{.memory_bytes = 1ULL << 30,
                                     .workspace_bytes = 512ULL << 20,
                                     .scratch_bytes = 256ULL << 20,
                                     .inodes = 100'000,
                                     .cpu_milli = 2000,
                                     .pids = 256};
  wire::SessionLimits max_limits = wire::kMaxLimits;       // more than this is a mistake of the request
  wire::SessionLimits most_limits;             // more than this is cut to it; fields that are 0 are not
  std::map<std::string, wire::SessionLimits> image_limits;  // of sessions of an image that ask for nothing else
  std::chrono::seconds default_idle_timeout{1800};
  std::chrono::seconds default_max_lifetime{86'400};
  std::uint32_t max_sessions = 1000;           // live, over all owners
  std::uint32_t stream_cap_bytes = 1U << 20;   // kept of stdout and of stderr of a run, each
  std::uint64_t max_file_bytes = 1ULL << 30;   // of one write
  std::string egress_socket;                   // of the egress proxy
  Network default_network;                     // of sessions that name none
  bool zygotes = true;                         // false: every kernel is started cold
  PoolConfig pool;
  std::shared_ptr<spdlog::logger> log;         // null: silent; second owner: main
  std::shared_ptr<metrics::Metrics> metrics;   // null: nothing is counted; second owner: main
};

struct FileRange {
  std::uint64_t offset = 0;
  std::uint64_t length = ~0ULL;
};

/// A file being read. Pieces arrive by next(); an empty piece is the end.
class FileReader {
 public:
  virtual ~FileReader() = default;
  [[nodiscard]] virtual const FileEntry& entry() const = 0;
  virtual Task<std::string> next() = 0;
};

/// A file being written. Nothing is visible at the path until finish() succeeded, unless
/// it appends; destroying it unfinished leaves the old file as it was.
class FileWriter {
 public:
  virtual ~FileWriter() = default;
  virtual Task<void> write(std::string piece) = 0;
  virtual Task<FileWritten> finish() = 0;
};

struct FileWriteOptions {
  bool append = false;
  bool exclusive = false;
  bool create_parents = true;
  std::uint32_t mode = 0;     // 0: keep the old file's, or 0644
};

/// What a removal may take: a file or link; also an empty directory; a directory with all in it.
enum class RemoveScope { file, file_or_empty_directory, tree };

struct FileListing {
  std::vector<FileEntry> entries;
  bool truncated = false;
};

struct Readiness {
  bool ready = false;
  struct Check {
    std::string name;
    bool ok = false;
    std::string detail;       // what is wrong and what to do, when not ok; may warn when ok
  };
  std::vector<Check> checks;
};

class SessionManager {
 public:
  /// Opens the store, loads the images, reconciles rows against the launcher's list
  /// (live ones are adopted, the others marked lost), starts the timers and the watch.
  static Result<std::unique_ptr<SessionManager>> open(boost::asio::any_io_executor executor,
                                                      ManagerConfig config);
  ~SessionManager();
  SessionManager(const SessionManager&) = delete;
  SessionManager& operator=(const SessionManager&) = delete;

  Task<SessionInfo> create(SessionSpec spec, std::string idempotency_key);
  /// A session that ended within seven days gives its info with status `ended`.
  Task<SessionInfo> find(std::string owner, std::string session_id);
  Task<SessionPage> list(SessionQuery query);
  Task<SessionInfo> patch(std::string owner, std::string session_id, SessionPatch patch);
  /// Ends the session and returns after nothing of it is left. Idempotent; legal in every state.
  Task<void> remove(std::string owner, std::string session_id);
  Task<SessionInfo> pause(std::string owner, std::string session_id);
  Task<SessionInfo> resume(std::string owner, std::string session_id);
  Task<SessionMetrics> metrics(std::string owner, std::string session_id);

  /// `arrived` is when the request came in; the deadline is arrived + spec.timeout.
  Task<RunRecord> run(std::string owner, std::string session_id, RunSpec spec, TimePoint arrived);
  Task<RunRecord> command(std::string owner, std::string session_id, CommandSpec spec, TimePoint arrived);
  /// The record of a run or command so far, by id; waits for nothing.
  Task<RunRecord> find_run(std::string owner, std::string session_id, std::string run_id);
  Task<void> cancel_run(std::string owner, std::string session_id, std::string run_id);
  /// Runs, or commands, that the session still knows of, newest first.
  Task<std::vector<RunSummary>> list_runs(std::string owner, std::string session_id, bool commands, std::uint32_t limit);
  Task<std::vector<ContextInfo>> list_contexts(std::string owner, std::string session_id);
  /// Kills the context's interpreter with all it started and cancels its runs; returns when nothing
  /// of it is left. Again is fine. The next run of that name begins a new context.
  Task<void> delete_context(std::string owner, std::string session_id, std::string language, std::string context);

  Task<std::unique_ptr<FileReader>> read_file(std::string owner, std::string session_id,
                                              std::string path, FileRange range);
  Task<std::unique_ptr<FileWriter>> write_file(std::string owner, std::string session_id,
                                               std::string path, FileWriteOptions options);
  Task<FileEntry> stat(std::string owner, std::string session_id, std::string path);
  Task<FileListing> list_files(std::string owner, std::string session_id, std::string path,
                               std::uint32_t depth);
  Task<void> make_directory(std::string owner, std::string session_id, std::string path, bool parents);
  Task<void> move(std::string owner, std::string session_id, std::string from, std::string to,
                  bool overwrite);
  Task<void> remove_file(std::string owner, std::string session_id, std::string path, RemoveScope scope);
  /// Every file and directory below `path`, at any depth to 200, whose own name is of `pattern`; entries
  /// are named by their path below it, in no order. What is of a pattern in `excluded`, by its name or
  /// by that path, is left out with all that is in it. Patterns know `*` and `?`. Links are not followed.
  Task<FileListing> search_files(std::string owner, std::string session_id, std::string path,
                                 std::string pattern, std::vector<std::string> excluded);

  [[nodiscard]] std::vector<ImageInfo> images() const;
  /// Brings up to date what of `metrics` is not counted as it happens.
  boost::asio::awaitable<void> measure();
  Task<Readiness> readiness();

  /// API keys: SHA-256 digests with an id and a name. The store never sees a key itself.
  struct KeyRow {
    std::string id;           // "key-" and 26 characters; the owner id of its sessions
    std::string name;
    std::array<std::uint8_t, 32> sha256{};
    std::uint32_t scopes = ~0U;          // bits of the gateway's
    std::uint32_t requests_per_minute = 0;  // 0: no limit
    KeyLimits limits;
  };
  Result<std::vector<KeyRow>> keys();
  Result<void> add_key(const KeyRow& key);
  /// What each owner may have, from now on; who is not named may have what the server gives.
  void limit_keys(std::map<std::string, KeyLimits> limits);

  /// Stops timers and watches, lets running calls finish until `bound`; sessions live on.
  boost::asio::awaitable<void> shutdown(std::chrono::milliseconds bound);

 private:
  class Impl;
  friend class FileLink;  // files.cpp: one transfer, which explains its failures through Impl
  explicit SessionManager(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace codespace::manager
