// Encoding and decoding of runs.
#include "sandbox/manager/run_frames.h"

#include <algorithm>

namespace codespace::manager {
namespace {

using wire::InitReply;
using wire::InitRequest;
using wire::Reader;
using wire::Writer;

// Above what an honest init keeps (8 MiB), so that only a hostile one is cut here.
constexpr std::size_t kMaxResultBytes = 16U << 20;
constexpr std::size_t kMaxResults = 1024;
constexpr std::uint32_t kMaxMimeTypes = 64;
constexpr std::uint32_t kMaxTracebackLines = 4096;

std::uint64_t to_ns(TimePoint at) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(at.time_since_epoch()).count());
}

std::string_view bytes_of(const wire::RunId& id) {
  return {reinterpret_cast<const char*>(id.data()), id.size()};
}

void put_tail(Writer& writer, const Env& env, const RunTimes& times, std::uint32_t stream_cap) {
  writer.u64(to_ns(times.deadline));
  writer.u64(to_ns(times.kill_by));
  writer.u32(stream_cap);
  writer.u32(static_cast<std::uint32_t>(env.size()));
  for (const auto& [name, value] : env) {
    writer.bytes(name);
    writer.bytes(value);
  }
}

std::vector<char> frame(const Writer& writer, InitRequest type) {
  return writer.frame(static_cast<std::uint32_t>(type));
}

}  // namespace

RunTimes run_times(TimePoint arrived, std::chrono::milliseconds timeout) {
  using std::chrono::seconds;
  const TimePoint deadline = arrived + std::min<std::chrono::milliseconds>(timeout, kMaxRunTime - seconds(1));
  return {deadline, deadline + seconds(1)};
}

std::vector<char> encode_run(const wire::RunId& id, const RunSpec& spec, const Env& env,
                             const RunTimes& times, std::uint32_t stream_cap) {
  Writer writer;
  writer.raw(bytes_of(id));
  writer.bytes(spec.language);
  writer.bytes(spec.context);
  writer.bytes(spec.code);
  put_tail(writer, env, times, stream_cap);
  return frame(writer, InitRequest::run);
}

std::vector<char> encode_command(const wire::RunId& id, const CommandSpec& spec, const Env& env,
                                 const RunTimes& times, std::uint32_t stream_cap) {
  Writer writer;
  writer.raw(bytes_of(id));
  writer.bytes(spec.command);
  writer.bytes(spec.cwd);
  writer.bytes(spec.stdin_data);
  put_tail(writer, env, times, stream_cap);
  return frame(writer, InitRequest::command);
}

void set_run_id(std::vector<char>& request, const wire::RunId& id) {
  // The first field of the payload, in all frames that carry one.
  std::copy_n(reinterpret_cast<const char*>(id.data()), id.size(), request.begin() + wire::kHeaderSize);
}

std::vector<char> encode_attach(const wire::RunId& id, bool follow) {
  Writer writer;
  writer.raw(bytes_of(id));
  writer.u8(follow ? 1 : 0);
  return frame(writer, InitRequest::attach);
}

std::vector<char> encode_cancel(const wire::RunId& id) {
  Writer writer;
  writer.raw(bytes_of(id));
  return frame(writer, InitRequest::cancel);
}

std::optional<Refused> decode_refused(std::span<const char> payload) {
  Reader reader(payload);
  Refused refused;
  refused.why = static_cast<wire::Refusal>(reader.u32());
  refused.sys_errno = static_cast<int>(reader.u32());
  refused.stage = static_cast<wire::Stage>(reader.u32());
  refused.detail = std::string(reader.bytes()).substr(0, 512);
  if (!reader.done()) return std::nullopt;
  return refused;
}

bool RunCollector::take(const Frame& frame, RunRecord& record) {
  if (record.finished) return false;
  Reader reader(frame.payload);
  switch (frame.type) {
    case InitReply::accepted: {
      (void)reader.u32();
      if (!reader.ok()) return false;
      const std::string language = std::string(reader.bytes()).substr(0, 32);
      // An init that was started by an earlier version does not name the context.
      const std::string context = reader.done() ? (language.empty() ? "" : "default") : std::string(reader.bytes());
      if (!reader.done()) return reader.ok();
      if (record.language.empty()) record.language = language;
      if (record.context.empty() && (context.empty() || wire::is_context_name(context))) record.context = context;
      return true;
    }
    case InitReply::output:
      return take_output(reader, record);
    case InitReply::result:
      return take_result(reader, record);
    case InitReply::error:
      return take_error(reader, record);
    case InitReply::done:
      return take_done(reader, record);
    case InitReply::ok:
    case InitReply::refused:
    case InitReply::stats:
    case InitReply::entry:
    case InitReply::data:
    case InitReply::file_done:
    case InitReply::context:
    case InitReply::run_summary:
      return false;
  }
  return false;
}

