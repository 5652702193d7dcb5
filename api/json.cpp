// Decoding of requests and encoding of answers. See json.h.
#include "api/json.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "api/base64.h"

namespace codespace::api {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::size_t kMaxJsonBody = 4U << 20;  // no field is longer than its request

std::unexpected<Error> bad_field(const std::string& pointer, const std::string& what) {
  Error error{ErrorCode::invalid_request, Fault::client, 0, what, pointer};
  return std::unexpected(std::move(error));
}

/// One step of a JSON pointer, RFC 6901: `~` is `~0` and `/` is `~1`.
std::string pointer_step(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~') out += "~0";
    else if (c == '/') out += "~1";
    else out += c;
  }
  return out;
}

Result<json> parse_object(const std::string& body) {
  if (json_depth(body) > kMaxJsonDepth)
    return client_error(ErrorCode::invalid_request, "the JSON is nested deeper than 32 levels");
  std::vector<std::set<std::string>> keys;
  std::string duplicate;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.empty() && !keys.back().insert(value.get<std::string>()).second)
      duplicate = value.get<std::string>();
    return true;
  };
  json parsed = json::parse(body, watch, false);
  if (parsed.is_discarded())
    return client_error(ErrorCode::invalid_request, "the body is not valid JSON in UTF-8");
  if (!duplicate.empty()) return bad_field("/" + duplicate, "the key `" + duplicate + "` is there twice");
  if (!parsed.is_object()) return client_error(ErrorCode::invalid_request, "the body must be a JSON object");
  return parsed;
}

/// Takes fields off an object one by one; what is left over at the end is unknown. The first
/// mistake is kept, later reads are no-ops, so a decoder reads like the list of its fields.
class Fields {
 public:
  Fields(const json& object, std::string at) : object_(object), at_(std::move(at)) {}

