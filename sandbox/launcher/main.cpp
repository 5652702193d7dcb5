// codespace-launcher: the only program here that ever held privilege.
//
// Theory of operation. Started as root, or as its service user with CAP_SETUID and
// CAP_SETGID, it (1) makes its control group, loads codespace-init into a sealed memfd and
// compiles the seccomp programs, (2) drops to the service user, (3) creates an outer user
// namespace over its id range, after which it has no capability on the host, (4) moves into
// a small root of its own. Then it serves fixed structs on <runtime>/launcher.sock, one
// request per connection, from the gateway's group only. It is single-threaded, allocates
// nothing by a peer's say-so, links no parser, and outlives the gateway.
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <list>
#include <span>

#include "sandbox/launcher/confine_self.h"
#include "sandbox/launcher/seccomp_policy.h"
#include "sandbox/launcher/sessions.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/service_manager.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using sys::UniqueFd;
using wire::LauncherOp;
using wire::LauncherReply;
using wire::LauncherRequest;
using wire::LauncherStatus;

constexpr std::size_t kMaxPeers = 512;
constexpr int kJoinMs = kUsualJoinNs / 1'000'000;
constexpr int kTickMs = 2;  // how soon a dying group is looked at again
/// Spares are made once this much time passed without anything to do: at once after a session
/// ended, and otherwise late enough not to compete with what a new session is about to run.
constexpr int kReplenishAfterEndMs = 1;
constexpr int kReplenishIdleMs = 20;
constexpr int kZygoteCheckMs = 500;

volatile sig_atomic_t stop_requested = 0;

struct Options {
  std::string runtime_dir;
  std::string images_dir;
  std::string init_path;
  std::string zygote_path;
  std::string user;
  std::string group;
  IdRange ids;
};

[[noreturn]] void usage(const char* mistake) {
  ::fprintf(stderr,
            "codespace-launcher: %s\n"
            "usage: codespace-launcher --runtime DIR --images DIR --id-range FIRST:COUNT\n"
            "                          [--user NAME --group NAME] [--init FILE] [--zygote FILE]\n"
            "  --runtime   holds launcher.sock and one directory per session\n"
            "  --images    the image store, read only\n"
            "  --id-range  subordinate user ids for the sessions, 16 each; nobody else may use them\n"
            "  --init, --zygote  codespace-init and codespace-zygote.so, if they are not beside this program\n"
            "  --version   alone: prints version and protocol\n"
            "  --user      service user to become when started as root; --group is the gateway's group\n",
            mistake);
  ::exit(2);
}

/// Which program and language: two that end in the same word understand each other.
std::string version_line() {
  char magic[5]{};
  for (unsigned i = 0; i < 4; ++i) magic[i] = static_cast<char>(wire::kLauncherMagic >> (24 - 8 * i));
  return std::string("codespace-launcher ") + CODESPACE_VERSION + " protocol " + magic + "\n";
}

Options parse(int argc, char** argv) {
  Options o;
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    ::fputs(version_line().c_str(), stdout);
    ::exit(0);
  }
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (i + 1 >= argc) usage("an option lacks its value");
    const char* value = argv[++i];
    if (name == "--runtime") o.runtime_dir = value;
    else if (name == "--images") o.images_dir = value;
    else if (name == "--init") o.init_path = value;
    else if (name == "--zygote") o.zygote_path = value;
    else if (name == "--user") o.user = value;
    else if (name == "--group") o.group = value;
    else if (name == "--id-range") {
      if (::sscanf(value, "%u:%u", &o.ids.first, &o.ids.count) != 2 || o.ids.first < 65536 || o.ids.count < kIdsPerSession ||
          o.ids.first + static_cast<std::uint64_t>(o.ids.count) > 0xfffffffeULL)
        usage("--id-range wants FIRST:COUNT with FIRST >= 65536 and COUNT >= 16");
    } else usage("unknown option");
  }
  if (o.runtime_dir.empty() || o.images_dir.empty() || o.ids.count == 0) usage("--runtime, --images and --id-range are needed");
  char self[512];
  const ssize_t n = ::readlink("/proc/self/exe", self, sizeof self - 1);
  if (n <= 0) usage("cannot find myself; is /proc mounted?");
  const std::string_view path(self, static_cast<size_t>(n));
  const std::string beside(path.substr(0, path.rfind('/') + 1));
  if (o.init_path.empty()) o.init_path = beside + "codespace-init";
  if (o.zygote_path.empty()) o.zygote_path = beside + "codespace-zygote.so";
  return o;
}

