// The tools of a session: what the RPC surface and the direct link call by name. Each takes a
// JSON object and gives one text, in the form that the official SDKs parse; the work itself is
// the session manager's. No sockets, no HTTP.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api/file_changes.h"
#include "api/tool_args.h"
#include "sandbox/manager/session_manager.h"

namespace codespace::api {

/// SDK clients give up after 60 s without an answer, so what a run or command gets is less.
inline constexpr std::chrono::milliseconds kMaxToolRun{56'000};
inline constexpr std::chrono::milliseconds kMaxToolCommand{50'000};

struct ToolResult {
  std::string text;               // never empty in a failure
  bool is_error = false;
  std::optional<Error> refused;   // the call could not reach the tool: no such session, paused, our fault
};

struct ToolCall {
  manager::SessionManager& manager;
  FileChanges& changes;
  std::string owner;
  std::string session_id;
  ToolArgs args;
  manager::TimePoint arrived;
  bool plain = false;             // the client shows the text of a run or command as it comes
};

using ToolTask = boost::asio::awaitable<ToolResult>;

struct Tool {
  std::string_view name;
  std::string_view server;        // the group a client's tool list shows it in
  std::string_view description;
  std::string_view schema;        // JSON Schema of the arguments
  ToolTask (*call)(ToolCall call);
};

std::span<const Tool> tools();
/// A tool that does not exist is a failed call, with a text that names those that do.
ToolTask call_tool(std::string_view name, ToolCall call);
/// The list as clients read it: JSON text of an array.
std::string encode_tools();

/// A failure as its caller sees it.
ToolResult tool_failure(std::string text);
ToolResult tool_failure(const Error& error);

// file_tools.cpp
ToolTask get_file_info(ToolCall call);
ToolTask list_directory(ToolCall call);
ToolTask read_file(ToolCall call);
ToolTask write_file(ToolCall call);
ToolTask create_directory(ToolCall call);
ToolTask delete_file(ToolCall call);
ToolTask move_file(ToolCall call);
ToolTask edit_file(ToolCall call);
ToolTask search_files(ToolCall call);
ToolTask read_multiple_files(ToolCall call);
ToolTask get_file_change(ToolCall call);

// run_tools.cpp
ToolTask run_code(ToolCall call);
ToolTask shell(ToolCall call);
ToolTask get_metrics(ToolCall call);
ToolTask set_env(ToolCall call);
ToolTask get_env(ToolCall call);

}  // namespace codespace::api
