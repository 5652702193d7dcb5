/* System calls that lead into rarely used, privileged or often broken kernel code. */
#include "probe.h"

#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <sys/fanotify.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#ifdef __x86_64__
#include <asm/ldt.h>
#include <sys/io.h>
#endif

static int io_uring(const char *a) {
  (void)a;
  struct io_uring_params params = {0};
  return result(syscall(SYS_io_uring_setup, 1, &params));
}
static int io_setup(const char *a) {
  (void)a;
  aio_context_t context = 0;
  return result(syscall(SYS_io_setup, 1, &context));
}
static int bpf_map(const char *a) {
  (void)a;
  union bpf_attr attr;
  memset(&attr, 0, sizeof attr);
  attr.map_type = BPF_MAP_TYPE_ARRAY;
  attr.key_size = attr.value_size = 4;
  attr.max_entries = 1;
  return result(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
}
static int perf(const char *a) {
  (void)a;
  struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof attr, .config = PERF_COUNT_SW_CPU_CLOCK};
  return result(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}
static int userfaultfd(const char *a) { (void)a; return result(syscall(SYS_userfaultfd, O_CLOEXEC)); }
static int keyctl_session(const char *a) { (void)a; return result(syscall(SYS_keyctl, 0, -3, 1, 0, 0)); }
static int add_key(const char *a) {
  (void)a;
  return result(syscall(SYS_add_key, "user", "codespace-probe", "x", 1, -2));
}
static int request_key(const char *a) {
  (void)a;
  long rc = syscall(SYS_request_key, "user", "codespace-absent", NULL, 0);
  return rc < 0 && errno == ENOKEY ? 0 : result(rc);
}
static int memfd_secret(const char *a) { (void)a; return result(syscall(SYS_memfd_secret, 0)); }
static int fanotify(const char *a) { (void)a; return result(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY)); }

static int splice_page(const char *a) {
  (void)a;
  int ends[2];
  int file = open("/proc/self/exe", O_RDONLY);
  if (file < 0 || pipe(ends) != 0) return errno;
  return result(splice(file, NULL, ends[1], NULL, 16, 0));
}
static int vmsplice_page(const char *a) {
  (void)a;
  int ends[2];
  char byte = 0;
  struct iovec part = {&byte, 1};
  if (pipe(ends) != 0) return errno;
  return result(vmsplice(ends[1], &part, 1, 0));
}
static int tee_pipe(const char *a) {
  (void)a;
  int from[2], to[2];
  if (pipe(from) != 0 || pipe(to) != 0 || write(from[1], "x", 1) != 1) return errno;
  return result(tee(from[0], to[1], 1, 0));
}

/* --- sockets ------------------------------------------------------------------------------ */

static int open_socket(unsigned long family, int type, int protocol) {
  long fd = syscall(SYS_socket, family, type, protocol);
  if (fd < 0) return errno;
  close((int)fd);
  return 0;
}
static int af_alg(const char *a) { (void)a; return open_socket(AF_ALG, SOCK_SEQPACKET, 0); }
static int af_vsock(const char *a) { (void)a; return open_socket(AF_VSOCK, SOCK_STREAM, 0); }
static int af_packet(const char *a) { (void)a; return open_socket(AF_PACKET, SOCK_RAW, 0); }
static int af_packet_high_bits(const char *a) { (void)a; return open_socket((1UL << 32) | AF_PACKET, SOCK_RAW, 0); }
static int raw_ip(const char *a) { (void)a; return open_socket(AF_INET, SOCK_RAW, 1); }
static int raw_ip6(const char *a) { (void)a; return open_socket(AF_INET6, SOCK_RAW, 58); }
static int netlink_generic(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC); }
static int netlink_xfrm(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM); }
static int netlink_netfilter(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER); }
static int netlink_audit(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT); }
static int netlink_uevent(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT); }
static int netlink_diag(const char *a) { (void)a; return open_socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG); }
/* Whatever else this kernel has: RDS, TIPC, RXRPC, Bluetooth, CAN, XDP, and the next one. */
static int any_other_family(const char *a) {
  (void)a;
  for (unsigned long family = 3; family < 64; ++family) {
    if (family == AF_INET6 || family == AF_NETLINK) continue;
    for (int type = SOCK_STREAM; type <= SOCK_SEQPACKET; ++type) {
      if (open_socket(family, type, 0) == 0) {
        printf("family %lu type %d\n", family, type);
        return 0;
      }
    }
  }
  return EAFNOSUPPORT;
}

