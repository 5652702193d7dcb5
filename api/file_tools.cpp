// The file tools: every one a few calls of the session manager, which has them done inside the
// session, and a text in the form that the official SDKs parse. See tools.h.
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "api/base64.h"
#include "api/file_work.h"
#include "api/handlers.h"
#include "api/json.h"
#include "api/tools.h"

namespace codespace::api {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMaxPaths = 1000;
constexpr std::uint32_t kWatchDepth = 64;
constexpr std::size_t kLongestCharacter = 4;  // bytes of UTF-8

ToolResult said(std::string text) {
  ToolResult result;
  result.text = std::move(text);
  return result;
}

/// The path argument of that name. What is wrong with it is a mistake of the call.
std::string path_of(ToolArgs& args, const char* name, std::optional<Error>& wrong) {
  std::string path = args.required(name);
  if (auto checked = check_path(path); !checked && !args.mistake()) wrong = checked.error();
  return path;
}

std::string base_name(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos || path.size() == 1 ? path : path.substr(slash + 1);
}

std::string absolute(const std::string& path) { return path.starts_with('/') ? path : "/workspace/" + path; }

std::string user_name(std::uint32_t id) { return id == 1000 ? "sandbox" : id == 0 ? "root" : std::to_string(id); }

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80; }

/// The characters whose first byte lies in the range: `bytes` is the range and, if the file goes on,
/// a few bytes more, so that pieces of a text put together are the text.
std::string whole_characters(std::string bytes, std::uint64_t offset, std::uint64_t length) {
  std::size_t end = bytes.size();
  if (length < end) {
    end = static_cast<std::size_t>(length);
    for (std::size_t more = 0; more + 1 < kLongestCharacter && end < bytes.size() && is_continuation(bytes[end]); ++more) ++end;
  }
  std::size_t begin = 0;
  if (offset > 0) {
    while (begin + 1 < kLongestCharacter && begin < end && is_continuation(bytes[begin])) ++begin;
  }
  return clean(std::string_view(bytes).substr(begin, end - begin));
}

std::string info_text(const manager::FileEntry& entry, const std::string& path) {
  const bool directory = entry.kind == wire::FileKind::directory;
  char mode[8];
  std::snprintf(mode, sizeof mode, "%03o", entry.mode & 07777U);
  const auto time = [](std::int64_t ns) { return rfc3339(ns / 1'000'000); };
  std::string text;
  const auto line = [&text](const char* key, const std::string& value) { text += std::string(key) + ": " + value + "\n"; };
  line("name", clean(base_name(path)));
  line("path", clean(absolute(path)));
  line("size", std::to_string(entry.size));
  line("isDirectory", directory ? "true" : "false");
  line("isFile", entry.kind == wire::FileKind::regular ? "true" : "false");
  line("created", time(entry.btime_ns != 0 ? entry.btime_ns : entry.ctime_ns));
  line("modified", time(entry.mtime_ns));
  line("accessed", time(entry.atime_ns));
  line("modTime", time(entry.mtime_ns));
  line("permissions", mode);
  line("mode", mode);
  line("owner", user_name(entry.uid));
  text += "group: " + user_name(entry.gid);
  return text;
}

/// The temporary file beside a file that is being replaced.
bool is_temporary(const std::string& path) {
  const std::string name = base_name(path);
  return name.starts_with(".codespace-") && name.ends_with(".tmp");
}

}  // namespace

ToolTask get_file_info(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto entry = co_await call.manager.stat(std::move(call.owner), std::move(call.session_id), path);
  if (!entry) co_return tool_failure(entry.error());
  co_return said(info_text(*entry, path));
}

