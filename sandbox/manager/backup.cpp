// See backup.h.
#include "sandbox/manager/backup.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "sandbox/manager/sqlite.h"
#include "sandbox/manager/store.h"
#include "sandbox/sys/syscalls.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::manager {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr const char* kDatabase = "/codespace.db";
constexpr const char* kFiles[] = {"api-key", "tls/ca.pem", "tls/ca-key.pem", "tls/server.pem", "tls/server-key.pem", "tls/names"};

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

/// SQLite's way to copy a database: `from` may be in use.
Result<void> copy_database(sqlite::Database& from, const std::string& to) {
  auto copy = from.prepare("VACUUM INTO ?");
  if (!copy) return std::unexpected(copy.error());
  copy->bind(std::string_view(to));
  return copy->run();
}

Result<void> keep_files(sqlite::Database& backup, const std::string& state_dir) {
  if (auto made = backup.execute("CREATE TABLE backup_files (name TEXT NOT NULL PRIMARY KEY, mode INTEGER NOT NULL, content BLOB NOT NULL) STRICT"); !made) return made;
  auto insert = backup.prepare("INSERT INTO backup_files VALUES (?, ?, ?)");
  if (!insert) return std::unexpected(insert.error());
  for (const char* name : kFiles) {
    const std::string path = state_dir + "/" + name;
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) continue;  // an operator may have removed the key
    const std::string content = sys::read_file_at(AT_FDCWD, path.c_str(), kMaxFileBytes);
    if (content.empty()) return sys_error(errno, "read " + path);
    if (auto kept = insert->bind(std::string_view(name)).bind(static_cast<std::int64_t>(st.st_mode & 0777)).bind_blob(content).run(); !kept) return kept;
  }
  return {};
}

Result<void> write_file(const std::string& path, std::string_view content, mode_t mode) {
  const sys::UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd || ::fchmod(fd.get(), mode) != 0 || ::write(fd.get(), content.data(), content.size()) != static_cast<ssize_t>(content.size()) ||
      ::fsync(fd.get()) != 0)
    return sys_error(errno, "write " + path);
  return {};
}

Result<void> make_dir(const std::string& path, mode_t mode) {
  if (::mkdir(path.c_str(), mode) == 0 ? ::chmod(path.c_str(), mode) != 0 : errno != EEXIST) return sys_error(errno, "make " + path);
  return {};
}

Result<void> put_back_files(sqlite::Database& backup, const std::string& state_dir) {
  auto query = backup.prepare("SELECT name, mode, content FROM backup_files");
  if (!query) return std::unexpected(query.error());
  for (;;) {
    const auto row = query->step();
    if (!row) return std::unexpected(row.error());
    if (!*row) return {};
    const std::string name(query->bytes(0));
    bool known = false;
    for (const char* file : kFiles) known = known || name == file;
    if (!known) return client_error(ErrorCode::invalid_request, "the backup holds a file that none of ours has: " + name);
    if (auto written = write_file(state_dir + "/" + name, query->bytes(2), static_cast<mode_t>(query->integer(1) & 0777)); !written) return written;
  }
}

}  // namespace

Result<void> write_backup(const std::string& state_dir, const std::string& file) {
  const std::string database = state_dir + kDatabase;
  if (!exists(database)) return client_error(ErrorCode::invalid_request, database + " does not exist; is " + state_dir + " the server's state directory, and may you read it?");
  if (exists(file)) return client_error(ErrorCode::invalid_request, file + " exists; a backup never replaces a file");
  {
    auto live = sqlite::Database::open(database);
    if (!live) return std::unexpected(live.error());
    // SQLite takes an empty file as a new database, and so it has our mode.
    const sys::UniqueFd empty(::open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!empty) return sys_error(errno, "create " + file);
    if (auto copied = copy_database(*live, file); !copied) {
      ::unlink(file.c_str());
      return copied;
    }
  }
  auto backup = sqlite::Database::open(file);
  if (!backup) return std::unexpected(backup.error());
  if (auto kept = keep_files(*backup, state_dir); !kept) {
    ::unlink(file.c_str());
    return kept;
  }
  return {};
}

Result<void> restore_backup(const std::string& file, const std::string& state_dir) {
  if (!exists(file)) return client_error(ErrorCode::invalid_request, file + " does not exist, or you may not read it");
  const std::string database = state_dir + kDatabase;
  if (exists(database)) return client_error(ErrorCode::invalid_request, database + " exists; stop the server and move it away first");
  if (auto made = make_dir(state_dir, 0711); !made) return made;
  if (auto made = make_dir(state_dir + "/tls", 0755); !made) return made;
  auto backup = sqlite::Database::open(file);
  if (!backup) return std::unexpected(backup.error());
  if (auto put = put_back_files(*backup, state_dir); !put) return put;
  const sys::UniqueFd empty(::open(database.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!empty) return sys_error(errno, "create " + database);
  if (auto copied = copy_database(*backup, database); !copied) return copied;
  auto restored = sqlite::Database::open(database);
  if (!restored) return std::unexpected(restored.error());
  if (auto dropped = restored->execute("DROP TABLE backup_files"); !dropped) return dropped;
  return migrate(*restored);
}

}  // namespace codespace::manager
