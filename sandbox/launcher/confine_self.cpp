// The launcher's own confinement, run once at start, in this order: service user, outer
// user namespace, small root. Each step fails closed: the launcher exits.
#include "sandbox/launcher/confine_self.h"

#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "sandbox/launcher/session_child.h"
#include "sandbox/sys/affinity.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;

constexpr std::uint32_t kServiceCaps = (1U << CAP_SETUID) | (1U << CAP_SETGID);

bool set_caps(std::uint32_t caps) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = caps;
  return ::syscall(SYS_capset, &header, data) == 0;
}

bool has_service_caps() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (::syscall(SYS_capget, &header, data) != 0) return false;
  return (data[0].effective & kServiceCaps) == kServiceCaps;
}

bool write_map(pid_t pid, const char* file, std::uint32_t own, const IdRange& range) {
  char path[64];
  ::snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
  char map[96];
  const int n = ::snprintf(map, sizeof map, "0 %u 1\n1 %u %u\n", own, range.first, range.count);
  return sys::write_file_at(AT_FDCWD, path, std::string_view(map, static_cast<size_t>(n)));
}

/// The helper that stayed behind in the initial namespace writes the maps: only a process
/// with CAP_SETUID and CAP_SETGID there may map more than its own id.
[[noreturn]] void map_parent(int ready, const Identity& identity, const IdRange& range) {
  char byte;
  if (::read(ready, &byte, 1) != 1) ::_exit(1);
  const pid_t parent = ::getppid();
  char path[64];
  ::snprintf(path, sizeof path, "/proc/%d/setgroups", parent);
  if (!sys::write_file_at(AT_FDCWD, path, "deny")) ::_exit(2);
  if (!write_map(parent, "gid_map", identity.gid, range)) ::_exit(3);
  if (!write_map(parent, "uid_map", identity.uid, range)) ::_exit(4);
  ::_exit(0);
}

Result<UniqueFd> clone_tree(const std::string& path, unsigned flags = AT_RECURSIVE) {
  UniqueFd tree(sys::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags));
  if (!tree) return sys_error(errno, "open_tree " + path);
  return tree;
}

Result<void> attach(const UniqueFd& tree, const char* target) {
  if (sys::move_mount(tree.get(), "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return sys_error(errno, std::string("move_mount ") + target);
  return {};
}

Result<void> make_dir(const char* path) {
  if (::mkdir(path, 0755) != 0) return sys_error(errno, std::string("mkdir ") + path);
  return {};
}

/// The lines of a /proc file that a machine with `n` processors would have, of which `text` has more.
std::string stat_of(std::string_view text, std::uint32_t n) {
  // Counters of the host are nobody's business; a program that computes shares of time gets none.
  std::string out = "cpu  0 0 0 0 0 0 0 0 0 0\n";
  for (std::uint32_t i = 0; i < n; ++i) out += "cpu" + std::to_string(i) + " 0 0 0 0 0 0 0 0 0 0\n";
  const std::size_t boot = text.find("btime ");
  if (boot != std::string_view::npos) out += "intr 0\nctxt 0\n" + std::string(text.substr(boot, text.find('\n', boot) - boot)) + "\n";
  return out + "processes 1\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n";
}

std::string cpuinfo_of(std::string_view text, std::uint32_t n) {
  std::size_t end = 0;
  for (std::uint32_t i = 0; i < n && end < text.size(); ++i) {
    const std::size_t blank = text.find("\n\n", end);
    end = blank == std::string_view::npos ? text.size() : blank + 2;
  }
  return std::string(text.substr(0, end));
}

/// See processor_file().
Result<void> make_processor_files() {
  const std::string stat = sys::read_file_at(AT_FDCWD, "/proc/stat", 1 << 20);
  const std::string cpuinfo = sys::read_file_at(AT_FDCWD, "/proc/cpuinfo", 1 << 20);
  const std::uint32_t most = std::min(sys::usable_processors(), kMaxProcessorFiles + 1);
  for (std::uint32_t n = 1; n < most; ++n) {
    for (const auto& [name, text] : {std::pair("stat", stat_of(stat, n)), std::pair("cpuinfo", cpuinfo_of(cpuinfo, n))}) {
      const std::string path = processor_file(name, n);
      UniqueFd file(::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444));
      if (!file || ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) return sys_error(errno, "create " + path);
    }
  }
  return {};
}

Result<void> make_file(const char* path) {
  UniqueFd fd(::open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444));
  if (!fd) return sys_error(errno, std::string("create ") + path);
  return {};
}

