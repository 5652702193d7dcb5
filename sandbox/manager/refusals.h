// The sentences: what init, the launcher or a session's state refused, as an Error that says
// what happened and what to do next. Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sandbox/manager/records.h"
#include "sandbox/manager/run_frames.h"
#include "sandbox/sys/result.h"

namespace codespace::manager {

/// What was asked, as far as a sentence about its refusal needs it.
struct Asked {
  std::string path;                    // of file work; for a move: the source
  std::string language;                // of a run, or a context
  std::string context;
  std::vector<std::string> languages;  // that the image has
  std::string cwd;                     // of a command
  std::uint64_t size_limit = 0;        // of a write
};

Error explain_refusal(const Refused& refused, const Asked& asked);
/// The errno of a failed call on the tenant's own file system.
Error explain_file_errno(int file_errno, std::string_view path);
Error explain_launcher(const wire::LauncherReply& reply);
/// `what` is the failing exchange: "run", "read file".
Error explain_link(LinkFault fault, std::string_view what, bool heard);

Error session_not_found(std::string_view session_id);
Error session_ended(std::string_view session_id, std::int64_t ended_at_ms, EndReason reason);
Error session_paused(std::string_view session_id);

std::string_view name_of(wire::Stage stage);
/// RFC 3339 in UTC with milliseconds.
std::string format_time(std::int64_t wall_ms);

}  // namespace codespace::manager
