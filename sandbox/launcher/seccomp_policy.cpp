// The seccomp policy and its compilation to BPF. Runs once in the launcher at start, before
// privileges are dropped. See the header for the meaning of the two filters.
#include "sandbox/launcher/seccomp_policy.h"

#include <linux/capability.h>
#include <sched.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "sandbox/sys/unique_fd.h"

namespace codespace::launcher {
namespace {

constexpr Verdict allow = Verdict::allow;
constexpr Verdict eperm = Verdict::eperm;

constexpr CallRule kTable[] = {
    // Files and directories: every program.
    {"open", allow}, {"openat", allow}, {"openat2", allow}, {"creat", allow}, {"close", allow},
    {"close_range", allow}, {"read", allow}, {"write", allow}, {"readv", allow}, {"writev", allow},
    {"pread64", allow}, {"pwrite64", allow}, {"preadv", allow}, {"pwritev", allow}, {"preadv2", allow},
    {"pwritev2", allow}, {"lseek", allow}, {"stat", allow}, {"fstat", allow}, {"lstat", allow},
    {"newfstatat", allow}, {"statx", allow}, {"access", allow}, {"faccessat", allow}, {"faccessat2", allow},
    {"readlink", allow}, {"readlinkat", allow}, {"getdents", allow}, {"getdents64", allow},
    {"getcwd", allow}, {"chdir", allow}, {"fchdir", allow}, {"rename", allow}, {"renameat", allow},
    {"renameat2", allow}, {"link", allow}, {"linkat", allow}, {"symlink", allow}, {"symlinkat", allow},
    {"unlink", allow}, {"unlinkat", allow}, {"mkdir", allow}, {"mkdirat", allow}, {"rmdir", allow},
    {"chmod", allow}, {"fchmod", allow}, {"fchmodat", allow}, {"fchmodat2", allow}, {"chown", allow},
    {"fchown", allow}, {"lchown", allow}, {"fchownat", allow}, {"truncate", allow}, {"ftruncate", allow},
    {"fallocate", allow}, {"fadvise64", allow}, {"readahead", allow}, {"copy_file_range", allow},
    {"sendfile", allow}, {"utime", allow}, {"utimes", allow}, {"utimensat", allow}, {"futimesat", allow},
    {"flock", allow}, {"fcntl", allow}, {"fsync", allow}, {"fdatasync", allow}, {"sync", allow},
    {"syncfs", allow}, {"sync_file_range", allow}, {"statfs", allow}, {"fstatfs", allow}, {"umask", allow},
    {"dup", allow}, {"dup2", allow}, {"dup3", allow}, {"ioctl", allow},
    {"getxattr", allow},
    {"lgetxattr", allow}, {"fgetxattr", allow}, {"listxattr", allow}, {"llistxattr", allow},
    {"flistxattr", allow}, {"removexattr", allow}, {"lremovexattr", allow}, {"fremovexattr", allow},
    {"inotify_init", allow}, {"inotify_init1", allow}, {"inotify_add_watch", allow},
    {"inotify_rm_watch", allow},
    // Memory.
    {"mmap", allow}, {"munmap", allow}, {"mprotect", allow}, {"mremap", allow}, {"madvise", allow},
    {"brk", allow}, {"mlock", allow}, {"mlock2", allow}, {"munlock", allow}, {"mlockall", allow},
    {"munlockall", allow}, {"msync", allow}, {"mincore", allow}, {"membarrier", allow},
    {"pkey_alloc", allow}, {"pkey_free", allow}, {"pkey_mprotect", allow}, {"memfd_create", allow},
    {"shmget", allow}, {"shmat", allow}, {"shmdt", allow}, {"shmctl", allow},
    // Processes and threads. clone3 hides its flags behind a pointer: ENOSYS, libc uses clone.
    {"fork", allow}, {"vfork", allow}, {"execve", allow}, {"execveat", allow}, {"wait4", allow},
    {"waitid", allow}, {"exit", allow}, {"exit_group", allow}, {"getpid", allow}, {"getppid", allow},
    {"gettid", allow}, {"getpgid", allow}, {"getpgrp", allow}, {"getsid", allow}, {"setsid", allow},
    {"setpgid", allow}, {"getuid", allow}, {"geteuid", allow}, {"getgid", allow}, {"getegid", allow},
    {"getresuid", allow}, {"getresgid", allow}, {"getgroups", allow}, {"setuid", allow}, {"setgid", allow},
    {"setreuid", allow}, {"setregid", allow}, {"setresuid", allow}, {"setresgid", allow},
    {"setgroups", allow}, {"setfsuid", allow}, {"setfsgid", allow}, {"prctl", allow},
    {"arch_prctl", allow}, {"prlimit64", allow}, {"getrlimit", allow}, {"setrlimit", allow},
    {"getrusage", allow}, {"kill", allow}, {"tkill", allow}, {"tgkill", allow}, {"pidfd_open", allow},
    {"pidfd_send_signal", allow}, {"sched_yield", allow}, {"sched_getaffinity", allow},
    {"sched_setaffinity", allow}, {"sched_getparam", allow}, {"sched_setparam", allow},
    {"sched_getscheduler", allow}, {"sched_setscheduler", allow}, {"sched_get_priority_max", allow},
    {"sched_get_priority_min", allow}, {"sched_rr_get_interval", allow}, {"sched_getattr", allow},
    {"sched_setattr", allow}, {"getpriority", allow}, {"setpriority", allow}, {"ioprio_get", allow},
    {"ioprio_set", allow}, {"rseq", allow}, {"set_robust_list", allow}, {"get_robust_list", allow},
    {"set_tid_address", allow}, {"set_thread_area", allow}, {"get_thread_area", allow},
    {"seccomp", allow}, {"landlock_create_ruleset", allow}, {"landlock_add_rule", allow},
    {"landlock_restrict_self", allow}, {"capget", allow}, {"capset", allow},
    // Time.
    {"clock_gettime", allow}, {"clock_getres", allow}, {"clock_nanosleep", allow}, {"gettimeofday", allow},
    {"time", allow}, {"times", allow}, {"nanosleep", allow}, {"timer_create", allow},
    {"timer_settime", allow}, {"timer_gettime", allow}, {"timer_getoverrun", allow},
    {"timer_delete", allow}, {"timerfd_create", allow}, {"timerfd_settime", allow},
    {"timerfd_gettime", allow}, {"getitimer", allow}, {"setitimer", allow}, {"alarm", allow},
    // Signals.
    {"rt_sigaction", allow}, {"rt_sigprocmask", allow}, {"rt_sigreturn", allow}, {"rt_sigpending", allow},
    {"rt_sigtimedwait", allow}, {"rt_sigqueueinfo", allow}, {"rt_tgsigqueueinfo", allow},
    {"rt_sigsuspend", allow}, {"sigaltstack", allow}, {"signalfd", allow}, {"signalfd4", allow},
    {"pause", allow}, {"restart_syscall", allow},
    // Waiting and inter-process communication inside the session.
    {"epoll_create", allow}, {"epoll_create1", allow}, {"epoll_ctl", allow}, {"epoll_wait", allow},
    {"epoll_pwait", allow}, {"epoll_pwait2", allow}, {"poll", allow}, {"ppoll", allow},
    {"select", allow}, {"pselect6", allow}, {"eventfd", allow}, {"eventfd2", allow}, {"futex", allow},
    {"futex_waitv", allow}, {"futex_wake", allow}, {"futex_wait", allow}, {"futex_requeue", allow},
    {"pipe", allow}, {"pipe2", allow}, {"semget", allow}, {"semop", allow}, {"semtimedop", allow},
    {"semctl", allow}, {"msgget", allow}, {"msgsnd", allow}, {"msgrcv", allow}, {"msgctl", allow},
    {"mq_open", allow}, {"mq_unlink", allow}, {"mq_timedsend", allow}, {"mq_timedreceive", allow},
    {"mq_notify", allow}, {"mq_getsetattr", allow},
    // Sockets; the families are limited by the rules on socket() below.
    {"bind", allow}, {"listen", allow}, {"accept", allow}, {"accept4", allow}, {"connect", allow},
    {"sendto", allow}, {"recvfrom", allow}, {"sendmsg", allow}, {"recvmsg", allow}, {"sendmmsg", allow},
    {"recvmmsg", allow}, {"shutdown", allow}, {"getsockopt", allow}, {"setsockopt", allow},
    {"getsockname", allow}, {"getpeername", allow},
    // The rest of an ordinary program.
    {"getrandom", allow}, {"uname", allow}, {"sysinfo", allow}, {"getcpu", allow},

    // A sane program expects these to be refused: EPERM, as without privilege anywhere.
    {"mount", eperm}, {"umount2", eperm}, {"pivot_root", eperm}, {"chroot", eperm}, {"setns", eperm},
    {"unshare", eperm}, {"ptrace", eperm}, {"process_vm_readv", eperm}, {"process_vm_writev", eperm},
    {"kcmp", eperm}, {"pidfd_getfd", eperm}, {"process_madvise", eperm}, {"open_by_handle_at", eperm},
    {"name_to_handle_at", eperm}, {"modify_ldt", eperm}, {"iopl", eperm}, {"ioperm", eperm},
    {"reboot", eperm}, {"acct", eperm}, {"settimeofday", eperm}, {"clock_settime", eperm},
    {"adjtimex", eperm}, {"clock_adjtime", eperm}, {"sethostname", eperm}, {"setdomainname", eperm},
    {"syslog", eperm}, {"vhangup", eperm}, {"mbind", eperm}, {"set_mempolicy", eperm},
    {"get_mempolicy", eperm}, {"move_pages", eperm}, {"migrate_pages", eperm},
    {"set_mempolicy_home_node", eperm},
    // Everything not named answers ENOSYS, among it on purpose: clone3, io_uring, aio, keyrings,
    // splice/tee/vmsplice (ingredients of page-cache attacks), userfaultfd, perf, bpf,
    // memfd_secret, fanotify, the new mount API, modules, kexec, quotactl, swapon.
};

struct Release {
  void operator()(void* context) const { seccomp_release(context); }
};
using Context = std::unique_ptr<void, Release>;

/// Namespace flags of clone(2): NEWTIME and CSIGNAL share bits, so 0x80 is not in the mask.
constexpr scmp_datum_t kNamespaceFlags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                         CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
static_assert(kNamespaceFlags == 0x7E020000);

int add_argument_rules(void* a) {
  int rc = 0;
  const auto rule = [&](std::uint32_t action, const char* call, std::initializer_list<scmp_arg_cmp> args) {
    const int nr = seccomp_syscall_resolve_name(call);
    if (nr < 0 || rc != 0) return;  // not on this architecture
    rc = seccomp_rule_add_array(a, action, nr, static_cast<unsigned>(args.size()), args.begin());
  };
  const std::uint32_t yes = SCMP_ACT_ALLOW;
  const std::uint32_t no = SCMP_ACT_ERRNO(EPERM);
  // Threads and fork stay; no flag that makes a namespace. One rule per flag, because a
  // mask that is not zero cannot be expressed in one.
  rule(yes, "clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, kNamespaceFlags, 0)});
  for (const scmp_datum_t flag : {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER,
                                  CLONE_NEWPID, CLONE_NEWNET})
    rule(no, "clone", {SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag)});
  // Families by full 64-bit value: junk in the high half fails closed.
  constexpr scmp_datum_t kTypeMask = 0xf;  // without SOCK_NONBLOCK and SOCK_CLOEXEC
  for (const scmp_datum_t type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET})
    rule(yes, "socket", {SCMP_A0(SCMP_CMP_EQ, AF_UNIX), SCMP_A1(SCMP_CMP_MASKED_EQ, kTypeMask, type)});
  // TCP and UDP by name or as the default; not MPTCP, UDP-Lite, SCTP.
  for (const scmp_datum_t family : {AF_INET, AF_INET6}) {
    for (const scmp_datum_t protocol : {scmp_datum_t{0}, scmp_datum_t{IPPROTO_TCP}})
      rule(yes, "socket", {SCMP_A0(SCMP_CMP_EQ, family), SCMP_A1(SCMP_CMP_MASKED_EQ, kTypeMask, SOCK_STREAM),
                           SCMP_A2(SCMP_CMP_EQ, protocol)});
    for (const scmp_datum_t protocol : {scmp_datum_t{0}, scmp_datum_t{IPPROTO_UDP}})
      rule(yes, "socket", {SCMP_A0(SCMP_CMP_EQ, family), SCMP_A1(SCMP_CMP_MASKED_EQ, kTypeMask, SOCK_DGRAM),
                           SCMP_A2(SCMP_CMP_EQ, protocol)});
  }
  // Extended attributes: a tmpfs keeps an access list outside of every memory limit.
  for (const char* call : {"setxattr", "lsetxattr", "fsetxattr"}) rule(SCMP_ACT_ERRNO(EOPNOTSUPP), call, {});
  rule(yes, "socketpair", {SCMP_A0(SCMP_CMP_EQ, AF_UNIX)});
  // No READ_IMPLIES_EXEC, MMAP_PAGE_ZERO or ADDR_NO_RANDOMIZE.
  constexpr scmp_datum_t kLinux32 = PER_LINUX32;
  constexpr scmp_datum_t kUname26 = UNAME26;
  for (const scmp_datum_t persona :
       {scmp_datum_t{PER_LINUX}, kLinux32, kUname26, kUname26 | kLinux32, scmp_datum_t{0xffffffff}})
    rule(yes, "personality", {SCMP_A0(SCMP_CMP_EQ, persona)});
  // Device nodes have no use; FIFOs, sockets and plain files do.
  for (const scmp_datum_t kind : {scmp_datum_t{0}, scmp_datum_t{S_IFIFO}, scmp_datum_t{S_IFREG},
                                  scmp_datum_t{S_IFSOCK}}) {
    rule(yes, "mknod", {SCMP_A1(SCMP_CMP_MASKED_EQ, S_IFMT, kind)});
    rule(yes, "mknodat", {SCMP_A2(SCMP_CMP_MASKED_EQ, S_IFMT, kind)});
  }
  return rc;
}

int add_vetoes(void* b) {
  constexpr scmp_datum_t kLow = 0xffffffff;  // the kernel itself looks at 32 bits (CVE-2019-10063)
  int rc = 0;
  const auto veto = [&](int error, const char* call, scmp_arg_cmp arg) {
    const int nr = seccomp_syscall_resolve_name(call);
    if (nr < 0 || rc != 0) return;
    rc = seccomp_rule_add_array(b, SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), nr, 1, &arg);
  };
  const auto veto2 = [&](int error, const char* call, scmp_arg_cmp first, scmp_arg_cmp second) {
    const int nr = seccomp_syscall_resolve_name(call);
    if (nr < 0 || rc != 0) return;
    const scmp_arg_cmp both[] = {first, second};
    rc = seccomp_rule_add_array(b, SCMP_ACT_ERRNO(static_cast<std::uint32_t>(error)), nr, 2, both);
  };
  // Terminal injection.
  for (const scmp_datum_t request : {0x5412 /*TIOCSTI*/, 0x541C /*TIOCLINUX*/, 0x541D /*TIOCCONS*/})
    veto(EPERM, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, kLow, request));
  veto(EPERM, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, kLow, PR_SET_SECUREBITS));
  veto(EPERM, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, kLow, PR_SET_MM));
  // Memory deduplication tells a tenant what its neighbours have in memory.
  for (const scmp_datum_t option : {67 /*PR_SET_MEMORY_MERGE*/, 68 /*PR_GET_MEMORY_MERGE*/})
    veto(EPERM, "prctl", SCMP_A0(SCMP_CMP_MASKED_EQ, kLow, option));
  veto(EINVAL, "madvise", SCMP_A2(SCMP_CMP_MASKED_EQ, kLow, 12 /*MADV_MERGEABLE*/));
  veto(EPERM, "ioctl", SCMP_A1(SCMP_CMP_MASKED_EQ, kLow, 0x5423 /*TIOCSETD, line disciplines*/));
  // A second opinion on the families whose bugs wrote into the shared page cache. Netlink: what is
  // queued on such a socket is charged to nobody, so a few thousand of them are the host's memory.
  for (const scmp_datum_t family : {AF_ALG, AF_VSOCK, AF_NETLINK})
    veto(EAFNOSUPPORT, "socket", SCMP_A0(SCMP_CMP_MASKED_EQ, kLow, family));
  // Socket filters are compiled into a pool of memory that the whole host shares.
  for (const scmp_datum_t option : {26 /*SO_ATTACH_FILTER*/, 50 /*SO_ATTACH_BPF*/, 51 /*SO_ATTACH_REUSEPORT_CBPF*/,
                                    52 /*SO_ATTACH_REUSEPORT_EBPF*/})
    veto2(EPERM, "setsockopt", SCMP_A1(SCMP_CMP_MASKED_EQ, kLow, SOL_SOCKET), SCMP_A2(SCMP_CMP_MASKED_EQ, kLow, option));
  // Upper layer protocols (kTLS, espintcp) and encapsulation: kernel code no session needs.
  veto2(EPERM, "setsockopt", SCMP_A1(SCMP_CMP_MASKED_EQ, kLow, IPPROTO_TCP), SCMP_A2(SCMP_CMP_MASKED_EQ, kLow, 31 /*TCP_ULP*/));
  veto2(EPERM, "setsockopt", SCMP_A1(SCMP_CMP_MASKED_EQ, kLow, IPPROTO_UDP), SCMP_A2(SCMP_CMP_MASKED_EQ, kLow, 100 /*UDP_ENCAP*/));
  return rc;
}