  void string(const char* name, std::string& out, std::size_t max, bool required = false) {
    const json* value = take(name, required);
    if (value == nullptr) return;
    if (!value->is_string()) return fail(name, "must be a string");
    out = value->get<std::string>();
    if (out.size() > max) fail(name, "has " + std::to_string(out.size()) + " bytes, the limit is " + std::to_string(max));
  }
  void boolean(const char* name, bool& out) {
    const json* value = take(name, false);
    if (value == nullptr) return;
    if (!value->is_boolean()) return fail(name, "must be true or false");
    out = value->get<bool>();
  }
  void number(const char* name, double low, double high, std::optional<double>& out) {
    const json* value = take(name, false);
    if (value == nullptr) return;
    if (!value->is_number()) return fail(name, "must be a number");
    const double n = value->get<double>();
    if (!(n >= low && n <= high)) return fail(name, "must be between " + plain(low) + " and " + plain(high) + ", not " + plain(n));
    out = n;
  }
  void integer(const char* name, std::uint64_t high, std::optional<std::uint64_t>& out) {
    const json* value = take(name, false);
    if (value == nullptr) return;
    if (!value->is_number_unsigned()) return fail(name, "must be a whole number of at least 0");
    out = value->get<std::uint64_t>();
    if (*out > high) fail(name, "must be at most " + std::to_string(high));
  }
  /// A map of strings, in order of names.
  void strings(const char* name, std::optional<std::map<std::string, std::string>>& out, std::size_t max_value) {
    const json* value = take(name, false);
    if (value == nullptr) return;
    if (!value->is_object()) return fail(name, "must be an object of strings");
    out.emplace();
    for (const auto& [key, text] : value->items()) {
      if (!text.is_string()) return fail(key, "must be a string", name);
      std::string s = text.get<std::string>();
      if (s.size() > max_value) return fail(key, "is longer than " + std::to_string(max_value) + " bytes", name);
      out->emplace(key, std::move(s));
    }
  }
  /// A nested object, or nothing.
  const json* object(const char* name) {
    const json* value = take(name, false);
    if (value != nullptr && !value->is_object()) fail(name, "must be an object");
    return failed() ? nullptr : value;
  }
  /// A nested array, or nothing.
  const json* array(const char* name, bool required) {
    const json* value = take(name, required);
    if (value != nullptr && !value->is_array()) fail(name, "must be an array");
    return failed() ? nullptr : value;
  }
  /// `inside` is the field that holds the named one, if it is not one of ours.
  void fail(const std::string& name, const std::string& what, const char* inside = nullptr) {
    if (error_) return;
    const std::string parent = inside == nullptr ? "" : "/" + pointer_step(inside);
    error_ = Error{ErrorCode::invalid_request, Fault::client, 0, "`" + name + "` " + what, at_ + parent + "/" + pointer_step(name)};
  }
  void adopt(Result<void> nested) {
    if (!nested && !error_) error_ = nested.error();
  }
  [[nodiscard]] bool failed() const { return error_.has_value(); }
  Result<void> finish() {
    for (const auto& [key, value] : object_.items()) {
      if (!error_ && !taken_.contains(key)) fail(key, "is not a field of this request; known are " + known());
    }
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  const json* take(const char* name, bool required) {
    taken_.insert(name);
    if (error_) return nullptr;
    const auto found = object_.find(name);
    if (found == object_.end() || found->is_null()) {
      if (required) fail(name, "is missing");
      return nullptr;
    }
    return &*found;
  }
  std::string known() const {
    std::string list;
    for (const auto& name : taken_) list += (list.empty() ? "" : ", ") + name;
    return list;
  }
  static std::string plain(double n) {
    char text[40];
    std::snprintf(text, sizeof text, "%.6g", n);
    return text;
  }
  const json& object_;
  std::string at_;
  std::set<std::string> taken_;
  std::optional<Error> error_;
};

void read_timeout(Fields& f, std::chrono::milliseconds& out) {
  std::optional<double> seconds;
  f.number("timeout_s", 1, 60, seconds);
  if (seconds) out = std::chrono::milliseconds(static_cast<std::int64_t>(*seconds * 1000));
}

void read_env(Fields& f, manager::Env& env) {
  std::optional<std::map<std::string, std::string>> entries;
  f.strings("env", entries, 64U << 10);
  if (entries) env.assign(entries->begin(), entries->end());
}

void read_language(Fields& f, std::string& language) {
  std::string name;
  f.string("language", name, 64, true);
  if (f.failed()) return;
  if (auto canonical = canonical_language(name)) {
    language = *canonical;
  } else {
    f.adopt(std::unexpected(Error{ErrorCode::unknown_language, Fault::client, 0,
                                  "language `" + name.substr(0, 64) + "` is not known; known: python (py, python3), javascript (js, node, nodejs)",
                                  "/language"}));
  }
}

void read_context(Fields& f, std::string& context) {
  f.string("context", context, wire::kMaxContextName);
  if (!f.failed() && !wire::is_context_name(context))
    f.fail("context", "must be 1 to 64 of the characters A-Z a-z 0-9 _ . - and not `.` or `..`; leave it out for `default`");
}

void read_lifetimes(Fields& f, std::optional<std::chrono::seconds>& idle, std::optional<std::chrono::seconds>& life) {
  std::optional<std::uint64_t> value;
  f.integer("idle_timeout_s", 30ULL * 86'400, value);
  if (value) idle = std::chrono::seconds(*value);
  value.reset();
  f.integer("max_lifetime_s", 30ULL * 86'400, value);
  if (value) life = std::chrono::seconds(*value);
}

Result<void> decode_limits(const json& object, wire::SessionLimits& limits) {
  Fields f(object, "/limits");
  std::optional<std::uint64_t> n;
  const auto take = [&](const char* name, auto& out, std::uint64_t high) {
    n.reset();
    f.integer(name, high, n);
    if (n) out = static_cast<std::remove_reference_t<decltype(out)>>(*n);
    if (n && *n == 0) f.fail(name, "must be more than 0");
  };
  take("memory_bytes", limits.memory_bytes, 1ULL << 50);
  take("workspace_bytes", limits.workspace_bytes, 1ULL << 50);
  take("pids", limits.pids, 1U << 30);
  std::optional<double> cpus;
  f.number("cpus", 0.05, 1024, cpus);
  if (cpus) limits.cpu_milli = static_cast<std::uint32_t>(std::lround(*cpus * 1000));
  return f.finish();
}

Result<void> decode_network(const json& object, manager::Network& network) {
  Fields f(object, "/network");
  std::string mode;
  f.string("mode", mode, 32, true);
  const auto known = wire::network_mode(mode);
  if (!known) f.fail("mode", "must be `none` (no way out), `allowlist` (to the hosts in `allow`) or `full` (to every public address)");
  else network.mode = *known;
  if (const json* allow = f.array("allow", false)) {
    for (std::size_t i = 0; i < allow->size(); ++i) {
      const json& entry = (*allow)[i];
      if (!entry.is_string()) f.fail(std::to_string(i), "must be a string", "allow");
      else network.allow.push_back(entry.get<std::string>());
    }
  }
  return f.finish();
}

void read_flavour(Fields& f, wire::Flavour& flavour) {
  std::string name = "min";
  f.string("flavour", name, 16);
  if (name == "data") {
    flavour = wire::Flavour::data;
  } else if (name != "min") {
    f.fail("flavour", "must be `min` or `data`: which libraries the Python kernel has imported when it starts");
  }
}

Result<void> decode_session_fields(Fields& f, manager::SessionSpec& spec) {
  f.string("image", spec.image, 128);
  std::optional<std::map<std::string, std::string>> labels;
  f.strings("labels", labels, 256);
  if (labels) spec.labels = std::move(*labels);
  read_env(f, spec.env);
  read_flavour(f, spec.flavour);
  if (const json* limits = f.object("limits")) f.adopt(decode_limits(*limits, spec.limits));
  if (const json* network = f.object("network")) f.adopt(decode_network(*network, spec.network.emplace()));
  return {};
}

// --- answers ------------------------------------------------------------------------------------

/// Length of the valid UTF-8 sequence at the start, 0 if there is none (RFC 3629).
std::size_t utf8_sequence(std::string_view s) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const auto follows = [&](std::size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return i < s.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned c = byte(0);
  if (c < 0x80) return 1;
  if (c >= 0xC2 && c <= 0xDF) return follows(1) ? 2 : 0;
  if (c >= 0xE0 && c <= 0xEF)
    return follows(1, c == 0xE0 ? 0xA0 : 0x80, c == 0xED ? 0x9F : 0xBF) && follows(2) ? 3 : 0;
  if (c >= 0xF0 && c <= 0xF4)
    return follows(1, c == 0xF0 ? 0x90 : 0x80, c == 0xF4 ? 0x8F : 0xBF) && follows(2) && follows(3) ? 4 : 0;
  return 0;
}

/// The text with every byte that is not UTF-8 replaced by U+FFFD; `exact` is false if any was.
std::string to_utf8(std::string_view s, bool& exact) {
  exact = true;
  std::size_t valid = 0;
  while (valid < s.size()) {
    const std::size_t n = utf8_sequence(s.substr(valid));
    if (n == 0) break;
    valid += n;
  }
  if (valid == s.size()) return std::string(s);
  exact = false;
  std::string out(s.substr(0, valid));
  while (valid < s.size()) {
    const std::size_t n = utf8_sequence(s.substr(valid));
    if (n == 0) {
      out += "\xEF\xBF\xBD";
      ++valid;
    } else {
      out += s.substr(valid, n);
      valid += n;
    }
  }
  return out;
}

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

/// An object whose names are known to differ: nlohmann's operator[] looks through all that are there for each new one.
class Members {
 public:
  Members() { members().reserve(kUsual); }
  template <class Value>
  void put(std::string name, Value&& value) {
    members().emplace_back(std::move(name), ordered_json(std::forward<Value>(value)));
  }
  [[nodiscard]] const ordered_json& json() const { return json_; }

 private:
  static constexpr std::size_t kUsual = 32;
  ordered_json::object_t& members() { return json_.get_ref<ordered_json::object_t&>(); }
  ordered_json json_ = ordered_json::object();
};

void put_stream(Members& out, const std::string& name, const std::string& data) {
  bool exact;
  out.put(name, to_utf8(data, exact));
  if (!exact) out.put(name + "_base64", base64(data));
}

std::string_view name_of(wire::KilledBy by) {
  switch (by) {
    case wire::KilledBy::none: return "";
    case wire::KilledBy::deadline: return "deadline";
    case wire::KilledBy::memory: return "memory";
    case wire::KilledBy::client: return "client";
    case wire::KilledBy::signal: return "signal";
  }
  return "";
}

std::string_view name_of(wire::ContextState state) {
  switch (state) {
    case wire::ContextState::starting: return "starting";
    case wire::ContextState::idle: return "idle";
    case wire::ContextState::busy: return "busy";
    case wire::ContextState::stopped: return "stopped";
  }
  return "stopped";
}

std::string_view name_of(wire::RunPhase phase) {
  switch (phase) {
    case wire::RunPhase::queued: return "queued";
    case wire::RunPhase::running: return "running";
    case wire::RunPhase::finished: return "finished";
  }
  return "finished";
}

std::string_view name_of(wire::FileKind kind) {
  switch (kind) {
    case wire::FileKind::regular: return "file";
    case wire::FileKind::directory: return "directory";
    case wire::FileKind::symlink: return "symlink";
    case wire::FileKind::other: return "other";
  }
  return "other";
}

double milliseconds(std::uint64_t ns) { return std::round(static_cast<double>(ns) / 1e4) / 100; }

ordered_json results_of(const manager::RunRecord& record) {
  ordered_json results = ordered_json::array();
  for (const auto& result : record.results) {
    ordered_json data = ordered_json::object();
    for (const auto& [mime, text] : result.data) {
      // JSON types travel as JSON, the others as text; a forged one that does not parse stays text.
      const bool is_json = mime == "application/json" || mime.ends_with("+json");
      ordered_json value = is_json ? ordered_json::parse(text, nullptr, false) : ordered_json();
      if (is_json && !value.is_discarded()) {
        data[clean(mime)] = std::move(value);
      } else {
        data[clean(mime)] = clean(text);
      }
    }
    results.push_back({{"is_main_result", result.is_main_result}, {"data", std::move(data)}});
  }
  return results;
}

void put_facts(Members& out, const manager::RunRecord& record) {
  const wire::RunDone& done = record.done;
  out.put("stdout_truncated", (done.flags & wire::kStdoutTruncated) != 0);
  out.put("stderr_truncated", (done.flags & wire::kStderrTruncated) != 0);
  out.put("stdout_bytes", done.stdout_bytes);
  out.put("stderr_bytes", done.stderr_bytes);
}

void put_usage(Members& out, const wire::RunDone& done) {
  if (done.exit_code >= 0) out.put("exit_code", done.exit_code);
  if (done.signal != 0) out.put("signal", done.signal);
  out.put("started_at", rfc3339(done.started_wall_ms));
  out.put("duration_ms", milliseconds(done.spawn_ns + done.run_ns + done.collect_ns));
  out.put("queue_ms", milliseconds(done.queue_ns));
  out.put("cpu_ms", milliseconds(done.cpu_ns));
  out.put("memory_peak_bytes", done.memory_peak_bytes);
  out.put("pids_peak", done.pids_peak);
}

ordered_json session_json(const manager::SessionInfo& s) {
  ordered_json out;
  out["session_id"] = s.id;
  out["image"] = s.image;
  out["status"] = api::name_of(s.status);
  out["labels"] = s.labels;
  out["created_at"] = rfc3339(s.created_at_ms);
  out["last_used_at"] = rfc3339(s.last_used_at_ms);
  out["expires_at"] = s.expires_at_ms ? ordered_json(rfc3339(*s.expires_at_ms)) : ordered_json(nullptr);
  out["idle_timeout_s"] = s.idle_timeout.count();
  out["max_lifetime_s"] = s.max_lifetime.count();
  out["limits"] = {{"memory_bytes", s.limits.memory_bytes},
                   {"cpus", s.limits.cpu_milli / 1000.0},
                   {"pids", s.limits.pids},
                   {"workspace_bytes", s.limits.workspace_bytes}};
  out["network"]["mode"] = wire::name_of(s.network.mode);
  if (s.network.mode == wire::NetworkMode::allowlist) out["network"]["allow"] = s.network.allow;
  if (s.status == manager::SessionStatus::ended) {
    out["ended_at"] = rfc3339(s.ended_at_ms);
    out["end_reason"] = api::name_of(s.end_reason);
  }
  return out;
}

ordered_json entry_json(const manager::FileEntry& e, const std::string& path) {
  ordered_json out;
  out["path"] = clean(path);
  out["type"] = name_of(e.kind);
  out["size"] = e.size;
  char mode[8];
  std::snprintf(mode, sizeof mode, "%04o", e.mode & 07777U);
  out["mode"] = mode;
  out["modified_at"] = rfc3339(e.mtime_ns / 1'000'000);
  if (e.kind == wire::FileKind::symlink) out["link_target"] = clean(e.link_target);
  return out;
}

}  // namespace

std::string clean(std::string_view bytes) {
  bool exact;
  return to_utf8(bytes, exact);
}

unsigned json_depth(std::string_view text) {
  unsigned depth = 0;
  unsigned deepest = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      deepest = std::max(deepest, ++depth);
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  return deepest;
}

Result<manager::SessionSpec> decode_session(const std::string& body, std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime) {
  manager::SessionSpec spec;
  auto object = parse_object(body.empty() ? "{}" : body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  (void)decode_session_fields(f, spec);
  std::optional<std::chrono::seconds> idle;
  std::optional<std::chrono::seconds> life;
  read_lifetimes(f, idle, life);
  spec.idle_timeout = idle.value_or(idle_timeout);
  spec.max_lifetime = life.value_or(max_lifetime);
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return spec;
}

Result<manager::SessionPatch> decode_patch(const std::string& body) {
  manager::SessionPatch patch;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.strings("labels", patch.labels, 256);
  read_lifetimes(f, patch.idle_timeout, patch.max_lifetime);
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return patch;
}

Result<manager::RunSpec> decode_run(const std::string& body) {
  manager::RunSpec spec;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  read_language(f, spec.language);
  read_context(f, spec.context);
  f.string("code", spec.code, kMaxCodeBytes, true);
  read_timeout(f, spec.timeout);
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return spec;
}

Result<manager::CommandSpec> decode_command(const std::string& body) {
  manager::CommandSpec spec;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.string("command", spec.command, kMaxCodeBytes, true);
  f.string("cwd", spec.cwd, 4095);
  f.string("stdin", spec.stdin_data, kMaxStdinBytes);
  read_env(f, spec.env);
  read_timeout(f, spec.timeout);
  if (!f.failed() && spec.command.find('\0') != std::string::npos) f.fail("command", "must not contain NUL");
  if (!f.failed() && spec.cwd.find('\0') != std::string::npos) f.fail("cwd", "must not contain NUL");
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return spec;
}

Result<OneShotRequest> decode_one_shot(const std::string& body) {
  OneShotRequest request;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  (void)decode_session_fields(f, request.session);
  read_language(f, request.run.language);
  f.string("code", request.run.code, kMaxCodeBytes, true);
  read_timeout(f, request.run.timeout);
  std::optional<std::map<std::string, std::string>> files;
  f.strings("files", files, 1U << 20);
  if (files) request.files = std::move(*files);
  if (request.files.size() > 100) f.fail("files", "has more than 100 entries");
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  // It lives for one request: a minute to run and room for the rest.
  request.session.idle_timeout = std::chrono::seconds(120);
  request.session.max_lifetime = std::chrono::seconds(300);
  return request;
}

Result<MoveRequest> decode_move(const std::string& body) {
  MoveRequest request;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.string("from", request.from, 4095, true);
  f.string("to", request.to, 4095, true);
  f.boolean("overwrite", request.overwrite);
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return request;
}

Result<MkdirRequest> decode_mkdir(const std::string& body) {
  MkdirRequest request;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.string("path", request.path, 4095, true);
  f.boolean("parents", request.parents);
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return request;
}

Result<EditRequest> decode_edit(const std::string& body) {
  EditRequest request;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.string("path", request.path, 4095, true);
  f.boolean("dry_run", request.dry_run);
  if (const json* edits = f.array("edits", true)) {
    for (std::size_t i = 0; i < edits->size() && !f.failed(); ++i) {
      if (!(*edits)[i].is_object()) {
        f.fail("edits", "must hold objects with `old_text` and `new_text`");
        break;
      }
      Fields edit((*edits)[i], "/edits/" + std::to_string(i));
      TextEdit& to = request.edits.emplace_back();
      edit.string("old_text", to.old_text, kMaxJsonBody, true);
      edit.string("new_text", to.new_text, kMaxJsonBody, true);
      f.adopt(edit.finish());
    }
  }
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return request;
}

Result<SearchRequest> decode_search(const std::string& body) {
  SearchRequest request;
  auto object = parse_object(body);
  if (!object) return std::unexpected(object.error());
  Fields f(*object, "");
  f.string("path", request.path, 4095);
  f.string("pattern", request.pattern, 4096, true);
  if (const json* exclude = f.array("exclude", false)) {
    for (const json& pattern : *exclude) {
      if (!pattern.is_string()) {
        f.fail("exclude", "must be an array of strings");
        break;
      }
      request.exclude.push_back(pattern.get<std::string>());
    }
  }
  if (auto done = f.finish(); !done) return std::unexpected(done.error());
  return request;
}

std::string encode(const manager::SessionInfo& session) { return dump(session_json(session)); }

std::string encode(const manager::SessionPage& page) {
  ordered_json out;
  out["sessions"] = ordered_json::array();
  for (const auto& session : page.sessions) out["sessions"].push_back(session_json(session));
  out["next_cursor"] = page.next_cursor.empty() ? ordered_json(nullptr) : ordered_json(page.next_cursor);
  out["total"] = page.total;
  return dump(out);
}

std::string encode(const manager::RunRecord& record) {
  const bool is_command = record.id.starts_with("cmd-");
  Members out;
  out.put(is_command ? "command_id" : "run_id", record.id);
  out.put("session_id", record.session_id);
  if (!is_command) {
    out.put("language", record.language);
    out.put("context", record.context);
  }
  if (!record.finished) {
    out.put("status", "running");
    put_stream(out, "stdout", record.stdout_data);
    put_stream(out, "stderr", record.stderr_data);
    if (!is_command) out.put("results", results_of(record));
    return dump(out.json());
  }
  const wire::RunDone& done = record.done;
  out.put("status", "finished");
  out.put("outcome", name_of(done.outcome));
  if (done.killed_by != wire::KilledBy::none) out.put("killed_by", name_of(done.killed_by));
  put_stream(out, "stdout", record.stdout_data);
  put_stream(out, "stderr", record.stderr_data);
  put_facts(out, record);
  if (!is_command) {
    out.put("results", results_of(record));
    out.put("results_truncated", (done.flags & wire::kResultsTruncated) != 0);
    if (record.failure) {
      ordered_json traceback = ordered_json::array();
      for (const auto& line : record.failure->traceback) traceback.push_back(clean(line));
      ordered_json error = {{"name", clean(record.failure->name)}, {"value", clean(record.failure->value)}, {"traceback", std::move(traceback)}};
      out.put("error", std::move(error));
    }
    out.put("execution_count", done.execution_count);
    out.put("context_reset", (done.flags & wire::kContextReset) != 0);
    out.put("kernel_origin", name_of(done.kernel_origin));
  }
  put_usage(out, done);
  return dump(out.json());
}

std::string encode_runs(const std::vector<manager::RunSummary>& runs, bool commands) {
  ordered_json list = ordered_json::array();
  for (const auto& run : runs) {
    ordered_json out;
    out[commands ? "command_id" : "run_id"] = run.id;
    if (!commands) {
      out["language"] = clean(run.language);
      out["context"] = run.context;
    }
    out["status"] = name_of(run.phase);
    if (run.phase == wire::RunPhase::finished) {
      out["outcome"] = name_of(run.outcome);
      if (run.killed_by != wire::KilledBy::none) out["killed_by"] = name_of(run.killed_by);
    }
    out["created_at"] = rfc3339(run.created_at_ms);
    out["queue_ms"] = milliseconds(run.queue_ns);
    out["duration_ms"] = milliseconds(run.duration_ns);
    list.push_back(std::move(out));
  }
  ordered_json out;
  out[commands ? "commands" : "runs"] = std::move(list);
  return dump(out);
}

std::string encode(const std::vector<manager::ContextInfo>& contexts) {
  ordered_json out;
  out["contexts"] = ordered_json::array();
  for (const auto& c : contexts)
    out["contexts"].push_back({{"language", clean(c.language)}, {"context", c.context}, {"state", name_of(c.state)}, {"queued", c.queued},
                               {"execution_count", c.execution_count}, {"created_at", rfc3339(c.created_at_ms)},
                               {"cpu_ms", milliseconds(c.cpu_ns)}, {"memory_bytes", c.memory_bytes}, {"pids", c.pids}});
  return dump(out);
}

std::string encode(const manager::SessionMetrics& m) {
  ordered_json out;
  out["memory_bytes"] = m.memory_bytes;
  out["memory_peak_bytes"] = m.memory_peak_bytes;
  out["cpu_ms"] = milliseconds(m.cpu_ns);
  out["pids"] = m.pids;
  out["oom_kills"] = m.oom_kills;
  out["kernels"] = m.kernels;
  out["runs_active"] = m.runs_active;
  out["disks"] = ordered_json::array();
  for (const auto& d : m.disks)
    out["disks"].push_back({{"mount", d.mount}, {"used_bytes", d.used}, {"size_bytes", d.size}, {"inodes_used", d.inodes_used}, {"inodes", d.inodes}});
  if (m.egress)
    out["network"] = {{"connections", m.egress->connections}, {"allowed", m.egress->allowed}, {"refused", m.egress->refused},
                      {"bytes_sent", m.egress->bytes_up}, {"bytes_received", m.egress->bytes_down}};
  return dump(out);
}

std::string encode(const std::vector<manager::ImageInfo>& images) {
  ordered_json out;
  out["images"] = ordered_json::array();
  for (const auto& i : images) {
    char handle[17];
    std::snprintf(handle, sizeof handle, "%016llx", static_cast<unsigned long long>(i.handle));
    out["images"].push_back({{"name", i.name}, {"description", i.description}, {"digest", handle}, {"languages", i.languages},
                             {"versions", i.versions}, {"aliases", i.aliases}, {"is_default", i.is_default}});
  }
  return dump(out);
}

std::string encode(const manager::FileEntry& entry, const std::string& path) { return dump(entry_json(entry, path)); }

std::string encode(const manager::FileListing& listing, const std::string& path) {
  ordered_json out;
  out["path"] = clean(path);
  out["entries"] = ordered_json::array();
  for (const auto& entry : listing.entries) out["entries"].push_back(entry_json(entry, entry.name));
  out["truncated"] = listing.truncated;
  return dump(out);
}

std::string encode(const manager::FileWritten& written, const std::string& path) {
  ordered_json out;
  out["path"] = clean(path);
  out["bytes_written"] = written.bytes;
  out["size"] = written.size;
  return dump(out);
}

std::string encode_edited(const EditRequest& request, std::uint64_t size) {
  ordered_json out;
  out["path"] = clean(request.path);
  out["edits_applied"] = request.edits.size();
  out["dry_run"] = request.dry_run;
  out["size"] = size;
  return dump(out);
}

std::string encode(const manager::Readiness& readiness) {
  ordered_json out;
  out["ready"] = readiness.ready;
  out["checks"] = ordered_json::array();
  for (const auto& check : readiness.checks)
    out["checks"].push_back({{"name", check.name}, {"ok", check.ok}, {"detail", check.detail}});
  return dump(out);
}

std::string encode_version(const std::string& version, const std::string& build) {
  return dump({{"name", "codespaced"}, {"version", version}, {"build", build}});
}

std::string encode(const Problem& p) {
  ordered_json out;
  out["type"] = "https://codespace.invalid/problems/" + p.code;
  out["title"] = p.title;
  out["status"] = p.status;
  out["detail"] = clean(p.detail);
  out["instance"] = clean(p.instance);
  out["code"] = p.code;
  out["request_id"] = p.request_id;
  if (!p.pointer.empty()) out["errors"] = ordered_json::array({{{"pointer", clean(p.pointer)}, {"detail", clean(p.detail)}}});
  if (p.ended) {
    out["ended_at"] = rfc3339(p.ended->ended_at_ms);
    out["end_reason"] = name_of(p.ended->end_reason);
  }
  return dump(out);
}

std::string rfc3339(std::int64_t wall_ms) {
  const std::time_t seconds = static_cast<std::time_t>(wall_ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[64];
  const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + n, sizeof text - n, ".%03dZ", static_cast<int>(wall_ms % 1000));
  return text;
}

std::string_view name_of(manager::SessionStatus status) {
  switch (status) {
    case manager::SessionStatus::starting: return "starting";
    case manager::SessionStatus::running: return "running";
    case manager::SessionStatus::paused: return "paused";
    case manager::SessionStatus::ending: return "ending";
    case manager::SessionStatus::ended: return "ended";
  }
  return "ended";
}

std::string_view name_of(manager::EndReason reason) {
  switch (reason) {
    case manager::EndReason::none: return "none";
    case manager::EndReason::deleted: return "deleted";
    case manager::EndReason::idle: return "idle";
    case manager::EndReason::lifetime: return "lifetime";
    case manager::EndReason::out_of_memory: return "out_of_memory";
    case manager::EndReason::init_died: return "init_died";
    case manager::EndReason::lost_at_reboot: return "lost_at_reboot";
  }
  return "none";
}

std::optional<manager::SessionStatus> status_by_name(std::string_view name) {
  using S = manager::SessionStatus;
  for (const S status : {S::starting, S::running, S::paused, S::ending, S::ended}) {
    if (name_of(status) == name) return status;
  }
  return std::nullopt;
}

std::optional<std::string> canonical_language(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const char* alias : {"python", "py", "python3"}) {
    if (lower == alias) return "python";
  }
  for (const char* alias : {"javascript", "js", "node", "nodejs"}) {
    if (lower == alias) return "javascript";
  }
  return std::nullopt;
}

}  // namespace codespace::api
