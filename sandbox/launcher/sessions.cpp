// Sessions from the launcher's side. See the header; a session's life here is
//   preparing -> spare -> starting | warming -> pooled -> running -> ending -> (gone)
// and every failure on the way goes through `ending`, so there is one way to clean up.
#include "sandbox/launcher/sessions.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "sandbox/launcher/posture.h"
#include "sandbox/launcher/session_child.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;
using wire::LauncherReply;
using wire::LauncherStatus;
using wire::Stage;

/// A child that has not reported by then is stuck; creation normally takes milliseconds.
constexpr std::uint64_t kSetupTimeoutNs = 20 * sys::kNsPerSecond;

bool within(std::uint64_t low, std::uint64_t value, std::uint64_t high) { return low <= value && value <= high; }

Result<void> write_id_map(pid_t pid, const char* file, std::uint32_t lease) {
  char path[48];
  ::snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
  char map[96];
  // Three ids and no other: the set-up root, init, the tenant.
  const int n = ::snprintf(map, sizeof map, "0 %u 1\n%u %u 1\n%u %u 1\n", lease, wire::kInitUid, lease + 1,
                           wire::kTenantUid, lease + 2);
  if (!sys::write_file_at(AT_FDCWD, path, std::string_view(map, static_cast<size_t>(n))))
    return sys_error(errno, std::string("write ") + file);
  return {};
}

Result<void> map_ids(pid_t pid, std::uint32_t lease) {
  char path[48];
  ::snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
  // The outer namespace denied it already and that is inherited; saying so twice costs nothing.
  if (!sys::write_file_at(AT_FDCWD, path, "deny") && errno != EPERM) return sys_error(errno, "deny setgroups");
  if (auto mapped = write_id_map(pid, "uid_map", lease); !mapped) return mapped;
  return write_id_map(pid, "gid_map", lease);
}

}  // namespace

sys::Processors processors_for(std::uint32_t cpu_milli, std::uint32_t lease) {
  static const std::uint32_t usable = sys::usable_processors();
  const std::uint32_t count = (cpu_milli + 999) / 1000;
  if (count >= usable || count > kMaxProcessorFiles) return {};
  return {lease / kIdsPerSession * count, count};  // spread over the machine
}

bool limits_permitted(const wire::SessionLimits& l) {
  const wire::SessionLimits& low = wire::kMinLimits;
  const wire::SessionLimits& high = wire::kMaxLimits;
  return within(low.memory_bytes, l.memory_bytes, high.memory_bytes) &&
         within(low.workspace_bytes, l.workspace_bytes, high.workspace_bytes) &&
         within(low.scratch_bytes, l.scratch_bytes, high.scratch_bytes) &&
         within(low.inodes, l.inodes, high.inodes) && within(low.cpu_milli, l.cpu_milli, high.cpu_milli) &&
         within(low.pids, l.pids, high.pids);
}

LauncherReply reply_with(LauncherStatus status, const wire::SessionKey& key) {
  LauncherReply reply;
  reply.status = status;
  reply.session = key;
  return reply;
}

std::size_t take_descriptors(const msghdr& message, std::span<UniqueFd> into) {
  std::size_t taken = 0;
  for (const cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr;
       header = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(header))) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      UniqueFd owned(fd);
      if (taken < into.size()) into[taken++] = std::move(owned);
    }
  }
  return taken;
}

std::string socket_of(const std::string& name) { return "/run/sessions/" + name + ".sock"; }

std::string hex_of(const wire::SessionKey& key) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint8_t byte : key) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

Sessions::Sessions(Cgroups& cgroups, std::uint32_t id_count, UniqueFd init_program, UniqueFd seccomp, UniqueFd zygote_library)
    : cgroups_(cgroups), leases_(id_count), init_program_(std::move(init_program)), seccomp_(std::move(seccomp)),
      zygotes_(std::move(zygote_library), seccomp_), quiet_events_(::epoll_create1(EPOLL_CLOEXEC)) {}

