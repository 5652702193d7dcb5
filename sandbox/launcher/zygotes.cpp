// See zygotes.h.
#include "sandbox/launcher/zygotes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/launcher/child_steps.h"
#include "sandbox/launcher/image_templates.h"
#include "sandbox/launcher/session_child.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"
#include "sandbox/wire/setup_protocol.h"
#include "sandbox/wire/zygote_protocol.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;
using wire::Flavour;

/// A start that came to nothing is not repeated sooner; doubled with every further one, up to 2^6.
constexpr std::uint64_t kRetryNs = sys::kNsPerSecond;
/// Importing the big libraries takes a second or two on an idle machine.
constexpr std::uint64_t kStartTimeoutNs = 60 * sys::kNsPerSecond;
/// A fork takes a millisecond or two; init waits two seconds for what comes of it, from when it counts.
constexpr std::uint64_t kForkTimeoutNs = 4 * sys::kNsPerSecond;
constexpr std::uint32_t kFailuresToGiveUp = 3;

const char* name_of(Flavour flavour) { return flavour == Flavour::data ? "data" : "min"; }

std::string driver_file(std::uint64_t image, const char* file) {
  return template_path(image) + "/opt/codespace/kernels/" + kZygoteLanguage + "/" + file;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

struct ZygotePlan {
  std::uint64_t image;
  int channel, library, seccomp;
  std::vector<char*> argv, envp;
};

/// The zygote's own view of the image: the template, and small writable places, private to it,
/// for libraries that insist on a cache while they are imported.
bool mount_view(std::uint64_t image) {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
      ::mount(template_path(image).c_str(), kNewRoot, nullptr, MS_BIND | MS_REC, nullptr) != 0 || ::chdir(kNewRoot) != 0)
    return false;
  for (const char* place : {"tmp", "home/sandbox", "workspace", "dev/shm"}) {
    if (::mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=16m,nr_inodes=1024,mode=0700") != 0) return false;
  }
  // The host's, read-only: it is left behind on the way into a session.
  return ::mount("/proc", "proc", nullptr, MS_BIND | MS_REC, nullptr) == 0 && sys::pivot_root(".", ".") == 0 &&
         ::umount2(".", MNT_DETACH) == 0 && ::chdir("/workspace") == 0;
}

bool place_descriptors(const ZygotePlan& plan) {
  const int sources[] = {plan.channel, plan.library, plan.seccomp};
  int high[3];
  for (int i = 0; i < 3; ++i) {
    high[i] = ::fcntl(sources[i], F_DUPFD_CLOEXEC, 100);
    if (high[i] < 0) return false;
  }
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  // Descriptor 2 stays the launcher's: what an import complains about belongs in its log.
  return null >= 0 && ::dup2(null, 0) == 0 && ::dup2(null, 1) == 1 && ::dup2(high[0], wire::kZygoteChannelFd) >= 0 &&
         ::dup2(high[1], wire::kZygoteLibraryFd) >= 0 && ::dup2(high[2], wire::kZygoteSeccompFd) >= 0 &&
         sys::close_range(wire::kZygoteSeccompFd + 1, ~0U, CLOSE_RANGE_UNSHARE) == 0;
}

[[noreturn]] void become_zygote(const ZygotePlan& plan) {
  constexpr unsigned long kBits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED;
  const bool confined = ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 &&
                        sys::write_file_at(AT_FDCWD, "/proc/self/oom_score_adj", kOomScore) && mount_view(plan.image) &&
                        place_descriptors(plan) && set_resource_limits() && ::setsid() >= 0 &&
                        ::prctl(PR_SET_SECUREBITS, kBits, 0, 0, 0) == 0 && drop_bounding_set() && set_capabilities(0, 0) &&
                        ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  reset_signals();
  if (confined) ::execve(plan.argv[0], plan.argv.data(), plan.envp.data());
  const char* why = ::strerror(errno);
  ::fprintf(stderr, "<4>a zygote could not be set up: %s\n", why);
  ::_exit(1);
}

}  // namespace

