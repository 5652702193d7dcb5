// File work made of several calls of the session manager, for the REST surface and the tools
// alike: whole reads and writes, and edits. Paths are resolved in the session, never here.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sandbox/manager/session_manager.h"

namespace codespace::api {

/// The longest content that one answer carries; a longer file is read in ranges.
inline constexpr std::uint64_t kMaxToolText = 64U << 20;
inline constexpr std::uint64_t kMaxEditBytes = 16U << 20;
inline constexpr std::size_t kMaxEdits = 1000;

struct TextEdit {
  std::string old_text, new_text;
};

/// The bytes of a range. A range of more than kMaxToolText is an error, never a shorter answer.
manager::Task<std::string> read_range(manager::SessionManager& manager, std::string owner, std::string session_id, std::string path,
                                      manager::FileRange range);

manager::Task<manager::FileWritten> write_whole(manager::SessionManager& manager, std::string owner, std::string session_id,
                                                std::string path, std::string content, manager::FileWriteOptions options);

/// Replaces the first occurrence of each old text, one edit after the other, and puts the result
/// in the place of the file at once; nothing is written if one does not occur, or in a dry run.
/// What another writer does between our reading and our writing is lost. Gives the size after.
manager::Task<std::uint64_t> edit_file(manager::SessionManager& manager, std::string owner, std::string session_id, std::string path,
                                       std::vector<TextEdit> edits, bool dry_run);

}  // namespace codespace::api
