// See file_changes.h.
#include "api/file_changes.h"

#include <algorithm>

namespace codespace::api {

void FileChanges::forget(TimePoint at) {
  while (!watches_.empty() && (at - watches_.back().polled > kForgetAfter || (entries_ > kMaxEntries && watches_.size() > 1))) {
    entries_ -= watches_.back().seen.size();
    watches_.pop_back();
  }
}

std::vector<FileChange> FileChanges::compare(const std::string& session_id, const std::string& path,
                                             const std::vector<manager::FileEntry>& now, TimePoint at) {
  std::map<std::string, Seen> seen;
  for (const manager::FileEntry& entry : now) {
    Seen& is = seen[entry.name];
    is.directory = entry.kind == wire::FileKind::directory;
    is.inode = entry.inode;
    if (is.directory) continue;  // its times change with what is in it, and that is told by itself
    is.size = entry.size;
    is.mtime_ns = entry.mtime_ns;
    is.ctime_ns = entry.ctime_ns;
  }
  std::vector<FileChange> changes;
  const std::lock_guard lock(mutex_);
  forget(at);
  const auto watch = std::ranges::find_if(watches_, [&](const Watch& w) { return w.session_id == session_id && w.path == path; });
  if (watch == watches_.end()) {
    entries_ += seen.size();
    watches_.push_front({session_id, path, std::move(seen), at});
    forget(at);
    return changes;
  }
  using Event = FileChange::Event;
  for (const auto& [name, is] : seen) {
    const auto was = watch->seen.find(name);
    if (was == watch->seen.end() || was->second.directory != is.directory) {
      if (was != watch->seen.end()) changes.push_back({Event::remove, name, was->second.directory});
      changes.push_back({Event::create, name, is.directory});
      if (!is.directory) changes.push_back({Event::modify, name, false});
    } else if (!is.directory && was->second != is) {
      changes.push_back({Event::modify, name, false});
    }
  }
  for (const auto& [name, was] : watch->seen) {
    if (!seen.contains(name)) changes.push_back({Event::remove, name, was.directory});
  }
  entries_ = entries_ - watch->seen.size() + seen.size();
  watch->seen = std::move(seen);
  watch->polled = at;
  watches_.splice(watches_.begin(), watches_, watch);
  return changes;
}

}  // namespace codespace::api