Result<std::vector<std::uint8_t>> export_program(void* context) {
  sys::UniqueFd memory(::memfd_create("seccomp", MFD_CLOEXEC));
  if (!memory) return sys_error(errno, "memfd_create seccomp");
  if (const int rc = seccomp_export_bpf(context, memory.get()); rc != 0)
    return sys_error(-rc, "seccomp_export_bpf");
  std::vector<std::uint8_t> program(static_cast<size_t>(::lseek(memory.get(), 0, SEEK_END)));
  if (::pread(memory.get(), program.data(), program.size(), 0) != static_cast<ssize_t>(program.size()))
    return sys_error(errno, "read seccomp program");
  return program;
}

Result<Context> new_context(std::uint32_t default_action) {
  Context context(seccomp_init(default_action));
  if (!context) return server_error(ErrorCode::internal, "seccomp_init");
  // i386, x32 and friends would re-open what is closed here: a program that uses them dies.
  if (const int rc = seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS); rc != 0)
    return sys_error(-rc, "seccomp bad-arch action");
  // A binary tree over the numbers: a quarter of the instructions run per call.
  if (const int rc = seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2); rc != 0)
    return sys_error(-rc, "seccomp optimise");
  return context;
}

}  // namespace

std::span<const CallRule> seccomp_table() { return kTable; }

