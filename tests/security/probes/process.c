/* Attacks on other processes, on init, on identity and on limits. */
#include "probe.h"

#include <linux/capability.h>
#include <linux/kcmp.h>
#include <linux/securebits.h>
#include <dirent.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

static int unshare_flags(int flags) { return result(unshare(flags)); }
static int unshare_user(const char *a) { (void)a; return unshare_flags(CLONE_NEWUSER); }
static int unshare_mount(const char *a) { (void)a; return unshare_flags(CLONE_NEWNS); }
static int unshare_net(const char *a) { (void)a; return unshare_flags(CLONE_NEWNET); }
static int unshare_pid(const char *a) { (void)a; return unshare_flags(CLONE_NEWPID); }

static int end_child(long pid) {
  if (pid == 0) _exit(0);
  if (pid < 0) return errno;
  waitpid((pid_t)pid, NULL, 0);
  return 0;
}
static int clone_user(const char *a) {
  (void)a;
  return end_child(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
}
static int clone_all(const char *a) {
  (void)a;
  return end_child(syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0));
}
/* Junk in the half of the flags the kernel ignores must not lead around the filter. */
static int clone_high_bits(const char *a) {
  (void)a;
  return end_child(syscall(SYS_clone, (1UL << 63) | CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
}
static int clone3_user(const char *a) {
  (void)a;
  struct {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
  } args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
  return end_child(syscall(SYS_clone3, &args, sizeof args));
}
static int setns_uts(const char *a) {
  (void)a;
  int fd = open("/proc/self/ns/uts", O_RDONLY);
  return fd < 0 ? errno : result(setns(fd, CLONE_NEWUTS));
}
static int setns_init(const char *a) {
  (void)a;
  int fd = (int)syscall(SYS_pidfd_open, 1, 0);
  return fd < 0 ? errno : result(setns(fd, CLONE_NEWUTS));
}

/* --- init ------------------------------------------------------------------------------- */

static int ptrace_init(const char *a) { (void)a; return result(ptrace(PTRACE_SEIZE, 1, 0, 0)); }
static int ptrace_me(const char *a) { (void)a; return result(ptrace(PTRACE_TRACEME, 0, 0, 0)); }
static int vm_read_init(const char *a) {
  (void)a;
  char byte;
  struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
  return reached(process_vm_readv(1, &here, 1, &there, 1, 0));
}
static int pidfd_getfd_init(const char *a) {
  (void)a;
  int fd = (int)syscall(SYS_pidfd_open, 1, 0);
  return fd < 0 ? errno : result(syscall(SYS_pidfd_getfd, fd, 0, 0));
}
static int kcmp_init(const char *a) {
  (void)a;
  return result(syscall(SYS_kcmp, 1, getpid(), KCMP_VM, 0, 0));
}
static int init_exe(const char *a) { (void)a; return can_open("/proc/1/exe", O_RDONLY); }
static int init_mem(const char *a) { (void)a; return can_open("/proc/1/mem", O_RDWR); }
static int init_root(const char *a) { (void)a; return can_open("/proc/1/root", O_RDONLY); }
static int init_cwd(const char *a) { (void)a; return can_open("/proc/1/cwd", O_RDONLY); }
static int init_fds(const char *a) {
  (void)a;
  DIR *dir = opendir("/proc/1/fd");
  return dir == NULL ? errno : 0;
}
static int init_text(const char *file) {
  char text[64];
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno;
  ssize_t n = read(fd, text, sizeof text);
  return n > 0 ? 0 : n == 0 ? ENODATA : errno;
}
static int init_environ(const char *a) { (void)a; return init_text("/proc/1/environ"); }
static int init_maps(const char *a) { (void)a; return init_text("/proc/1/maps"); }
static int init_cmdline(const char *a) { (void)a; return init_text("/proc/1/cmdline"); }
/* PID 1 ignores it; what counts is whether it may be sent. */
static int signal_init(const char *a) { (void)a; return result(kill(1, SIGWINCH)); }
static int pidfd_signal_init(const char *a) {
  (void)a;
  int fd = (int)syscall(SYS_pidfd_open, 1, 0);
  return fd < 0 ? errno : result(syscall(SYS_pidfd_send_signal, fd, SIGWINCH, NULL, 0));
}
static int prlimit_init(const char *a) {
  (void)a;
  struct rlimit old;
  return result(prlimit(1, RLIMIT_CORE, NULL, &old));
}
static int renice_init(const char *a) { (void)a; return result(setpriority(PRIO_PROCESS, 1, 5)); }
static int affinity_init(const char *a) {
  (void)a;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return errno;
  return result(sched_setaffinity(1, sizeof set, &set));
}

/* --- identity and limits ---------------------------------------------------------------- */

static int become_root(const char *a) { (void)a; return result(setresuid(0, 0, 0)); }
static int become_init(const char *a) { (void)a; return result(setresuid(1, 1, 1)); }
static int become_other_group(const char *a) { (void)a; return result(setresgid(7, 7, 7)); }
static int add_groups(const char *a) {
  (void)a;
  gid_t groups[] = {0};
  return result(setgroups(1, groups));
}
static int become_fs_root(const char *a) {
  (void)a;
  syscall(SYS_setfsuid, 2);
  return syscall(SYS_setfsuid, -1) == 2 ? 0 : EPERM;
}
static int raise_capability(const char *a) {
  (void)a;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}};
  data[0].effective = data[0].permitted = 1U << CAP_SYS_ADMIN;
  return result(syscall(SYS_capset, &header, data));
}
static int ambient_capability(const char *a) {
  (void)a;
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {{0}};
  data[0].effective = data[0].permitted = data[0].inheritable = 1U << CAP_CHOWN;
  if (syscall(SYS_capset, &header, data) != 0) return errno;
  return result(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
}
static int set_securebits(const char *a) { (void)a; return result(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS, 0, 0, 0)); }
static int set_mm(const char *a) {
  (void)a;
  return reached(prctl(PR_SET_MM, PR_SET_MM_BRK, sbrk(0), 0, 0));
}
static int clear_no_new_privs(const char *a) {
  (void)a;
  if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0) return 0; /* never set: a set-user-id file would count */
  return prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 ? 0 : EPERM;
}

