/* Attacks on mounts, on files the session does not own, on devices and over the network. */
#include "probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

/* --- mounts (outside: in a mount namespace of the probe's own) ----------------------------- */

static int mount_tmpfs(const char *a) { (void)a; return result(mount("none", "/tmp", "tmpfs", 0, NULL)); }
static int mount_proc(const char *a) { (void)a; return result(mount("none", "/tmp", "proc", 0, NULL)); }
static int bind_mount(const char *a) { (void)a; return result(mount("/", "/tmp", NULL, MS_BIND, NULL)); }
static int remount_root(const char *a) {
  (void)a;
  return result(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL));
}
static int unmount_proc(const char *a) { (void)a; return result(umount2("/proc", MNT_DETACH)); }
static int new_mount_api(const char *a) { (void)a; return result(syscall(SYS_fsopen, "tmpfs", 0)); }
static int clone_mount(const char *a) { (void)a; return result(syscall(SYS_open_tree, AT_FDCWD, "/", 1)); }
static int change_root(const char *a) { (void)a; return result(chroot("/tmp")); }
static int pivot(const char *a) { (void)a; return reached(syscall(SYS_pivot_root, ".", ".")); }
static int set_hostname(const char *a) { (void)a; return result(sethostname("probe", 5)); }
static int set_domain(const char *a) { (void)a; return result(setdomainname("probe", 5)); }

/* --- files ---------------------------------------------------------------------------------- */

static int create_in(const char *dir) {
  char path[256];
  snprintf(path, sizeof path, "%s/.codespace-probe-%d", dir, (int)getpid());
  int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
  if (fd < 0) return errno;
  close(fd);
  unlink(path);
  return 0;
}
static int write_root(const char *a) { (void)a; return create_in("/"); }
static int write_usr(const char *a) { (void)a; return create_in("/usr"); }
static int write_etc(const char *a) { (void)a; return create_in("/etc"); }
static int write_opt(const char *a) { (void)a; return create_in("/opt"); }
static int write_dev(const char *a) { (void)a; return create_in("/dev"); }
static int write_run(const char *a) { (void)a; return create_in("/run"); }
static int write_passwd(const char *a) { (void)a; return can_open("/etc/passwd", O_WRONLY | O_APPEND); }
static int write_shell(const char *a) { (void)a; return can_open("/usr/bin/env", O_WRONLY | O_APPEND); }
static int write_sysctl(const char *a) { (void)a; return can_open("/proc/sys/kernel/pid_max", O_WRONLY); }
static int write_core_pattern(const char *a) { (void)a; return can_open("/proc/sys/kernel/core_pattern", O_WRONLY); }
static int write_namespace_limit(const char *a) { (void)a; return can_open("/proc/sys/user/max_user_namespaces", O_WRONLY); }
static int write_sysrq(const char *a) { (void)a; return can_open("/proc/sysrq-trigger", O_WRONLY); }
static int read_sysfs(const char *a) { (void)a; return can_open("/sys/kernel", O_RDONLY); }
static int read_file(const char *path) {
  char text[16];
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return errno;
  ssize_t n = read(fd, text, sizeof text);
  return n > 0 ? 0 : n == 0 ? ENODATA : errno;
}
static int read_kcore(const char *a) { (void)a; return read_file("/proc/kcore"); }
static int read_kallsyms(const char *a) { (void)a; return read_file("/proc/kallsyms"); }
static int read_timer_list(const char *a) { (void)a; return read_file("/proc/timer_list"); }
static int read_interrupts(const char *a) { (void)a; return read_file("/proc/interrupts"); }
static int read_boot_line(const char *a) { (void)a; return read_file("/proc/cmdline"); }
static int read_slabs(const char *a) { (void)a; return read_file("/proc/slabinfo"); }
static int read_io_memory(const char *a) { (void)a; return read_file("/proc/iomem"); }
static int read_key_users(const char *a) { (void)a; return read_file("/proc/key-users"); }
static int read_shadow(const char *a) { (void)a; return read_file("/etc/shadow"); }

static int find_cgroup_file(const char *dir, int depth) {
  char path[512];
  snprintf(path, sizeof path, "%s/cgroup.procs", dir);
  int refused = can_open(path, O_WRONLY);
  if (refused == 0 || depth == 0) return refused;
  DIR *d = opendir(dir);
  if (d == NULL) return errno;
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    if (e->d_name[0] == '.' || strlen(dir) + strlen(e->d_name) > 400) continue;
    snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
    if (find_cgroup_file(path, depth - 1) == 0) return 0;
  }
  closedir(d);
  return refused;
}
static int write_cgroup(const char *a) { (void)a; return find_cgroup_file("/sys/fs/cgroup", 2); }

/* --- devices --------------------------------------------------------------------------------- */