[[noreturn]] void die(const Error& error) {
  ::fprintf(stderr, "<3>cannot start: %s%s%s\n", error.what.c_str(), error.sys_errno != 0 ? ": " : "",
            error.sys_errno != 0 ? ::strerror(error.sys_errno) : "");
  ::exit(1);
}

template <class T>
T must(Result<T> result) {
  if (!result) die(result.error());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

Identity resolve_identity(const Options& o) {
  Identity id{::getuid(), ::getgid()};
  if (!o.user.empty()) {
    const passwd* pw = ::getpwnam(o.user.c_str());
    if (pw == nullptr) die({ErrorCode::internal, Fault::server, 0, "no user " + o.user + "; create it (deploy/ has a sysusers file)"});
    id = {pw->pw_uid, pw->pw_gid};
  }
  if (!o.group.empty()) {
    const ::group* gr = ::getgrnam(o.group.c_str());
    if (gr == nullptr) die({ErrorCode::internal, Fault::server, 0, "no group " + o.group + "; create it (deploy/ has a sysusers file)"});
    id.gid = gr->gr_gid;
  }
  return id;
}

/// A memfd that nobody, this process included, can ever change again (memfd_create(2)).
Result<UniqueFd> sealed(const char* name, std::string_view bytes) {
  constexpr unsigned kMfdExec = 0x10;  // MFD_EXEC, Linux 6.3
  UniqueFd memory(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | kMfdExec));
  if (!memory) memory.reset(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) return sys_error(errno, "memfd_create");
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::write(memory.get(), bytes.data() + done, bytes.size() - done);
    if (n <= 0) return sys_error(errno, "fill memfd");
    done += static_cast<std::size_t>(n);
  }
  if (::fchmod(memory.get(), 0555) != 0) return sys_error(errno, "chmod memfd");
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return sys_error(errno, "seal memfd");
  // Hand out a read-only descriptor: a writable one makes execve(2) answer ETXTBSY.
  const std::string path = "/proc/self/fd/" + std::to_string(memory.get());
  UniqueFd reader(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!reader) return sys_error(errno, "reopen memfd");
  return reader;
}

Result<UniqueFd> load_sealed(const char* name, const std::string& path) {
  const std::string program = sys::read_file_at(AT_FDCWD, path.c_str(), 64 << 20);
  if (program.empty()) return sys_error(errno, "read " + path);
  return sealed(name, program);
}

Result<UniqueFd> load_seccomp() {
  auto programs = build_seccomp_programs();
  if (!programs) return std::unexpected(programs.error());
  std::string blob;
  for (const auto* program : {&programs->a, &programs->b}) {
    const auto size = static_cast<std::uint32_t>(program->size());
    blob.append(reinterpret_cast<const char*>(&size), sizeof size);
  }
  for (const auto* program : {&programs->a, &programs->b})
    blob.append(reinterpret_cast<const char*>(program->data()), program->size());
  return sealed("codespace-seccomp", blob);
}

