// Reading of /proc/self and of prctl(2) flags; installation of the BPF bytes. Init only.
#include "sandbox/init/posture.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <string>

#include "sandbox/sys/syscalls.h"

namespace codespace::init {
namespace {

bool load_filter(const char* bytes, std::uint32_t size) {
  sock_fprog program{};
  program.len = static_cast<unsigned short>(size / sizeof(sock_filter));
  program.filter = reinterpret_cast<sock_filter*>(const_cast<char*>(bytes));
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

/// The hexadecimal or decimal number after "Name:" in /proc/self/status.
std::uint64_t status_number(const std::string& status, const char* name, int base) {
  const std::size_t at = status.find(std::string("\n") + name + ":");
  return at == std::string::npos ? ~0ULL : ::strtoull(status.c_str() + at + 2 + ::strlen(name), nullptr, base);
}

bool has_option(const std::string& options, const char* option) {
  return ("," + options + ",").find(std::string(",") + option + ",") != std::string::npos;
}

void read_mounts(wire::PostureFacts& facts) {
  const std::string text = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 20);
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    // mountinfo: id parent major:minor root mount-point options ...
    std::string field[6];
    std::size_t from = 0;
    for (auto& f : field) {
      std::size_t to = line.find(' ', from);
      if (to == std::string::npos) to = line.size();
      f = line.substr(from, to - from);
      from = to + 1;
    }
    const std::string& target = field[4];
    const std::string& options = field[5];
    const bool writable = has_option(options, "rw");
    const bool may_write = target == "/workspace" || target == "/tmp" || target == "/home/sandbox" ||
                           target == "/dev/shm" || target == "/dev/pts" || target == "/proc";
    // The six device files and devpts are the only places where a device node may work.
    const bool may_hold_devices = target == "/dev" || (target.starts_with("/dev/") && target != "/dev/shm");
    facts.mounts_writable += writable ? 1 : 0;
    if (!has_option(options, "nosuid") || (!may_hold_devices && !has_option(options, "nodev")) ||
        (writable && !may_write))
      ++facts.mounts_bad;
  }
}

std::uint64_t open_descriptors() {
  // Set-up closed everything from 10 up; a look at the first 256 would show if it had not. One
  // call says of all which are not open (POLLNVAL, poll(2)).
  pollfd looked_at[256];
  for (int fd = 0; fd < 256; ++fd) looked_at[fd] = {.fd = fd, .events = 0, .revents = 0};
  if (::poll(looked_at, 256, 0) < 0) return ~0ULL;
  std::uint64_t open = 0;
  for (int fd = 0; fd < 256; ++fd) {
    if ((looked_at[fd].revents & POLLNVAL) == 0) open |= 1ULL << (fd < 63 ? fd : 63);
  }
  return open;
}

std::uint32_t count_interfaces() {
  // /proc/net/dev: two heading lines, then one per interface. /proc/net is self/net.
  const std::string text = sys::read_file_at(AT_FDCWD, "/proc/self/net/dev");
  std::uint32_t lines = 0;
  for (const char c : text) lines += c == '\n' ? 1 : 0;
  return lines < 2 ? 0 : lines - 2;
}

}  // namespace

bool keep_own_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = static_cast<std::uint32_t>(wire::kInitCapabilities);
  return ::syscall(SYS_capset, &header, data) == 0;
}

bool install_seccomp() {
  sys::UniqueFd file(wire::kInitSeccompFd);
  std::uint32_t sizes[2];
  if (::pread(file.get(), sizes, sizeof sizes, 0) != static_cast<ssize_t>(sizeof sizes)) return false;
  constexpr std::uint32_t kLimit = BPF_MAXINSNS * sizeof(sock_filter);
  if (sizes[0] == 0 || sizes[1] == 0 || sizes[0] > kLimit || sizes[1] > kLimit) {
    errno = EINVAL;
    return false;
  }
  std::string bytes(sizes[0] + sizes[1], 0);
  if (::pread(file.get(), bytes.data(), bytes.size(), sizeof sizes) != static_cast<ssize_t>(bytes.size())) return false;
  return load_filter(bytes.data(), sizes[0]) && load_filter(bytes.data() + sizes[0], sizes[1]);
}

wire::PostureFacts read_posture() {
  wire::PostureFacts facts;
  const std::string status = sys::read_file_at(AT_FDCWD, "/proc/self/status");
  facts.cap_inheritable = status_number(status, "CapInh", 16);
  facts.cap_permitted = status_number(status, "CapPrm", 16);
  facts.cap_effective = status_number(status, "CapEff", 16);
  facts.cap_bounding = status_number(status, "CapBnd", 16);
  facts.cap_ambient = status_number(status, "CapAmb", 16);
  facts.no_new_privs = static_cast<std::uint32_t>(status_number(status, "NoNewPrivs", 10));
  facts.seccomp_mode = static_cast<std::uint32_t>(status_number(status, "Seccomp", 10));
  facts.seccomp_filters = static_cast<std::uint32_t>(status_number(status, "Seccomp_filters", 10));
  uid_t r, e, s;
  gid_t rg, eg, sg;
  if (::getresuid(&r, &e, &s) == 0) facts.uid = r == e && e == s ? r : ~0U;
  if (::getresgid(&rg, &eg, &sg) == 0) facts.gid = rg == eg && eg == sg ? rg : ~0U;
  facts.groups = static_cast<std::uint32_t>(::getgroups(0, nullptr));
  facts.dumpable = static_cast<std::uint32_t>(::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
  facts.securebits = static_cast<std::uint32_t>(::prctl(PR_GET_SECUREBITS, 0, 0, 0, 0));
  facts.open_descriptors = open_descriptors();
  read_mounts(facts);
  facts.user_namespaces_max = static_cast<std::uint32_t>(
      sys::parse_number(sys::read_file_at(AT_FDCWD, "/proc/sys/user/max_user_namespaces")));
  facts.interfaces = count_interfaces();
  return facts;
}

bool tenant_posture_holds() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  for (const auto& d : data) {
    if (d.effective != 0 || d.permitted != 0 || d.inheritable != 0) return false;
  }
  uid_t r, e, s;
  gid_t rg, eg, sg;
  return ::getresuid(&r, &e, &s) == 0 && r == wire::kTenantUid && e == wire::kTenantUid && s == wire::kTenantUid &&
         ::getresgid(&rg, &eg, &sg) == 0 && rg == wire::kTenantUid && eg == wire::kTenantUid &&
         sg == wire::kTenantUid && ::getgroups(0, nullptr) == 0 && ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
         ::prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2 && ::prctl(PR_CAPBSET_READ, CAP_SETUID, 0, 0, 0) == 0;
}

}  // namespace codespace::init
