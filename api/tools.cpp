// The table of tools, and what is common to them. See tools.h.
#include "api/tools.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "api/json.h"

namespace codespace::api {
namespace {

constexpr std::string_view kCode = "wuying_codespace";
constexpr std::string_view kShell = "wuying_shell";
constexpr std::string_view kFiles = "wuying_filesystem";
constexpr std::string_view kSystem = "wuying_system";

constexpr Tool kTools[] = {
    {"run_code", kCode, "Runs code in the session's interpreter of a language, whose variables live on from call to call.",
     R"({"type":"object","properties":{"code":{"type":"string"},"language":{"type":"string","enum":["python","javascript"]},"timeout_s":{"type":"integer","minimum":1,"default":60}},"required":["code","language"]})",
     run_code},
    {"shell", kShell, "Runs a shell command in a shell of its own.",
     R"({"type":"object","properties":{"command":{"type":"string"},"timeout_ms":{"type":"integer","minimum":1,"default":50000},"cwd":{"type":"string"},"envs":{"type":"object","additionalProperties":{"type":"string"}}},"required":["command"]})",
     shell},
    {"read_file", kFiles, "Reads a file or a range of its bytes, as text or base64.",
     R"({"type":"object","properties":{"path":{"type":"string"},"offset":{"type":"integer","minimum":0},"length":{"type":"integer","minimum":0},"format":{"type":"string","enum":["text","binary"]}},"required":["path"]})",
     read_file},
    {"write_file", kFiles, "Writes a file: overwrite, append, or create_new.",
     R"({"type":"object","properties":{"path":{"type":"string"},"content":{"type":"string"},"mode":{"type":"string","enum":["overwrite","append","create_new"]},"create_parent_dir":{"type":"boolean"}},"required":["path","content"]})",
     write_file},
    {"create_directory", kFiles, "Makes a directory and those above it.",
     R"({"type":"object","properties":{"path":{"type":"string"}},"required":["path"]})", create_directory},
    {"list_directory", kFiles, "Lists the entries of a directory.",
     R"({"type":"object","properties":{"path":{"type":"string"}},"required":["path"]})", list_directory},
    {"get_file_info", kFiles, "Tells size, kind, times and modes of a path.",
     R"({"type":"object","properties":{"path":{"type":"string"}},"required":["path"]})", get_file_info},
    {"edit_file", kFiles, "Replaces the first occurrence of each old text by its new text, all or nothing.",
     R"({"type":"object","properties":{"path":{"type":"string"},"edits":{"type":"array","items":{"type":"object","properties":{"oldText":{"type":"string"},"newText":{"type":"string"}},"required":["oldText","newText"]}},"dryRun":{"type":"boolean"}},"required":["path","edits"]})",
     edit_file},
    {"move_file", kFiles, "Moves or renames a file or directory; replaces nothing.",
     R"({"type":"object","properties":{"source":{"type":"string"},"destination":{"type":"string"}},"required":["source","destination"]})",
     move_file},
    {"delete_file", kFiles, "Deletes a file or link.",
     R"({"type":"object","properties":{"path":{"type":"string"}},"required":["path"]})", delete_file},
    {"search_files", kFiles, "Finds files and directories by a wildcard on their name, at any depth.",
     R"({"type":"object","properties":{"path":{"type":"string"},"pattern":{"type":"string"},"excludePatterns":{"type":"array","items":{"type":"string"}}},"required":["path","pattern"]})",
     search_files},
    {"read_multiple_files", kFiles, "Reads several text files.",
     R"({"type":"object","properties":{"paths":{"type":"array","items":{"type":"string"}}},"required":["paths"]})", read_multiple_files},
    {"get_file_change", kFiles, "Tells what changed below a directory since the call before.",
     R"({"type":"object","properties":{"path":{"type":"string"}},"required":["path"]})", get_file_change},
    {"get_metrics", kSystem, "Tells what the session uses of processor, memory and disk.", R"({"type":"object","properties":{}})",
     get_metrics},
    {"set_env", kSystem, "Sets environment variables for all later commands and runs of the session.",
     R"({"type":"object","properties":{"envs":{"type":"array","items":{"type":"object","properties":{"key":{"type":"string"},"value":{"type":"string"}},"required":["key","value"]}}},"required":["envs"]})",
     set_env},
    {"get_env", kSystem, "Gives the environment variables of the session.",
     R"({"type":"object","properties":{"keys":{"type":"array","items":{"type":"string"}}}})", get_env},
};

/// Errors that say nothing of what the tool did, because it was never reached.
bool is_refusal(const Error& error) {
  if (error.fault == Fault::server) return true;
  return error.code == ErrorCode::session_not_found || error.code == ErrorCode::session_ended || error.code == ErrorCode::session_paused;
}

}  // namespace

std::span<const Tool> tools() { return kTools; }

ToolResult tool_failure(std::string text) {
  ToolResult result;
  result.text = text.empty() ? "the tool failed" : std::move(text);
  result.is_error = true;
  return result;
}

ToolResult tool_failure(const Error& error) {
  ToolResult result = tool_failure(clean(error.what));
  if (is_refusal(error)) result.refused = error;
  return result;
}

ToolTask call_tool(std::string_view name, ToolCall call) {
  for (const Tool& tool : kTools) {
    if (tool.name == name) co_return co_await tool.call(std::move(call));
  }
  // Whether the session exists is the first question, here as everywhere.
  auto session = co_await call.manager.find(call.owner, call.session_id);
  if (!session) co_return tool_failure(session.error());
  std::string known;
  for (const Tool& tool : kTools) known += (known.empty() ? "" : ", ") + std::string(tool.name);
  co_return tool_failure("tool not found: `" + clean(name.substr(0, 64)) + "`; this session has " + known);
}

std::string encode_tools() {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Tool& tool : kTools) {
    nlohmann::ordered_json entry;
    entry["name"] = tool.name;
    entry["description"] = tool.description;
    entry["inputSchema"] = nlohmann::ordered_json::parse(tool.schema);
    entry["server"] = tool.server;
    entry["tool"] = tool.name;
    list.push_back(std::move(entry));
  }
  return list.dump();
}

}  // namespace codespace::api