Session* Sessions::find(const wire::SessionKey& key) {
  const auto found = by_key_.find(key);
  return found == by_key_.end() ? nullptr : found->second;
}

Session* Sessions::at(std::uint32_t lease) {
  for (const Table* table : {&busy_, &quiet_}) {
    if (const auto found = table->find(lease); found != table->end()) return found->second.get();
  }
  return nullptr;
}

void Sessions::put_to_rest() {
  for (auto it = busy_.begin(); it != busy_.end();) {
    const Session& session = *it->second;
    const auto next = std::next(it);
    if (session.state == SessionState::running && !session.channel && !session.join.connection && !session.ahead.connection) {
      epoll_event event{.events = EPOLLIN, .data = {.u32 = session.lease}};
      if (::epoll_ctl(quiet_events_.get(), EPOLL_CTL_ADD, session.pidfd.get(), &event) == 0) quiet_.insert(busy_.extract(it));
    }
    it = next;
  }
}

void Sessions::rouse(Session& session) {
  auto node = quiet_.extract(session.lease);
  if (!node) return;
  // By name: a child that was cloned meanwhile has a copy of the pidfd, and closing ours would leave it watched.
  (void)::epoll_ctl(quiet_events_.get(), EPOLL_CTL_DEL, session.pidfd.get(), nullptr);
  busy_.insert(std::move(node));
}

void Sessions::on_quiet_events() {
  epoll_event events[64];
  const int n = ::epoll_wait(quiet_events_.get(), events, std::size(events), 0);
  for (int i = 0; i < n; ++i) {
    Session* session = at(events[i].data.u32);
    if (session == nullptr || !session->pidfd) continue;
    rouse(*session);
    on_exit(*session);
  }
}

std::optional<LauncherReply> Sessions::create(const wire::LauncherRequest& request) {
  if (!limits_permitted(request.limits) || request.flavour > wire::Flavour::data || (request.ahead & ~wire::kAheadJavascript) != 0)
    return reply_with(LauncherStatus::bad_request, request.session);
  const auto waiting = [&](const wire::LauncherRequest& other) { return other.session == request.session; };
  if (find(request.session) != nullptr || std::any_of(pending_.begin(), pending_.end(), waiting))
    return reply_with(LauncherStatus::session_exists, request.session);
  if (leases_.leased() >= leases_.capacity()) return reply_with(LauncherStatus::no_capacity, request.session);
  if (auto made = templates_.ensure(request.image); !made) {
    const bool unknown = made.error().code == ErrorCode::unknown_image;
    LauncherReply reply = reply_with(unknown ? LauncherStatus::unknown_image : LauncherStatus::setup_failed, request.session);
    reply.stage = Stage::mount_root;
    reply.sys_errno = made.error().sys_errno;
    ::fprintf(stderr, "<4>image template failed errno=%d what=\"%s\"\n", reply.sys_errno, made.error().what.c_str());
    return reply;
  }
  learn(request);
  if (take_pooled(request)) return std::nullopt;
  pending_.push_back(request);
  assign_pending();
  return std::nullopt;
}

bool Sessions::cancel_pending(const wire::SessionKey& key) {
  return std::erase_if(pending_, [&](const wire::LauncherRequest& r) { return r.session == key; }) > 0;
}

void Sessions::refuse(const wire::LauncherRequest& request, Stage stage, const Error& error) {
  LauncherReply reply = reply_with(LauncherStatus::setup_failed, request.session);
  reply.stage = stage;
  reply.sys_errno = error.sys_errno;
  ::fprintf(stderr, "<4>session setup failed stage=%u errno=%d what=\"%s\"\n", static_cast<unsigned>(stage),
            error.sys_errno, error.what.c_str());
  on_created(request.session, reply);
}

void Sessions::fail_pending(Stage stage, int sys_errno) {
  const auto waiting = std::move(pending_);
  pending_.clear();
  for (const auto& request : waiting) refuse(request, stage, Error{ErrorCode::internal, Fault::server, sys_errno, "prepare a child"});
}

