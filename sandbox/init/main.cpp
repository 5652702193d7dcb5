// codespace-init: PID 1 of a session.
//
// Theory of operation. The launcher's child executes this static program from a sealed
// memfd, after all confinement is done: it runs as its own user, with three capabilities in
// the session's user namespace (to start and to kill the tenant's processes), no other
// descriptor than those in wire/setup_protocol.h, and an empty environment. It makes itself
// unreadable, loads the two seccomp filters (inherited by all it starts), reports its
// posture to the launcher and closes that channel. From then on it serves the gateway
// (wire/init_protocol.h). It never runs a tenant's code itself, trusts no byte of a
// tenant, and takes the facts of a run from wait statuses and control groups. It outlives
// both gateway and launcher; its own end is the session's end.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "sandbox/init/event_loop.h"
#include "sandbox/init/posture.h"
#include "sandbox/init/reaper.h"
#include "sandbox/init/server.h"
#include "sandbox/init/session.h"
#include "sandbox/sys/syscalls.h"
#include "sandbox/wire/setup_protocol.h"

namespace codespace::init {
namespace {

[[noreturn]] void fail_setup(wire::Stage stage) {
  wire::SetupReport report;
  report.stage = stage;
  report.sys_errno = errno;
  (void)::send(wire::kInitStatusFd, &report, sizeof report, MSG_NOSIGNAL);
  ::_exit(1);
}

void report_ready() {
  wire::SetupReport report;
  report.facts = read_posture();
  if (::send(wire::kInitStatusFd, &report, sizeof report, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof report))
    ::_exit(1);
  ::close(wire::kInitStatusFd);
}

/// SIGCHLD as a descriptor of the loop; everything else a tenant could send is ignored.
int open_signals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  return ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

void hide_from_exec() {
  for (int fd = 3; fd < wire::kInitProgramFd; ++fd) (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
}

}  // namespace

int run(int argc, char** argv) {
  // Unreadable and untraceable before anything of the session exists (ptrace(2)).
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) fail_setup(wire::Stage::init_posture);
  if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0) fail_setup(wire::Stage::init_posture);
  if (!keep_own_capabilities()) fail_setup(wire::Stage::init_posture);
  if (!install_seccomp()) fail_setup(wire::Stage::init_seccomp);
  hide_from_exec();
  const CgroupBackend backend = argc > 1 && ::strcmp(argv[1], "v2") == 0 ? CgroupBackend::v2 : CgroupBackend::v1;

  report_ready();
  EventLoop loop;
  Reaper reaper;
  const int signals = open_signals();
  if (signals < 0) return 1;
  loop.add(signals, EPOLLIN, [&](std::uint32_t) {
    signalfd_siginfo info;
    while (::read(signals, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {}
    reaper.collect();
  });
  const std::string_view processors = argc > 2 && ::strcmp(argv[2], "0") != 0 ? argv[2] : "";
  Session session(loop, reaper, backend, processors);
  Server server(loop, session, sys::UniqueFd(wire::kInitListenFd));
  loop.run();
}

}  // namespace codespace::init

int main(int argc, char** argv) { return codespace::init::run(argc, argv); }
