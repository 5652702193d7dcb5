// See child_steps.h.
#include "sandbox/launcher/child_steps.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace codespace::launcher {

bool set_resource_limits() {
  const struct {
    __rlimit_resource resource;
    rlim_t value;
  } limits[] = {
      {RLIMIT_NOFILE, 4096},
      // 1, not 0: 0 does not stop a core_pattern pipe helper on the host, 1 does (core(5)).
      {RLIMIT_CORE, 1},
      {RLIMIT_MEMLOCK, 64 << 10},
      {RLIMIT_MSGQUEUE, 800 << 10},
      {RLIMIT_SIGPENDING, 4096},
      {RLIMIT_RTPRIO, 0},
      {RLIMIT_NICE, 0},
  };
  for (const auto& limit : limits) {
    const rlimit value{limit.value, limit.value};
    rlimit now{};
    // Read back: init's check of its posture does not look at these.
    if (::setrlimit(limit.resource, &value) != 0 || ::getrlimit(limit.resource, &now) != 0 || now.rlim_max != limit.value) return false;
  }
  ::umask(022);
  return true;
}

void reset_signals() {
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) (void)::sigaction(signal, &action, nullptr);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

bool set_capabilities(std::uint64_t keep, std::uint64_t inheritable) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  data[0].effective = data[0].permitted = static_cast<std::uint32_t>(keep);
  data[0].inheritable = static_cast<std::uint32_t>(inheritable);
  data[1].effective = data[1].permitted = static_cast<std::uint32_t>(keep >> 32);
  data[1].inheritable = static_cast<std::uint32_t>(inheritable >> 32);
  return ::syscall(SYS_capset, &header, data) == 0;
}

bool drop_bounding_set() {
  int cap = 0;
  while (::prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0) ++cap;
  return errno == EINVAL;  // past the last that this Linux knows
}

}  // namespace codespace::launcher
