// The file helper. Runs as a forked child of init, single-threaded, blocking I/O, and
// exits after one request. See file_ops.h.
#include "sandbox/init/file_ops.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "sandbox/init/scratch.h"
#include "sandbox/init/spawn.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"
#include "sandbox/wire/codec.h"
#include "sandbox/wire/init_protocol.h"

namespace codespace::init {
namespace {

using sys::UniqueFd;
using wire::FileKind;
using wire::InitReply;
using wire::InitRequest;
using wire::Refusal;
using wire::Stage;

constexpr std::uint64_t kTransferLimitNs = 600 * sys::kNsPerSecond;
constexpr std::uint64_t kWorkLimitNs = 30 * sys::kNsPerSecond;
constexpr std::uint32_t kMaxDepth = 64;
constexpr std::uint32_t kMaxEntries = 100'000;
constexpr std::uint32_t kMaxSearchDepth = 200;  // each level holds a descriptor
constexpr std::uint32_t kMaxPatterns = 64;
constexpr long kProcMagic = 0x9fa0;  // PROC_SUPER_MAGIC
/// Magic links of /proc lead to descriptors and programs of whoever resolves them: us.
constexpr std::uint64_t kResolve = RESOLVE_NO_MAGICLINKS;

int connection_fd = -1;
std::string pending;  // bytes received and not yet taken as frames

/// The unfinished upload, removed on every way out but success.
int temporary_dir = -1;
std::string temporary_name;

[[noreturn]] void leave(int status) {
  if (!temporary_name.empty()) (void)::unlinkat(temporary_dir, temporary_name.c_str(), 0);
  ::_exit(status);
}

void send_all(const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::send(connection_fd, data, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) leave(3);  // the gateway hung up
    data += n;
    size -= static_cast<std::size_t>(n);
  }
}

void send_frame(InitReply type, const wire::Writer& w) {
  const std::vector<char> frame = w.frame(static_cast<std::uint32_t>(type));
  send_all(frame.data(), frame.size());
}

[[noreturn]] void refuse(Refusal why, int error, const char* detail) {
  wire::Writer w;
  w.u32(static_cast<std::uint32_t>(why));
  w.u32(static_cast<std::uint32_t>(error));
  w.u32(static_cast<std::uint32_t>(Stage::none));
  w.bytes(detail);
  send_frame(InitReply::refused, w);
  // Data the gateway still sends would make the close a reset and lose the answer above.
  ::shutdown(connection_fd, SHUT_WR);
  char sink[4096];
  while (::recv(connection_fd, sink, sizeof sink, 0) > 0) {}
  leave(0);
}

[[noreturn]] void refuse_errno(const char* call) { refuse(Refusal::file_error, errno, call); }

std::int64_t nanoseconds(const timespec& t) { return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec; }

[[noreturn]] void finish(std::uint64_t transferred, const struct stat* st, bool truncated = false) {
  wire::Writer w;
  w.u64(transferred);
  w.u64(st != nullptr ? static_cast<std::uint64_t>(st->st_size) : 0);
  w.i64(st != nullptr ? nanoseconds(st->st_mtim) : 0);
  w.u8(truncated ? 1 : 0);
  send_frame(InitReply::file_done, w);
  leave(0);
}

FileKind kind_of(const struct stat& st) {
  if (S_ISREG(st.st_mode)) return FileKind::regular;
  if (S_ISDIR(st.st_mode)) return FileKind::directory;
  if (S_ISLNK(st.st_mode)) return FileKind::symlink;
  return FileKind::other;
}

void send_entry(const std::string& name, const struct stat& st, const std::string& link_target, std::int64_t btime_ns = 0) {
  wire::Writer w;
  w.bytes(name);
  w.u8(static_cast<std::uint8_t>(kind_of(st)));
  w.u64(static_cast<std::uint64_t>(st.st_size));
  w.u32(st.st_mode);
  w.u32(st.st_uid);
  w.u32(st.st_gid);
  w.i64(nanoseconds(st.st_mtim));
  w.i64(nanoseconds(st.st_ctim));
  w.i64(nanoseconds(st.st_atim));
  w.i64(btime_ns);
  w.u64(st.st_ino);
  w.bytes(link_target);
  send_frame(InitReply::entry, w);
}

std::string link_target_at(int dir, const char* name) {
  char target[4096];
  const ssize_t n = ::readlinkat(dir, name, target, sizeof target);
  return n < 0 ? std::string() : std::string(target, static_cast<std::size_t>(n));
}

std::string checked_path(std::string_view path) {
  if (path.empty() || path.size() >= 4096 || path.find('\0') != std::string_view::npos)
    refuse(Refusal::invalid_path, 0, "a path has 1 to 4095 bytes and no NUL");
  return std::string(path);
}

/// Directory and last component of a path; "." and ".." are not names of files.
struct Split {
  std::string dir;
  std::string name;
};
Split split(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  Split s;
  s.dir = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  s.name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (s.name.empty() || s.name == "." || s.name == "..") refuse(Refusal::invalid_path, 0, "the path names no file");
  return s;
}

UniqueFd open_directory(const std::string& path) {
  UniqueFd dir(sys::openat2(AT_FDCWD, path.c_str(), O_RDONLY | O_DIRECTORY, kResolve));
  if (!dir) refuse_errno("open directory");
  return dir;
}

// --- reading ------------------------------------------------------------------------------------

[[noreturn]] void file_read(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  const std::uint64_t offset = r.u64();
  std::uint64_t length = r.u64();
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_read");
  // O_NONBLOCK: a FIFO opens at once and is then refused for what it is.
  UniqueFd file(sys::openat2(AT_FDCWD, path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY, kResolve));
  if (!file) refuse_errno("open");
  struct stat st {};
  struct statfs fs {};
  if (::fstat(file.get(), &st) != 0 || ::fstatfs(file.get(), &fs) != 0) refuse_errno("fstat");
  if (S_ISDIR(st.st_mode)) refuse(Refusal::is_directory, 0, "");
  if (!S_ISREG(st.st_mode) || fs.f_type == kProcMagic) refuse(Refusal::not_regular, 0, "");
  send_entry(path, st, "");
  std::vector<char> buffer(wire::kHeaderSize + wire::kMaxChunk);
  std::uint64_t sent = 0;
  std::uint64_t at = offset;
  // Bounded by the size at opening: a file that grows while it is read cannot hold us for ever.
  const auto size = static_cast<std::uint64_t>(st.st_size);
  length = std::min(length, size > offset ? size - offset : 0);
  while (length > 0) {
    const std::size_t want = std::min<std::uint64_t>(length, wire::kMaxChunk);
    const ssize_t n = ::pread(file.get(), buffer.data() + wire::kHeaderSize, want, static_cast<off_t>(at));
    if (n < 0) refuse_errno("read");
    if (n == 0) break;  // it was truncated meanwhile
    const wire::FrameHeader header{static_cast<std::uint32_t>(InitReply::data), static_cast<std::uint32_t>(n)};
    std::memcpy(buffer.data(), &header, sizeof header);
    send_all(buffer.data(), wire::kHeaderSize + static_cast<std::size_t>(n));
    at += static_cast<std::uint64_t>(n);
    sent += static_cast<std::uint64_t>(n);
    length -= static_cast<std::uint64_t>(n);
  }
  finish(sent, &st);
}

[[noreturn]] void file_stat(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  const bool follow = r.u32() != 0;
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_stat");
  UniqueFd file(sys::openat2(AT_FDCWD, path.c_str(), static_cast<std::uint64_t>(O_PATH | (follow ? 0 : O_NOFOLLOW)), kResolve));
  if (!file) refuse_errno("stat");
  struct stat st {};
  struct statx more {};
  if (::fstat(file.get(), &st) != 0) refuse_errno("stat");
  const bool has_birth = ::statx(file.get(), "", AT_EMPTY_PATH, STATX_BTIME, &more) == 0 && (more.stx_mask & STATX_BTIME) != 0;
  const std::int64_t btime_ns = has_birth ? more.stx_btime.tv_sec * 1'000'000'000 + more.stx_btime.tv_nsec : 0;
  send_entry(path, st, S_ISLNK(st.st_mode) ? link_target_at(file.get(), "") : "", btime_ns);
  finish(0, &st);
}

struct Listing {
  std::uint32_t max_depth = 1;
  std::uint32_t max_entries = 0;
  std::uint32_t sent = 0;
  bool truncated = false;
};

void list_directory(UniqueFd dir, const std::string& prefix, std::uint32_t depth, Listing& listing) {
  DIR* d = ::fdopendir(dir.release());
  if (d == nullptr) refuse_errno("list");
  std::vector<std::string> names;
  while (const dirent* e = ::readdir(d)) {
    const std::string_view name = e->d_name;
    if (name == "." || name == "..") continue;
    if (listing.sent + names.size() >= listing.max_entries) {
      listing.truncated = true;
      break;
    }
    names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    if (listing.sent >= listing.max_entries) {
      listing.truncated = true;
      break;
    }
    struct stat st {};
    if (::fstatat(::dirfd(d), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;  // gone meanwhile
    const std::string shown = prefix + name;
    send_entry(shown, st, S_ISLNK(st.st_mode) ? link_target_at(::dirfd(d), name.c_str()) : "");
    ++listing.sent;
    if (!S_ISDIR(st.st_mode) || depth >= listing.max_depth) continue;
    UniqueFd child(sys::openat2(::dirfd(d), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kResolve));
    if (child) list_directory(std::move(child), shown + "/", depth + 1, listing);  // unreadable ones are just shown
  }
  ::closedir(d);
}

[[noreturn]] void file_list(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  Listing listing;
  listing.max_depth = r.u32();
  listing.max_entries = r.u32();
  if (!r.done() || listing.max_depth < 1 || listing.max_depth > kMaxDepth || listing.max_entries > kMaxEntries)
    refuse(Refusal::bad_request, 0, "file_list");
  list_directory(open_directory(path), "", 1, listing);
  finish(listing.sent, nullptr, listing.truncated);
}

struct Search {
  std::string pattern;
  std::vector<std::string> excluded;
  std::uint32_t max_entries = 0;
  std::uint32_t sent = 0;
  bool truncated = false;
};

bool left_out(const Search& search, const std::string& name, const std::string& path) {
  return std::ranges::any_of(search.excluded, [&](const std::string& pattern) { return matches(pattern, name) || matches(pattern, path); });
}

/// Entries are sent as they are met, so that a directory of a million costs no memory here.
void search_directory(UniqueFd dir, const std::string& prefix, std::uint32_t depth, Search& search) {
  struct statfs fs {};
  if (::fstatfs(dir.get(), &fs) != 0 || fs.f_type == kProcMagic) return;  // endless, and no files of the tenant's
  DIR* d = ::fdopendir(dir.release());
  if (d == nullptr) refuse_errno("search");
  while (const dirent* e = ::readdir(d)) {
    const std::string name = e->d_name;
    if (name == "." || name == "..") continue;
    const std::string shown = prefix + name;
    if (left_out(search, name, shown)) continue;
    struct stat st {};
    if (::fstatat(::dirfd(d), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) continue;  // gone meanwhile
    if (matches(search.pattern, name)) {
      if (search.sent == search.max_entries) {
        search.truncated = true;
        break;
      }
      send_entry(shown, st, "");
      ++search.sent;
    }
    if (!S_ISDIR(st.st_mode)) continue;
    if (depth == kMaxSearchDepth) {
      search.truncated = true;
      continue;
    }
    UniqueFd child(sys::openat2(::dirfd(d), name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kResolve));
    if (child) search_directory(std::move(child), shown + "/", depth + 1, search);  // unreadable ones are just passed by
    if (search.sent == search.max_entries && search.truncated) break;
  }
  ::closedir(d);
}

[[noreturn]] void file_search(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  Search search;
  search.pattern = r.bytes();
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && i < kMaxPatterns && r.ok(); ++i) search.excluded.emplace_back(r.bytes());
  search.max_entries = r.u32();
  if (!r.done() || count > kMaxPatterns || search.max_entries > kMaxEntries) refuse(Refusal::bad_request, 0, "file_search");
  search_directory(open_directory(path), "", 1, search);
  finish(search.sent, nullptr, search.truncated);
}

// --- writing ------------------------------------------------------------------------------------

/// Takes the next frame of the upload; false at its end.
bool next_piece(std::string& piece) {
  for (;;) {
    if (pending.size() >= wire::kHeaderSize) {
      wire::FrameHeader header;
      std::memcpy(&header, pending.data(), sizeof header);
      if (header.length > wire::kMaxChunk) refuse(Refusal::bad_request, 0, "a piece is too long");
      if (header.type == wire::kInEndOfData) return false;
      if (header.type != wire::kInData) refuse(Refusal::bad_request, 0, "not a data frame");
      if (pending.size() >= wire::kHeaderSize + header.length) {
        piece.assign(pending, wire::kHeaderSize, header.length);
        pending.erase(0, wire::kHeaderSize + header.length);
        return true;
      }
    }
    const ssize_t n = ::recv(connection_fd, scratch(), kScratchBytes, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) leave(3);  // hung up before the end: nothing is kept
    pending.append(scratch(), static_cast<std::size_t>(n));
  }
}

std::uint64_t receive_into(const UniqueFd& file, std::uint64_t size_limit) {
  std::uint64_t total = 0;
  std::string piece;
  while (next_piece(piece)) {
    total += piece.size();
    if (total > size_limit) refuse(Refusal::too_large, 0, "");
    std::size_t done = 0;
    while (done < piece.size()) {
      const ssize_t n = ::write(file.get(), piece.data() + done, piece.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) refuse_errno("write");
      done += static_cast<std::size_t>(n);
    }
  }
  return total;
}

void make_parents(const std::string& dir) {
  std::string path;
  std::size_t at = 0;
  while (at <= dir.size()) {
    std::size_t slash = dir.find('/', at);
    if (slash == std::string::npos) slash = dir.size();
    path = dir.substr(0, slash);
    at = slash + 1;
    if (path.empty() || path == ".") continue;
    // A component that exists, or that we may not create, shows itself in the open that follows.
    if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
      refuse_errno("create directory");
  }
}

[[noreturn]] void append_to(const UniqueFd& dir, const std::string& name, std::uint32_t mode, bool exclusive,
                            std::uint64_t size_limit) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | (exclusive ? O_EXCL : 0);
  UniqueFd file(sys::openat2(dir.get(), name.c_str(), static_cast<std::uint64_t>(flags), kResolve, mode != 0 ? mode : 0644));
  if (!file) refuse_errno("open for append");
  struct stat st {};
  if (::fstat(file.get(), &st) != 0) refuse_errno("fstat");
  if (!S_ISREG(st.st_mode)) refuse(Refusal::not_regular, 0, "");
  const std::uint64_t bytes = receive_into(file, size_limit);
  if (::fstat(file.get(), &st) != 0) refuse_errno("fstat");
  finish(bytes, &st);
}

[[noreturn]] void replace(const UniqueFd& dir, const std::string& name, std::uint32_t mode, bool exclusive,
                          std::uint64_t size_limit) {
  struct stat old {};
  const bool exists = ::fstatat(dir.get(), name.c_str(), &old, AT_SYMLINK_NOFOLLOW) == 0;
  if (exists && exclusive) refuse(Refusal::file_error, EEXIST, "the file exists");
  if (exists && S_ISDIR(old.st_mode)) refuse(Refusal::is_directory, 0, "");
  if (exists && !S_ISREG(old.st_mode) && !S_ISLNK(old.st_mode)) refuse(Refusal::not_regular, 0, "");
  if (exists && S_ISREG(old.st_mode) && ::faccessat(dir.get(), name.c_str(), W_OK, AT_EACCESS) != 0 && errno == EACCES)
    refuse_errno("write");

  std::uint64_t token = 0;
  if (::getrandom(&token, sizeof token, 0) != static_cast<ssize_t>(sizeof token)) refuse_errno("getrandom");
  char temporary[64];
  ::snprintf(temporary, sizeof temporary, ".codespace-%016llx.tmp", static_cast<unsigned long long>(token));
  UniqueFd file(sys::openat2(dir.get(), temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, kResolve, 0600));
  if (!file) refuse_errno("create");
  temporary_dir = dir.get();
  temporary_name = temporary;
  const std::uint64_t bytes = receive_into(file, size_limit);
  const mode_t final_mode = mode != 0 ? mode : exists && S_ISREG(old.st_mode) ? old.st_mode & 0777 : 0644;
  struct stat st {};
  // link(2) would refuse an existing name, rename(2) replaces whatever is there: never through a link.
  const bool placed = ::fchmod(file.get(), final_mode) == 0 && ::fstat(file.get(), &st) == 0 &&
                      ::renameat2(dir.get(), temporary, dir.get(), name.c_str(), exclusive ? RENAME_NOREPLACE : 0) == 0;
  if (!placed) refuse_errno("put the file in its place");
  temporary_name.clear();
  finish(bytes, &st);
}

[[noreturn]] void file_write(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  const std::uint32_t flags = r.u32();
  const std::uint32_t mode = r.u32() & 0777;
  const std::uint64_t size_limit = r.u64();
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_write");
  if (path.back() == '/') refuse(Refusal::is_directory, 0, "");
  const Split target = split(path);
  if ((flags & wire::file_write_parents) != 0) make_parents(target.dir);
  const UniqueFd dir = open_directory(target.dir);
  struct statfs fs {};
  if (::fstatfs(dir.get(), &fs) != 0) refuse_errno("fstatfs");
  if (fs.f_type == kProcMagic) refuse(Refusal::not_regular, 0, "");
  const bool exclusive = (flags & wire::file_write_exclusive) != 0;
  if ((flags & wire::file_write_append) != 0) append_to(dir, target.name, mode, exclusive, size_limit);
  replace(dir, target.name, mode, exclusive, size_limit);
}

[[noreturn]] void file_mkdir(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  const bool parents = r.u32() != 0;
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_mkdir");
  if (parents) make_parents(path);
  if (::mkdir(path.c_str(), 0755) != 0) {
    struct stat st {};
    const int saved = errno;
    const bool is_there = parents && saved == EEXIST && ::stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode);
    errno = saved;
    if (!is_there) refuse_errno("create directory");
  }
  finish(0, nullptr);
}

[[noreturn]] void file_move(wire::Reader& r) {
  const std::string from = checked_path(r.bytes());
  const std::string to = checked_path(r.bytes());
  const bool overwrite = r.u32() != 0;
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_move");
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), overwrite ? 0 : RENAME_NOREPLACE) == 0) finish(0, nullptr);
  if (errno != EXDEV) refuse_errno("move");
  // /workspace, /tmp and the home are file systems of their own: a plain file is copied over.
  UniqueFd source(sys::openat2(AT_FDCWD, from.c_str(), O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY, kResolve));
  if (!source) refuse_errno("move");
  struct stat st {};
  if (::fstat(source.get(), &st) != 0) refuse_errno("move");
  if (!S_ISREG(st.st_mode)) refuse(Refusal::file_error, EXDEV, "only plain files can be moved between file systems");
  const Split target = split(to);
  const UniqueFd dir = open_directory(target.dir);
  const int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | (overwrite ? O_TRUNC : O_EXCL);
  UniqueFd copy(sys::openat2(dir.get(), target.name.c_str(), static_cast<std::uint64_t>(flags), kResolve, st.st_mode & 0777));
  if (!copy) refuse_errno("move");
  std::vector<char> buffer(wire::kMaxChunk);
  for (;;) {
    const ssize_t n = ::read(source.get(), buffer.data(), buffer.size());
    if (n == 0) break;
    if (n < 0 || ::write(copy.get(), buffer.data(), static_cast<std::size_t>(n)) != n) {
      const int saved = errno != 0 ? errno : ENOSPC;
      (void)::unlinkat(dir.get(), target.name.c_str(), 0);
      errno = saved;
      refuse_errno("move");
    }
  }
  if (::unlink(from.c_str()) != 0) refuse_errno("remove the source of a move");
  finish(0, nullptr);
}

