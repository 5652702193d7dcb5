// What init holds for its session: kernels, commands, the records of runs, file helpers.
// One object, owned by main; single-threaded.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "sandbox/init/command.h"
#include "sandbox/init/event_loop.h"
#include "sandbox/init/kernel.h"
#include "sandbox/init/reaper.h"
#include "sandbox/init/run.h"

namespace codespace::init {

/// Bounds of a session; the request beyond is refused as overloaded, never queued without end.
inline constexpr std::size_t kMaxCommands = 64;
inline constexpr std::size_t kMaxKernels = 16;
inline constexpr std::size_t kMaxFileHelpers = 16;
inline constexpr std::size_t kMaxWaitingFiles = 64;
inline constexpr std::size_t kMaxWaitingBytes = 8U << 20;  // of their requests, out of init's reserve
inline constexpr std::uint64_t kFilePatienceNs = 10'000'000'000;
/// An interpreter started ahead that the session's first minute did not use is ended again.
inline constexpr std::uint64_t kUnusedKernelNs = 60ULL * 1'000'000'000;
/// Names of deleted contexts, kept so that deleting again is fine; oldest forgotten first.
inline constexpr std::size_t kMaxDeletedNames = 256;
/// Finished runs are kept for later `attach`, oldest dropped first beyond these.
inline constexpr std::size_t kMaxKeptRuns = 256;
inline constexpr std::size_t kMaxKeptBytes = 24U << 20;

class Session {
 public:
  /// `processors`: how many of the host's the session may use, if not all.
  Session(EventLoop& loop, Reaper& reaper, CgroupBackend backend, std::string_view processors);

  /// Starts the run, or returns the existing one with that id: a retry never runs twice.
  std::shared_ptr<Run> start(RunRequest request);
  [[nodiscard]] std::shared_ptr<Run> find(const wire::RunId& id) const;
  /// False if no run has this id.
  bool cancel(const wire::RunId& id);

  /// Expects the default kernel of a language to be forked in by a zygote, or starts it ahead of
  /// its first run if no ends are given. Only a session in which nothing of the tenant ran yet
  /// takes one: the joiner is, for a moment, not confined like its neighbours. Returns false if
  /// refused; else `group` is the run group the joiner has to enter.
  bool prepare_kernel(const std::string& language, std::optional<Kernel::JoinerEnds> ends, bool later, Kernel::Settled settled,
                      std::string& group);
  /// A kernel that was to come later is on its way.
  void limit_joins();
  // contexts.cpp
  /// Frames: all contexts, all runs (or commands) still known, newest first; ended by `ok`.
  [[nodiscard]] std::vector<char> list_contexts();
  [[nodiscard]] std::vector<char> list_runs(bool commands, std::uint32_t limit) const;
  /// Ends the context; `gone` is called once, now or later, when nothing of it is left.
  /// False, without a call, if there is none of that name and none was deleted lately.
  bool end_context(std::string_view language, std::string_view context, std::function<void()> gone);

  /// Whether serve_file() would take a request of so many bytes, now or after a wait.
  [[nodiscard]] bool takes_file_request(std::size_t bytes) const;
  /// Has a helper serve a file request and owns the connection from then on. With kMaxFileHelpers at work it waits for one
  /// of them, for kFilePatienceNs at most, and then closes the connection.
  void serve_file(sys::UniqueFd connection, std::uint32_t type, std::string_view payload, std::string_view early);

  [[nodiscard]] std::uint32_t kernels_alive() const;
  [[nodiscard]] std::uint32_t runs_active() const;
  /// Runs and commands so far that ended for memory; v1 counts kills per group, not per tree.
  [[nodiscard]] std::uint64_t out_of_memory_ends() const { return out_of_memory_ends_; }

 private:
  void add_thread_limits(Env& env) const;
  void start_command(const std::shared_ptr<Run>& run);
  void start_in_kernel(const std::shared_ptr<Run>& run);
  void forget_old_runs();
  void on_first_use();
  /// Contexts whose interpreter never came up: to the client they have never been.
  void drop_unused_kernels();

  /// A deleted context of which something is left. Its name is free again.
  struct Ending {
    std::string key;
    std::unique_ptr<Kernel> kernel;
    std::vector<std::function<void()>> waiting;
  };

  EventLoop& loop_;
  Reaper& reaper_;
  CgroupBackend backend_;
  Env thread_limits_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;  // "language/context"
  std::vector<std::unique_ptr<Kernel>> replaced_;  // unused ones that gave way, until they are gone
  bool used_ = false;                              // something of the tenant ran, or is about to
  std::list<Ending> ending_;
  std::deque<std::string> deleted_names_;  // keys of kernels_ that were deleted, oldest first
  std::unordered_map<std::uint64_t, std::unique_ptr<Command>> commands_;
  std::uint64_t next_group_ = 1;
  std::unique_ptr<RunGroup> first_group_;  // for the first kernel: making one takes as long as a short run
  std::map<wire::RunId, std::shared_ptr<Run>> runs_;
  std::deque<wire::RunId> order_;  // of runs_, oldest first
  struct WaitingFile {
    sys::UniqueFd connection;
    std::uint32_t type = 0;
    std::string payload, early;
    EventLoop::TimerId timer = 0;
  };
  bool start_file_helper(int connection, std::uint32_t type, std::string_view payload, std::string_view early);
  void serve_waiting_files();

  std::size_t file_helpers_ = 0;
  std::list<WaitingFile> waiting_files_;  // oldest first
  std::uint64_t out_of_memory_ends_ = 0;
  std::unique_ptr<RunGroup> upload_group_;  // what uploads write counts against the tenant's memory
};

}  // namespace codespace::init
