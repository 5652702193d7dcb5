// Control groups of the launcher: discovery of the hierarchy, and the two backends.
// Runs partly with the start-up privilege (open) and otherwise as the launcher's own user,
// which owns the base group. Knows nothing of sessions but a name.
#include "sandbox/launcher/cgroup.h"

#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>

#include <cstdio>
#include <vector>

#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using sys::Decimal;
using sys::UniqueFd;

int open_dir_at(int dir, const std::string& path) {
  return ::openat(dir, path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/// Ends every process listed in a group's cgroup.procs. Used on v1 and for left-overs.
void kill_members(int dir, const std::string& group) {
  const std::string procs = sys::read_file_at(dir, (group + "/cgroup.procs").c_str(), 1 << 20);
  size_t at = 0;
  while (at < procs.size()) {
    const size_t end = procs.find('\n', at);
    if (end == std::string::npos) break;
    const auto pid = static_cast<pid_t>(sys::parse_number(std::string_view(procs).substr(at, end - at)));
    if (pid > 0) ::kill(pid, SIGKILL);
    at = end + 1;
  }
}

/// Removes a group and all below it, children first. cgroupfs directories contain only
/// control files, so rmdir needs no unlink.
bool remove_tree(int dir, const std::string& path) {
  // A group without groups goes at once; with some it is busy, as it is with a process.
  if (::unlinkat(dir, path.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) return true;
  const int fd = open_dir_at(dir, path);
  if (fd < 0) return errno == ENOENT;
  DIR* d = ::fdopendir(fd);
  if (d == nullptr) {
    ::close(fd);
    return false;
  }
  bool below = false;
  bool all = true;
  while (const dirent* e = ::readdir(d)) {
    if (e->d_type != DT_DIR || e->d_name[0] == '.') continue;
    below = true;
    all = remove_tree(dir, path + "/" + e->d_name) && all;
  }
  ::closedir(d);
  return below && all && (::unlinkat(dir, path.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT);
}

void kill_tree(int dir, const std::string& path) {
  kill_members(dir, path);
  const int fd = open_dir_at(dir, path);
  if (fd < 0) return;
  DIR* d = ::fdopendir(fd);
  if (d == nullptr) {
    ::close(fd);
    return;
  }
  while (const dirent* e = ::readdir(d)) {
    if (e->d_type == DT_DIR && e->d_name[0] != '.') kill_tree(dir, path + "/" + e->d_name);
  }
  ::closedir(d);
}

/// Ends and removes the sessions of a launcher that died without cleaning up.
void sweep(int base) {
  for (int round = 0; round < 200; ++round) {
    const int copy = open_dir_at(base, ".");
    DIR* d = copy < 0 ? nullptr : ::fdopendir(copy);
    if (d == nullptr) return;
    bool left = false;
    while (const dirent* e = ::readdir(d)) {
      if (e->d_type != DT_DIR || e->d_name[0] != 's') continue;
      kill_tree(base, e->d_name);
      left = !remove_tree(base, e->d_name) || left;
    }
    ::closedir(d);
    if (!left) return;
    ::usleep(10'000);  // SIGKILL is asynchronous: give the dying their time, 2 s in all
  }
}

Result<void> write_limit(int base, const std::string& path, std::string_view value) {
  if (!sys::write_file_at(base, path.c_str(), value)) return sys_error(errno, "write " + path);
  return {};
}

Result<void> make_group(int base, const std::string& path) {
  if (::mkdirat(base, path.c_str(), 0755) != 0) return sys_error(errno, "mkdir cgroup " + path);
  return {};
}

/// Gives a group to init: it may create children and move its own processes in, but the
/// group's own limits stay with the launcher.
Result<void> give_group(int base, const std::string& path, uid_t uid, gid_t gid) {
  for (const char* file : {"", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"}) {
    const std::string target = path + file;
    if (::fchownat(base, target.c_str(), uid, gid, 0) != 0 && errno != ENOENT)
      return sys_error(errno, "chown cgroup " + target);
  }
  return {};
}

/// Like `0::/a/b` or `4:memory:/a`: the path of this process in the hierarchy with `controller`.
std::string own_path(std::string_view controller) {
  const std::string text = sys::read_file_at(AT_FDCWD, "/proc/self/cgroup");
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string_view line = std::string_view(text).substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string names = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    const bool match = controller.empty() ? names == ",,"
                                          : names.find("," + std::string(controller) + ",") != std::string::npos;
    if (match) return std::string(line.substr(second + 1));
  }
  return {};
}

/// Mount point of the hierarchy with `controller`, or of the unified one if it is empty.
std::string find_mount(std::string_view controller) {
  const std::string text = sys::read_file_at(AT_FDCWD, "/proc/self/mountinfo", 1 << 20);
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    char mount_point[512];
    char kind[64];
    char super[1024];
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    // mountinfo: id parent major:minor root mount-point options... - type source super-options
    if (std::sscanf(line.c_str(), "%*s %*s %*s %*s %511s", mount_point) != 1) continue;
    if (std::sscanf(line.c_str() + dash + 3, "%63s %*s %1023s", kind, super) != 2) continue;
    const std::string options = "," + std::string(super) + ",";
    if (controller.empty() && std::string_view(kind) == "cgroup2") return mount_point;
    if (!controller.empty() && std::string_view(kind) == "cgroup" &&
        options.find("," + std::string(controller) + ",") != std::string::npos)
      return mount_point;
  }
  return {};
}

/// Makes (or takes over) the base group and hands it to the launcher's user.
Result<UniqueFd> make_base(const std::string& path, uid_t owner, gid_t group) {
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return sys_error(errno, "mkdir " + path);
  UniqueFd dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return sys_error(errno, "open " + path);
  sweep(dir.get());
  for (const char* file : {".", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"}) {
    if (::fchownat(dir.get(), file, owner, group, 0) != 0 && errno != ENOENT)
      return sys_error(errno, "chown " + path + "/" + file);
  }
  return dir;
}

/// See Cgroups::cut_off.
Result<void> cut_off_base(UniqueFd& dir, const std::string& path) {
  UniqueFd tree(sys::open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!tree) return sys_error(errno, "open_tree " + path);
  UniqueFd base(::openat(tree.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!base) return sys_error(errno, "open " + path + " within its own mount");
  dir = std::move(base);
  return {};
}

std::string session_group(std::string_view session) { return "s" + std::string(session); }

// --- v2 -----------------------------------------------------------------------------------------

class CgroupsV2 final : public Cgroups {
 public:
  CgroupsV2(UniqueFd base, std::string path) : base_(std::move(base)), path_(std::move(path)) {}

  Result<void> cut_off() override { return cut_off_base(base_, path_); }

  std::string_view backend() const override { return "v2"; }

  Result<void> create(std::string_view session) override {
    const std::string g = session_group(session);
    for (const std::string& path : {g, g + "/init", g + "/user"}) {
      if (auto made = make_group(base_.get(), path); !made) return made;
    }
    return {};
  }

  Result<void> settle(std::string_view session, uid_t uid, gid_t gid) override {
    const std::string g = session_group(session);
    const int b = base_.get();
    // A group's children see a controller only after it was enabled in the parent.
    for (const std::string& path : {g, g + "/user"}) {
      if (auto on = write_limit(b, path + "/cgroup.subtree_control", "+memory +pids +cpu"); !on) return on;
    }
    if (auto given = give_group(b, g + "/user", uid, gid); !given) return given;
    // Moving a process from init/ to user/x needs write access to the common ancestor too.
    if (::fchownat(b, (g + "/cgroup.procs").c_str(), uid, gid, 0) != 0)
      return sys_error(errno, "chown cgroup.procs of " + g);
    return {};
  }

  Result<void> limit(std::string_view session, const wire::SessionLimits& limits) override {
    const std::string g = session_group(session);
    const int b = base_.get();
    const std::string quota = std::string(Decimal(limits.cpu_milli * 100ULL).view()) + " 100000";
    const struct {
      std::string file;
      std::string value;
    } values[] = {
        {g + "/memory.max", std::string(Decimal(limits.memory_bytes + kInitReserveBytes).view())},
        {g + "/memory.swap.max", "0"},
        {g + "/pids.max", std::string(Decimal(limits.pids + kInitReservePids).view())},
        {g + "/cpu.max", quota},
        {g + "/user/memory.max", std::string(Decimal(limits.memory_bytes).view())},
        {g + "/user/memory.swap.max", "0"},
        {g + "/user/pids.max", std::string(Decimal(limits.pids).view())},
    };
    for (const auto& v : values) {
      if (auto written = write_limit(b, v.file, v.value); !written) {
        // Without swap accounting the file is absent and there is no swap to limit.
        if (written.error().sys_errno == ENOENT && v.file.ends_with("swap.max")) continue;
        return written;
      }
    }
    return {};
  }

  Result<DelegatedGroups> delegate(std::string_view session) override {
    DelegatedGroups out;
    out.user[0].reset(open_dir_at(base_.get(), session_group(session) + "/user"));
    if (!out.user[0]) return sys_error(errno, "open user group");
    out.count = 1;
    return out;
  }

  UniqueFd birth_group(std::string_view session) override {
    return UniqueFd(open_dir_at(base_.get(), session_group(session)));
  }

  /// Born in s<n>, which so becomes the root of its cgroup namespace: with nsdelegate, init may
  /// move processes only below that root. Then down into init/, to make s<n> an inner group.
  Result<void> join_self(std::string_view session) override {
    if (::unshare(CLONE_NEWCGROUP) != 0) return sys_error(errno, "unshare cgroup namespace");
    return write_limit(base_.get(), session_group(session) + "/init/cgroup.procs", "0");
  }

  Result<std::vector<UniqueFd>> entrances(std::string_view session, std::string_view run) override {
    std::vector<UniqueFd> fds;
    fds.emplace_back(open_dir_at(base_.get(), session_group(session) + "/user/" + std::string(run)));
    if (!fds[0]) return sys_error(errno, "open run group");
    return fds;
  }

  Result<void> freeze(std::string_view session, bool frozen) override {
    return write_limit(base_.get(), session_group(session) + "/cgroup.freeze", frozen ? "1" : "0");
  }

  void kill(std::string_view session, bool) override {
    // cgroup.kill, Linux 5.14: reaches every process below, frozen or forking.
    (void)sys::write_file_at(base_.get(), (session_group(session) + "/cgroup.kill").c_str(), "1");
  }

  CgroupUsage usage(std::string_view session) override {
    const std::string g = session_group(session);
    const int b = base_.get();
    CgroupUsage u;
    u.memory_bytes = sys::parse_number(sys::read_file_at(b, (g + "/user/memory.current").c_str()));
    u.memory_peak_bytes = sys::parse_number(sys::read_file_at(b, (g + "/user/memory.peak").c_str()));
    u.cpu_ns = sys::parse_keyed_number(sys::read_file_at(b, (g + "/cpu.stat").c_str()), "usage_usec") * 1000;
    u.oom_kills = sys::parse_keyed_number(sys::read_file_at(b, (g + "/memory.events").c_str()), "oom_kill");
    u.pids = static_cast<std::uint32_t>(
        sys::parse_number(sys::read_file_at(b, (g + "/user/pids.current").c_str())));
    return u;
  }

  bool remove(std::string_view session) override { return remove_tree(base_.get(), session_group(session)); }

  void clear_base() override {
    sweep(base_.get());
  }

 private:
  UniqueFd base_;
  const std::string path_;
};

Result<std::unique_ptr<Cgroups>> open_v2(std::string_view name, uid_t owner, gid_t group) {
  const std::string mount = find_mount("");
  if (mount.empty()) return server_error(ErrorCode::internal, "no cgroup2 mount");
  const std::string own = mount + own_path("");
  // A delegated group (systemd Delegate=yes gives it to us) is used as it is; root without
  // one makes a top-level group of its own.
  struct stat st {};
  const bool delegated = own != mount + "/" && ::stat(own.c_str(), &st) == 0 && st.st_uid == owner;
  const std::string parent = delegated ? own : mount;
  const std::string controllers =
      " " + sys::read_file_at(AT_FDCWD, (parent + "/cgroup.controllers").c_str()) + " ";
  for (const char* needed : {"memory", "pids", "cpu"}) {
    if (controllers.find(std::string(" ") + needed) == std::string::npos)
      return server_error(ErrorCode::internal, std::string("cgroup2 lacks the controller ") + needed);
  }
  if (delegated) {
    // No process may sit in an inner group: move ourselves into a leaf first.
    const std::string leaf = own + "/launcher";
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return sys_error(errno, "mkdir " + leaf);
    if (!sys::write_file_at(AT_FDCWD, (leaf + "/cgroup.procs").c_str(), "0"))
      return sys_error(errno, "join " + leaf);
  }
  if (!sys::write_file_at(AT_FDCWD, (parent + "/cgroup.subtree_control").c_str(), "+memory +pids +cpu"))
    return sys_error(errno, "enable controllers in " + parent);
  const std::string path = parent + "/" + std::string(name);
  auto base = make_base(path, owner, group);
  if (!base) return std::unexpected(base.error());
  if (!delegated) {
    // CLONE_INTO_CGROUP needs write access to the common ancestor of where we are and where the
    // child goes: be below the base ourselves. The leaf outlives us; the next start takes it over.
    const std::string leaf = path + "/launcher";
    if (::mkdir(leaf.c_str(), 0755) != 0 && errno != EEXIST) return sys_error(errno, "mkdir " + leaf);
    if (!sys::write_file_at(AT_FDCWD, (leaf + "/cgroup.procs").c_str(), "0")) return sys_error(errno, "join " + leaf);
  }
  if (!sys::write_file_at(base->get(), "cgroup.subtree_control", "+memory +pids +cpu"))
    return sys_error(errno, "enable controllers in " + path);
  return std::make_unique<CgroupsV2>(std::move(*base), path);
}

// --- v1 -----------------------------------------------------------------------------------------

class CgroupsV1 final : public Cgroups {
 public:
  enum Controller { memory, pids, cpuacct, cpu, freezer, kControllers };
  static constexpr const char* kNames[kControllers] = {"memory", "pids", "cpuacct", "cpu", "freezer"};
  static constexpr std::size_t kDelegated = 3;  // the first three

  struct Base {
    UniqueFd dir;
    std::string path;
  };

  explicit CgroupsV1(std::array<Base, kControllers> bases) : bases_(std::move(bases)) {}

  Result<void> cut_off() override {
    for (Base& base : bases_) {
      if (auto cut = cut_off_base(base.dir, base.path); !cut) return cut;
    }
    return {};
  }

  std::string_view backend() const override { return "v1"; }

  Result<void> create(std::string_view session) override {
    const std::string g = session_group(session);
    for (std::size_t c = 0; c < kControllers; ++c) {
      if (auto made = make_group_once(c, g); !made) return made;
      if (c >= kDelegated) continue;
      if (auto made = make_group_once(c, g + "/user"); !made) return made;
    }
    return {};
  }

  Result<void> settle(std::string_view session, uid_t uid, gid_t gid) override {
    for (std::size_t c = 0; c < kDelegated; ++c) {
      if (auto given = give_group(dir(c), session_group(session) + "/user", uid, gid); !given) return given;
    }
    return {};
  }

  Result<void> limit(std::string_view session, const wire::SessionLimits& limits) override {
    const std::string g = session_group(session);
    const std::string tenant(Decimal(limits.memory_bytes).view());
    const std::string whole(Decimal(limits.memory_bytes + kInitReserveBytes).view());
    const struct {
      std::size_t controller;
      std::string file;
      std::string value;
      bool optional;
    } values[] = {
        // The sum with swap may not be below the limit of memory, so it is raised before and lowered after.
        {memory, g + "/memory.memsw.limit_in_bytes", whole, true},
        {memory, g + "/user/memory.memsw.limit_in_bytes", tenant, true},
        {memory, g + "/memory.limit_in_bytes", whole, false},
        {memory, g + "/memory.memsw.limit_in_bytes", whole, true},  // absent without swap accounting
        {memory, g + "/memory.swappiness", "0", true},
        {memory, g + "/user/memory.limit_in_bytes", tenant, false},
        {memory, g + "/user/memory.memsw.limit_in_bytes", tenant, true},
        {memory, g + "/user/memory.swappiness", "0", true},
        {pids, g + "/pids.max", std::string(Decimal(limits.pids + kInitReservePids).view()), false},
        {pids, g + "/user/pids.max", std::string(Decimal(limits.pids).view()), false},
        {cpu, g + "/cpu.cfs_period_us", "100000", false},
        {cpu, g + "/cpu.cfs_quota_us", std::string(Decimal(limits.cpu_milli * 100ULL).view()), false},
    };
    for (const auto& v : values) {
      if (auto written = write_limit(dir(v.controller), v.file, v.value); !written && !v.optional)
        return written;
    }
    return {};
  }

  Result<DelegatedGroups> delegate(std::string_view session) override {
    DelegatedGroups out;
    for (std::size_t c = 0; c < kDelegated; ++c) {
      out.user[c].reset(open_dir_at(dir(c), session_group(session) + "/user"));
      if (!out.user[c]) return sys_error(errno, std::string("open user group of ") + kNames[c]);
    }
    out.count = kDelegated;
    return out;
  }

  UniqueFd birth_group(std::string_view) override { return {}; }

  Result<void> join_self(std::string_view session) override {
    // `tasks` moves the calling thread alone and so without the lock that cgroup.procs takes.
    for (std::size_t c = 0; c < kControllers; ++c) {
      if (auto joined = write_limit(dir(c), session_group(session) + "/tasks", "0"); !joined) return joined;
    }
    if (::unshare(CLONE_NEWCGROUP) != 0) return sys_error(errno, "unshare cgroup namespace");
    return {};
  }

  Result<std::vector<UniqueFd>> entrances(std::string_view session, std::string_view run) override {
    const std::string g = session_group(session);
    std::vector<UniqueFd> fds;
    // The session's own groups first: where two controllers share a hierarchy, the run's must win.
    for (const Controller c : {cpu, freezer, memory, pids, cpuacct}) {
      const std::string group = c < static_cast<int>(kDelegated) ? g + "/user/" + std::string(run) : g;
      fds.emplace_back(::openat(dir(c), (group + "/tasks").c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
      if (!fds.back()) return sys_error(errno, std::string("open run group of ") + kNames[c]);
    }
    return fds;
  }

  Result<void> freeze(std::string_view session, bool frozen) override {
    return write_limit(dir(freezer), session_group(session) + "/freezer.state", frozen ? "FROZEN" : "THAWED");
  }

  void kill(std::string_view session, bool frozen) override {
    // v1 has no cgroup.kill. The end of PID 1 ends its pid namespace, and with it every
    // process of the session.
    if (frozen) (void)freeze(session, false);
  }

  CgroupUsage usage(std::string_view session) override {
    const std::string g = session_group(session);
    CgroupUsage u;
    u.memory_bytes = number(memory, g + "/user/memory.usage_in_bytes");
    u.memory_peak_bytes = number(memory, g + "/user/memory.max_usage_in_bytes");
    u.cpu_ns = number(cpuacct, g + "/cpuacct.usage");
    u.oom_kills = sys::parse_keyed_number(
        sys::read_file_at(dir(memory), (g + "/user/memory.oom_control").c_str()), "oom_kill");
    u.oom_kills += sys::parse_keyed_number(
        sys::read_file_at(dir(memory), (g + "/memory.oom_control").c_str()), "oom_kill");
    u.pids = static_cast<std::uint32_t>(number(pids, g + "/user/pids.current"));
    return u;
  }

  bool remove(std::string_view session) override {
    bool all = true;
    for (std::size_t c = 0; c < kControllers; ++c) all = remove_tree(dir(c), session_group(session)) && all;
    return all;
  }

  void clear_base() override {
    for (const Base& base : bases_) {
      sweep(base.dir.get());
    }
  }

 private:
  int dir(std::size_t controller) const { return bases_[controller].dir.get(); }

  /// Two controllers may share one hierarchy (cpu,cpuacct); the second finds the group there.
  Result<void> make_group_once(std::size_t controller, const std::string& path) {
    auto made = make_group(dir(controller), path);
    if (!made && made.error().sys_errno == EEXIST && shares_hierarchy(controller)) return {};
    return made;
  }
  bool shares_hierarchy(std::size_t controller) const {
    for (std::size_t c = 0; c < controller; ++c) {
      if (bases_[c].path == bases_[controller].path) return true;
    }
    return false;
  }
  std::uint64_t number(std::size_t controller, const std::string& path) const {
    return sys::parse_number(sys::read_file_at(dir(controller), path.c_str()));
  }

  std::array<Base, kControllers> bases_;
};

Result<std::unique_ptr<Cgroups>> open_v1(std::string_view name, uid_t owner, gid_t group) {
  std::array<CgroupsV1::Base, CgroupsV1::kControllers> bases;
  for (std::size_t c = 0; c < CgroupsV1::kControllers; ++c) {
    const std::string mount = find_mount(CgroupsV1::kNames[c]);
    if (mount.empty())
      return server_error(ErrorCode::internal,
                          std::string("no cgroup v1 hierarchy with the controller ") + CgroupsV1::kNames[c]);
    std::string own = own_path(CgroupsV1::kNames[c]);
    if (own == "/") own.clear();
    bases[c].path = mount + own + "/" + std::string(name);
    auto base = make_base(bases[c].path, owner, group);
    if (!base) return std::unexpected(base.error());
    bases[c].dir = std::move(*base);
  }
  return std::make_unique<CgroupsV1>(std::move(bases));
}

}  // namespace

Result<std::unique_ptr<Cgroups>> Cgroups::open(std::string_view name, uid_t owner, gid_t group) {
  auto v2 = open_v2(name, owner, group);
  if (v2) return v2;
  auto v1 = open_v1(name, owner, group);
  if (v1) return v1;
  return server_error(ErrorCode::internal,
                      "no usable control groups (v2: " + v2.error().what + "; v1: " + v1.error().what +
                          "). Without them no limit can hold, so this server does not start");
}

}  // namespace codespace::launcher
