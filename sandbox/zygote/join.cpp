// The way of a kernel from its zygote into a session. A shared library of C functions that
// the interpreter loads (it links nothing but libc, so any interpreter can); runs in the
// zygote's only thread, and then in each new kernel until that is confined.
//
// Theory of operation. A process of the outer user namespace whose user owns a session's
// namespaces may enter them with no capability of its own (user_namespaces(7)), and has
// every capability there until it gives it up. Entering a pid namespace counts only for
// children, and the kernel must be init's child, or nobody inside could wait for it. So:
//
//   zygote --vfork--> A enters the session --vfork--> B is inside it --fork--> the kernel
//
// A and B share the zygote's memory and last microseconds; only the fork copies page
// tables. B's end makes the kernel an orphan of the session, which init inherits.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/wire/setup_protocol.h"
#include "sandbox/wire/zygote_protocol.h"

namespace {

using codespace::wire::kTenantUid;
using codespace::wire::kZygoteFixedFds;
using codespace::wire::kZygoteMaxFds;
using codespace::wire::ZygoteReply;
using codespace::wire::ZygoteRequest;

constexpr int kSession = 0, kControl = 1, kStdout = 2, kStderr = 3;

/// What a request brought, kept where the vforked children find it unchanged.
struct Job {
  ZygoteRequest request;
  int fds[kZygoteMaxFds];
  int count;
};

struct Filters {
  unsigned char* bytes;
  unsigned sizes[2];
};

Filters filters{};
char* arguments_begin = nullptr;  // of this process as /proc/PID/cmdline shows them
size_t arguments_size = 0;
size_t arguments_kept = 0;        // what a kernel that was started cold would show

/// clone3(2) that shares the memory and suspends the caller, like vfork(2), which cannot
/// start a child in another control group. Inline: a function would return twice over one stack.
__attribute__((always_inline)) inline long vfork_into(clone_args* args) {
#if defined(__x86_64__)
  long result = SYS_clone3;
  asm volatile("syscall" : "+a"(result) : "D"(args), "S"(sizeof *args) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long number asm("x8") = SYS_clone3;
  register long result asm("x0") = reinterpret_cast<long>(args);
  register long size asm("x1") = sizeof *args;
  asm volatile("svc 0" : "+r"(result) : "r"(number), "r"(size) : "memory");
  return result;
#else
#error "no system call sequence for this architecture"
#endif
}

int read_filters() {
  struct stat st {};
  const int fd = codespace::wire::kZygoteSeccompFd;
  if (::fstat(fd, &st) != 0 || ::pread(fd, filters.sizes, sizeof filters.sizes, 0) != sizeof filters.sizes) return -1;
  const size_t size = static_cast<size_t>(filters.sizes[0]) + filters.sizes[1];
  if (static_cast<size_t>(st.st_size) != size + sizeof filters.sizes) return errno = EINVAL, -1;
  filters.bytes = static_cast<unsigned char*>(::malloc(size));
  if (filters.bytes == nullptr || ::pread(fd, filters.bytes, size, sizeof filters.sizes) != static_cast<ssize_t>(size)) return -1;
  ::close(fd);
  return 0;
}

/// Where the kernel shows this process's arguments from (proc_pid_stat(5), fields 48 and 49).
int find_arguments(size_t kept) {
  char text[2048];
  const int fd = ::open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  const ssize_t n = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  if (n <= 0) return -1;
  text[n] = 0;
  const char* at = ::strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 48; ++field) at = ::strchr(at + 1, ' ');
  if (at == nullptr) return errno = EINVAL, -1;
  char* end = nullptr;
  const unsigned long begin = ::strtoul(at, &end, 10);
  const unsigned long finish = ::strtoul(end, nullptr, 10);
  if (begin == 0 || finish <= begin || kept > finish - begin) return errno = EINVAL, -1;
  arguments_begin = reinterpret_cast<char*>(begin);  // NOLINT(performance-no-int-to-ptr): the kernel says it as a number
  arguments_size = finish - begin;
  arguments_kept = kept;
  return 0;
}

bool set_capabilities(unsigned bits) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = bits;
  return ::syscall(SYS_capset, &header, data) == 0;
}

bool load_filter(unsigned offset, unsigned size) {
  sock_fprog program{};
  program.len = static_cast<unsigned short>(size / sizeof(sock_filter));
  program.filter = reinterpret_cast<sock_filter*>(filters.bytes + offset);
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

bool place_descriptors(const Job& job) {
  const int null = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (null < 0) return false;
  // All sources lie above the zygote's own descriptors, so no target overwrites one.
  if (::dup2(null, 0) < 0 || ::dup2(job.fds[kStdout], 1) < 0 || ::dup2(job.fds[kStderr], 2) < 0 ||
      ::dup2(job.fds[kControl], 3) < 0)
    return false;
  return ::syscall(SYS_close_range, 4U, ~0U, 0) == 0;
}

/// From every capability in the session's namespace to none: the tenant, as init's own
/// children are (sandbox/init/spawn.cpp), which the posture tests compare.
bool become_tenant() {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP |
                                  SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED |
                                  SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) != 0) return false;
  int cap = 0;
  while (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) ++cap;
  if (errno != EINVAL) return false;  // EINVAL: past the last that this Linux knows
  if (::setresgid(kTenantUid, kTenantUid, kTenantUid) != 0 || ::setresuid(kTenantUid, kTenantUid, kTenantUid) != 0) return false;
  if (!set_capabilities(0)) return false;
  uid_t r, e, s;
  return ::getresuid(&r, &e, &s) == 0 && r == kTenantUid && e == kTenantUid && s == kTenantUid &&
         ::getgroups(0, nullptr) == 0 && ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
}

