// A run: one execution of code in a kernel or one command, from its request to the facts of
// its end. Its frames are kept in a log, so connections are mere cursors: a client that
// hangs up loses nothing, and a later `attach` reads the same bytes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sandbox/wire/codec.h"
#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::init {

using Env = std::vector<std::pair<std::string, std::string>>;

/// What the gateway asked for, decoded.
struct RunRequest {
  wire::RunId id{};
  bool is_command = false;
  std::string language;  // of a run
  std::string context;
  std::string code;      // or the command
  std::string cwd;
  std::string stdin_data;
  std::uint64_t deadline_ns = 0;
  std::uint64_t kill_by_ns = 0;
  std::uint32_t stream_cap = 0;
  Env env;
};

/// Bounds on what a run may leave in init's memory.
inline constexpr std::uint32_t kMaxStreamCap = 4U << 20;
inline constexpr std::uint64_t kMaxResultBytes = 8ULL << 20;
inline constexpr std::uint32_t kMaxResults = 256;

class Run {
 public:
  explicit Run(RunRequest request) : request_(std::move(request)) {}

  [[nodiscard]] const RunRequest& request() const { return request_; }
  [[nodiscard]] bool finished() const { return finished_; }
  [[nodiscard]] bool refused() const { return refused_; }
  /// Encoded frames so far.
  [[nodiscard]] const std::vector<char>& log() const { return log_; }

  void accept(std::uint32_t queue_position);
  /// Output of stream 1 or 2; past the cap it is counted and dropped.
  void add_output(std::uint8_t stream, std::string_view bytes);
  void add_result(std::string_view payload);
  /// The interpreter's own account of an uncaught error.
  void add_error(std::string_view payload);
  void finish();
  void refuse(wire::Refusal why, int sys_errno, wire::Stage stage, std::string_view detail);

  /// Called after the log grew; the connections attached to the run listen here.
  std::vector<std::function<void()>*> listeners;

  /// Called once when the facts are complete.
  std::function<void(const Run&)> on_finished;

  // Facts, filled in by whoever drives the run.
  wire::RunDone done;
  std::uint64_t created_ns = 0;
  std::int64_t created_wall_ms = 0;
  std::uint64_t started_ns = 0;   // taken from the queue
  std::uint64_t sent_ns = 0;      // the interpreter has the code, or the shell runs
  std::uint64_t ended_ns = 0;     // the interpreter said done, or the process is gone
  std::uint64_t queue_timer = 0;  // of the event loop; ends the wait in a queue at the deadline
  bool errored = false;
  bool cancel_requested = false;
  bool deadline_hit = false;

 private:
  void append(wire::InitReply type, const wire::Writer& payload);
  void changed();

  RunRequest request_;
  std::vector<char> log_;
  std::uint64_t kept_[3] = {0, 0, 0};
  std::uint64_t result_bytes_ = 0;
  std::uint32_t results_ = 0;
  bool finished_ = false;
  bool refused_ = false;
};

}  // namespace codespace::init
