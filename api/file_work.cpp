// See file_work.h.
#include "api/file_work.h"

#include <algorithm>

namespace codespace::api {

manager::Task<std::string> read_range(manager::SessionManager& manager, std::string owner, std::string session_id, std::string path,
                                      manager::FileRange range) {
  auto reader = co_await manager.read_file(std::move(owner), std::move(session_id), path, range);
  if (!reader) co_return std::unexpected(reader.error());
  const std::uint64_t size = (*reader)->entry().size;
  const std::uint64_t wanted = std::min(range.length, size > range.offset ? size - range.offset : 0);
  if (wanted > kMaxToolText)
    co_return client_error(ErrorCode::file_too_large, "`" + path + "` has " + std::to_string(wanted) + " bytes from there on, more than the " +
                                                          std::to_string(kMaxToolText) + " that one answer may have; read it with offset and length");
  std::string content;
  content.reserve(wanted);
  for (;;) {
    auto piece = co_await (*reader)->next();
    if (!piece) co_return std::unexpected(piece.error());
    if (piece->empty()) co_return content;
    content += *piece;
  }
}

manager::Task<manager::FileWritten> write_whole(manager::SessionManager& manager, std::string owner, std::string session_id,
                                                std::string path, std::string content, manager::FileWriteOptions options) {
  auto writer = co_await manager.write_file(std::move(owner), std::move(session_id), std::move(path), options);
  if (!writer) co_return std::unexpected(writer.error());
  auto written = co_await (*writer)->write(std::move(content));
  if (!written) co_return std::unexpected(written.error());
  co_return co_await (*writer)->finish();
}

manager::Task<std::uint64_t> edit_file(manager::SessionManager& manager, std::string owner, std::string session_id, std::string path,
                                       std::vector<TextEdit> edits, bool dry_run) {
  if (edits.empty() || edits.size() > kMaxEdits)
    co_return client_error(ErrorCode::invalid_request, "there are " + std::to_string(edits.size()) + " edits; allowed are 1 to " + std::to_string(kMaxEdits));
  auto entry = co_await manager.stat(owner, session_id, path);
  if (!entry) co_return std::unexpected(entry.error());
  if (entry->kind == wire::FileKind::regular && entry->size > kMaxEditBytes)
    co_return client_error(ErrorCode::file_too_large, "`" + path + "` has " + std::to_string(entry->size) + " bytes; a file may have " +
                                                          std::to_string(kMaxEditBytes) + " to be edited here, edit it with a command or a run");
  const manager::FileRange all;
  auto content = co_await read_range(manager, owner, session_id, path, all);
  if (!content) co_return std::unexpected(content.error());
  for (std::size_t i = 0; i < edits.size(); ++i) {
    const std::string& old_text = edits[i].old_text;
    const std::size_t at = old_text.empty() ? std::string::npos : content->find(old_text);
    if (at == std::string::npos)
      co_return client_error(ErrorCode::conflict, "nothing was changed: `" + path + "` does not contain the old text of edit " + std::to_string(i + 1) +
                                                      (old_text.empty() ? ", which is empty" : ": " + old_text.substr(0, 200)));
    content->replace(at, old_text.size(), edits[i].new_text);
    if (content->size() > kMaxToolText)
      co_return client_error(ErrorCode::file_too_large, "nothing was changed: `" + path + "` would have more than " + std::to_string(kMaxToolText) + " bytes");
  }
  const std::uint64_t size = content->size();
  if (!dry_run) {
    const manager::FileWriteOptions options;
    auto written = co_await write_whole(manager, std::move(owner), std::move(session_id), std::move(path), std::move(*content), options);
    if (!written) co_return std::unexpected(written.error());
  }
  co_return size;
}

}  // namespace codespace::api
