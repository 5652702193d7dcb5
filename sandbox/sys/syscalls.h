// Thin wrappers for system calls that glibc 2.36 has no function for, and small readers
// and writers of kernel files. libc only, no allocation on the error paths, so that both
// the launcher's half-made children and init may use all of it.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <charconv>
#include <string>
#include <string_view>

#include "sandbox/sys/unique_fd.h"

namespace codespace::sys {

/// openat2(2), Linux 5.6. Returns the descriptor, or -1 with errno.
inline int openat2(int dir, const char* path, uint64_t flags, uint64_t resolve, uint64_t mode = 0) {
  open_how how{.flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve};
  return static_cast<int>(::syscall(SYS_openat2, dir, path, &how, sizeof how));
}

/// clone3(2), Linux 5.3. Returns like fork(2).
inline pid_t clone3(clone_args& args) {
  return static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof args));
}

/// open_tree(2), Linux 5.2.
inline int open_tree(int dir, const char* path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_open_tree, dir, path, flags));
}

/// move_mount(2), Linux 5.2.
inline int move_mount(int from, const char* from_path, int to, const char* to_path, unsigned flags) {
  return static_cast<int>(::syscall(SYS_move_mount, from, from_path, to, to_path, flags));
}

/// mount_setattr(2), Linux 5.12.
inline int mount_setattr(int dir, const char* path, unsigned flags, const ::mount_attr& attr) {
  return static_cast<int>(::syscall(SYS_mount_setattr, dir, path, flags, &attr, sizeof attr));
}

/// pivot_root(2).
inline int pivot_root(const char* new_root, const char* put_old) {
  return static_cast<int>(::syscall(SYS_pivot_root, new_root, put_old));
}

/// close_range(2), Linux 5.9.
inline int close_range(unsigned first, unsigned last, unsigned flags = 0) {
  return static_cast<int>(::syscall(SYS_close_range, first, last, flags));
}

/// pidfd_open(2), Linux 5.3.
inline int pidfd_open(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }

/// pidfd_send_signal(2), Linux 5.1.
inline int pidfd_send_signal(int pidfd, int signal) {
  return static_cast<int>(::syscall(SYS_pidfd_send_signal, pidfd, signal, nullptr, 0));
}

/// Writes the whole text in one write(2), as kernel files want it. False with errno on failure.
inline bool write_file_at(int dir, const char* path, std::string_view text) {
  const int fd = ::openat(dir, path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t n = ::write(fd, text.data(), text.size());
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return n == static_cast<ssize_t>(text.size());
}

/// Decimal text of a number on the stack; for kernel files and paths.
class Decimal {
 public:
  explicit Decimal(uint64_t value) {
    const auto end = std::to_chars(text_, text_ + sizeof text_ - 1, value);
    *end.ptr = 0;
    size_ = static_cast<size_t>(end.ptr - text_);
  }
  [[nodiscard]] std::string_view view() const { return {text_, size_}; }
  [[nodiscard]] const char* c_str() const { return text_; }

 private:
  char text_[24];
  size_t size_;
};

/// Reads a small kernel file whole; at most `limit` bytes. Empty with errno on failure.
inline std::string read_file_at(int dir, const char* path, size_t limit = 64 * 1024) {
  std::string text;
  const int fd = ::openat(dir, path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return text;
  __attribute__((uninitialized)) char buffer[4096];
  while (text.size() < limit) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return text;
}

/// The first number in a text, 0 if there is none ("max" counts as none).
inline uint64_t parse_number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

/// The number after `key` and a space in a kernel file of "key value" lines; 0 if absent.
inline uint64_t parse_keyed_number(std::string_view text, std::string_view key) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = text.find('\n', at);
    const std::string_view line = text.substr(at, end == std::string_view::npos ? end : end - at);
    if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ')
      return parse_number(line.substr(key.size() + 1));
    if (end == std::string_view::npos) break;
    at = end + 1;
  }
  return 0;
}

}  // namespace codespace::sys