bool Zygotes::offered(std::uint64_t image, Flavour flavour) {
  const std::string wanted = name_of(flavour);
  for (const std::string& line : lines_of(sys::read_file_at(AT_FDCWD, driver_file(image, "zygotes").c_str()))) {
    if (line == wanted) return true;
  }
  return false;
}

Zygotes::Zygote* Zygotes::find(std::uint64_t image, Flavour flavour) {
  for (Zygote& zygote : zygotes_) {
    if (zygote.image == image && zygote.flavour == flavour && !zygote.successor) return &zygote;
  }
  return nullptr;
}

bool Zygotes::ready(std::uint64_t image, Flavour flavour) {
  if (flavour == Flavour::none || !library_) return false;
  Zygote* zygote = find(image, flavour);
  if (zygote == nullptr) {
    zygote = &zygotes_.emplace_back();
    zygote->image = image;
    zygote->flavour = flavour;
    start(*zygote);
  } else if (zygote->state == State::failed) {
    const std::uint64_t pause = kRetryNs << std::min(zygote->attempts, 6U);
    if (sys::monotonic_ns() > zygote->born_ns + pause) start(*zygote);
  }
  return zygote->state == State::ready;
}

bool Zygotes::starting(std::uint64_t image, Flavour flavour) {
  const Zygote* zygote = find(image, flavour);
  return zygote != nullptr && zygote->state == State::starting;
}

void Zygotes::start(Zygote& zygote) {
  zygote.state = State::failed;
  zygote.born_ns = sys::monotonic_ns();
  zygote.forks = zygote.failures = zygote.unanswered = 0;
  zygote.asked_ns = 0;
  ++zygote.attempts;
  if (!offered(zygote.image, zygote.flavour)) return;  // asked again later: the image may be replaced
  std::vector<std::string> arguments = lines_of(sys::read_file_at(AT_FDCWD, driver_file(zygote.image, "argv").c_str()));
  if (arguments.empty()) return fail(zygote, "its argv file is empty", 0);
  arguments.emplace_back("zygote");
  arguments.emplace_back(name_of(zygote.flavour));
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return fail(zygote, "socketpair", errno);
  const UniqueFd child_end(pair[0]);
  zygote.channel.reset(pair[1]);
  ZygotePlan plan{zygote.image, child_end.get(), library_.get(), seccomp_.get(), {}, {}};
  for (std::string& argument : arguments) plan.argv.push_back(argument.data());
  for (const char* variable : wire::kBaseEnvironment) plan.envp.push_back(const_cast<char*>(variable));
  plan.argv.push_back(nullptr);
  plan.envp.push_back(nullptr);

  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  const pid_t pid = sys::clone3(args);
  if (pid < 0) return fail(zygote, "clone3", errno);
  if (pid == 0) become_zygote(plan);
  zygote.pidfd.reset(pidfd);
  zygote.state = State::starting;
}

void Zygotes::fail(Zygote& zygote, const char* why, int sys_errno) {
  ::fprintf(stderr, "<4>zygote failed image=%016llx flavour=%s why=\"%s\" errno=%d; kernels start cold until another is up\n",
            static_cast<unsigned long long>(zygote.image), name_of(zygote.flavour), why, sys_errno);
  zygote.channel.reset();
  if (zygote.pidfd) (void)sys::pidfd_send_signal(zygote.pidfd.get(), SIGKILL);  // reaped when its pidfd says so
  zygote.state = State::failed;
  zygote.born_ns = sys::monotonic_ns();
}

bool Zygotes::fork(std::uint64_t image, Flavour flavour, bool group_by_clone, sys::Processors processors, std::span<const int> descriptors) {
  Zygote* zygote = find(image, flavour);
  if (zygote == nullptr || zygote->state != State::ready || descriptors.size() > wire::kZygoteMaxFds) return false;
  wire::ZygoteRequest request;
  request.processors = processors;
  request.group_by_clone = group_by_clone ? 1 : 0;
  iovec part{&request, sizeof request};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * wire::kZygoteMaxFds)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
  ::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  if (::sendmsg(zygote->channel.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) != static_cast<ssize_t>(sizeof request)) {
    // Full: it has hundreds of requests before it. Anything else: it is gone.
    if (errno != EAGAIN) fail(*zygote, "it does not take requests", errno);
    return false;
  }
  ++zygote->forks;
  if (zygote->unanswered++ == 0) zygote->asked_ns = sys::monotonic_ns();
  return true;
}

