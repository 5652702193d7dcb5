// The seccomp policy, evaluated: both generated programs run in a small BPF interpreter over
// tables of calls. No system call is made; the real filter is probed in tests/security.
#include "sandbox/launcher/seccomp_policy.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <catch2/catch.hpp>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iomanip>
#include <map>
#include <sched.h>
#include <set>
#include <sstream>
#include <string>

#include "tests/support/seccomp_cases.h"

using codespace::launcher::Architecture;
using codespace::launcher::SeccompPrograms;
namespace test = codespace::test;

namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kArch = AUDIT_ARCH_X86_64;
#else
constexpr std::uint32_t kArch = AUDIT_ARCH_AARCH64;
#endif

/// Classic BPF as seccomp(2) uses it: 32-bit loads from seccomp_data, jumps, returns.
std::uint32_t evaluate(const std::vector<std::uint8_t>& bytes, const seccomp_data& data) {
  std::vector<sock_filter> program(bytes.size() / sizeof(sock_filter));
  std::memcpy(program.data(), bytes.data(), bytes.size());
  std::uint32_t a = 0;
  for (std::size_t pc = 0; pc < program.size(); ++pc) {
    const sock_filter& op = program[pc];
    switch (op.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        REQUIRE(op.k + 4 <= sizeof data);
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + op.k, 4);
        break;
      case BPF_ALU | BPF_AND | BPF_K: a &= op.k; break;
      case BPF_JMP | BPF_JA: pc += op.k; break;
      case BPF_JMP | BPF_JEQ | BPF_K: pc += a == op.k ? op.jt : op.jf; break;
      case BPF_JMP | BPF_JGT | BPF_K: pc += a > op.k ? op.jt : op.jf; break;
      case BPF_JMP | BPF_JGE | BPF_K: pc += a >= op.k ? op.jt : op.jf; break;
      case BPF_JMP | BPF_JSET | BPF_K: pc += (a & op.k) != 0 ? op.jt : op.jf; break;
      case BPF_RET | BPF_K: return op.k;
      default: FAIL("instruction not expected of libseccomp: " << op.code);
    }
  }
  FAIL("program runs off its end");
  return 0;
}

const SeccompPrograms& programs(Architecture architecture = codespace::launcher::kNative) {
  static std::map<Architecture, SeccompPrograms> built;
  if (!built.contains(architecture)) {
    auto result = codespace::launcher::build_seccomp_programs(architecture);
    REQUIRE(result.has_value());
    built[architecture] = std::move(*result);
  }
  return built[architecture];
}