Result<SeccompPrograms> build_seccomp_programs() {
  auto a = new_context(SCMP_ACT_ERRNO(ENOSYS));
  if (!a) return std::unexpected(a.error());
  for (const CallRule& rule : kTable) {
    const int nr = seccomp_syscall_resolve_name(rule.name);
    // __NR_SCMP_ERROR: newer than this libseccomp knows. Other negatives: not on this
    // architecture. Either way the call falls to the default, ENOSYS.
    if (nr < 0) continue;
    const std::uint32_t action = rule.verdict == Verdict::allow ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(EPERM);
    if (const int rc = seccomp_rule_add_array(a->get(), action, nr, 0, nullptr); rc != 0)
      return sys_error(-rc, std::string("seccomp rule ") + rule.name);
  }
  if (const int rc = add_argument_rules(a->get()); rc != 0) return sys_error(-rc, "seccomp argument rule");
  auto b = new_context(SCMP_ACT_ALLOW);
  if (!b) return std::unexpected(b.error());
  if (const int rc = add_vetoes(b->get()); rc != 0) return sys_error(-rc, "seccomp veto");

  SeccompPrograms programs;
  auto bytes_a = export_program(a->get());
  if (!bytes_a) return std::unexpected(bytes_a.error());
  auto bytes_b = export_program(b->get());
  if (!bytes_b) return std::unexpected(bytes_b.error());
  programs.a = std::move(*bytes_a);
  programs.b = std::move(*bytes_b);
  return programs;
}

}  // namespace codespace::launcher