/// Gives waiting creations to spare children, and makes children for those that find none.
void Sessions::assign_pending() {
  std::size_t coming = 0;
  for (auto& [lease, owned] : busy_) {
    Session& session = *owned;
    if (pending_.empty()) return;
    if (session.state != SessionState::spare && session.state != SessionState::preparing) continue;
    if (session.template_generation < templates_.made_at(pending_.front().image)) {
      kill(session);  // it was cloned before the image's template existed
      continue;
    }
    if (session.state == SessionState::preparing) {
      ++coming;
      continue;
    }
    const wire::LauncherRequest request = pending_.front();
    pending_.pop_front();
    Stage stage = Stage::none;
    if (auto assigned = assign(session, request, false, stage); !assigned) {
      kill(session);
      refuse(request, stage, assigned.error());
    }
  }
  while (coming < pending_.size()) {
    Stage stage = Stage::none;
    if (auto prepared = prepare(stage); !prepared) return fail_pending(stage, prepared.error().sys_errno);
    ++coming;
  }
}

/// A spare that fails is not asked for by anybody: the next one waits, ever longer, up to five seconds.
void Sessions::back_off() {
  constexpr unsigned kMostDoublings = 9;
  prepare_failures_ = std::min(prepare_failures_ + 1, kMostDoublings);
  prepare_not_before_ns_ = sys::monotonic_ns() + (10'000'000ULL << prepare_failures_);
}

bool Sessions::replenish() {
  if (!pending_.empty() || sys::monotonic_ns() < prepare_not_before_ns_) return true;
  std::size_t spares = 0;
  for (const auto& [lease, session] : busy_) {
    const bool spare = session->state == SessionState::spare || session->state == SessionState::preparing;
    spares += spare ? 1 : 0;
  }
  while (spares < kSpares && leases_.leased() < leases_.capacity()) {
    Stage stage = Stage::none;
    if (auto prepared = prepare(stage); !prepared) {
      ::fprintf(stderr, "<4>no spare could be prepared stage=%u errno=%d what=\"%s\"\n", static_cast<unsigned>(stage),
                prepared.error().sys_errno, prepared.error().what.c_str());
      return false;
    }
    ++spares;
  }
  return fill_pools();
}

Result<void> Sessions::prepare(Stage& stage) {
  stage = Stage::id_lease;
  const auto lease = leases_.acquire();
  if (!lease) return server_error(ErrorCode::internal, "the id range is used up", EAGAIN);
  auto owned = std::make_unique<Session>();
  Session& session = *owned;
  session.lease = *lease;
  session.group = std::string(sys::Decimal(*lease).view());
  session.template_generation = templates_.generation();
  session.setup_deadline_ns = sys::monotonic_ns() + kSetupTimeoutNs;
  busy_.emplace(*lease, std::move(owned));
  stage = Stage::cgroup_create;
  auto made = cgroups_.create(session.group);
  if (made) made = clone_child(session, stage);
  if (!made) kill(session);
  return made;
}

/// The child is in its groups: it gets its ids and waits, ready, for a session to become.
void Sessions::on_joined(Session& session) {
  const std::uint32_t init_id = session.lease + 1;
  Stage stage = Stage::cgroup_create;
  auto ready = cgroups_.settle(session.group, init_id, init_id);
  if (ready) {
    stage = Stage::id_map;
    ready = map_ids(session.pid, session.lease);
  }
  if (ready && usual_) {
    stage = Stage::cgroup_limits;
    session.limits = *usual_;
    ready = cgroups_.limit(session.group, session.limits);
    session.limited = true;
  }
  if (!ready) {
    ::fprintf(stderr, "<4>a child failed in preparation stage=%u errno=%d what=\"%s\"\n", static_cast<unsigned>(stage),
              ready.error().sys_errno, ready.error().what.c_str());
    back_off();
    kill(session);
    return fail_pending(stage, ready.error().sys_errno);
  }
  if (::send(session.channel.get(), &kIdsMapped, 1, MSG_NOSIGNAL) != 1) {
    const int failed = errno;
    kill(session);
    return fail_pending(Stage::child_sync, failed);
  }
  session.state = SessionState::spare;
  session.setup_deadline_ns = 0;
  assign_pending();
}

