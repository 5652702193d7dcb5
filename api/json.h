// The only place where JSON becomes types and types become JSON. Strict both ways: an unknown
// field, a wrong type, a duplicate key, a number out of range is the client's mistake and is
// answered with the field's JSON pointer (RFC 6901) and the limit; nothing is clamped.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/file_work.h"
#include "sandbox/manager/session_manager.h"
#include "sandbox/sys/result.h"

namespace codespace::api {

inline constexpr std::size_t kMaxCodeBytes = 1U << 20;    // of one run or command
inline constexpr std::size_t kMaxStdinBytes = 1U << 20;
inline constexpr unsigned kMaxJsonDepth = 32;

struct OneShotRequest {
  manager::SessionSpec session;
  manager::RunSpec run;
  std::map<std::string, std::string> files;  // path, content
};

struct MoveRequest {
  std::string from, to;
  bool overwrite = false;
};
struct MkdirRequest {
  std::string path;
  bool parents = true;
};

struct EditRequest {
  std::string path;
  std::vector<TextEdit> edits;
  bool dry_run = false;
};
struct SearchRequest {
  std::string path = ".";
  std::string pattern;
  std::vector<std::string> exclude;
};

/// The durations are those of a session that does not ask for its own.
Result<manager::SessionSpec> decode_session(const std::string& body, std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime);
Result<manager::SessionPatch> decode_patch(const std::string& body);
Result<manager::RunSpec> decode_run(const std::string& body);
Result<manager::CommandSpec> decode_command(const std::string& body);
Result<OneShotRequest> decode_one_shot(const std::string& body);
Result<MoveRequest> decode_move(const std::string& body);
Result<MkdirRequest> decode_mkdir(const std::string& body);
Result<EditRequest> decode_edit(const std::string& body);
Result<SearchRequest> decode_search(const std::string& body);

std::string encode(const manager::SessionInfo& session);
std::string encode(const manager::SessionPage& page);
std::string encode(const manager::RunRecord& record);  // of a run or a command, by what it is
std::string encode_runs(const std::vector<manager::RunSummary>& runs, bool commands);
std::string encode(const std::vector<manager::ContextInfo>& contexts);
std::string encode(const manager::SessionMetrics& metrics);
std::string encode(const std::vector<manager::ImageInfo>& images);
std::string encode(const manager::FileEntry& entry, const std::string& path);
std::string encode(const manager::FileListing& listing, const std::string& path);
std::string encode(const manager::FileWritten& written, const std::string& path);
std::string encode_edited(const EditRequest& request, std::uint64_t size);
std::string encode(const manager::Readiness& readiness);
std::string encode_version(const std::string& version, const std::string& build);

/// problem+json of RFC 9457. `members` are extension members, name and JSON text.
struct Problem {
  int status = 500;
  std::string code;
  std::string title;
  std::string detail;
  std::string instance;
  std::string request_id;
  std::string pointer;                       // of the offending field; empty: none
  std::optional<manager::SessionInfo> ended;  // of a session that is gone: when and why
};
std::string encode(const Problem& problem);

/// The text with every byte that is not UTF-8 replaced by U+FFFD.
std::string clean(std::string_view bytes);
/// Nesting of a JSON text, counted before anything is built from it.
unsigned json_depth(std::string_view text);
/// Milliseconds since the epoch as RFC 3339 in UTC, e.g. 2026-01-31T12:00:00.123Z.
std::string rfc3339(std::int64_t wall_ms);
std::string_view name_of(manager::SessionStatus status);
std::string_view name_of(manager::EndReason reason);
std::optional<manager::SessionStatus> status_by_name(std::string_view name);
/// Canonical name of a language or one of its aliases in any case; nothing if unknown.
std::optional<std::string> canonical_language(std::string_view name);

}  // namespace codespace::api
