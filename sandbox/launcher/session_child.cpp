// The flat list of steps from "cloned into seven fresh namespaces" to "exec of init".
// Runs in the child, which is root of the session's user namespace and of nothing else.
// Order matters throughout; where it is not obvious a comment says why.
#include "sandbox/launcher/session_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "sandbox/launcher/child_steps.h"
#include "sandbox/launcher/image_templates.h"
#include "sandbox/sys/syscalls.h"
#include "sandbox/wire/setup_protocol.h"

namespace codespace::launcher {
namespace {

using wire::Stage;

int report_fd = -1;

[[noreturn]] void fail(Stage stage) {
  wire::SetupReport report;
  report.stage = stage;
  report.sys_errno = errno;
  (void)::send(report_fd, &report, sizeof report, MSG_NOSIGNAL);
  ::_exit(1);
}

void require(bool ok, Stage stage) {
  if (!ok) fail(stage);
}

/// Waits for a message of exactly `size` bytes, with one descriptor if `fd` is given. No
/// message means that the launcher died or gave up: then nobody is left to report to.
void receive(int from, void* data, std::size_t size, int* fd) {
  iovec part{data, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do n = ::recvmsg(from, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n != static_cast<ssize_t>(size)) ::_exit(1);
  if (fd == nullptr) return;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) ::_exit(1);
  std::memcpy(fd, CMSG_DATA(header), sizeof *fd);
}

void report_joined() {
  wire::SetupReport report;
  report.stage = Stage::cgroup_join;  // errno 0: done, not failed
  if (::send(report_fd, &report, sizeof report, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof report)) ::_exit(1);
}

void mount_tmpfs(const char* target, uint64_t bytes, uint64_t inodes, const char* mode, bool tenant_owned) {
  char options[160];
  ::snprintf(options, sizeof options, "size=%llu,nr_inodes=%llu,mode=%s%s",
             static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(inodes), mode,
             tenant_owned ? ",uid=1000,gid=1000" : "");
  require(::mount("tmpfs", target, "tmpfs", MS_NOSUID | MS_NODEV, options) == 0, Stage::mount_tmpfs);
}

void bind_read_only(const char* source, const char* target, Stage stage) {
  require(::mount(source, target, nullptr, MS_BIND, nullptr) == 0, stage);
  require(::mount(nullptr, target, nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC,
                  nullptr) == 0,
          stage);
}

void mount_file_systems(const Assignment& assignment) {
  // A bind of the template gives a mount that is ours: those inherited over the user
  // namespace boundary are locked and cannot become a root.
  require(::mount(template_path(assignment.image).c_str(), kNewRoot, nullptr, MS_BIND | MS_REC, nullptr) == 0, Stage::mount_root);
  require(::chdir(kNewRoot) == 0, Stage::mount_root);

  const wire::SessionLimits& l = assignment.limits;
  mount_tmpfs("workspace", l.workspace_bytes, l.inodes, "0755", true);
  mount_tmpfs("tmp", l.scratch_bytes, l.inodes, "1777", false);
  mount_tmpfs("home/sandbox", l.scratch_bytes, l.inodes, "0755", true);
  mount_tmpfs("dev/shm", l.scratch_bytes, l.inodes, "1777", false);
  require(::mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
                  "newinstance,ptmxmode=0666,mode=0620,max=64") == 0,
          Stage::mount_dev);
  // With everything that was mounted on it in stage_proc().
  require(::mount("/stage/proc", "proc", nullptr, MS_MOVE, nullptr) == 0, Stage::mount_proc);
  const sys::Processors& p = assignment.processors;
  if (p.count == 0) return;
  for (const char* file : {"stat", "cpuinfo"})
    bind_read_only(processor_file(file, p.count).c_str(), (std::string("proc/") + file).c_str(), Stage::mask_proc);
  require(sys::use_processors(p), Stage::processors);
}

/// Lets the launcher resize what was mounted, after init gave up the right to.
void report_disks() {
  constexpr int kCount = 4;
  int fds[kCount]{};
  int at = 0;
  for (const char* disk : {"workspace", "tmp", "home/sandbox", "dev/shm"}) {
    fds[at] = static_cast<int>(::syscall(SYS_fspick, AT_FDCWD, disk, FSPICK_CLOEXEC | FSPICK_NO_AUTOMOUNT));
    require(fds[at++] >= 0, Stage::mount_tmpfs);
  }
  wire::SetupReport report;
  report.stage = Stage::mount_tmpfs;
  iovec part{&report, sizeof report};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fds)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fds);
  std::memcpy(CMSG_DATA(header), fds, sizeof fds);
  require(::sendmsg(report_fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof report), Stage::mount_tmpfs);
  for (const int fd : fds) ::close(fd);
}