ToolTask list_directory(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto listing = co_await call.manager.list_files(std::move(call.owner), std::move(call.session_id), path, 1);
  if (!listing) co_return tool_failure(listing.error());
  if (listing->truncated)
    co_return tool_failure("`" + clean(path) + "` has more entries than one answer may have (" + std::to_string(listing->entries.size()) +
                           "); list it with a command such as ls");
  std::string text;
  for (const auto& entry : listing->entries) {
    if (!text.empty()) text += '\n';
    text += entry.kind == wire::FileKind::directory ? "[DIR] " : "[FILE] ";
    text += clean(entry.name);
  }
  co_return said(text.empty() ? "(empty directory)" : std::move(text));
}

ToolTask read_file(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  const std::string format = call.args.text("format", "text");
  manager::FileRange range;
  range.offset = static_cast<std::uint64_t>(call.args.integer("offset", 0, 0, 1LL << 50));
  const std::int64_t length = call.args.integer("length", 0, 0, 1LL << 50);
  if (length != 0) range.length = static_cast<std::uint64_t>(length);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  const bool binary = format == "binary";
  if (!binary && !format.empty() && format != "text") co_return tool_failure("argument `format` must be text or binary");
  manager::FileRange taken = range;
  // What it takes to complete a character that begins in the range.
  if (!binary && taken.length != manager::FileRange{}.length) taken.length += kLongestCharacter - 1;
  auto content = co_await read_range(call.manager, call.owner, call.session_id, std::move(path), taken);
  if (!content) co_return tool_failure(content.error());
  if (binary) co_return said(base64(*content));
  co_return said(whole_characters(std::move(*content), range.offset, range.length));
}

ToolTask write_file(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  std::string content = call.args.required("content");
  std::string mode = call.args.text("mode");
  manager::FileWriteOptions options;
  options.create_parents = call.args.flag("create_parent_dir").value_or(true);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  options.append = mode == "append";
  options.exclusive = mode == "create_new";
  if (!options.append && !options.exclusive && !mode.empty() && mode != "overwrite")
    co_return tool_failure("argument `mode` is `" + clean(mode.substr(0, 64)) + "`; it must be overwrite, append or create_new");
  auto written = co_await write_whole(call.manager, call.owner, call.session_id, path, std::move(content), options);
  if (!written) co_return tool_failure(written.error());
  co_return said("Successfully wrote to " + clean(path));
}

ToolTask create_directory(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto made = co_await call.manager.make_directory(std::move(call.owner), std::move(call.session_id), path, true);
  if (!made) co_return tool_failure(made.error());
  co_return said("Successfully created directory " + clean(path));
}

ToolTask delete_file(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto removed = co_await call.manager.remove_file(std::move(call.owner), std::move(call.session_id), path, manager::RemoveScope::file);
  if (!removed) {
    if (removed.error().code == ErrorCode::is_a_directory)
      co_return tool_failure("`" + clean(path) + "` is a directory; this deletes files only, remove directories with a command such as rm -r");
    co_return tool_failure(removed.error());
  }
  co_return said("Successfully deleted " + clean(path));
}

