// Sessions from the launcher's side. See the header; a session's life here is
//   starting -> running -> ending -> (gone)
// and every failure on the way goes through `ending`, so there is one way to clean up.
#include "sandbox/launcher/sessions.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

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

/// Limits are checked here again although the gateway checked them: it may be taken over.
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

std::string runtime_dir_of(const Session& session) { return "/run/sessions/" + session.hex; }

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

std::string hex_of(const wire::SessionKey& key) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  for (const std::uint8_t byte : key) {
    hex += kDigits[byte >> 4];
    hex += kDigits[byte & 15];
  }
  return hex;
}

Sessions::Sessions(Cgroups& cgroups, std::uint32_t id_count, UniqueFd init_program, UniqueFd seccomp)
    : cgroups_(cgroups), leases_(id_count), init_program_(std::move(init_program)), seccomp_(std::move(seccomp)) {}

Session* Sessions::find(const wire::SessionKey& key) {
  const auto found = table_.find(key);
  return found == table_.end() ? nullptr : found->second.get();
}

std::optional<LauncherReply> Sessions::create(const wire::LauncherRequest& request) {
  if (!limits_permitted(request.limits) || request.network != wire::NetworkMode::none)
    return reply_with(LauncherStatus::bad_request, request.session);
  if (find(request.session) != nullptr) return reply_with(LauncherStatus::session_exists, request.session);
  const auto lease = leases_.acquire();
  if (!lease) return reply_with(LauncherStatus::no_capacity, request.session);

  auto owned = std::make_unique<Session>();
  Session& session = *owned;
  session.key = request.session;
  session.hex = hex_of(request.session);
  session.image = request.image;
  session.limits = request.limits;
  session.lease = *lease;
  session.created_wall_ms = sys::wall_ms();
  session.setup_deadline_ns = sys::monotonic_ns() + kSetupTimeoutNs;
  table_.emplace(session.key, std::move(owned));

  Stage stage = Stage::none;
  if (auto started = start(session, request, stage); !started) {
    LauncherReply reply = reply_with(started.error().code == ErrorCode::unknown_image ? LauncherStatus::unknown_image
                                                                                       : LauncherStatus::setup_failed,
                                     session.key);
    reply.stage = stage;
    reply.sys_errno = started.error().sys_errno;
    ::fprintf(stderr, "<4>session setup failed session=%s stage=%u errno=%d what=\"%s\"\n", session.hex.c_str(),
              static_cast<unsigned>(stage), started.error().sys_errno, started.error().what.c_str());
    kill(session);
    return reply;
  }
  return std::nullopt;
}

Result<void> Sessions::start(Session& session, const wire::LauncherRequest& request, Stage& stage) {
  stage = Stage::mount_root;
  if (auto root = templates_.get(request.image); !root) return std::unexpected(root.error());
  auto listener = listen(session, stage);
  if (!listener) return std::unexpected(listener.error());
  stage = Stage::cgroup_limits;
  const std::uint32_t init_id = session.lease + 1;
  if (auto made = cgroups_.create(session.hex, session.limits, init_id, init_id); !made) return made;
  return clone_child(session, *listener, stage);
}

Result<UniqueFd> Sessions::listen(const Session& session, Stage& stage) {
  stage = Stage::runtime_dir;
  const std::string dir = runtime_dir_of(session);
  if (::mkdir(dir.c_str(), 0750) != 0) return sys_error(errno, "mkdir " + dir);
  stage = Stage::listen_socket;
  UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener) return sys_error(errno, "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ::snprintf(address.sun_path, sizeof address.sun_path, "%s/init.sock", dir.c_str());
  if (::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return sys_error(errno, "bind init.sock");
  // Owner and group (the gateway's) may connect; the directory above keeps everybody else out.
  if (::chmod(address.sun_path, 0660) != 0) return sys_error(errno, "chmod init.sock");
  if (::listen(listener.get(), 128) != 0) return sys_error(errno, "listen init.sock");
  return listener;
}

Result<void> Sessions::clone_child(Session& session, const UniqueFd& listener, Stage& stage) {
  stage = Stage::clone_namespaces;
  auto image_root = templates_.get(session.image);
  if (!image_root) return std::unexpected(image_root.error());
  auto groups = cgroups_.delegate(session.hex);
  if (!groups) return std::unexpected(groups.error());
  int pipe_ends[2];
  int pair[2];
  if (::pipe2(pipe_ends, O_CLOEXEC) != 0) return sys_error(errno, "pipe");
  UniqueFd go_reader(pipe_ends[0]);
  UniqueFd go_writer(pipe_ends[1]);
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) return sys_error(errno, "socketpair");
  UniqueFd child_status(pair[0]);
  session.status.reset(pair[1]);

  UniqueFd birth = cgroups_.birth_group(session.hex);
  int pidfd = -1;
  clone_args args{};
  args.flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
               CLONE_NEWCGROUP | CLONE_PIDFD;
  args.pidfd = reinterpret_cast<std::uint64_t>(&pidfd);
  args.exit_signal = SIGCHLD;
  if (birth) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<std::uint64_t>(birth.get());
  }
  const pid_t pid = sys::clone3(args);
  if (pid < 0) return sys_error(errno, "clone3");
  if (pid == 0) {
    (void)go_writer.release();
    ::close(pipe_ends[1]);  // so that a launcher that dies gives end-of-file
    become_session({.image_root = image_root->c_str(),
                    .limits = session.limits,
                    .go = go_reader,
                    .status = child_status,
                    .listener = listener,
                    .seccomp = seccomp_,
                    .init_program = init_program_,
                    .groups = *groups,
                    .cgroup_backend = cgroups_.backend().data()});
  }
  session.pid = pid;
  session.pidfd.reset(pidfd);
  stage = Stage::cgroup_join;
  // Before the child changes its user: v1 lets us move only processes of our own id.
  if (auto joined = cgroups_.join(session.hex, pid); !joined) return joined;
  stage = Stage::id_map;
  if (auto mapped = map_ids(pid, session.lease); !mapped) return mapped;
  stage = Stage::child_sync;
  if (::write(go_writer.get(), "g", 1) != 1) return sys_error(errno, "start child");
  return {};
}