/// Nested namespaces are refused by seccomp; this refuses them a second time. Written
/// before /proc/sys becomes read-only.
void forbid_nested_namespaces() {
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"}) {
    char path[80];
    ::snprintf(path, sizeof path, "proc/sys/user/max_%s_namespaces", kind);
    const bool written = sys::write_file_at(AT_FDCWD, path, "0");
    require(written || errno == ENOENT, Stage::limit_namespaces);
  }
  // All sessions draw on one allowance of the launcher's user: none may take it whole.
  for (const auto& [file, most] : {std::pair("proc/sys/user/max_inotify_instances", "16"),
                                   std::pair("proc/sys/user/max_inotify_watches", "8192")})
    require(sys::write_file_at(AT_FDCWD, file, most) || errno == ENOENT, Stage::limit_namespaces);
}

void mask_proc() {
  for (const char* dir : {"proc/sys", "proc/bus", "proc/fs", "proc/irq"}) {
    if (::access(dir, F_OK) == 0) bind_read_only(dir, dir, Stage::mask_proc);
  }
  for (const char* file :
       {"proc/kcore", "proc/keys", "proc/key-users", "proc/timer_list", "proc/sched_debug", "proc/kallsyms",
        "proc/kmsg", "proc/kpagecount", "proc/kpageflags", "proc/kpagecgroup", "proc/sysrq-trigger",
        "proc/interrupts", "proc/latency_stats", "proc/cmdline", "proc/config.gz", "proc/iomem",
        "proc/ioports", "proc/modules", "proc/softirqs", "proc/slabinfo", "proc/vmallocinfo",
        "proc/zoneinfo", "proc/pagetypeinfo", "proc/diskstats", "proc/partitions"}) {
    // The mask is an empty file the launcher made on its own tmpfs, not /dev/null, whose
    // identity a mount race could forge (CVE-2025-31133).
    if (::access(file, F_OK) == 0) bind_read_only(kEmptyFile, file, Stage::mask_proc);
  }
  for (const char* dir : {"proc/acpi", "proc/scsi", "proc/asound", "proc/driver", "proc/tty", "proc/pressure",
                          "proc/dynamic_debug"}) {
    if (::access(dir, F_OK) == 0) bind_read_only(kEmptyDir, dir, Stage::mask_proc);
  }
}

/// The same for every session and half of all mounts, so it is done ahead of any request.
void stage_proc() {
  require(::chdir(kStage) == 0, Stage::mount_proc);
  // hidepid=ptraceable, Linux 5.8: a process sees itself and what it could trace, so not init.
  require(::mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=ptraceable") == 0,
          Stage::mount_proc);
  forbid_nested_namespaces();
  mask_proc();
}

void enter_root() {
  // pivot_root(".", ".") stacks the old root on the new one, then the old is detached.
  require(sys::pivot_root(".", ".") == 0, Stage::pivot_root);
  require(::umount2(".", MNT_DETACH) == 0, Stage::pivot_root);
  require(::chdir("/workspace") == 0, Stage::pivot_root);
  char cwd[64];
  // A working directory outside the root would read "(unreachable)..." (CVE-2024-21626).
  require(::getcwd(cwd, sizeof cwd) != nullptr && cwd[0] == '/', Stage::pivot_root);
}

void raise_loopback() {
  const int s = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  require(s >= 0, Stage::network_loopback);
  ifreq request{};
  request.ifr_name[0] = 'l';
  request.ifr_name[1] = 'o';
  require(::ioctl(s, SIOCGIFFLAGS, &request) == 0, Stage::network_loopback);
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP | IFF_RUNNING);
  require(::ioctl(s, SIOCSIFFLAGS, &request) == 0, Stage::network_loopback);
  ::close(s);
}