ToolTask move_file(ToolCall call) {
  std::optional<Error> wrong;
  std::string from = path_of(call.args, "source", wrong);
  std::string to = path_of(call.args, "destination", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto moved = co_await call.manager.move(std::move(call.owner), std::move(call.session_id), from, to, false);
  if (!moved) {
    if (moved.error().code == ErrorCode::file_exists) co_return tool_failure("`" + clean(to) + "` exists already; nothing was moved");
    co_return tool_failure(moved.error());
  }
  co_return said("Successfully moved " + clean(from) + " to " + clean(to));
}

ToolTask edit_file(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  const std::vector<TextEdit> edits = call.args.edits("edits");
  const auto camel = call.args.flag("dryRun");
  const bool dry_run = camel ? *camel : call.args.flag("dry_run").value_or(false);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  const std::string count = std::to_string(edits.size()) + (edits.size() == 1 ? " edit" : " edits");
  auto edited = co_await api::edit_file(call.manager, call.owner, call.session_id, path, edits, dry_run);
  if (!edited) co_return tool_failure(edited.error());
  co_return said(dry_run ? count + " would apply to " + clean(path) + "; nothing was written" : "Successfully applied " + count + " to " + clean(path));
}

ToolTask search_files(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  std::string pattern = call.args.required("pattern");
  std::vector<std::string> excluded = call.args.list("excludePatterns");
  for (std::string& more : call.args.list("exclude_patterns")) excluded.push_back(std::move(more));
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto found = co_await call.manager.search_files(std::move(call.owner), std::move(call.session_id), path, std::move(pattern), std::move(excluded));
  if (!found) co_return tool_failure(found.error());
  if (found->truncated)
    co_return tool_failure("more than " + std::to_string(found->entries.size()) + " files match, or the tree is too deep; search a smaller directory or with a narrower pattern");
  std::vector<std::string> lines;
  std::string top = absolute(path);
  while (top.size() > 1 && top.back() == '/') top.pop_back();
  for (const auto& entry : found->entries) lines.push_back((top == "/" ? "" : clean(top)) + "/" + clean(entry.name));
  std::ranges::sort(lines);
  std::string text;
  for (const std::string& line : lines) text += (text.empty() ? "" : "\n") + line;
  co_return said(text.empty() ? "No matches found" : std::move(text));
}

ToolTask read_multiple_files(ToolCall call) {
  const std::vector<std::string> paths = call.args.list("paths");
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (paths.empty()) co_return tool_failure("argument `paths` is missing or empty; give an array of paths");
  if (paths.size() > kMaxPaths) co_return tool_failure("argument `paths` has more than " + std::to_string(kMaxPaths) + " paths");
  std::string text;
  std::string failures;
  bool any = false;
  for (const std::string& path : paths) {
    if (!text.empty()) text += "\n---\n";
    Result<std::string> content = std::string();
    if (auto checked = check_path(path); !checked) {
      content = std::unexpected(checked.error());
    } else {
      const manager::FileRange all;
      content = co_await read_range(call.manager, call.owner, call.session_id, path, all);
    }
    if (content) {
      any = true;
      text += clean(path) + ":\n" + clean(*content) + "\n";
    } else {
      ToolResult failed = tool_failure(content.error());
      if (failed.refused) co_return failed;
      failures += (failures.empty() ? "" : "\n") + clean(path) + ": " + failed.text;
      text += clean(path) + ": Error - " + failed.text;
    }
    if (text.size() > kMaxToolText) co_return tool_failure("the files are larger together than one answer may be; read fewer at a time");
  }
  if (!any) co_return tool_failure(std::move(failures));
  co_return said(std::move(text));
}

ToolTask get_file_change(ToolCall call) {
  std::optional<Error> wrong;
  std::string path = path_of(call.args, "path", wrong);
  if (call.args.mistake()) co_return tool_failure(*call.args.mistake());
  if (wrong) co_return tool_failure(*wrong);
  auto listing = co_await call.manager.list_files(std::move(call.owner), call.session_id, path, kWatchDepth);
  if (!listing) co_return tool_failure(listing.error());
  if (listing->truncated)
    co_return tool_failure("there are more than " + std::to_string(listing->entries.size()) + " files below `" + clean(path) + "`; watch a smaller directory");
  std::erase_if(listing->entries, [](const manager::FileEntry& entry) { return is_temporary(entry.name); });
  std::string top = path;
  while (top.size() > 1 && top.back() == '/') top.pop_back();
  const auto changes = call.changes.compare(call.session_id, top, listing->entries, std::chrono::steady_clock::now());
  ordered_json out = ordered_json::array();
  for (const FileChange& change : changes) {
    using Event = FileChange::Event;
    const char* event = change.event == Event::create ? "create" : change.event == Event::modify ? "modify" : "delete";
    out.push_back({{"eventType", event}, {"path", clean((top == "/" ? "" : top) + "/" + change.path)}, {"pathType", change.directory ? "directory" : "file"}});
  }
  co_return said(out.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
}

}  // namespace codespace::api