/// As the kernel: the stricter of both, and among equals the filter loaded last, B.
int combined(const SeccompPrograms& both, const seccomp_data& data) {
  int result = 0;
  for (const auto* program : {&both.b, &both.a}) {
    const std::uint32_t action = evaluate(*program, data);
    if ((action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_KILL_PROCESS) return -1;
    if ((action & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO && result == 0) result = static_cast<int>(action & SECCOMP_RET_DATA);
  }
  return result;
}

/// 0: allowed; an errno; or -1: the process dies.
int verdict(int number, std::initializer_list<std::uint64_t> args = {}, std::uint32_t arch = kArch) {
  seccomp_data data{};
  data.nr = number;
  data.arch = arch;
  std::size_t i = 0;
  for (const std::uint64_t arg : args) data.args[i++] = arg;
  return combined(programs(), data);
}

/// One line per instruction, so that a change of the policy or of libseccomp is seen in a review.
std::string listing() {
  std::ostringstream out;
  for (const auto& [name, architecture] : {std::pair("x86_64", Architecture::x86_64), std::pair("aarch64", Architecture::aarch64)}) {
    for (const auto& [filter, bytes] : {std::pair("A", &programs(architecture).a), std::pair("B", &programs(architecture).b)}) {
      out << "# " << name << " filter " << filter << ": " << bytes->size() / sizeof(sock_filter) << " instructions\n";
      for (std::size_t at = 0; at < bytes->size(); at += sizeof(sock_filter)) {
        sock_filter op;
        std::memcpy(&op, bytes->data() + at, sizeof op);
        out << std::hex << std::setfill('0') << std::setw(4) << op.code << ' ' << std::setw(2) << unsigned{op.jt} << ' ' << std::setw(2) << unsigned{op.jf} << ' ' << std::setw(8) << op.k
            << std::dec << '\n';
      }
    }
  }
  return out.str();
}

constexpr int kNumbers = 1024;  // the newest call of Linux 6.18 has 470

}  // namespace

TEST_CASE("ordinary calls of python, node and shells are allowed", "[seccomp]") {
  for (const int number : {SYS_read, SYS_write, SYS_openat, SYS_mmap, SYS_execve, SYS_futex, SYS_epoll_pwait,
                           SYS_getrandom, SYS_statx, SYS_copy_file_range, SYS_memfd_create, SYS_pidfd_open,
                           SYS_sendfile, SYS_rseq, SYS_prlimit64})
    CHECK(verdict(number) == 0);
}

TEST_CASE("privileged and dangerous calls are refused with the planned errno", "[seccomp]") {
  for (const int number : {SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_setns, SYS_unshare, SYS_ptrace,
                           SYS_process_vm_readv, SYS_process_vm_writev, SYS_kcmp, SYS_pidfd_getfd,
                           SYS_open_by_handle_at, SYS_reboot, SYS_sethostname, SYS_settimeofday, SYS_syslog})
    CHECK(verdict(number) == EPERM);
  for (const int number : {SYS_clone3, SYS_io_uring_setup, SYS_io_uring_enter, SYS_keyctl, SYS_add_key,
                           SYS_request_key, SYS_splice, SYS_tee, SYS_vmsplice, SYS_userfaultfd, SYS_perf_event_open,
                           SYS_bpf, SYS_fanotify_init, SYS_fsopen, SYS_move_mount, SYS_open_tree, SYS_init_module,
                           SYS_finit_module, SYS_kexec_load, SYS_swapon, SYS_quotactl, SYS_io_setup})
    CHECK(verdict(number) == ENOSYS);
}

TEST_CASE("every number the table does not name answers ENOSYS, so libc falls back", "[seccomp]") {
  for (int number = 500; number < 2000; ++number) CHECK(verdict(number) == ENOSYS);
}

TEST_CASE("clone makes threads and forks but no namespace", "[seccomp]") {
  CHECK(verdict(SYS_clone, {0x01200011}) == 0);  // fork by glibc
  CHECK(verdict(SYS_clone, {0x003d0f00}) == 0);  // pthread_create
  for (const std::uint64_t flag : {0x00020000ULL, 0x02000000ULL, 0x04000000ULL, 0x08000000ULL, 0x10000000ULL,
                                   0x20000000ULL, 0x40000000ULL}) {
    CHECK(verdict(SYS_clone, {flag}) == EPERM);
    CHECK(verdict(SYS_clone, {flag | 0x01200011}) == EPERM);
  }
}

TEST_CASE("socket families are an allow list over all 64 bits", "[seccomp]") {
  CHECK(verdict(SYS_socket, {AF_UNIX, SOCK_STREAM}) == 0);
  CHECK(verdict(SYS_socket, {AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK}) == 0);
  CHECK(verdict(SYS_socket, {AF_INET6, SOCK_DGRAM}) == 0);
  CHECK(verdict(SYS_socket, {AF_INET, SOCK_STREAM, 6}) == 0);
  CHECK(verdict(SYS_socket, {AF_INET, SOCK_DGRAM, 17}) == 0);
  CHECK(verdict(SYS_socket, {AF_INET, SOCK_STREAM, 262 /* MPTCP */}) == ENOSYS);
  CHECK(verdict(SYS_socket, {AF_INET6, SOCK_DGRAM, 136 /* UDP-Lite */}) == ENOSYS);
  CHECK(verdict(SYS_socket, {AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0}) == EAFNOSUPPORT);
  CHECK(verdict(SYS_socket, {AF_NETLINK, SOCK_RAW, 6 /* XFRM */}) == EAFNOSUPPORT);
  CHECK(verdict(SYS_socket, {AF_INET, SOCK_RAW}) == ENOSYS);
  CHECK(verdict(SYS_socket, {AF_PACKET, SOCK_RAW}) == ENOSYS);
  CHECK(verdict(SYS_socket, {AF_ALG, SOCK_SEQPACKET}) == EAFNOSUPPORT);
  CHECK(verdict(SYS_socket, {AF_VSOCK, SOCK_STREAM}) == EAFNOSUPPORT);
  CHECK(verdict(SYS_socket, {(1ULL << 32) | AF_INET, SOCK_STREAM}) == ENOSYS);
  CHECK(verdict(SYS_socket, {33 /* RXRPC */, SOCK_DGRAM}) == ENOSYS);
  CHECK(verdict(SYS_socketpair, {AF_UNIX, SOCK_STREAM}) == 0);
  CHECK(verdict(SYS_socketpair, {30 /* TIPC */, SOCK_STREAM}) == ENOSYS);
}

TEST_CASE("what takes memory that nobody is charged for is refused", "[seccomp]") {
  for (const std::uint64_t option : {26, 50, 51, 52}) {
    CHECK(verdict(SYS_setsockopt, {0, SOL_SOCKET, option}) == EPERM);
    CHECK(verdict(SYS_setsockopt, {0, (1ULL << 32) | SOL_SOCKET, (7ULL << 32) | option}) == EPERM);
  }
  CHECK(verdict(SYS_setsockopt, {0, SOL_SOCKET, 2 /* SO_REUSEADDR */}) == 0);
  CHECK(verdict(SYS_setsockopt, {0, 6, 1 /* TCP_NODELAY */}) == 0);
  CHECK(verdict(SYS_setsockopt, {0, 6, 31 /* TCP_ULP */}) == EPERM);
  for (const int number : {SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr}) CHECK(verdict(number) == EOPNOTSUPP);
  CHECK(verdict(SYS_madvise, {0, 0, 12 /* MADV_MERGEABLE */}) == EINVAL);
  CHECK(verdict(SYS_madvise, {0, 0, 4 /* MADV_DONTNEED */}) == 0);
  CHECK(verdict(SYS_prctl, {67 /* PR_SET_MEMORY_MERGE */}) == EPERM);
  CHECK(verdict(SYS_mmap, {0, 1 << 21, 3, 0x40022 /* MAP_HUGETLB */}) == ENOMEM);
  CHECK(verdict(SYS_mmap, {0, 1 << 21, 3, 0x22}) == 0);
  CHECK(verdict(SYS_memfd_create, {0, 4 /* MFD_HUGETLB */}) == EINVAL);
  CHECK(verdict(SYS_memfd_create, {0, 3}) == 0);
  CHECK(verdict(SYS_shmget, {0, 1 << 21, 04600 /* SHM_HUGETLB */}) == ENOMEM);
  CHECK(verdict(SYS_shmget, {0, 1 << 21, 01600}) == 0);
}

TEST_CASE("terminal injection is vetoed whatever the upper half says", "[seccomp]") {
  for (const std::uint64_t request : {0x5412ULL, 0x541CULL, 0x541DULL}) {
    CHECK(verdict(SYS_ioctl, {0, request}) == EPERM);
    CHECK(verdict(SYS_ioctl, {0, (0xffffULL << 32) | request}) == EPERM);
  }
  CHECK(verdict(SYS_ioctl, {0, 0x5413 /* TIOCGWINSZ */}) == 0);
}

TEST_CASE("only harmless personalities, no device nodes, no securebits", "[seccomp]") {
  CHECK(verdict(SYS_personality, {0}) == 0);
  CHECK(verdict(SYS_personality, {0xffffffff}) == 0);
  CHECK(verdict(SYS_personality, {0x0400000 /* READ_IMPLIES_EXEC */}) == ENOSYS);
  CHECK(verdict(SYS_personality, {0x0040000 /* ADDR_NO_RANDOMIZE */}) == ENOSYS);
  CHECK(verdict(SYS_mknodat, {0, 0, 0010644}) == 0);       // FIFO
  CHECK(verdict(SYS_mknodat, {0, 0, 0020644}) == ENOSYS);  // character device
  CHECK(verdict(SYS_mknodat, {0, 0, 0060644}) == ENOSYS);  // block device
  CHECK(verdict(SYS_prctl, {28 /* PR_SET_SECUREBITS */}) == EPERM);
  CHECK(verdict(SYS_prctl, {35 /* PR_SET_MM */}) == EPERM);
  CHECK(verdict(SYS_prctl, {15 /* PR_SET_NAME */}) == 0);
}

TEST_CASE("a foreign architecture kills the process", "[seccomp]") {
  CHECK(verdict(SYS_read, {}, AUDIT_ARCH_I386) == -1);
  CHECK(verdict(SYS_read, {}, AUDIT_ARCH_ARM) == -1);
#if defined(__x86_64__)
  CHECK(verdict(0x40000000 | SYS_read) == -1);  // x32
#endif
}

TEST_CASE("the compiled programs do what the table says, for every number and every bit of every condition, on both architectures", "[seccomp]") {
  for (const Architecture architecture : {Architecture::x86_64, Architecture::aarch64}) {
    const auto rules = test::rules_of_calls(architecture);
    const SeccompPrograms& both = programs(architecture);
    std::size_t tried = 0;
    for (int number = 0; number < kNumbers; ++number) {
      for (const test::Arguments& arguments : test::tries(rules, number)) {
        seccomp_data data{};
        data.nr = number;
        data.arch = architecture == Architecture::aarch64 ? AUDIT_ARCH_AARCH64 : AUDIT_ARCH_X86_64;
        std::copy(arguments.begin(), arguments.end(), data.args);
        const int got = combined(both, data), wanted = test::planned(rules, number, arguments);
        ++tried;
        if (got != wanted) {
          CAPTURE(number, arguments[0], arguments[1], arguments[2], arguments[3]);
          CHECK(got == wanted);
        }
        data.arch = AUDIT_ARCH_ARM;
        if (combined(both, data) != -1) FAIL("a foreign architecture lives with call " << number);
        data.arch = AUDIT_ARCH_X86_64;
        data.nr = 0x40000000 | number;
        if (architecture == Architecture::x86_64 && combined(both, data) != -1) FAIL("x32 lives with call " << number);
      }
    }
    CHECK(tried > 6000);
  }
}

TEST_CASE("the compiled programs are those that were reviewed", "[seccomp]") {
  const std::string path = std::string(CODESPACE_SOURCE_DIR) + "/tests/unit/launcher/seccomp.golden";
  const std::string now = listing();
  if (std::getenv("CODESPACE_UPDATE_GOLDEN") != nullptr) std::ofstream(path) << now;
  std::ifstream file(path);
  const std::string reviewed((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  INFO("the policy or libseccomp has changed. If that is meant, run this test once with CODESPACE_UPDATE_GOLDEN=1 and review the difference of " << path);
  CHECK((now == reviewed));
}

TEST_CASE("arm64 has the same policy where it has the same calls", "[seccomp]") {
  const auto rules = test::rules_of_calls(Architecture::aarch64);
  const auto plan = [&](const char* call, test::Arguments arguments = {}) { return test::planned(rules, test::number_of(call, Architecture::aarch64), arguments); };
  CHECK(plan("openat") == 0);
  CHECK(plan("mount") == EPERM);
  CHECK(plan("clone3") == ENOSYS);
  CHECK(plan("clone", {CLONE_NEWUSER}) == EPERM);
  CHECK(plan("socket", {AF_NETLINK}) == EAFNOSUPPORT);
  CHECK(plan("bpf") == ENOSYS);
  CHECK(test::number_of("modify_ldt", Architecture::aarch64) < 0);
}

TEST_CASE("every rule says why, no call is refused and allowed at once, and no name is a mistake", "[seccomp]") {
  std::map<std::string, int> unconditional;
  for (const auto& rule : codespace::launcher::seccomp_table()) {
    CAPTURE(std::string(rule.calls), std::string(rule.why));
    CHECK(std::strlen(rule.why) > 0);
    bool conditions = false;
    for (const auto& c : rule.when) {
      CHECK((c.value & ~c.mask) == 0);  // such a condition could never hold
      conditions = conditions || c.mask != 0;
    }
    for (const std::string& call : test::words(rule.calls)) {
      // Known at least to one of the two, or too new for this libseccomp.
      static const std::set<std::string> newer{"fchmodat2", "futex_wake", "futex_wait", "futex_requeue", "futimesat", "set_mempolicy_home_node"};
      CAPTURE(call);
      CHECK((test::number_of(call, Architecture::x86_64) != __NR_SCMP_ERROR || newer.contains(call)));
      if (!conditions && rule.filter == codespace::launcher::Filter::a) CHECK(++unconditional[call] == 1);
    }
  }
  CHECK(unconditional.size() > 290);
}
