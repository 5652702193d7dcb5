// Comparison of a session's reported confinement with the plan. Pure functions, but for what
// reads the launcher's own /proc: its namespaces, and the number of its filters.
#include "sandbox/launcher/posture.h"

#include <linux/securebits.h>
#include <stdio.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

/// Filters of a service manager's, which sessions inherit; nothing adds to them while the launcher serves.
std::uint32_t own_filters() {
  static const std::uint32_t count = [] {
    static constexpr std::string_view kField = "\nSeccomp_filters:\t";
    const std::string status = sys::read_file_at(AT_FDCWD, "/proc/self/status");
    const std::size_t at = status.find(kField);
    return at == std::string::npos ? 0U : static_cast<std::uint32_t>(sys::parse_number(std::string_view(status).substr(at + kField.size())));
  }();
  return count;
}

}  // namespace

wire::PostureFacts expected_posture(std::size_t cgroup_descriptors) {
  wire::PostureFacts f;
  f.cap_effective = f.cap_permitted = wire::kInitCapabilities;
  f.uid = f.gid = wire::kInitUid;
  f.no_new_privs = 1;
  f.seccomp_mode = 2;
  f.seccomp_filters = own_filters() + 2;
  f.securebits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                 SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  // 0-2, listener, status; the seccomp memfd is closed after use.
  f.open_descriptors = 0b11111;
  for (std::size_t i = 0; i < cgroup_descriptors; ++i)
    f.open_descriptors |= 1ULL << (wire::kInitCgroupFd + static_cast<int>(i));
  f.mounts_writable = 6;  // /workspace /tmp /home/sandbox /dev/shm /dev/pts /proc
  f.interfaces = 1;
  return f;
}

const char* posture_difference(const wire::PostureFacts& e, const wire::PostureFacts& f) {
  const struct {
    const char* name;
    bool same;
  } checks[] = {
      {"effective capabilities", e.cap_effective == f.cap_effective},
      {"permitted capabilities", e.cap_permitted == f.cap_permitted},
      {"inheritable capabilities", e.cap_inheritable == f.cap_inheritable},
      {"bounding set", e.cap_bounding == f.cap_bounding},
      {"ambient capabilities", e.cap_ambient == f.cap_ambient},
      {"user id", e.uid == f.uid},
      {"group id", e.gid == f.gid},
      {"supplementary groups", e.groups == f.groups},
      {"no_new_privs", e.no_new_privs == f.no_new_privs},
      {"seccomp mode", e.seccomp_mode == f.seccomp_mode},
      {"number of seccomp filters", e.seccomp_filters == f.seccomp_filters},
      {"dumpable", e.dumpable == f.dumpable},
      {"securebits", e.securebits == f.securebits},
      {"open descriptors", e.open_descriptors == f.open_descriptors},
      {"writable mounts", e.mounts_writable == f.mounts_writable},
      {"mount flags", e.mounts_bad == f.mounts_bad},
      {"nested user namespaces", e.user_namespaces_max == f.user_namespaces_max},
      {"network interfaces", e.interfaces == f.interfaces},
  };
  for (const auto& check : checks) {
    if (!check.same) return check.name;
  }
  return nullptr;
}

std::uint64_t posture_digest(const wire::PostureFacts& facts) {
  unsigned char bytes[sizeof facts];
  std::memcpy(bytes, &facts, sizeof facts);
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const unsigned char byte : bytes) hash = (hash ^ byte) * 0x100000001b3ULL;
  return hash;
}

bool namespaces_differ(pid_t pid) {
  static constexpr std::array kKinds = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"};
  const auto inode = [](const char* of, const char* kind) -> ino_t {
    char path[48];
    ::snprintf(path, sizeof path, "/proc/%s/ns/%s", of, kind);
    struct stat st {};
    return ::stat(path, &st) == 0 ? st.st_ino : 0;
  };
  // The launcher's own never change once it serves.
  static const std::array<ino_t, kKinds.size()> ours = [&] {
    std::array<ino_t, kKinds.size()> found{};
    for (std::size_t i = 0; i < kKinds.size(); ++i) found[i] = inode("self", kKinds[i]);
    return found;
  }();
  const sys::Decimal number(static_cast<std::uint64_t>(pid));
  for (std::size_t i = 0; i < kKinds.size(); ++i) {
    const ino_t theirs = inode(number.c_str(), kKinds[i]);
    if (theirs == 0 || ours[i] == 0 || theirs == ours[i]) return false;
  }
  return true;
}

}  // namespace codespace::launcher
