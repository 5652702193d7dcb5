// What a client that watches a directory is told between two polls.
#include <catch2/catch.hpp>

#include "api/file_changes.h"

using namespace codespace;
using api::FileChanges;
using Event = api::FileChange::Event;
using std::chrono::seconds;

namespace {

manager::FileEntry file(const std::string& name, std::uint64_t inode, std::int64_t mtime_ns, std::uint64_t size = 1) {
  manager::FileEntry entry;
  entry.name = name;
  entry.kind = wire::FileKind::regular;
  entry.inode = inode;
  entry.size = size;
  entry.mtime_ns = entry.ctime_ns = mtime_ns;
  return entry;
}

manager::FileEntry directory(const std::string& name, std::int64_t mtime_ns) {
  manager::FileEntry entry = file(name, 100, mtime_ns);
  entry.kind = wire::FileKind::directory;
  return entry;
}

std::vector<std::pair<Event, std::string>> told(const std::vector<api::FileChange>& changes) {
  std::vector<std::pair<Event, std::string>> out;
  for (const auto& change : changes) out.emplace_back(change.event, change.path);
  return out;
}

using Told = std::vector<std::pair<Event, std::string>>;

}  // namespace

TEST_CASE("the first look is the baseline, a new file is created and modified", "[api][rpc]") {
  FileChanges changes;
  const FileChanges::TimePoint at{};
  CHECK(changes.compare("s", "/w", {file("old", 1, 1)}, at).empty());
  CHECK(told(changes.compare("s", "/w", {file("old", 1, 1), file("new", 2, 5)}, at)) == Told{{Event::create, "new"}, {Event::modify, "new"}});
  CHECK(changes.compare("s", "/w", {file("old", 1, 1), file("new", 2, 5)}, at).empty());
}

TEST_CASE("a file replaced, appended to, touched or gone is told once", "[api][rpc]") {
  FileChanges changes;
  const FileChanges::TimePoint at{};
  changes.compare("s", "/w", {file("a", 1, 1), file("b", 2, 1), file("c", 3, 1), file("d", 4, 1)}, at);
  const auto seen = changes.compare("s", "/w", {file("a", 9, 1), file("b", 2, 1, 7), file("c", 3, 2)}, at);
  CHECK(told(seen) == Told{{Event::modify, "a"}, {Event::modify, "b"}, {Event::modify, "c"}, {Event::remove, "d"}});
}

TEST_CASE("a directory's own times are no change, another kind of the same name is two", "[api][rpc]") {
  FileChanges changes;
  const FileChanges::TimePoint at{};
  changes.compare("s", "/w", {directory("d", 1), file("x", 1, 1)}, at);
  CHECK(changes.compare("s", "/w", {directory("d", 2), file("x", 1, 1)}, at).empty());
  CHECK(told(changes.compare("s", "/w", {file("d", 7, 3), file("x", 1, 1)}, at)) ==
        Told{{Event::remove, "d"}, {Event::create, "d"}, {Event::modify, "d"}});
}

TEST_CASE("sessions and paths are apart, and a watch that nobody polls is forgotten", "[api][rpc]") {
  FileChanges changes;
  const FileChanges::TimePoint at{};
  changes.compare("s", "/w", {}, at);
  CHECK(changes.compare("t", "/w", {file("a", 1, 1)}, at).empty());
  CHECK(changes.compare("s", "/v", {file("a", 1, 1)}, at).empty());
  CHECK_FALSE(changes.compare("s", "/w", {file("a", 1, 1)}, at + seconds(59)).empty());
  CHECK(changes.compare("s", "/w", {file("a", 1, 1), file("b", 1, 1)}, at + seconds(59 + 61)).empty());
}

TEST_CASE("all baselines together are bounded", "[api][rpc]") {
  FileChanges changes;
  const FileChanges::TimePoint at{};
  std::vector<manager::FileEntry> many;
  for (std::size_t i = 0; i < FileChanges::kMaxEntries / 2 + 1; ++i) many.push_back(file(std::to_string(i), i, 1));
  changes.compare("first", "/w", many, at);
  changes.compare("second", "/w", many, at);
  many.push_back(file("new", 1, 1));
  CHECK(changes.compare("first", "/w", many, at).empty());  // made room for the second, so it begins anew
}
