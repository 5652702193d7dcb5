// What changed below a directory between two looks at it: the baselines that clients which
// watch a directory compare with, one for each watched path of a session. In memory only; a
// daemon that was restarted begins with new ones. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "sandbox/manager/session_manager.h"

namespace codespace::api {

struct FileChange {
  enum class Event { create, modify, remove };
  Event event = Event::create;
  std::string path;            // below the watched directory
  bool directory = false;
};

class FileChanges {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  /// A watch that nobody polled for this long starts anew, so that it does not tell old news.
  static constexpr std::chrono::seconds kForgetAfter{60};
  /// All baselines together; beyond it the one polled longest ago is forgotten.
  static constexpr std::size_t kMaxEntries = 200'000;

  /// The changes since the last call for this session and path, in order of path; none for the
  /// first call. A new file counts as created and as modified.
  std::vector<FileChange> compare(const std::string& session_id, const std::string& path,
                                  const std::vector<manager::FileEntry>& now, TimePoint at);

 private:
  struct Seen {
    bool directory = false;
    std::uint64_t inode = 0, size = 0;
    std::int64_t mtime_ns = 0, ctime_ns = 0;
    bool operator==(const Seen&) const = default;
  };
  struct Watch {
    std::string session_id, path;
    std::map<std::string, Seen> seen;
    TimePoint polled;
  };
  void forget(TimePoint at);

  std::mutex mutex_;
  std::list<Watch> watches_;   // the one polled last is the first
  std::size_t entries_ = 0;
};

}  // namespace codespace::api