/// In the new kernel. False: it must not run.
bool confine(const Job& job) {
  // First: v1 asks that who opened `tasks`, the launcher, has the user id of who is moved.
  if (job.request.group_by_clone == 0) {
    for (int i = kZygoteFixedFds; i < job.count; ++i) {
      if (::write(job.fds[i], "0", 1) != 1) return false;
    }
  }
  if (!codespace::sys::use_processors(job.request.processors)) return false;
  if (::setsid() < 0 || !place_descriptors(job) || ::chdir("/workspace") != 0) return false;
  if (!become_tenant()) return false;
  ::signal(SIGCHLD, SIG_DFL);
  ::prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0);
  ::memset(arguments_begin + arguments_kept, 0, arguments_size - arguments_kept);
  if (!load_filter(filters.sizes[0], filters.sizes[1])) return false;  // B; A is the zygote's own
  // The change of user made it undumpable, and its own /proc files root's. Last: until here no
  // process of the tenant may trace it.
  return ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0;
}

/// Returns 0 in the kernel, in the zygote 1, or -1 with errno.
__attribute__((noinline)) int fork_into_session(const Job* job) {
  volatile int failure = 0;
  clone_args outer{};
  outer.flags = CLONE_VM | CLONE_VFORK;
  outer.exit_signal = SIGCHLD;
  clone_args inner = outer;
  if (job->request.group_by_clone != 0) {
    inner.flags |= CLONE_INTO_CGROUP;
    inner.cgroup = static_cast<__u64>(job->fds[kZygoteFixedFds]);
  }
  const long a = vfork_into(&outer);
  if (a < 0) return errno = static_cast<int>(-a), -1;
  if (a == 0) {
    // Not yet the control group namespace: from inside it the way into the run group is not seen.
    if (::setns(job->fds[kSession], CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0) {
      failure = errno;
      ::_exit(1);
    }
    const long b = vfork_into(&inner);
    if (b < 0) {
      failure = static_cast<int>(-b);
      ::_exit(1);
    }
    if (b == 0) {
      if (::setns(job->fds[kSession], CLONE_NEWCGROUP) != 0) {
        failure = errno;
        ::_exit(1);
      }
      const pid_t kernel = ::fork();
      if (kernel == 0) return 0;
      if (kernel < 0) failure = errno;
      ::_exit(0);
    }
    // vfork ends when B lets go of the memory, before B is gone. Ended now, A would leave it to the
    // host's process 1, and the session could not end before that came round to reap it.
    while (::waitpid(static_cast<pid_t>(b), nullptr, __WALL) < 0 && errno == EINTR) {}
    ::_exit(0);
  }
  if (failure != 0) return errno = failure, -1;
  return 1;
}

/// False: the launcher is gone, or said something that is not ours.
bool receive(Job& job) {
  iovec part{&job.request, sizeof job.request};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof job.fds)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t n;
  do n = ::recvmsg(codespace::wire::kZygoteChannelFd, &message, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (n != sizeof job.request || job.request.magic != codespace::wire::kZygoteMagic || header == nullptr ||
      header->cmsg_type != SCM_RIGHTS)
    return false;
  job.count = static_cast<int>((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
  if (job.count <= kZygoteFixedFds || job.count > kZygoteMaxFds) return false;
  ::memcpy(job.fds, CMSG_DATA(header), static_cast<size_t>(job.count) * sizeof(int));
  return true;
}

bool reply(int error) {
  ZygoteReply message;
  message.sys_errno = error;
  return ::send(codespace::wire::kZygoteChannelFd, &message, sizeof message, MSG_NOSIGNAL) == sizeof message;
}

}  // namespace

/// Serves the launcher until it closes the channel, then exits. Returns, with 0, only in a
/// new kernel that is inside its session, confined, with its channel at 3; or, with -1 and
/// errno, if the zygote could not begin. `kept` is how many bytes of the command line a
/// kernel keeps; `after_fork` is what the interpreter wants called in a child. The caller is
/// single-threaded and its SIGCHLD is ignored from here on.
extern "C" __attribute__((visibility("default"))) int codespace_zygote_serve(unsigned kept, void (*after_fork)()) {
  if (find_arguments(kept) != 0 || read_filters() != 0) return -1;
  // Kernels inherit it: loading it is most of what confining one takes. It refuses nothing that is done here.
  if (!load_filter(0, filters.sizes[0])) return -1;
  // Reaped by Linux at once: an unreaped child would hold up the end of its session.
  if (::signal(SIGCHLD, SIG_IGN) == SIG_ERR || !reply(0)) return -1;
  Job job;
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  while (receive(job)) {
    ::sigprocmask(SIG_SETMASK, &all, &before);  // no handler may run on the shared stack
    const int outcome = fork_into_session(&job);
    if (outcome == 0) {
      if (!confine(job)) ::_exit(1);
      ::sigprocmask(SIG_SETMASK, &before, nullptr);
      after_fork();
      return 0;
    }
    const int error = outcome < 0 ? errno : 0;
    ::sigprocmask(SIG_SETMASK, &before, nullptr);
    for (int i = 0; i < job.count; ++i) ::close(job.fds[i]);
    if (!reply(error)) break;
  }
  ::_exit(0);
}
