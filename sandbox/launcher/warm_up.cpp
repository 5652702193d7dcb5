// Making kernels ready in a session that nobody used yet: the launcher tells the session's
// init to expect one, and, if it comes from a zygote, gives the zygote what init answered.
// Init is the judge of whether a session is fresh: it refuses once the tenant ran anything.
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <utility>

#include "sandbox/launcher/sessions.h"
#include "sandbox/sys/clock.h"
#include "sandbox/wire/codec.h"
#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/zygote_protocol.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;

UniqueFd connect_init(const Session& session) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = socket_of(session.name);
  if (path.size() >= sizeof address.sun_path) return {};
  ::memcpy(address.sun_path, path.data(), path.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd && ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.reset();
  return fd;
}

/// `joins` as in wire::InitRequest::prepare.
bool send_prepare(const UniqueFd& to, std::string_view language, std::uint32_t joins, std::span<const int> descriptors) {
  wire::Writer writer;
  writer.bytes(language);
  writer.u32(joins);
  std::vector<char> frame = writer.frame(static_cast<std::uint32_t>(wire::InitRequest::prepare));
  iovec part{frame.data(), frame.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(3 * sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    ::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  return ::sendmsg(to.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(frame.size());
}

/// Letters, digits and dashes: a name, and never a path.
bool is_group_name(std::string_view name) {
  for (const char c : name) {
    if ((c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-') return false;
  }
  return !name.empty();
}

}  // namespace

/// Everything this session was to find ready.
void Sessions::warm_up(Session& session) {
  WarmUp& join = session.join;
  const bool forks = zygotes_.ready(session.image, session.flavour);
  if (join.connection) {
    // A bare session that is handed over: its init expects a kernel already.
    join.flavour = session.flavour;
    if (!forks || !forward(session)) return settle_warm_up(session, join, false);
    join.unlimited_since_ns = sys::monotonic_ns();
  } else if (forks || (session.bare && session.state == SessionState::warming)) {
    (void)begin_join(session, session.flavour);
  }
  if (session.state != SessionState::warming) return;
  if ((session.wants_ahead & wire::kAheadJavascript) != 0) (void)begin_ahead(session, "javascript");
  if (!session.join.connection && !session.ahead.connection) session.state = SessionState::pooled;
}

bool Sessions::begin_join(Session& session, wire::Flavour flavour) {
  WarmUp& join = session.join;
  if (join.connection) return false;
  int control[2];
  int out[2];
  int err[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) != 0) return false;
  UniqueFd init_control(control[0]);
  join.ends[0].reset(control[1]);
  if (::pipe2(out, O_CLOEXEC) != 0) return false;
  UniqueFd init_out(out[0]);
  join.ends[1].reset(out[1]);
  if (::pipe2(err, O_CLOEXEC) != 0) return false;
  UniqueFd init_err(err[0]);
  join.ends[2].reset(err[1]);
  // As init does with the pipes of the kernels it starts: they may be opened anew by the tenant.
  if (::fchmod(out[1], 0666) != 0 || ::fchmod(err[1], 0666) != 0) return false;
  join.flavour = flavour;
  UniqueFd connection = connect_init(session);
  const int fds[] = {init_control.get(), init_out.get(), init_err.get()};
  if (!connection || !send_prepare(connection, kZygoteLanguage, flavour == wire::Flavour::none ? 2 : 1, fds)) return false;
  join.connection = std::move(connection);
  return true;
}

bool Sessions::begin_ahead(Session& session, std::string_view language) {
  UniqueFd connection = connect_init(session);
  if (!connection || !send_prepare(connection, language, 0, {})) return false;
  session.ahead.connection = std::move(connection);
  return true;
}

bool Sessions::fork_kernel(Session& session, wire::Flavour flavour) {
  if (session.state != SessionState::running || session.next != wire::Flavour::none || !zygotes_.ready(session.image, flavour)) return false;
  if (session.join.connection) {
    session.next = flavour;  // when the one under way has arrived
    return true;
  }
  if (!begin_join(session, flavour)) return false;
  rouse(session);
  session.join.asked = true;
  return true;
}

void Sessions::on_warm_up(Session& session, WarmUp& warm_up) {
  struct {
    wire::FrameHeader header;
    char name[wire::kMaxGroupName];
  } answer;
  const ssize_t n = ::recv(warm_up.connection.get(), &answer, sizeof answer, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const bool fine = n >= static_cast<ssize_t>(sizeof answer.header) && answer.header.type == static_cast<std::uint32_t>(wire::InitReply::ok);
  const bool first = &warm_up == &session.join && warm_up.ends[0];
  if (!fine || !first) return settle_warm_up(session, warm_up, fine);
  const std::string_view name(answer.name, static_cast<std::size_t>(n) - sizeof answer.header);
  if (name.size() != answer.header.length || !is_group_name(name) || !open_entrances(session, name)) return settle_warm_up(session, warm_up, false);
  if (warm_up.flavour == wire::Flavour::none) {
    session.state = SessionState::pooled;
    return;
  }
  if (!forward(session)) return settle_warm_up(session, warm_up, false);
  if (warm_up.asked) {
    warm_up.asked = false;
    on_kernel(session.key, reply_with(wire::LauncherStatus::ok, session.key));
  }
}

/// What init says is a name below its own group and nothing else; the descriptors are the launcher's.
bool Sessions::open_entrances(Session& session, std::string_view group) {
  auto entrances = cgroups_.entrances(session.group, group);
  if (entrances) session.join.entrances = std::move(*entrances);
  return entrances.has_value();
}

/// Init expects the kernel: now the zygote may fork it.
bool Sessions::forward(Session& session) {
  WarmUp& join = session.join;
  int fds[wire::kZygoteMaxFds] = {session.pidfd.get(), join.ends[0].get(), join.ends[1].get(), join.ends[2].get()};
  std::size_t count = wire::kZygoteFixedFds;
  for (const UniqueFd& entrance : join.entrances) fds[count++] = entrance.get();
  const bool by_clone = cgroups_.backend() == "v2";
  const bool asked = session.pidfd && zygotes_.fork(session.image, join.flavour, by_clone, processors_for(session.limits.cpu_milli, session.lease), std::span(fds, count));
  for (UniqueFd& end : join.ends) end.reset();
  join.entrances.clear();
  return asked;
}

/// A kernel that takes longer than usual into a bare session: init is told to count its time. Mostly
/// it is there long before, and the message, which would have to wake init, is spared.
void Sessions::limit_joins(std::uint64_t now) {
  for (auto& [lease, session] : busy_) {
    WarmUp& join = session->join;
    if (join.unlimited_since_ns == 0 || now < join.unlimited_since_ns + kUsualJoinNs) continue;
    join.unlimited_since_ns = 0;
    (void)::send(join.connection.get(), &wire::kForkUnderWay, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
}

void Sessions::settle_warm_up(Session& session, WarmUp& warm_up, bool there) {
  for (UniqueFd& end : warm_up.ends) end.reset();
  warm_up.entrances.clear();
  warm_up.unlimited_since_ns = 0;
  warm_up.connection.reset();
  if (warm_up.asked) {
    warm_up.asked = false;
    on_kernel(session.key, reply_with(there ? wire::LauncherStatus::ok : wire::LauncherStatus::setup_failed, session.key));
  }
  if (&warm_up == &session.join && session.next != wire::Flavour::none) {
    const wire::Flavour next = std::exchange(session.next, wire::Flavour::none);
    session.join.asked = session.state == SessionState::running && begin_join(session, next);
    if (!session.join.asked) on_kernel(session.key, reply_with(wire::LauncherStatus::setup_failed, session.key));
  }
  if (session.state == SessionState::warming && !session.channel && !session.join.connection && !session.ahead.connection)
    session.state = SessionState::pooled;
}

}  // namespace codespace::launcher