bool RunCollector::take_output(Reader reader, RunRecord& record) {
  const std::uint8_t stream = reader.u8();
  std::string_view bytes = reader.rest();
  if (!reader.ok() || (stream != 1 && stream != 2)) return false;
  std::string& kept = stream == 1 ? record.stdout_data : record.stderr_data;
  const std::size_t room = stream_cap_ - std::min<std::size_t>(stream_cap_, kept.size());
  if (bytes.size() > room) {
    flags_ |= stream == 1 ? wire::kStdoutTruncated : wire::kStderrTruncated;
    bytes = bytes.substr(0, room);
  }
  kept.append(bytes);
  return true;
}

bool RunCollector::take_result(Reader reader, RunRecord& record) {
  MimeResult result;
  result.is_main_result = reader.u8() != 0;
  const std::uint32_t count = reader.u32();
  if (count > kMaxMimeTypes) return false;
  std::size_t bytes = 0;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) {
    const std::string_view mime = reader.bytes();
    const std::string_view data = reader.bytes();
    bytes += mime.size() + data.size();
    result.data.emplace_back(mime, data);
  }
  if (!reader.done()) return false;
  if (record.results.size() >= kMaxResults || result_bytes_ + bytes > kMaxResultBytes) {
    flags_ |= wire::kResultsTruncated;
    return true;
  }
  result_bytes_ += bytes;
  record.results.push_back(std::move(result));
  return true;
}

bool RunCollector::take_error(Reader reader, RunRecord& record) {
  if (record.failure) return false;
  RunFailure failure;
  failure.name = reader.bytes();
  failure.value = reader.bytes();
  const std::uint32_t count = reader.u32();
  if (count > kMaxTracebackLines) return false;
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) failure.traceback.emplace_back(reader.bytes());
  if (!reader.done()) return false;
  record.failure = std::move(failure);
  return true;
}

bool RunCollector::take_done(Reader reader, RunRecord& record) const {
  wire::RunDone done;
  const std::uint8_t outcome = reader.u8();
  const std::uint8_t killed_by = reader.u8();
  done.flags = static_cast<std::uint8_t>(reader.u8() | flags_);
  done.exit_code = static_cast<std::int32_t>(reader.u32()) - 1;
  done.signal = reader.u32();
  done.stdout_bytes = reader.u64();
  done.stderr_bytes = reader.u64();
  done.execution_count = reader.u32();
  done.queue_ns = reader.u64();
  done.spawn_ns = reader.u64();
  done.run_ns = reader.u64();
  done.collect_ns = reader.u64();
  done.cpu_ns = reader.u64();
  done.memory_peak_bytes = reader.u64();
  done.pids_peak = reader.u32();
  done.started_wall_ms = reader.i64();
  done.kernel_origin = static_cast<wire::KernelOrigin>(reader.u8());
  if (!reader.done() || done.kernel_origin > wire::KernelOrigin::ahead) return false;
  if (outcome < static_cast<std::uint8_t>(wire::Outcome::ok) ||
      outcome > static_cast<std::uint8_t>(wire::Outcome::cancelled) ||
      killed_by > static_cast<std::uint8_t>(wire::KilledBy::signal) || done.exit_code < -1)
    return false;
  done.outcome = static_cast<wire::Outcome>(outcome);
  done.killed_by = static_cast<wire::KilledBy>(killed_by);
  record.done = done;
  record.finished = true;
  return true;
}

std::size_t size_of(const RunRecord& record) {
  std::size_t bytes = sizeof record + record.stdout_data.size() + record.stderr_data.size();
  for (const MimeResult& result : record.results)
    for (const auto& [mime, data] : result.data) bytes += 64 + mime.size() + data.size();
  if (record.failure) {
    bytes += record.failure->name.size() + record.failure->value.size();
    for (const std::string& line : record.failure->traceback) bytes += 32 + line.size();
  }
  return bytes;
}

}  // namespace codespace::manager