struct Device {
  const char* name;
  unsigned major_number;
  unsigned minor_number;
};
constexpr Device kDevices[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                               {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

}  // namespace

Result<void> drop_to_service_user(const Identity& identity) {
  if (::geteuid() == 0) {
    if (identity.uid == 0)
      return server_error(ErrorCode::internal, "started as root without --user: name the service user");
    // Bounding set first: what is not in it can never come back.
    for (int cap = 0; ::prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; ++cap) {
      if (cap != CAP_SETUID && cap != CAP_SETGID && ::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
        return sys_error(errno, "drop bounding capability");
    }
    if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return sys_error(errno, "keep capabilities");
    if (::setgroups(0, nullptr) != 0) return sys_error(errno, "setgroups");
    if (::setresgid(identity.gid, identity.gid, identity.gid) != 0) return sys_error(errno, "setresgid");
    if (::setresuid(identity.uid, identity.uid, identity.uid) != 0) return sys_error(errno, "setresuid");
  } else {
    if (!has_service_caps())
      return server_error(ErrorCode::internal,
                          "needs CAP_SETUID and CAP_SETGID (AmbientCapabilities= in its unit), or a start as root");
    if (::setgroups(0, nullptr) != 0) return sys_error(errno, "setgroups");
  }
  if (!set_caps(kServiceCaps)) return sys_error(errno, "capset");
  (void)::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return sys_error(errno, "no_new_privs");
  // A change of user makes a process undumpable, and its /proc entries root's; the id maps
  // of our own children are written through those entries.
  if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return sys_error(errno, "dumpable");
  return {};
}

Result<void> enter_outer_namespace(const Identity& identity, const IdRange& range) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return sys_error(errno, "pipe");
  UniqueFd reader(ends[0]);
  UniqueFd writer(ends[1]);
  const pid_t helper = ::fork();
  if (helper < 0) return sys_error(errno, "fork id mapper");
  if (helper == 0) map_parent(reader.get(), identity, range);
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
    const int saved = errno;
    writer.reset();
    ::waitpid(helper, nullptr, 0);
    return sys_error(saved, "unshare user and mount namespace (is user.max_user_namespaces 0, or an AppArmor "
                            "restriction of user namespaces in force?)");
  }
  if (::write(writer.get(), "x", 1) != 1) return sys_error(errno, "signal id mapper");
  int status = 0;
  if (::waitpid(helper, &status, 0) != helper) return sys_error(errno, "wait for id mapper");
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return server_error(ErrorCode::internal,
                        "the id range could not be mapped (step " + std::to_string(WEXITSTATUS(status)) +
                            "): is it free, and does it leave out id 0?");
  if (::setresgid(0, 0, 0) != 0 || ::setresuid(0, 0, 0) != 0) return sys_error(errno, "become outer root");
  if (::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return sys_error(errno, "dumpable");
  return {};
}

Result<void> enter_small_root(const std::string& runtime_dir, const std::string& images_dir) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return sys_error(errno, "make mounts private");
  // Take hold of every source before the small root covers the paths they are found by.
  struct Source {
    std::string from;
    const char* to;
    UniqueFd tree;
  };
  std::vector<Source> sources;
  sources.push_back({runtime_dir, "run", {}});
  sources.push_back({images_dir, "images", {}});
  sources.push_back({"/usr", "usr", {}});
  sources.push_back({"/proc", "proc", {}});
  for (Source& source : sources) {
    auto tree = clone_tree(source.from);
    if (!tree) return std::unexpected(tree.error());
    source.tree = std::move(*tree);
  }
  std::vector<UniqueFd> devices;
  for (const Device& device : kDevices) {
    const std::string path = std::string("/dev/") + device.name;
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return sys_error(errno, "stat " + path);
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(device.major_number, device.minor_number))
      return server_error(ErrorCode::internal, path + " is not the device it should be");
    auto tree = clone_tree(path, 0);
    if (!tree) return std::unexpected(tree.error());
    devices.push_back(std::move(*tree));
  }

  if (::mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m,nr_inodes=4096") != 0)
    return sys_error(errno, "mount small root");
  if (::chdir("/tmp") != 0) return sys_error(errno, "enter small root");
  for (const char* dir : {"run", "images", "usr", "proc", "devices", "masks", "masks/dir", "templates", "newroot", "stage", "stage/proc"}) {
    if (auto made = make_dir(dir); !made) return made;
  }
  if (auto made = make_file("masks/file"); !made) return made;
  for (const Source& source : sources) {
    if (auto attached = attach(source.tree, source.to); !attached) return attached;
  }
  for (size_t i = 0; i < devices.size(); ++i) {
    const std::string path = std::string("devices/") + kDevices[i].name;
    if (auto made = make_file(path.c_str()); !made) return made;
    if (auto attached = attach(devices[i], path.c_str()); !attached) return attached;
  }
  if (sys::pivot_root(".", ".") != 0) return sys_error(errno, "pivot_root");
  if (::umount2(".", MNT_DETACH) != 0) return sys_error(errno, "detach the host's root");
  if (::chdir("/") != 0) return sys_error(errno, "chdir /");
  return make_processor_files();
}

std::string processor_file(const char* name, std::uint32_t n) { return std::string("/masks/") + name + "." + std::to_string(n); }

}  // namespace codespace::launcher