void Sessions::finish_creation(Session& session, const LauncherReply& reply) {
  session.status.reset();
  if (reply.status == LauncherStatus::ok) {
    session.state = SessionState::running;
    session.setup_deadline_ns = 0;
  }
  const wire::SessionKey key = session.key;
  if (reply.status != LauncherStatus::ok) kill(session);
  on_created(key, reply);
}

void Sessions::on_status(Session& session) {
  wire::SetupReport report;
  const ssize_t n = ::recv(session.status.get(), &report, sizeof report, MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  LauncherReply reply = describe(session);
  if (n != static_cast<ssize_t>(sizeof report) || report.magic != wire::kSetupMagic) {
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
      ::fprintf(stderr, "<3>posture mismatch session=%s field=\"%s\"\n", session.hex.c_str(), difference);
    }
    session.posture_digest = reply.posture_digest = posture_digest(report.facts);
  }
  if (reply.status == LauncherStatus::setup_failed)
    ::fprintf(stderr, "<4>session setup failed session=%s stage=%u errno=%d\n", session.hex.c_str(),
              static_cast<unsigned>(reply.stage), reply.sys_errno);
  finish_creation(session, reply);
}

void Sessions::kill(Session& session) {
  if (session.state == SessionState::ending) return;
  session.end = describe(session);
  session.state = SessionState::ending;
  session.status.reset();
  if (!session.pidfd) {
    session.reaped = true;  // failed before it had a process
    return;
  }
  // SIGKILL to PID 1 of the namespace ends every process in it (pid_namespaces(7)); the
  // cgroup's own kill reaches those that a zygote may have put there from outside.
  (void)sys::pidfd_send_signal(session.pidfd.get(), SIGKILL);
  cgroups_.kill(session.hex);
}

void Sessions::on_exit(Session& session) {
  siginfo_t info{};
  if (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(session.pidfd.get()), &info, WEXITED | WNOHANG) != 0 ||
      info.si_pid == 0)
    return;
  const bool was_starting = session.state == SessionState::starting;
  if (session.state != SessionState::ending) session.end = describe(session);
  session.reaped = true;
  if (info.si_code == CLD_EXITED) {
    session.end.exit_code = info.si_status;
  } else {
    session.end.exit_signal = info.si_status;
  }
  session.pidfd.reset();
  if (was_starting) {
    // A child that failed reports before it exits: the report says more than the status.
    if (session.status) on_status(session);
  }
  if (session.state != SessionState::ending) {
    session.state = SessionState::ending;
    cgroups_.kill(session.hex);
  }
}

bool Sessions::try_remove(Session& session) {
  if (!session.reaped || !cgroups_.remove(session.hex)) return false;
  const std::string dir = runtime_dir_of(session);
  ::unlink((dir + "/init.sock").c_str());
  ::rmdir(dir.c_str());
  leases_.release(session.lease);
  return true;
}

void Sessions::on_tick() {
  const std::uint64_t now = sys::monotonic_ns();
  for (auto it = table_.begin(); it != table_.end();) {
    Session& session = *it->second;
    if (session.state == SessionState::starting && now > session.setup_deadline_ns) {
      LauncherReply reply = describe(session);
      reply.status = LauncherStatus::setup_failed;
      reply.stage = Stage::init_ready;
      reply.sys_errno = ETIMEDOUT;
      finish_creation(session, reply);
    }
    if (session.state == SessionState::ending && try_remove(session)) {
      LauncherReply end = session.end;
      end.status = LauncherStatus::ended;
      const wire::SessionKey key = session.key;
      it = table_.erase(it);
      on_gone(key, end);
    } else {
      ++it;
    }
  }
}

bool Sessions::needs_tick() const {
  for (const auto& [key, session] : table_) {
    if (session->state == SessionState::starting) return true;
    if (session->state == SessionState::ending && session->reaped) return true;
  }
  return false;
}

LauncherReply Sessions::freeze(Session& session, bool frozen) {
  LauncherReply reply = describe(session);
  if (session.state != SessionState::running) {
    reply.status = LauncherStatus::unknown_session;
    return reply;
  }
  if (auto done = cgroups_.freeze(session.hex, frozen); !done) {
    reply.status = LauncherStatus::setup_failed;
    reply.sys_errno = done.error().sys_errno;
    return reply;
  }
  session.paused = frozen;
  reply.paused = frozen ? 1 : 0;
  return reply;
}

LauncherReply Sessions::describe(const Session& session) {
  LauncherReply reply = reply_with(LauncherStatus::ok, session.key);
  reply.image = session.image;
  reply.limits = session.limits;
  reply.posture_digest = session.posture_digest;
  reply.paused = session.paused ? 1 : 0;
  reply.created_wall_ms = session.created_wall_ms;
  const CgroupUsage usage = cgroups_.usage(session.hex);
  reply.memory_bytes = usage.memory_bytes;
  reply.memory_peak_bytes = usage.memory_peak_bytes;
  reply.cpu_ns = usage.cpu_ns;
  reply.oom_kills = usage.oom_kills;
  reply.pids = usage.pids;
  return reply;
}

}  // namespace codespace::launcher