/// Puts the five kinds of descriptor at their numbers and closes everything else.
void arrange_descriptors(const ChildPlan& plan, int listener) {
  constexpr int kAway = 100;  // clear of every target number
  int high[4 + DelegatedGroups::kMax];
  int count = 0;
  const auto stash = [&](int fd) {
    const int moved = ::fcntl(fd, F_DUPFD_CLOEXEC, kAway);
    require(moved >= 0, Stage::close_descriptors);
    high[count++] = moved;
  };
  stash(listener);
  stash(plan.launcher.get());
  stash(plan.seccomp.get());
  stash(plan.init_program.get());
  for (std::size_t i = 0; i < plan.groups.count; ++i) stash(plan.groups.user[i].get());
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  require(null >= 0, Stage::close_descriptors);
  for (int fd = 0; fd <= 2; ++fd) require(::dup2(null, fd) == fd, Stage::close_descriptors);
  require(::dup2(high[0], wire::kInitListenFd) >= 0, Stage::close_descriptors);
  require(::dup2(high[1], wire::kInitStatusFd) >= 0, Stage::close_descriptors);
  require(::dup2(high[2], wire::kInitSeccompFd) >= 0, Stage::close_descriptors);
  report_fd = wire::kInitStatusFd;
  int next = wire::kInitCgroupFd;
  for (std::size_t i = 0; i < plan.groups.count; ++i)
    require(::dup2(high[4 + i], next++) >= 0, Stage::close_descriptors);
  require(::dup3(high[3], wire::kInitProgramFd, O_CLOEXEC) >= 0, Stage::close_descriptors);
  while (next < wire::kInitProgramFd) ::close(next++);
  require(sys::close_range(wire::kInitProgramFd + 1, ~0U, CLOSE_RANGE_UNSHARE) == 0, Stage::close_descriptors);
}

/// From root of the session's namespace to init's own user with three capabilities, for good.
void become_init_user() {
  // Both need CAP_SETPCAP, so they come before the change of user. NO_SETUID_FIXUP keeps the
  // three capabilities over that change; NOROOT makes uid 0 mean nothing on any later exec.
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED;
  require(::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) == 0, Stage::securebits);
  require(::setresgid(wire::kInitUid, wire::kInitUid, wire::kInitUid) == 0, Stage::become_init);
  require(::setresuid(wire::kInitUid, wire::kInitUid, wire::kInitUid) == 0, Stage::become_init);
  // Ambient capabilities are how a non-root program keeps any over exec (capabilities(7)).
  constexpr uint64_t kSetpcap = 1U << CAP_SETPCAP;
  require(set_capabilities(wire::kInitCapabilities | kSetpcap, wire::kInitCapabilities), Stage::become_init);
  for (const int cap : {CAP_SETGID, CAP_SETUID, CAP_KILL})
    require(::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) == 0, Stage::become_init);
  require(::prctl(PR_SET_SECUREBITS, kBits | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED,
                  0, 0, 0) == 0,
          Stage::securebits);
  require(drop_bounding_set(), Stage::bounding_set);
  require(set_capabilities(wire::kInitCapabilities, wire::kInitCapabilities), Stage::become_init);
  require(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, Stage::no_new_privs);
}

}  // namespace

void become_session(const ChildPlan& plan) {
  report_fd = plan.launcher.get();
  // First part, ahead of any request: nothing in it depends on which session this will be.
  if (auto joined = plan.cgroups.join_self(plan.group); !joined) {
    errno = joined.error().sys_errno;
    fail(Stage::cgroup_join);
  }
  report_joined();
  char mapped = 0;
  receive(plan.launcher.get(), &mapped, 1, nullptr);
  require(mapped == kIdsMapped, Stage::child_sync);
  // The launcher is the "0" of its namespace; become the "0" of this session's.
  require(::setresgid(0, 0, 0) == 0, Stage::become_root);
  require(::setresuid(0, 0, 0) == 0, Stage::become_root);
  require(::getgroups(0, nullptr) == 0, Stage::become_root);
  require(::setsid() >= 0, Stage::become_root);
  // A change of user made this undumpable and its /proc files root's; one of them is written next.
  require(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0, Stage::oom_score);
  require(sys::write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", kOomScore), Stage::oom_score);
  require(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, Stage::mount_private);
  utsname names{};
  require(::sethostname("sandbox", 7) == 0 && ::uname(&names) == 0 && std::strcmp(names.nodename, "sandbox") == 0, Stage::hostname);
  raise_loopback();
  require(set_resource_limits(), Stage::rlimits);
  reset_signals();
  stage_proc();

  // Second part: this is the session now.
  Assignment assignment;
  int listener = -1;
  receive(plan.launcher.get(), &assignment, sizeof assignment, &listener);
  mount_file_systems(assignment);
  if (assignment.pooled) report_disks();
  enter_root();
  arrange_descriptors(plan, listener);
  become_init_user();

  const sys::Decimal processors(assignment.processors.count);
  const char* argv[] = {"codespace-init", plan.cgroups.backend().data(), processors.c_str(), nullptr};
  const char* envp[] = {nullptr};
  ::syscall(SYS_execveat, wire::kInitProgramFd, "", argv, envp, AT_EMPTY_PATH);
  fail(Stage::exec_init);
}

}  // namespace codespace::launcher
