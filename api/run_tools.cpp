// Code, commands, and what is known of the session: run_code, shell, get_metrics, set_env,
// get_env. See tools.h.
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/json.h"
#include "api/tools.h"
#include "sandbox/sys/clock.h"

namespace codespace::api {
namespace {

using nlohmann::ordered_json;
using namespace std::chrono_literals;

/// Callers may ask for any time; what they get is said where it matters, in the message of a timeout.
constexpr std::int64_t kLongestAsked = 86'400;
constexpr std::size_t kShownOfTimedOut = 4096;
constexpr auto kCpuSample = 100ms;

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

ordered_json pieces(const std::string& stream) {
  ordered_json out = ordered_json::array();
  if (!stream.empty()) out.push_back(clean(stream));
  return out;
}

/// The random part of a run's id as 32 hex digits, which is what clients call a trace id.
std::string trace_id(const std::string& run_id) {
  // The id is base32 (RFC 4648) in lower case: five bits a character.
  std::string hex;
  unsigned bits = 0;
  unsigned held = 0;
  for (const char c : run_id.substr(run_id.find('-') + 1)) {
    bits = bits << 5 | static_cast<unsigned>(c >= 'a' ? c - 'a' : c - '2' + 26);
    held += 5;
    while (held >= 4 && hex.size() < 32) {
      held -= 4;
      hex += "0123456789abcdef"[bits >> held & 15];
    }
    bits &= (1U << held) - 1;
  }
  return hex;
}

std::string seconds(std::chrono::milliseconds time) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", static_cast<double>(time.count()) / 1000);
  return text;
}

/// What was cut off is said where a client shows it.
std::string cut_note(const wire::RunDone& done) {
  std::string note;
  if ((done.flags & wire::kStdoutTruncated) != 0)
    note += "\n[stdout was cut: the program wrote " + std::to_string(done.stdout_bytes) + " bytes; write large output to a file]\n";
  if ((done.flags & wire::kStderrTruncated) != 0)
    note += "\n[stderr was cut: the program wrote " + std::to_string(done.stderr_bytes) + " bytes; write large output to a file]\n";
  if ((done.flags & wire::kResultsTruncated) != 0)
    note += "\n[some results were left out because they are too large; write them to files]\n";
  if ((done.flags & wire::kContextReset) != 0)
    note += "[the interpreter had ended and was started anew: variables of earlier runs are gone]\n";
  return note;
}

ordered_json result_items(const manager::RunRecord& record) {
  ordered_json items = ordered_json::array();
  for (const auto& result : record.results) {
    ordered_json item;
    item["isMainResult"] = result.is_main_result;
    for (const auto& [mime, text] : result.data) {
      const bool is_json = mime == "application/json" || mime.ends_with("+json");
      ordered_json value = is_json ? ordered_json::parse(text, nullptr, false) : ordered_json();
      if (is_json && !value.is_discarded()) item[clean(mime)] = std::move(value);
      else item[clean(mime)] = clean(text);
    }
    items.push_back(dump(item));
  }
  return items;
}

/// One line that says why a run is not ok; empty if it is.
std::string failure_of(const manager::RunRecord& record, std::chrono::milliseconds allowed) {
  switch (record.done.outcome) {
    case wire::Outcome::ok: return {};
    case wire::Outcome::error:
      if (!record.failure) return "the run failed";
      return clean(record.failure->name) + (record.failure->value.empty() ? "" : ": " + clean(record.failure->value));
    case wire::Outcome::timed_out:
      return "TimeoutError: the run timed out after " + seconds(allowed) + " s and was ended, with all it had started; one request gets at most " +
             seconds(kMaxToolRun) + " s here, so break long work into steps";
    case wire::Outcome::out_of_memory: return "MemoryError: the run used up the session's memory and was killed";
    case wire::Outcome::kernel_died:
      return "the interpreter ended" + (record.done.signal != 0 ? " by signal " + std::to_string(record.done.signal)
                                                                : " with exit code " + std::to_string(record.done.exit_code)) +
             "; the next run starts a new one, without the variables of this";
    case wire::Outcome::cancelled: return "the run was cancelled";
  }
  return "the run failed";
}

/// What every client shows as the result of a run: the value of its last expression, or else the
/// text of what it displayed first, or else what it printed.
std::string shown_result(const manager::RunRecord& record) {
  const auto text_of = [](const manager::MimeResult& result) -> std::string {
    for (const auto& [mime, text] : result.data) {
      if (mime == "text/plain") return text;
    }
    return {};
  };
  for (const auto& result : record.results) {
    if (std::string text = result.is_main_result ? text_of(result) : std::string(); !text.empty()) return text;
  }
  const std::string displayed = record.results.empty() ? std::string() : text_of(record.results.front());
  return displayed.empty() ? record.stdout_data : displayed;
}

std::string plain_run_text(const manager::RunRecord& record, const std::string& failure) {
  if (failure.empty()) return clean(shown_result(record) + cut_note(record.done));
  return clean(record.stdout_data + record.stderr_data + cut_note(record.done)) + failure;
}

std::string run_text(const manager::RunRecord& record, const std::string& failure) {
  const std::string error_output = record.stderr_data + cut_note(record.done);
  ordered_json out;
  out["result"] = result_items(record);
  out["stdout"] = pieces(record.stdout_data);
  out["stderr"] = pieces(error_output);
  out["executionError"] = failure;
  out["execution_count"] = record.done.execution_count;
  out["execution_time"] = static_cast<double>(std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::nanoseconds(record.done.spawn_ns + record.done.run_ns)).count()) / 1e6;
  out["traceId"] = trace_id(record.id);
  return dump(out);
}