void Zygotes::on_channel(Zygote& zygote) {
  wire::ZygoteReply reply;
  const ssize_t n = ::recv(zygote.channel.get(), &reply, sizeof reply, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n != static_cast<ssize_t>(sizeof reply) || reply.magic != wire::kZygoteMagic) return fail(zygote, "it ended", 0);
  if (zygote.state == State::starting) {
    zygote.state = State::ready;
    zygote.attempts = 0;
    zygote.born_ns = sys::monotonic_ns();
    if (!zygote.successor) return;
    Zygote* before = find(zygote.image, zygote.flavour);
    zygote.successor = false;
    if (before != nullptr) before->successor = true, before->state = State::failed, before->channel.reset();  // it exits
    return;
  }
  if (zygote.unanswered > 0) --zygote.unanswered;
  zygote.asked_ns = zygote.unanswered > 0 ? sys::monotonic_ns() : 0;
  zygote.failures = reply.sys_errno == 0 ? 0 : zygote.failures + 1;
  if (zygote.failures >= kFailuresToGiveUp) fail(zygote, "forks fail", reply.sys_errno);
}

void Zygotes::add_polled(std::vector<pollfd>& polled) const {
  for (const Zygote& zygote : zygotes_) {
    polled.push_back({zygote.pidfd ? zygote.pidfd.get() : -1, POLLIN, 0});
    polled.push_back({zygote.channel ? zygote.channel.get() : -1, POLLIN, 0});
  }
}

void Zygotes::on_polled(std::span<const pollfd> polled) {
  std::size_t i = 0;
  for (Zygote& zygote : zygotes_) {
    if (i + 1 >= polled.size()) return;  // made since the poll
    if (polled[i + 1].revents != 0 && zygote.channel) on_channel(zygote);
    if (polled[i].revents != 0 && zygote.pidfd) {
      siginfo_t info{};
      if (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(zygote.pidfd.get()), &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
        zygote.pidfd.reset();
        if (zygote.state != State::failed) fail(zygote, "it exited", 0);
      }
    }
    i += 2;
  }
  // Successors that failed and predecessors that were replaced; the entry of a kind itself stays.
  zygotes_.remove_if([](const Zygote& z) { return z.successor && z.state == State::failed && !z.pidfd; });
}

bool Zygotes::waiting() const {
  return std::any_of(zygotes_.begin(), zygotes_.end(), [](const Zygote& z) { return z.asked_ns != 0 || z.state == State::starting; });
}

void Zygotes::check_time() {
  const std::uint64_t now = sys::monotonic_ns();
  for (Zygote& zygote : zygotes_) {
    if (zygote.state == State::starting && now > zygote.born_ns + kStartTimeoutNs) fail(zygote, "it does not get ready", ETIMEDOUT);
    if (zygote.state == State::ready && zygote.asked_ns != 0 && now > zygote.asked_ns + kForkTimeoutNs) fail(zygote, "a fork does not end", ETIMEDOUT);
  }
}

void Zygotes::renew() {
  const std::uint64_t now = sys::monotonic_ns();
  for (Zygote& zygote : zygotes_) {
    const bool due = zygote.forks >= kZygoteForks || (zygote.forks > 0 && now > zygote.born_ns + kZygoteAgeNs);
    if (zygote.state != State::ready || zygote.successor || !due) continue;
    bool coming = false;
    for (const Zygote& other : zygotes_)
      coming = coming || (other.successor && other.image == zygote.image && other.flavour == zygote.flavour && other.state == State::starting);
    if (coming) continue;
    Zygote& next = zygotes_.emplace_back();
    next.image = zygote.image;
    next.flavour = zygote.flavour;
    next.successor = true;
    start(next);
    return;  // one at a time: it is a second of work
  }
}

void Zygotes::kill_all() {
  for (Zygote& zygote : zygotes_) {
    if (zygote.pidfd) (void)sys::pidfd_send_signal(zygote.pidfd.get(), SIGKILL);
  }
}

}  // namespace codespace::launcher