Result<void> Sessions::assign(Session& session, const wire::LauncherRequest& request, bool pooled, Stage& stage) {
  session.key = request.session;
  session.name = pooled ? (session.bare ? "bare-" : "pool-") + std::string(sys::Decimal(session.lease).view()) : hex_of(request.session);
  session.image = request.image;
  const bool limited = session.limited && same_resources(session.limits, request.limits);
  session.limits = request.limits;
  usual_ = request.limits;
  session.flavour = request.flavour;
  session.wants_ahead = pooled ? request.ahead : 0;  // now asked for, it is started when it is used
  session.created_wall_ms = sys::wall_ms();
  session.setup_deadline_ns = sys::monotonic_ns() + kSetupTimeoutNs;
  session.state = pooled ? SessionState::warming : SessionState::starting;
  stage = Stage::cgroup_limits;
  if (!limited) {
    if (auto written = cgroups_.limit(session.group, session.limits); !written) return written;
  }
  auto listener = listen(session, stage);
  if (!listener) return std::unexpected(listener.error());
  stage = Stage::child_sync;
  Assignment assignment{request.image, request.limits, processors_for(request.limits.cpu_milli, session.lease), pooled};
  iovec part{&assignment, sizeof assignment};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = listener->get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  if (::sendmsg(session.channel.get(), &message, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof assignment))
    return sys_error(errno, "assign");
  if (!pooled) by_key_.emplace(session.key, &session);
  return {};
}

Result<UniqueFd> Sessions::listen(const Session& session, Stage& stage) {
  stage = Stage::listen_socket;
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return sys_error(errno, "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ::snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_of(session.name).c_str());
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return sys_error(errno, "bind a session's socket");
  // Owner and group (the gateway's) may connect; the directory above keeps everybody else out.
  if (::chmod(address.sun_path, 0660) != 0) return sys_error(errno, "chmod a session's socket");
  if (::listen(listener.get(), 128) != 0) return sys_error(errno, "listen at a session's socket");
  return listener;
}

/// In a child: a copy of a kernel's ends would hide from its init that the launcher, or later the
/// kernel, has closed them.
void Sessions::close_ways_in() const {
  for (const auto& [lease, other] : busy_) {
    (void)::close(other->join.connection.get());
    for (const auto& end : other->join.ends) (void)::close(end.get());
    for (const auto& entrance : other->join.entrances) (void)::close(entrance.get());
  }
}

Result<void> Sessions::clone_child(Session& session, Stage& stage) {
  stage = Stage::clone_namespaces;
  auto groups = cgroups_.delegate(session.group);
  if (!groups) return std::unexpected(groups.error());
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_error(errno, "socketpair");
  UniqueFd child_end(pair[0]);
  session.channel.reset(pair[1]);

  UniqueFd birth = cgroups_.birth_group(session.group);
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
               CLONE_PIDFD;  // the seventh, cgroup, follows in join_self()
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (birth) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(birth.get());
  }
  const pid_t pid = sys::clone3(args);
  if (pid < 0) return sys_error(errno, "clone3");
  if (pid == 0) {
    session.channel.reset();  // or its own copy would hide the launcher's death from it
    close_ways_in();
    become_session({.cgroups = cgroups_,
                    .group = session.group,
                    .launcher = child_end,
                    .seccomp = seccomp_,
                    .init_program = init_program_,
                    .groups = *groups});
  }
  session.pid = pid;
  session.pidfd.reset(pidfd);
  return {};
}

void Sessions::finish_creation(Session& session, LauncherReply reply) {
  session.channel.reset();
  const bool asked_for = session.state == SessionState::starting;
  const wire::SessionKey key = session.key;
  if (reply.status == LauncherStatus::ok) {
    session.setup_deadline_ns = 0;
    prepare_failures_ = 0;
    if (asked_for) session.state = SessionState::running;
    // Before the gateway hears of the session, or its first run would start a kernel cold.
    warm_up(session);
    reply.origin = session.join.connection ? wire::Origin::zygote : wire::Origin::cold;
  } else {
    kill(session);
  }
  if (asked_for) on_created(key, reply);
}