/// The end of a text, from a character's first byte.
std::string tail(const std::string& text, std::size_t most) {
  if (text.size() <= most) return clean(text);
  std::size_t at = text.size() - most;
  while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80) ++at;
  return "..." + clean(text.substr(at));
}

ToolResult timed_out_command(const manager::RunRecord& record, std::chrono::milliseconds allowed) {
  // Not JSON, by contract: a client takes JSON for the output of a command that ended.
  std::string text = "Execution failed. Error code:-1 Error message: [timeout] the command exceeded " + std::to_string(allowed.count()) +
                     " ms and was killed, with all it had started";
  if (!record.stdout_data.empty()) text += "\nstdout until then:\n" + tail(record.stdout_data, kShownOfTimedOut);
  if (!record.stderr_data.empty()) text += "\nstderr until then:\n" + tail(record.stderr_data, kShownOfTimedOut);
  return tool_failure(std::move(text));
}

ToolResult finished_command(const manager::RunRecord& record, bool plain) {
  const wire::RunDone& done = record.done;
  const int code = done.exit_code >= 0 ? done.exit_code : done.signal != 0 ? 128 + static_cast<int>(done.signal) : -1;
  std::string error_output = record.stderr_data + cut_note(done);
  if (done.outcome == wire::Outcome::out_of_memory) error_output += "[killed: the command used up the session's memory]\n";
  else if (done.outcome == wire::Outcome::cancelled) error_output += "[the command was cancelled]\n";
  else if (done.signal != 0) error_output += "[killed by signal " + std::to_string(done.signal) + "]\n";
  ToolResult result;
  result.is_error = code != 0;
  if (plain) {
    result.text = clean(record.stdout_data + error_output);
    if (result.is_error) result.text = "Execution failed. Error code:" + std::to_string(code) + " Error message: " + result.text;
    return result;
  }
  ordered_json out;
  out["stdout"] = clean(record.stdout_data);
  out["stderr"] = clean(error_output);
  out["exit_code"] = code;
  if (result.is_error) out["errorCode"] = code;
  out["traceId"] = result.is_error ? trace_id(record.id) : "";
  result.text = dump(out);
  return result;
}

/// Nothing once the session is not there or not at work; a paused one has no state to show.
std::optional<double> cpu_seconds(const Result<manager::SessionMetrics>& metrics) {
  if (!metrics) return std::nullopt;
  return static_cast<double>(metrics->cpu_ns) / 1e9;
}

}  // namespace

ToolTask run_code(ToolCall call) {
  manager::RunSpec spec;
  std::string language = call.args.required("language");
  spec.code = call.args.required("code");
  const std::int64_t asked = call.args.integer("timeout_s", 60, 1, kLongestAsked);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  auto canonical = canonical_language(language);
  if (!canonical) {
    auto session = co_await call.manager.find(call.owner, call.session_id);
    if (!session) co_return tool_failure(session.error());
    co_return tool_failure("language " + clean(language.substr(0, 64)) + " is not available in this image; it has python and javascript");
  }
  spec.language = std::move(*canonical);
  spec.timeout = std::min<std::chrono::milliseconds>(std::chrono::seconds(asked), kMaxToolRun);
  const auto allowed = spec.timeout;
  const bool plain = call.plain;
  auto record = co_await call.manager.run(std::move(call.owner), std::move(call.session_id), std::move(spec), call.arrived);
  if (!record) co_return tool_failure(record.error());
  const std::string failure = failure_of(*record, allowed);
  ToolResult result;
  result.text = plain ? plain_run_text(*record, failure) : run_text(*record, failure);
  result.is_error = !failure.empty();
  co_return result;
}

