// The policy. To change what a session may call, change this table and nothing else; then look at
// what tests/unit/launcher/seccomp.golden says of the change.
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>

#include "sandbox/launcher/seccomp_policy.h"

namespace codespace::launcher {
namespace {

constexpr Filter A = Filter::a;
constexpr Filter B = Filter::b;
constexpr int kAllow = 0;

/// The whole argument: junk in its upper half fails closed.
constexpr Condition is(unsigned argument, std::uint64_t value) { return {argument, kAll64, value}; }
/// The half the kernel looks at.
constexpr Condition low(unsigned argument, std::uint64_t value) { return {argument, kLow32, value}; }
constexpr Condition bits(unsigned argument, std::uint64_t mask, std::uint64_t value) { return {argument, mask, value}; }
constexpr Condition has(unsigned argument, std::uint64_t flag) { return {argument, flag, flag}; }

/// Namespace flags of clone(2). NEWTIME and CSIGNAL share bits, so 0x80 is not in the mask.
constexpr std::uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
static_assert(kNamespaces == 0x7E020000);
constexpr std::uint64_t kSocketType = 0xf;  // without SOCK_NONBLOCK and SOCK_CLOEXEC
constexpr std::uint64_t kFileType = S_IFMT;

constexpr SeccompRule kTable[] = {
    // --- A: what an ordinary program needs ------------------------------------------------------
    {A, kAllow,
     "open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek stat fstat lstat newfstatat statx "
     "access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat "
     "mkdir mkdirat rmdir chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat truncate ftruncate fallocate fadvise64 readahead copy_file_range sendfile utime "
     "utimes utimensat futimesat flock fcntl fsync fdatasync sync syncfs sync_file_range statfs fstatfs umask dup dup2 dup3",
     "files and directories; what may be reached is the mount namespace's business", {}},
    {A, kAllow, "ioctl", "terminals, and the descriptors a session can have; B vetoes what injects input", {}},
    {A, kAllow, "getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr", "cp and tar look for attributes; there are none", {}},
    {A, kAllow, "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch", "file watchers of Node.js", {}},
    {A, kAllow,
     "mmap munmap mprotect mremap madvise brk mlock mlock2 munlock mlockall munlockall msync mincore membarrier pkey_alloc pkey_free pkey_mprotect memfd_create "
     "shmget shmat shmdt shmctl",
     "memory; the control group counts it, and compilers at run time need executable pages", {}},
    {A, kAllow,
     "fork vfork execve execveat wait4 waitid exit exit_group getpid getppid gettid getpgid getpgrp getsid setsid setpgid kill tkill tgkill pidfd_open "
     "pidfd_send_signal rseq set_robust_list get_robust_list set_tid_address set_thread_area get_thread_area arch_prctl prctl",
     "processes and threads of the session's own pid namespace", {}},
    {A, kAllow,
     "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capget capset",
     "programs look at their identity, and drop what they do not have", {}},
    {A, kAllow,
     "prlimit64 getrlimit setrlimit getrusage sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler "
     "sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr sched_setattr getpriority setpriority ioprio_get ioprio_set",
     "limits and scheduling; hard limits and missing capabilities bound them", {}},
    {A, kAllow, "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self", "a program may confine itself further", {}},
    {A, kAllow,
     "clock_gettime clock_getres clock_nanosleep gettimeofday time times nanosleep timer_create timer_settime timer_gettime timer_getoverrun timer_delete "
     "timerfd_create timerfd_settime timerfd_gettime getitimer setitimer alarm",
     "time, to read and to wait for", {}},
    {A, kAllow,
     "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo rt_sigsuspend sigaltstack signalfd signalfd4 pause "
     "restart_syscall",
     "signals", {}},
    {A, kAllow,
     "epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 poll ppoll select pselect6 eventfd eventfd2 futex futex_waitv futex_wake futex_wait "
     "futex_requeue pipe pipe2 semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
     "waiting, and communication within the session's own ipc namespace", {}},
    {A, kAllow, "bind listen accept accept4 connect sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown getsockopt setsockopt getsockname getpeername",
     "sockets; which kinds there are, the rules of socket decide", {}},
    {A, kAllow, "getrandom uname sysinfo getcpu", "the rest of an ordinary program", {}},
    {A, kAllow, "setns clone3", "the way of a zygote, which has A and no B, into a session; B refuses them to all in one", {}},

    // --- A: what a sane program expects to be refused -------------------------------------------
    {A, EPERM, "mount umount2 pivot_root chroot unshare", "the view of the file system and of namespaces is fixed", {}},
    {A, EPERM, "ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise",
     "no reaching into other processes; debuggers hear what they hear in any container", {}},
    {A, EPERM, "open_by_handle_at name_to_handle_at", "files by handle, past every path (shocker, 2014)", {}},
    {A, EPERM, "modify_ldt iopl ioperm", "old doors of x86 into the processor", {}},
    {A, EPERM, "reboot acct settimeofday clock_settime adjtimex clock_adjtime sethostname setdomainname syslog vhangup", "the machine's administration", {}},
    {A, EPERM, "mbind set_mempolicy get_mempolicy move_pages migrate_pages set_mempolicy_home_node", "placement of memory; numpy's threads ask and go on without", {}},
    {A, EOPNOTSUPP, "setxattr lsetxattr fsetxattr", "a tmpfs keeps attributes outside of every memory limit", {}},

    // --- A: what depends on arguments -----------------------------------------------------------
    {A, kAllow, "clone", "threads and fork; libc uses clone where clone3 is refused", {bits(0, kNamespaces, 0)}},
    {A, EPERM, "clone", "no namespace: mounts", {has(0, CLONE_NEWNS)}},
    {A, EPERM, "clone", "no namespace: control groups", {has(0, CLONE_NEWCGROUP)}},
    {A, EPERM, "clone", "no namespace: host name", {has(0, CLONE_NEWUTS)}},
    {A, EPERM, "clone", "no namespace: ipc", {has(0, CLONE_NEWIPC)}},
    {A, EPERM, "clone", "no namespace: users, the key to all others", {has(0, CLONE_NEWUSER)}},
    {A, EPERM, "clone", "no namespace: pids", {has(0, CLONE_NEWPID)}},
    {A, EPERM, "clone", "no namespace: network", {has(0, CLONE_NEWNET)}},
    {A, kAllow, "socket", "unix sockets of the session's own", {is(0, AF_UNIX), bits(1, kSocketType, SOCK_STREAM)}},
    {A, kAllow, "socket", "unix sockets of the session's own", {is(0, AF_UNIX), bits(1, kSocketType, SOCK_DGRAM)}},
    {A, kAllow, "socket", "unix sockets of the session's own", {is(0, AF_UNIX), bits(1, kSocketType, SOCK_SEQPACKET)}},
    {A, kAllow, "socket", "TCP as the default; not MPTCP, SCTP", {is(0, AF_INET), bits(1, kSocketType, SOCK_STREAM), is(2, 0)}},
    {A, kAllow, "socket", "TCP by name", {is(0, AF_INET), bits(1, kSocketType, SOCK_STREAM), is(2, IPPROTO_TCP)}},
    {A, kAllow, "socket", "UDP as the default; not UDP-Lite, ICMP", {is(0, AF_INET), bits(1, kSocketType, SOCK_DGRAM), is(2, 0)}},
    {A, kAllow, "socket", "UDP by name", {is(0, AF_INET), bits(1, kSocketType, SOCK_DGRAM), is(2, IPPROTO_UDP)}},
    {A, kAllow, "socket", "TCP as the default", {is(0, AF_INET6), bits(1, kSocketType, SOCK_STREAM), is(2, 0)}},
    {A, kAllow, "socket", "TCP by name", {is(0, AF_INET6), bits(1, kSocketType, SOCK_STREAM), is(2, IPPROTO_TCP)}},
    {A, kAllow, "socket", "UDP as the default", {is(0, AF_INET6), bits(1, kSocketType, SOCK_DGRAM), is(2, 0)}},
    {A, kAllow, "socket", "UDP by name", {is(0, AF_INET6), bits(1, kSocketType, SOCK_DGRAM), is(2, IPPROTO_UDP)}},
    {A, kAllow, "socketpair", "pipes of Node.js and asyncio", {is(0, AF_UNIX)}},
    {A, kAllow, "personality", "no READ_IMPLIES_EXEC, MMAP_PAGE_ZERO, ADDR_NO_RANDOMIZE: only what is harmless", {is(0, PER_LINUX)}},
    {A, kAllow, "personality", "32-bit uname", {is(0, PER_LINUX32)}},
    {A, kAllow, "personality", "uname of Linux 2.6", {is(0, UNAME26)}},
    {A, kAllow, "personality", "both", {is(0, std::uint64_t{UNAME26} | std::uint64_t{PER_LINUX32})}},
    {A, kAllow, "personality", "the question which one it is", {is(0, 0xffffffff)}},
    {A, kAllow, "mknod", "a plain file; device nodes have no use", {bits(1, kFileType, 0)}},
    {A, kAllow, "mknod", "a FIFO", {bits(1, kFileType, S_IFIFO)}},
    {A, kAllow, "mknod", "a plain file", {bits(1, kFileType, S_IFREG)}},
    {A, kAllow, "mknod", "a socket", {bits(1, kFileType, S_IFSOCK)}},
    {A, kAllow, "mknodat", "a plain file; device nodes have no use", {bits(2, kFileType, 0)}},
    {A, kAllow, "mknodat", "a FIFO", {bits(2, kFileType, S_IFIFO)}},
    {A, kAllow, "mknodat", "a plain file", {bits(2, kFileType, S_IFREG)}},
    {A, kAllow, "mknodat", "a socket", {bits(2, kFileType, S_IFSOCK)}},
    // Everything not named answers ENOSYS, among it on purpose: io_uring, aio, keyrings, splice, tee and vmsplice
    // (ingredients of page-cache attacks), userfaultfd, perf, bpf, memfd_secret, fanotify, the new mount API, modules, kexec, quotactl, swapon.

    // --- B: vetoes ------------------------------------------------------------------------------
    {B, EPERM, "setns", "the view of namespaces is fixed", {}},
    {B, kUnknownCallError, "clone3", "hides its flags behind a pointer", {}},
    {B, EPERM, "ioctl", "TIOCSTI: input into somebody's terminal (CVE-2017-5226)", {low(1, 0x5412)}},
    {B, EPERM, "ioctl", "TIOCLINUX: the same by the console's selection (CVE-2023-28100)", {low(1, 0x541C)}},
    {B, EPERM, "ioctl", "TIOCCONS: the console's output", {low(1, 0x541D)}},
    {B, EPERM, "ioctl", "TIOCSETD: line disciplines are kernel code no session needs", {low(1, 0x5423)}},
    {B, EPERM, "prctl", "PR_SET_SECUREBITS", {low(0, PR_SET_SECUREBITS)}},
    {B, EPERM, "prctl", "PR_SET_MM: a process's own description in /proc", {low(0, PR_SET_MM)}},
    {B, EPERM, "prctl", "PR_SET_MEMORY_MERGE: deduplication tells what neighbours have in memory", {low(0, 67)}},
    {B, EPERM, "prctl", "PR_GET_MEMORY_MERGE", {low(0, 68)}},
    {B, EINVAL, "madvise", "MADV_MERGEABLE: likewise", {low(2, 12)}},
    {B, EAFNOSUPPORT, "socket", "AF_ALG: its bugs wrote into the shared page cache", {low(0, AF_ALG)}},
    {B, EAFNOSUPPORT, "socket", "AF_VSOCK: a way to a hypervisor", {low(0, AF_VSOCK)}},
    {B, EAFNOSUPPORT, "socket", "AF_NETLINK: what is queued on such a socket is charged to nobody", {low(0, AF_NETLINK)}},
    {B, EPERM, "setsockopt", "SO_ATTACH_FILTER: compiled into a pool of memory that the whole host shares", {low(1, SOL_SOCKET), low(2, 26)}},
    {B, EPERM, "setsockopt", "SO_ATTACH_BPF", {low(1, SOL_SOCKET), low(2, 50)}},
    {B, EPERM, "setsockopt", "SO_ATTACH_REUSEPORT_CBPF", {low(1, SOL_SOCKET), low(2, 51)}},
    {B, EPERM, "setsockopt", "SO_ATTACH_REUSEPORT_EBPF", {low(1, SOL_SOCKET), low(2, 52)}},
    {B, EPERM, "setsockopt", "TCP_ULP: kTLS and espintcp, kernel code no session needs", {low(1, IPPROTO_TCP), low(2, 31)}},
    {B, EPERM, "setsockopt", "UDP_ENCAP: likewise", {low(1, IPPROTO_UDP), low(2, 100)}},
    {B, ENOMEM, "mmap", "huge pages come from a pool of the host that no memory limit counts (hugetlbpage.rst)", {has(3, MAP_HUGETLB)}},
    {B, EINVAL, "memfd_create", "likewise", {has(1, MFD_HUGETLB)}},
    {B, ENOMEM, "shmget", "likewise", {has(2, SHM_HUGETLB)}},
};

}  // namespace

std::span<const SeccompRule> seccomp_table() { return kTable; }

}  // namespace codespace::launcher