/* --- administration ----------------------------------------------------------------------- */

static int kexec(const char *a) { (void)a; return result(syscall(SYS_kexec_load, 0, 0, NULL, 0)); }
static int load_module(const char *a) { (void)a; return reached(syscall(SYS_init_module, "", 0, "")); }
static int unload_module(const char *a) { (void)a; return reached(syscall(SYS_delete_module, "codespace_absent", O_NONBLOCK)); }
static int set_time_zone(const char *a) {
  (void)a;
  struct timezone utc = {0, 0};
  return result(syscall(SYS_settimeofday, NULL, &utc));
}
static int kernel_log(const char *a) { (void)a; return result(syscall(SYS_syslog, 10, NULL, 0)); }
static int swap_on(const char *a) { (void)a; return reached(syscall(SYS_swapon, "/codespace-absent", 0)); }
static int memory_policy(const char *a) { (void)a; return result(syscall(SYS_set_mempolicy, 0, NULL, 0)); }
static int handle_of_file(const char *a) {
  (void)a;
  union {
    struct file_handle handle;
    char room[256];
  } u;
  int mount_id;
  u.handle.handle_bytes = 128;
  return result(name_to_handle_at(AT_FDCWD, "/", &u.handle, &mount_id, 0));
}
static int open_by_handle(const char *a) {
  (void)a;
  struct {
    struct file_handle handle;
    char room[16];
  } u = {.handle = {.handle_bytes = 8, .handle_type = 1}};
  int root = open("/", O_RDONLY | O_DIRECTORY);
  return reached(open_by_handle_at(root, &u.handle, O_RDONLY));
}
static int read_implies_exec(const char *a) { (void)a; return result(personality(READ_IMPLIES_EXEC)); }
static int no_randomization(const char *a) { (void)a; return result(personality(ADDR_NO_RANDOMIZE)); }

#ifdef __x86_64__
static int local_descriptor_table(const char *a) {
  (void)a;
  char table[16];
  return result(syscall(SYS_modify_ldt, 0, table, sizeof table));
}
static int io_ports(const char *a) { (void)a; return result(iopl(3)); }
/* Getpid by the two other entrances of the kernel: both hide the call from a native filter. */
static int i386_call(const char *a) {
  (void)a;
  long rc = 20;
  __asm__ volatile("int $0x80" : "+a"(rc) : : "memory", "r8", "r9", "r10", "r11");
  if (rc >= 0) return 0;
  return (int)-rc;
}
static int x32_call(const char *a) { (void)a; return result(syscall(0x40000000 + 39)); }
#endif

const struct attack kernel_attacks[] = {
    {"io_uring", io_uring}, {"io_setup", io_setup}, {"bpf_map", bpf_map}, {"perf", perf},
    {"userfaultfd", userfaultfd}, {"keyctl_session", keyctl_session}, {"add_key", add_key},
    {"request_key", request_key}, {"memfd_secret", memfd_secret}, {"fanotify", fanotify},
    {"splice_page", splice_page}, {"vmsplice_page", vmsplice_page}, {"tee_pipe", tee_pipe},
    {"af_alg", af_alg}, {"af_vsock", af_vsock}, {"af_packet", af_packet},
    {"af_packet_high_bits", af_packet_high_bits}, {"raw_ip", raw_ip}, {"raw_ip6", raw_ip6},
    {"netlink_generic", netlink_generic}, {"netlink_xfrm", netlink_xfrm}, {"netlink_netfilter", netlink_netfilter},
    {"netlink_audit", netlink_audit}, {"netlink_uevent", netlink_uevent}, {"netlink_diag", netlink_diag},
    {"any_other_family", any_other_family}, {"kexec", kexec}, {"load_module", load_module},
    {"unload_module", unload_module}, {"set_time_zone", set_time_zone}, {"kernel_log", kernel_log},
    {"swap_on", swap_on}, {"memory_policy", memory_policy}, {"handle_of_file", handle_of_file},
    {"open_by_handle", open_by_handle}, {"read_implies_exec", read_implies_exec},
    {"no_randomization", no_randomization},
#ifdef __x86_64__
    {"local_descriptor_table", local_descriptor_table}, {"io_ports", io_ports}, {"i386_call", i386_call},
    {"x32_call", x32_call},
#endif
    {NULL, NULL}};