void Sessions::on_channel(Session& session) {
  wire::SetupReport report;
  iovec part{&report, sizeof report};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * std::tuple_size_v<decltype(session.disks)>)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(session.channel.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const bool whole = n == static_cast<ssize_t>(sizeof report) && report.magic == wire::kSetupMagic;
  if (session.state == SessionState::preparing || session.state == SessionState::spare) {
    if (whole && report.stage == Stage::cgroup_join && report.sys_errno == 0) return on_joined(session);
    const Stage stage = whole ? report.stage : Stage::child_sync;
    const int error = whole ? report.sys_errno : ECHILD;
    ::fprintf(stderr, "<4>a child failed in preparation stage=%u errno=%d\n", static_cast<unsigned>(stage), error);
    back_off();
    kill(session);
    return fail_pending(stage, error);
  }
  if (whole && session.state == SessionState::warming && report.stage == Stage::mount_tmpfs && report.sys_errno == 0)
    return (void)take_descriptors(message, session.disks);
  LauncherReply reply = identify(session);
  if (!whole) {
    reply.status = LauncherStatus::setup_failed;
    reply.stage = Stage::init_ready;
  } else if (report.stage != Stage::none) {
    reply.status = LauncherStatus::setup_failed;
    reply.stage = report.stage;
    reply.sys_errno = report.sys_errno;
  } else {
    const std::size_t descriptors = cgroups_.backend() == "v2" ? 1 : 3;
    const char* difference = posture_difference(expected_posture(descriptors), report.facts);
    if (difference == nullptr && !namespaces_differ(session.pid)) difference = "namespaces";
    if (difference != nullptr) {
      reply.status = LauncherStatus::posture_mismatch;
      reply.stage = Stage::init_posture;
      ::fprintf(stderr, "<3>posture mismatch session=%s field=\"%s\"\n", session.name.c_str(), difference);
    }
    session.posture_digest = reply.posture_digest = posture_digest(report.facts);
  }
  if (reply.status == LauncherStatus::setup_failed)
    ::fprintf(stderr, "<4>session setup failed session=%s stage=%u errno=%d\n", session.name.c_str(),
              static_cast<unsigned>(reply.stage), reply.sys_errno);
  finish_creation(session, reply);
}

void Sessions::kill_all() {
  pending_.clear();
  pools_.clear();
  bare_ = {};
  zygotes_.kill_all();
  while (!quiet_.empty()) rouse(*quiet_.begin()->second);
  for (auto& [lease, session] : busy_) kill(*session);
}

void Sessions::kill(Session& session) {
  if (session.state == SessionState::ending) return;
  rouse(session);
  session.end = identify(session);  // who ends a session does not ask what it used
  session.state = SessionState::ending;
  session.channel.reset();
  for (WarmUp* warm_up : {&session.join, &session.ahead}) settle_warm_up(session, *warm_up, false);
  if (!session.pidfd) {
    session.reaped = true;  // failed before it had a process
    return;
  }
  // SIGKILL to PID 1 of the namespace ends every process in it (pid_namespaces(7)); the
  // cgroup's own kill reaches those that a zygote may have put there from outside.
  (void)sys::pidfd_send_signal(session.pidfd.get(), SIGKILL);
  cgroups_.kill(session.group, session.frozen);
}

void Sessions::on_exit(Session& session) {
  siginfo_t info{};
  if (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(session.pidfd.get()), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0)
    return;
  const bool was_coming = session.state < SessionState::running;
  if (session.state != SessionState::ending) session.end = describe(session);
  session.reaped = true;
  if (info.si_code == CLD_EXITED) {
    session.end.exit_code = info.si_status;
  } else {
    session.end.exit_signal = info.si_status;
  }
  session.pidfd.reset();
  // A child that failed reports before it exits: the report says more than the status.
  if (was_coming && session.channel) on_channel(session);
  if (session.state != SessionState::ending) {
    session.state = SessionState::ending;
    for (WarmUp* warm_up : {&session.join, &session.ahead}) settle_warm_up(session, *warm_up, false);
    cgroups_.kill(session.group, session.frozen);
  }
}