/// Removes what a launcher that died left below the runtime directory.
void sweep_runtime(const std::string& sessions) {
  const std::string listing = sessions;
  UniqueFd dir(::open(listing.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return;
  char buffer[8192];
  for (;;) {
    const long n = ::syscall(SYS_getdents64, dir.get(), buffer, sizeof buffer);
    if (n <= 0) return;
    for (long at = 0; at < n;) {
      unsigned short length;
      ::memcpy(&length, buffer + at + 16, sizeof length);
      const char* name = buffer + at + 19;
      if (name[0] != '.') (void)::unlinkat(dir.get(), name, 0);
      at += length;
    }
  }
}

/// Makes the runtime directory and takes its lock: one launcher per directory.
UniqueFd prepare_runtime(const Options& o, const Identity& id) {
  const auto make = [&](const std::string& path, mode_t mode) {
    if (::mkdir(path.c_str(), mode) != 0 && errno != EEXIST) die({ErrorCode::internal, Fault::server, errno, "mkdir " + path});
    if (::geteuid() == 0 && (::chown(path.c_str(), id.uid, id.gid) != 0 || ::chmod(path.c_str(), mode) != 0))
      die({ErrorCode::internal, Fault::server, errno, "give " + path + " to the service user"});
  };
  make(o.runtime_dir, 0750);
  UniqueFd lock(::open((o.runtime_dir + "/launcher.lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
    die({ErrorCode::internal, Fault::server, errno, "another launcher serves " + o.runtime_dir});
  make(o.runtime_dir + "/sessions", 0750);
  // For who replaces the programs below a running launcher: what this one speaks.
  const std::string version = o.runtime_dir + "/launcher.version";
  ::unlink(version.c_str());
  const UniqueFd file(::open(version.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0444));
  const std::string line = version_line();
  if (!file || ::write(file.get(), line.data(), line.size()) != static_cast<ssize_t>(line.size())) die({ErrorCode::internal, Fault::server, errno, "write " + version});
  sweep_runtime(o.runtime_dir + "/sessions");
  return lock;
}

/// The name is a function of the runtime directory, so a restarted launcher finds, and ends,
/// what its predecessor left, and never touches another instance's groups.
std::string cgroup_name(const std::string& runtime_dir) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : runtime_dir) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  char name[32];
  ::snprintf(name, sizeof name, "codespace-%016llx", static_cast<unsigned long long>(hash));
  return name;
}

// --- serving ------------------------------------------------------------------------------------

struct Peer {
  UniqueFd fd;
  bool watching = false;
  bool closed = false;
  wire::SessionKey waiting_for{};  // create or kill whose outcome it wants
  LauncherOp waiting_op{};
};

class Server {
 public:
  Server(Sessions& sessions, UniqueFd listener, const sys::ServiceManager& manager)
      : sessions_(sessions), listener_(std::move(listener)), manager_(manager) {
    sessions_.on_created = [this](const wire::SessionKey& key, const LauncherReply& reply) {
      answer_waiting(key, LauncherOp::create, reply);
    };
    sessions_.on_kernel = [this](const wire::SessionKey& key, const LauncherReply& reply) {
      answer_waiting(key, LauncherOp::kernel, reply);
    };
    sessions_.on_gone = [this](const wire::SessionKey& key, const LauncherReply& end) {
      LauncherReply ok = end;
      ok.status = LauncherStatus::ok;
      answer_waiting(key, LauncherOp::kill, ok);
      if (replenish_delay_ms_ > 0) replenish_delay_ms_ = kReplenishAfterEndMs;
      for (Peer& peer : peers_) {
        if (peer.watching) send(peer, end);
      }
    };
  }

  void run() {
    (void)sessions_.replenish();
    while (stop_requested == 0) step();
    // An orderly end takes every session along: without a launcher nobody could end them.
    sessions_.kill_all();
    const std::uint64_t give_up = sys::monotonic_ns() + 10 * sys::kNsPerSecond;
    while (!sessions_.busy().empty() && sys::monotonic_ns() < give_up) step();
  }

 private:
  void step() {
    polled_.clear();
    polled_.push_back({listener_.get(), static_cast<short>(peers_.size() < kMaxPeers ? POLLIN : 0), 0});
    for (const Peer& peer : peers_) polled_.push_back({peer.fd.get(), POLLIN, 0});
    polled_.push_back({sessions_.quiet_events(), POLLIN, 0});
    const std::size_t first_session = polled_.size();
    order_.clear();
    // The time of a step must not grow with the sessions that just run.
    for (const auto& [lease, session] : sessions_.busy()) {
      order_.push_back(lease);
      for (const UniqueFd* fd : {&session->pidfd, &session->channel, &session->join.connection, &session->ahead.connection})
        polled_.push_back({*fd ? fd->get() : -1, POLLIN, 0});
    }
    const std::size_t first_zygote = polled_.size();
    sessions_.zygotes().add_polled(polled_);
    const bool replenishing = replenish_delay_ms_ > 0;
    const int quiet = replenishing ? replenish_delay_ms_ : sessions_.zygotes().waiting() ? kZygoteCheckMs : -1;
    const int watchdog = manager_.watchdog_ms() > 0 ? manager_.watchdog_ms() : -1;
    const int patient = quiet < 0 || (watchdog > 0 && watchdog < quiet) ? watchdog : quiet;
    const int joined = sessions_.has_unlimited_joins() && (patient < 0 || patient > kJoinMs) ? kJoinMs : patient;
    const int wait = sessions_.needs_tick() ? kTickMs : joined;
    const int n = ::poll(polled_.data(), polled_.size(), wait);
    feed_watchdog();
    if (n == 0 && replenishing && wait == replenish_delay_ms_ && stop_requested == 0) {
      replenish_delay_ms_ = sessions_.replenish() ? kReplenishIdleMs : 0;
      sessions_.zygotes().renew();
    }
    if (n < 0 && errno != EINTR) die({ErrorCode::internal, Fault::server, errno, "poll"});
    if (n > 0) {
      if (polled_[first_session - 1].revents != 0) sessions_.on_quiet_events();
      serve_sessions(first_session);
      sessions_.zygotes().on_polled(std::span(polled_).subspan(first_zygote));
      std::size_t i = 1;
      for (Peer& peer : peers_) {
        if (polled_[i++].revents != 0) serve(peer);
      }
      if (polled_[0].revents != 0) accept();
    }
    sessions_.on_tick();
    sessions_.put_to_rest();
    sessions_.zygotes().check_time();
    peers_.remove_if([](const Peer& peer) { return peer.closed; });
  }

  /// From the loop itself: a launcher that hangs in a step is to be found out.
  void feed_watchdog() {
    if (manager_.watchdog_ms() == 0) return;
    const std::uint64_t now = sys::monotonic_ns();
    if (now < next_sign_of_life_) return;
    manager_.tell("WATCHDOG=1");
    next_sign_of_life_ = now + static_cast<std::uint64_t>(manager_.watchdog_ms()) * (sys::kNsPerSecond / 1000) / 2;
  }

  void serve_sessions(std::size_t first) {
    for (std::size_t i = 0; i < order_.size(); ++i) {
      const auto happened = [&](std::size_t which) { return polled_[first + 4 * i + which].revents != 0; };
      Session* session = sessions_.at(order_[i]);
      if (session == nullptr) continue;
      if (happened(1) && session->channel) sessions_.on_channel(*session);
      if (happened(2) && session->join.connection) sessions_.on_warm_up(*session, session->join);
      if (happened(3) && session->ahead.connection) sessions_.on_warm_up(*session, session->ahead);
      if (happened(0) && session->pidfd) sessions_.on_exit(*session);
    }
  }

  void accept() {
    Peer peer;
    peer.fd.reset(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!peer.fd) return;
    ucred credentials{};
    socklen_t size = sizeof credentials;
    // The directory's modes let only the gateway's group connect; its uid may be anything the
    // operator chose, but never an id of a session (those have no mapping outside our range).
    if (::getsockopt(peer.fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0 || credentials.pid == 0) return;
    peers_.push_back(std::move(peer));
  }

  void serve(Peer& peer) {
    LauncherRequest request;
    // MSG_TRUNC gives the real length, so a longer message is refused and not cut to fit.
    const ssize_t n = ::recv(peer.fd.get(), &request, sizeof request, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      peer.closed = true;
      return;
    }
    if (n != static_cast<ssize_t>(sizeof request) || request.magic != wire::kLauncherMagic) {
      LauncherReply reply;
      reply.status = LauncherStatus::bad_request;
      send(peer, reply);
      peer.closed = true;
      return;
    }
    handle(peer, request);
  }

  /// The table of operations; anything not in it is refused.
  void handle(Peer& peer, const LauncherRequest& request) {
    Session* session = sessions_.find(request.session);
    LauncherReply unknown;
    unknown.status = LauncherStatus::unknown_session;
    unknown.session = request.session;
    switch (request.op) {
      case LauncherOp::create:
        replenish_delay_ms_ = kReplenishIdleMs;
        // Before the call: a session of the pool is there at once.
        peer.waiting_for = request.session;
        peer.waiting_op = LauncherOp::create;
        if (const auto refused = sessions_.create(request)) {
          peer.waiting_op = LauncherOp{};
          send(peer, *refused);
        }
        return;
      case LauncherOp::kill:
        if (session == nullptr) {
          if (sessions_.cancel_pending(request.session)) abandon_creation(request.session);
          return send(peer, unknown);
        }
        peer.waiting_for = request.session;
        peer.waiting_op = LauncherOp::kill;
        if (session->state == SessionState::starting) abandon_creation(request.session);
        sessions_.kill(*session);
        return;
      case LauncherOp::pause:
      case LauncherOp::resume:
        return send(peer, session == nullptr ? unknown : sessions_.freeze(*session, request.op == LauncherOp::pause));
      case LauncherOp::stat:
        return send(peer, session == nullptr || session->state != SessionState::running ? unknown : sessions_.describe(*session));
      case LauncherOp::list: {
        for (const Sessions::Table* table : {&sessions_.busy(), &sessions_.quiet()}) {
          for (const auto& [lease, listed] : *table) {
            if (listed->state == SessionState::running) send(peer, sessions_.describe(*listed));
          }
        }
        LauncherReply end;
        end.status = LauncherStatus::end_of_list;
        return send(peer, end);
      }
      case LauncherOp::watch:
        peer.watching = true;
        return;
      case LauncherOp::pool:
        replenish_delay_ms_ = kReplenishIdleMs;
        return send(peer, sessions_.set_pool(request));
      case LauncherOp::kernel:
        peer.waiting_for = request.session;
        peer.waiting_op = LauncherOp::kernel;
        if (session != nullptr && sessions_.fork_kernel(*session, request.flavour)) return;
        peer.waiting_op = LauncherOp{};
        if (session != nullptr) unknown.status = LauncherStatus::setup_failed;
        return send(peer, unknown);
    }
    LauncherReply reply;
    reply.status = LauncherStatus::bad_request;
    send(peer, reply);
    peer.closed = true;
  }

  void abandon_creation(const wire::SessionKey& key) {
    LauncherReply reply;
    reply.status = LauncherStatus::setup_failed;
    reply.session = key;
    reply.stage = wire::Stage::init_ready;
    reply.sys_errno = ECANCELED;
    answer_waiting(key, LauncherOp::create, reply);
  }

  void answer_waiting(const wire::SessionKey& key, LauncherOp op, const LauncherReply& reply) {
    for (Peer& peer : peers_) {
      if (peer.waiting_op == op && peer.waiting_for == key) {
        peer.waiting_op = LauncherOp{};
        send(peer, reply);
      }
    }
  }

  void send(Peer& peer, const LauncherReply& reply) {
    // A list can outrun the socket's buffer; the gateway reads promptly, so wait a little.
    for (int tries = 0; tries < 100; ++tries) {
      if (::send(peer.fd.get(), &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(sizeof reply)) return;
      if (errno != EAGAIN) break;
      pollfd writable{peer.fd.get(), POLLOUT, 0};
      (void)::poll(&writable, 1, 10);
    }
    peer.closed = true;
  }

  Sessions& sessions_;
  UniqueFd listener_;
  const sys::ServiceManager& manager_;
  std::list<Peer> peers_;
  std::vector<pollfd> polled_;
  std::vector<std::uint32_t> order_;
  int replenish_delay_ms_ = 0;  // 0: there are enough spares
  std::uint64_t next_sign_of_life_ = 0;
};

UniqueFd listen_launcher() {
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ::snprintf(address.sun_path, sizeof address.sun_path, "/run/launcher.sock");
  ::unlink(address.sun_path);
  if (!listener || ::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(address.sun_path, 0660) != 0 || ::listen(listener.get(), 256) != 0)
    die({ErrorCode::internal, Fault::server, errno, "listen on launcher.sock"});
  return listener;
}

void on_stop(int) { stop_requested = 1; }

void set_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop;  // no SA_RESTART: poll must return
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
  action.sa_handler = SIG_IGN;
  ::sigaction(SIGPIPE, &action, nullptr);
  ::sigaction(SIGHUP, &action, nullptr);
}

}  // namespace

int run(int argc, char** argv) {
  const Options options = parse(argc, argv);
  const Identity identity = resolve_identity(options);
  const sys::ServiceManager manager;
  ::umask(022);
  ::clearenv();
  const rlimit files{65536, 65536};
  if (::setrlimit(RLIMIT_NOFILE, &files) != 0) {
    rlimit current{};
    ::getrlimit(RLIMIT_NOFILE, &current);
    current.rlim_cur = current.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &current);
  }

  // These count over all user namespaces below, up to what the launcher has when it makes its own;
  // a session's share is its own limit. Without the right to raise them they stay.
  for (const auto resource : {RLIMIT_MSGQUEUE, RLIMIT_SIGPENDING, RLIMIT_MEMLOCK}) {
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    (void)::setrlimit(resource, &unlimited);
  }

  const UniqueFd lock = prepare_runtime(options, identity);
  UniqueFd init_program = must(load_sealed("codespace-init", options.init_path));
  UniqueFd zygote_library = must(load_sealed("codespace-zygote", options.zygote_path));
  UniqueFd seccomp = must(load_seccomp());
  const auto cgroups = must(Cgroups::open(cgroup_name(options.runtime_dir), identity.uid, identity.gid));
  must(drop_to_service_user(identity));
  must(enter_outer_namespace(identity, options.ids));
  must(cgroups->cut_off());
  must(enter_small_root(options.runtime_dir, options.images_dir));

  set_signals();
  Sessions sessions(*cgroups, options.ids.count, std::move(init_program), std::move(seccomp), std::move(zygote_library));
  Server server(sessions, listen_launcher(), manager);
  manager.tell("READY=1");
  ::fprintf(stderr, "<6>ready cgroup=%s sessions_max=%u\n", cgroups->backend().data(), options.ids.count / kIdsPerSession);
  server.run();
  manager.tell("STOPPING=1");
  ::unlink("/run/launcher.sock");
  cgroups->clear_base();
  return 0;
}

}  // namespace codespace::launcher

int main(int argc, char** argv) { return codespace::launcher::run(argc, argv); }