static int make_node(mode_t kind, unsigned major_number, unsigned minor_number) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/.codespace-probe-%d", (int)getpid());
  if (mknod(path, kind | 0600, makedev(major_number, minor_number)) != 0) return errno;
  unlink(path);
  return 0;
}
static int make_char_device(const char *a) { (void)a; return make_node(S_IFCHR, 1, 1); }
static int make_block_device(const char *a) { (void)a; return make_node(S_IFBLK, 7, 0); }
/* Any device but the harmless seven that every program may expect. */
static int other_device(const char *a) {
  (void)a;
  static const char *const fine[] = {"null", "zero", "full", "random", "urandom", "tty", "ptmx"};
  DIR *d = opendir("/dev");
  if (d == NULL) return errno;
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    struct stat st;
    int known = 0;
    for (size_t i = 0; i < sizeof fine / sizeof *fine; ++i) known |= strcmp(e->d_name, fine[i]) == 0;
    if (known || fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) continue;
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) {
      printf("/dev/%s\n", e->d_name);
      return 0;
    }
  }
  return ENOENT;
}
/* A terminal of our own, made our controlling one: pushing a byte into it is what an attack
 * on the terminal of somebody else would do. */
static int push_terminal_input(const char *a) {
  (void)a;
  int master, slave;
  char byte = 'x';
  if (openpty(&master, &slave, NULL, NULL, NULL) != 0) return errno;
  setsid();
  ioctl(slave, TIOCSCTTY, 0);
  return result(ioctl(slave, TIOCSTI, &byte));
}

/* --- network ----------------------------------------------------------------------------------- */

static int connect_within(int s, const struct sockaddr *address, socklen_t size) {
  struct timeval bound = {.tv_sec = 3};
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound);
  return result(connect(s, address, size));
}
/* ARGUMENT: address:port */
static int connect_tcp(const char *argument) {
  char host[64] = "";
  struct sockaddr_in to = {.sin_family = AF_INET};
  const char *colon = argument == NULL ? NULL : strchr(argument, ':');
  if (colon == NULL || colon - argument >= (long)sizeof host) return EINVAL;
  memcpy(host, argument, (size_t)(colon - argument));
  to.sin_port = htons((uint16_t)atoi(colon + 1));
  if (inet_pton(AF_INET, host, &to.sin_addr) != 1) return EINVAL;
  return connect_within(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&to, sizeof to);
}
/* ARGUMENT: a path, or an abstract name after '@' */
static int connect_unix(const char *name) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  if (name == NULL || strlen(name) >= sizeof to.sun_path) return EINVAL;
  memcpy(to.sun_path, name, strlen(name));
  socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
  if (name[0] == '@') to.sun_path[0] = 0;
  return connect_within(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&to, size);
}
/* Outside this has an interface with that address (ARGUMENT "serve"), in a namespace of its own. */
static int cloud_metadata(const char *argument) {
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(80)};
  inet_pton(AF_INET, "169.254.169.254", &there.sin_addr);
  if (argument != NULL && strcmp(argument, "serve") == 0) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct ifreq request = {0};
    strcpy(request.ifr_name, "lo");
    memcpy(&request.ifr_addr, &there, sizeof there);
    ((struct sockaddr_in *)(void *)&request.ifr_addr)->sin_port = 0;
    if (ioctl(listener, SIOCSIFADDR, &request) != 0) return errno;
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(listener, SIOCSIFFLAGS, &request) != 0) return errno;
    if (bind(listener, (struct sockaddr *)&there, sizeof there) != 0 || listen(listener, 1) != 0) return errno;
  }
  return connect_within(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&there, sizeof there);
}
static int configure_loopback(const char *a) {
  (void)a;
  struct ifreq request = {0};
  int s = socket(AF_INET, SOCK_DGRAM, 0);
  strcpy(request.ifr_name, "lo");
  request.ifr_mtu = 4096;
  return result(ioctl(s, SIOCSIFMTU, &request));
}

const struct attack system_attacks[] = {
    {"mount_tmpfs", mount_tmpfs}, {"mount_proc", mount_proc}, {"bind_mount", bind_mount},
    {"remount_root", remount_root}, {"unmount_proc", unmount_proc}, {"new_mount_api", new_mount_api},
    {"clone_mount", clone_mount}, {"change_root", change_root}, {"pivot", pivot}, {"set_hostname", set_hostname},
    {"set_domain", set_domain}, {"write_root", write_root}, {"write_usr", write_usr}, {"write_etc", write_etc},
    {"write_opt", write_opt}, {"write_dev", write_dev}, {"write_run", write_run}, {"write_passwd", write_passwd},
    {"write_shell", write_shell}, {"write_sysctl", write_sysctl}, {"write_core_pattern", write_core_pattern},
    {"write_namespace_limit", write_namespace_limit}, {"write_sysrq", write_sysrq}, {"read_sysfs", read_sysfs},
    {"read_kcore", read_kcore}, {"read_kallsyms", read_kallsyms}, {"read_timer_list", read_timer_list},
    {"read_interrupts", read_interrupts}, {"read_boot_line", read_boot_line}, {"read_slabs", read_slabs},
    {"read_io_memory", read_io_memory}, {"read_key_users", read_key_users}, {"read_shadow", read_shadow},
    {"write_cgroup", write_cgroup}, {"make_char_device", make_char_device}, {"make_block_device", make_block_device},
    {"other_device", other_device}, {"push_terminal_input", push_terminal_input}, {"connect_tcp", connect_tcp},
    {"connect_unix", connect_unix}, {"cloud_metadata", cloud_metadata}, {"configure_loopback", configure_loopback},
    {NULL, NULL}};