static int raise_limit(__rlimit_resource_t resource) {
  struct rlimit limit;
  if (getrlimit(resource, &limit) != 0) return errno;
  if (limit.rlim_max == RLIM_INFINITY) return 0;
  limit.rlim_max += 1;
  return result(setrlimit(resource, &limit));
}
static int raise_nofile(const char *a) { (void)a; return raise_limit(RLIMIT_NOFILE); }
static int raise_memlock(const char *a) { (void)a; return raise_limit(RLIMIT_MEMLOCK); }
static int raise_core(const char *a) { (void)a; return raise_limit(RLIMIT_CORE); }
static int raise_rtprio(const char *a) { (void)a; return raise_limit(RLIMIT_RTPRIO); }
static int raise_msgqueue(const char *a) { (void)a; return raise_limit(RLIMIT_MSGQUEUE); }
static int lock_memory(const char *a) {
  (void)a;
  void *p = mmap(NULL, 16 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return result(mlock(p, 16 << 20));
}
static int negative_nice(const char *a) { (void)a; return result(setpriority(PRIO_PROCESS, 0, -5)); }
static int real_time(const char *a) {
  (void)a;
  struct sched_param param = {.sched_priority = 1};
  return result(sched_setscheduler(0, SCHED_FIFO, &param));
}
static int real_time_io(const char *a) { (void)a; return result(syscall(SYS_ioprio_set, 1, 0, 1 << 13)); }
static int lower_oom_score(const char *a) {
  (void)a;
  int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  return fd < 0 ? errno : result(write(fd, "-100", 4));
}

const struct attack process_attacks[] = {
    {"unshare_user", unshare_user}, {"unshare_mount", unshare_mount}, {"unshare_net", unshare_net},
    {"unshare_pid", unshare_pid}, {"clone_user", clone_user}, {"clone_all", clone_all},
    {"clone_high_bits", clone_high_bits}, {"clone3_user", clone3_user}, {"setns_uts", setns_uts},
    {"setns_init", setns_init}, {"ptrace_init", ptrace_init}, {"ptrace_me", ptrace_me},
    {"vm_read_init", vm_read_init}, {"pidfd_getfd_init", pidfd_getfd_init}, {"kcmp_init", kcmp_init},
    {"init_exe", init_exe}, {"init_mem", init_mem}, {"init_root", init_root}, {"init_cwd", init_cwd},
    {"init_fds", init_fds}, {"init_environ", init_environ}, {"init_maps", init_maps}, {"init_cmdline", init_cmdline},
    {"signal_init", signal_init}, {"pidfd_signal_init", pidfd_signal_init}, {"prlimit_init", prlimit_init},
    {"renice_init", renice_init}, {"affinity_init", affinity_init}, {"become_root", become_root},
    {"become_init", become_init}, {"become_other_group", become_other_group}, {"add_groups", add_groups},
    {"become_fs_root", become_fs_root}, {"raise_capability", raise_capability},
    {"ambient_capability", ambient_capability}, {"set_securebits", set_securebits}, {"set_mm", set_mm},
    {"clear_no_new_privs", clear_no_new_privs}, {"raise_nofile", raise_nofile}, {"raise_memlock", raise_memlock},
    {"raise_core", raise_core}, {"raise_rtprio", raise_rtprio}, {"raise_msgqueue", raise_msgqueue},
    {"lock_memory", lock_memory}, {"negative_nice", negative_nice}, {"real_time", real_time},
    {"real_time_io", real_time_io}, {"lower_oom_score", lower_oom_score}, {NULL, NULL}};