bool Sessions::try_remove(Session& session) {
  if (!session.reaped || !cgroups_.remove(session.group)) return false;
  if (!session.name.empty()) (void)::unlink(socket_of(session.name).c_str());
  leases_.release(session.lease);
  return true;
}

void Sessions::on_tick() {
  const std::uint64_t now = sys::monotonic_ns();
  limit_joins(now);
  for (auto it = busy_.begin(); it != busy_.end();) {
    Session& session = *it->second;
    if (session.setup_deadline_ns != 0 && now > session.setup_deadline_ns && session.state < SessionState::running) {
      if (session.state == SessionState::starting || session.state == SessionState::warming) {
        LauncherReply reply = identify(session);
        reply.status = LauncherStatus::setup_failed;
        reply.stage = Stage::init_ready;
        reply.sys_errno = ETIMEDOUT;
        finish_creation(session, reply);
      } else {
        kill(session);
        fail_pending(Stage::cgroup_join, ETIMEDOUT);
      }
    }
    if (session.state == SessionState::ending && session.reaped) tell_end(session);
    if (session.state != SessionState::ending || !try_remove(session)) {
      ++it;
      continue;
    }
    it = busy_.erase(it);
  }
}

/// Every process is dead: who waits for that is told before its groups are removed, which takes half a millisecond.
void Sessions::tell_end(const Session& session) {
  const auto found = by_key_.find(session.key);
  if (found == by_key_.end() || found->second != &session) return;  // told already, or never assigned
  by_key_.erase(found);
  LauncherReply end = session.end;
  end.status = LauncherStatus::ended;
  on_gone(session.key, end);
}

bool Sessions::has_unlimited_joins() const {
  return std::any_of(busy_.begin(), busy_.end(), [](const auto& entry) { return entry.second->join.unlimited_since_ns != 0; });
}

bool Sessions::needs_tick() const {
  for (const auto& [lease, session] : busy_) {
    if (session->setup_deadline_ns != 0 || (session->state == SessionState::ending && session->reaped)) return true;
  }
  return false;
}

LauncherReply Sessions::freeze(Session& session, bool frozen) {
  LauncherReply reply = identify(session);
  if (session.state != SessionState::running) {
    reply.status = LauncherStatus::unknown_session;
    return reply;
  }
  // Frozen on its way in, a kernel would hold up its zygote and with it everybody's.
  if (frozen && session.join.connection) {
    reply.status = LauncherStatus::setup_failed;
    reply.sys_errno = EBUSY;
    return reply;
  }
  session.frozen = true;  // or in part, should it fail
  if (auto done = cgroups_.freeze(session.group, frozen); !done) {
    reply.status = LauncherStatus::setup_failed;
    reply.sys_errno = done.error().sys_errno;
    return reply;
  }
  session.frozen = session.paused = frozen;
  reply.paused = frozen ? 1 : 0;
  return reply;
}

LauncherReply Sessions::identify(const Session& session) const {
  LauncherReply reply = reply_with(LauncherStatus::ok, session.key);
  reply.image = session.image;
  reply.limits = session.limits;
  reply.posture_digest = session.posture_digest;
  reply.paused = session.paused ? 1 : 0;
  reply.created_wall_ms = session.created_wall_ms;
  return reply;
}

LauncherReply Sessions::describe(const Session& session) {
  LauncherReply reply = identify(session);
  const CgroupUsage usage = cgroups_.usage(session.group);
  reply.memory_bytes = usage.memory_bytes;
  reply.memory_peak_bytes = usage.memory_peak_bytes;
  reply.cpu_ns = usage.cpu_ns;
  reply.oom_kills = usage.oom_kills;
  reply.pids = usage.pids;
  return reply;
}

}  // namespace codespace::launcher