ToolTask shell(ToolCall call) {
  manager::CommandSpec spec;
  spec.command = call.args.required("command");
  spec.cwd = call.args.text("cwd");
  spec.env = call.args.env("envs");
  const std::int64_t asked = call.args.integer("timeout_ms", kMaxToolCommand.count(), 1, kLongestAsked * 1000);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  spec.timeout = std::min(std::chrono::milliseconds(asked), kMaxToolCommand);
  const auto allowed = spec.timeout;
  const bool plain = call.plain;
  auto record = co_await call.manager.command(std::move(call.owner), std::move(call.session_id), std::move(spec), call.arrived);
  if (!record) co_return tool_failure(record.error());
  if (record->done.outcome == wire::Outcome::timed_out) co_return timed_out_command(*record, allowed);
  co_return finished_command(*record, plain);
}

ToolTask get_metrics(ToolCall call) {
  auto session = co_await call.manager.find(call.owner, call.session_id);
  if (!session) co_return tool_failure(session.error());
  const auto before = co_await call.manager.metrics(call.owner, call.session_id);
  if (!before) co_return tool_failure(before.error());
  const auto began = std::chrono::steady_clock::now();
  boost::asio::steady_timer pause(co_await boost::asio::this_coro::executor, kCpuSample);
  co_await pause.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  const auto after = co_await call.manager.metrics(call.owner, call.session_id);
  if (!after) co_return tool_failure(after.error());
  const double passed = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  const double cpus = session->limits.cpu_milli / 1000.0;
  const double used = 100 * (*cpu_seconds(after) - *cpu_seconds(before)) / passed / cpus;
  ordered_json out;
  out["cpu_count"] = static_cast<int>(std::ceil(cpus));
  out["cpu_used_pct"] = std::round(std::clamp(used, 0.0, 100.0) * 100) / 100;
  out["mem_total"] = session->limits.memory_bytes;
  out["mem_used"] = after->memory_bytes;
  out["disk_total"] = session->limits.workspace_bytes;
  out["disk_used"] = 0;
  for (const auto& disk : after->disks) {
    if (disk.mount != "/workspace") continue;
    out["disk_total"] = disk.size;
    out["disk_used"] = disk.used;
  }
  // A session without a network: nothing goes in or out.
  for (const char* key : {"rx_rate_kbyte_per_s", "tx_rate_kbyte_per_s", "rx_used_kbyte", "tx_used_kbyte"}) out[key] = 0.0;
  out["timestamp"] = rfc3339(sys::wall_ms());
  ToolResult result;
  result.text = dump(out);
  co_return result;
}

ToolTask set_env(ToolCall call) {
  manager::SessionPatch patch;
  patch.env = call.args.env("envs");
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (patch.env.empty()) co_return tool_failure("argument `envs` is missing or empty; give an array of {key, value}");
  const std::size_t count = patch.env.size();
  auto patched = co_await call.manager.patch(std::move(call.owner), std::move(call.session_id), std::move(patch));
  if (!patched) co_return tool_failure(patched.error());
  ToolResult result;
  result.text = "Set " + std::to_string(count) + " environment variables";
  co_return result;
}

ToolTask get_env(ToolCall call) {
  const std::vector<std::string> keys = call.args.list("keys");
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  // What a program of the session really sees, not only what was set from outside.
  manager::CommandSpec spec;
  spec.command = "env -0";
  spec.timeout = 10s;
  auto record = co_await call.manager.command(std::move(call.owner), std::move(call.session_id), std::move(spec), call.arrived);
  if (!record) co_return tool_failure(record.error());
  if (record->done.outcome != wire::Outcome::ok || record->done.exit_code != 0)
    co_return tool_failure("the session's environment could not be read: " + clean(record->stderr_data));
  ordered_json out = ordered_json::object();
  const std::string& all = record->stdout_data;
  for (std::size_t at = 0; at < all.size();) {
    const std::size_t end = std::min(all.find('\0', at), all.size());
    const std::string entry = all.substr(at, end - at);
    at = end + 1;
    const std::size_t equals = entry.find('=');
    if (equals == std::string::npos) continue;
    const std::string name = entry.substr(0, equals);
    const bool of_the_shell = name == "_" || name == "SHLVL" || name == "OLDPWD";
    const bool wanted = keys.empty() ? !of_the_shell : std::ranges::find(keys, name) != keys.end();
    if (wanted) out[clean(name)] = clean(entry.substr(equals + 1));
  }
  ToolResult result;
  result.text = dump(out);
  co_return result;
}

}  // namespace codespace::api
