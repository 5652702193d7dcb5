// Runs and commands as init's frames: encoding what is asked, decoding what comes back into
// a RunRecord of bounded size. Pure functions on one thread; see wire/init_protocol.h.
#pragma once

#include <optional>
#include <vector>

#include "sandbox/manager/init_client.h"
#include "sandbox/manager/records.h"
#include "sandbox/manager/session_manager.h"

namespace codespace::manager {

/// When the run is interrupted and by when all of it is dead; CLOCK_MONOTONIC.
struct RunTimes {
  TimePoint deadline;
  TimePoint kill_by;
};

/// The public promise is that nothing is alive kMaxRunTime after arrival, so the longest
/// runs are interrupted one second before it.
RunTimes run_times(TimePoint arrived, std::chrono::milliseconds timeout);

std::vector<char> encode_run(const wire::RunId& id, const RunSpec& spec, const Env& env,
                             const RunTimes& times, std::uint32_t stream_cap);
std::vector<char> encode_command(const wire::RunId& id, const CommandSpec& spec, const Env& env,
                                 const RunTimes& times, std::uint32_t stream_cap);
/// Puts another id into an encoded run or command.
void set_run_id(std::vector<char>& request, const wire::RunId& id);
/// attach (with `follow`) or cancel.
std::vector<char> encode_attach(const wire::RunId& id, bool follow);
std::vector<char> encode_cancel(const wire::RunId& id);

struct Refused {
  wire::Refusal why{};
  int sys_errno = 0;
  wire::Stage stage{};
  std::string detail;
};
std::optional<Refused> decode_refused(std::span<const char> payload);

/// Takes in the frames of one run. Whatever init claims, the record stays bounded.
class RunCollector {
 public:
  explicit RunCollector(std::uint32_t stream_cap) : stream_cap_(stream_cap) {}
  /// False if the frame does not belong into the stream of a run or does not decode.
  [[nodiscard]] bool take(const Frame& frame, RunRecord& record);

 private:
  bool take_output(wire::Reader reader, RunRecord& record);
  bool take_result(wire::Reader reader, RunRecord& record);
  bool take_error(wire::Reader reader, RunRecord& record);
  bool take_done(wire::Reader reader, RunRecord& record) const;

  const std::uint32_t stream_cap_;
  std::size_t result_bytes_ = 0;
  std::uint8_t flags_ = 0;  // what this side cut
};

/// Bytes that a record occupies, near enough to bound a cache by.
std::size_t size_of(const RunRecord& record);

}  // namespace codespace::manager