// --- removing -----------------------------------------------------------------------------------

/// Removes a tree of any depth with two descriptors: down by name, up by "..", checking that
/// the parent is the one we came from, since the tenant may be moving directories about.
void remove_tree(int parent, const std::string& name) {
  struct Level {
    dev_t dev;
    ino_t ino;
    std::string name;
  };
  std::vector<Level> path;
  struct stat st {};
  if (::fstat(parent, &st) != 0) refuse_errno("remove");
  path.push_back({st.st_dev, st.st_ino, name});
  UniqueFd current(sys::openat2(parent, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kResolve));
  if (!current) refuse_errno("remove");
  for (;;) {
    std::string descend;
    UniqueFd copy(::openat(current.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    DIR* d = copy ? ::fdopendir(copy.release()) : nullptr;
    if (d == nullptr) refuse_errno("remove");
    while (const dirent* e = ::readdir(d)) {
      const std::string_view entry = e->d_name;
      if (entry == "." || entry == "..") continue;
      if (::unlinkat(current.get(), e->d_name, 0) == 0 || errno == ENOENT) continue;
      if (errno != EISDIR && errno != EPERM) refuse_errno("remove");
      if (::unlinkat(current.get(), e->d_name, AT_REMOVEDIR) == 0) continue;
      if (errno != ENOTEMPTY && errno != EEXIST) refuse_errno("remove");
      descend = e->d_name;
      break;
    }
    ::closedir(d);
    if (!descend.empty()) {
      if (::fstat(current.get(), &st) != 0) refuse_errno("remove");
      path.push_back({st.st_dev, st.st_ino, descend});
      UniqueFd child(sys::openat2(current.get(), descend.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kResolve));
      if (!child) refuse_errno("remove");
      current = std::move(child);
      continue;
    }
    const Level level = path.back();
    path.pop_back();
    if (path.empty()) {
      if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0) refuse_errno("remove");
      return;
    }
    UniqueFd up(::openat(current.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!up || ::fstat(up.get(), &st) != 0) refuse_errno("remove");
    if (st.st_dev != level.dev || st.st_ino != level.ino)
      refuse(Refusal::file_error, EBUSY, "the tree changed while it was removed");
    current = std::move(up);
    if (::unlinkat(current.get(), level.name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) refuse_errno("remove");
  }
}

[[noreturn]] void file_remove(wire::Reader& r) {
  const std::string path = checked_path(r.bytes());
  const std::uint32_t flags = r.u32();
  const bool recursive = (flags & wire::file_remove_recursive) != 0;
  if (!r.done()) refuse(Refusal::bad_request, 0, "file_remove");
  const Split target = split(path);
  const UniqueFd dir = open_directory(target.dir);
  if (::unlinkat(dir.get(), target.name.c_str(), 0) == 0) finish(0, nullptr);
  if (errno != EISDIR && errno != EPERM) refuse_errno("remove");
  if ((flags & wire::file_remove_file_only) != 0) refuse(Refusal::is_directory, 0, "");
  if (::unlinkat(dir.get(), target.name.c_str(), AT_REMOVEDIR) == 0) finish(0, nullptr);
  if ((errno != ENOTEMPTY && errno != EEXIST) || !recursive) refuse_errno("remove");
  remove_tree(dir.get(), target.name);
  finish(0, nullptr);
}

}  // namespace

bool matches(std::string_view pattern, std::string_view name) {
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string_view::npos;  // the last `*`, and how much of the name it was given
  std::size_t taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

bool is_file_request(std::uint32_t type) {
  return type >= static_cast<std::uint32_t>(InitRequest::file_read) &&
         type <= static_cast<std::uint32_t>(InitRequest::file_search);
}

bool writes_file_data(std::uint32_t type) {
  const auto request = static_cast<InitRequest>(type);
  return request == InitRequest::file_write || request == InitRequest::file_move;
}

std::uint64_t file_time_limit_ns(std::uint32_t type) {
  const auto request = static_cast<InitRequest>(type);
  return request == InitRequest::file_read || request == InitRequest::file_write ? kTransferLimitNs : kWorkLimitNs;
}

void serve_file_request(int connection, std::uint32_t type, std::string_view payload, std::string_view early) {
  connection_fd = connection;
  pending.assign(early);
  (void)::fcntl(connection, F_SETFL, 0);  // init's end was non-blocking
  if (!become_file_tenant() || ::chdir("/workspace") != 0) refuse_errno("become the tenant");
  ::umask(022);
  wire::Reader r({payload.data(), payload.size()});
  switch (static_cast<InitRequest>(type)) {
    case InitRequest::file_read: file_read(r);
    case InitRequest::file_write: file_write(r);
    case InitRequest::file_stat: file_stat(r);
    case InitRequest::file_list: file_list(r);
    case InitRequest::file_mkdir: file_mkdir(r);
    case InitRequest::file_move: file_move(r);
    case InitRequest::file_remove: file_remove(r);
    case InitRequest::file_search: file_search(r);
    default: refuse(Refusal::bad_request, 0, "unknown request");
  }
}

}  // namespace codespace::init
