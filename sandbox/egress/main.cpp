// codespace-egress: the only way out of a session. Runs as a user of its own, without any
// capability; knows of the host nothing but its resolver's configuration and its network.
//
// Theory of operation. The gateway hands over, for each session that may go out, the listening
// socket that the session's init made at 127.0.0.1:3128 in the session's own network namespace,
// with the session's rules. This process accepts there, decides, connects, and moves bytes. It
// keeps nothing: after a restart the gateway hands everything over again, and connections that
// came meanwhile have waited in the sockets' backlogs. A session's end reaches it as the end of
// a pipe whose other end init holds.
#include <sys/resource.h>
#include <sys/stat.h>
#include <grp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <spdlog/spdlog.h>

#include "sandbox/egress/control.h"
#include "sandbox/egress/proxy.h"
#include "sandbox/daemon/log.h"
#include "sandbox/daemon/privileges.h"
#include "sandbox/daemon/watchdog.h"

namespace codespace::egress {
namespace {

int fail(const Error& error, int status) {
  std::cerr << "codespace-egress: " << error.what;
  if (error.sys_errno != 0) std::cerr << ": " << std::strerror(error.sys_errno);
  std::cerr << '\n';
  return status;
}

void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

/// The socket belongs to the group whose members may connect. Done while still root, if at all.
Result<void> give_to_group(const std::string& path, const std::string& group) {
  if (group.empty()) return {};
  const struct group* found = ::getgrnam(group.c_str());
  if (found == nullptr) return server_error(ErrorCode::internal, "--group " + group + " is no group of this machine");
  if (::lchown(path.c_str(), static_cast<uid_t>(-1), found->gr_gid) != 0) return sys_error(errno, "give " + path + " to the group " + group);
  return {};
}

}  // namespace

int run(int argc, char** argv) {
  constexpr int kExitRuntime = 1, kExitUsage = 2;
  CLI::App app{"codespace-egress: the way out of CodeSpace's sessions"};
  std::string socket = "/run/codespace-egress/egress.sock", user, group;
  std::vector<std::string> denied;
  ProxyOptions options;
  app.add_option("--socket", socket, "where the gateway connects")->capture_default_str();
  app.add_option("--user", user, "user to become when started as root");
  app.add_option("--group", group, "group that may connect to the socket");
  app.add_option("--deny", denied, "address or network no session may reach, beside all that are not public; more than one is fine");
  app.add_option("--port", options.ports, "port that sessions with full access may reach; more than one is fine")->capture_default_str();
  app.add_option("--session-bytes", options.session_bytes, "bytes a session may send and receive in its life")->capture_default_str();
  app.add_option("--session-connections", options.session_connections, "connections of one session at a time")->capture_default_str();
  app.add_option("--connections", options.connections, "connections of all sessions at a time")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  for (const std::string& text : denied) {
    const auto network = parse_network(text);
    if (!network) return fail({ErrorCode::invalid_request, Fault::client, 0, "--deny " + network.error(), {}}, kExitUsage);
    options.denied.push_back(*network);
  }
  // Names that no server answers must not hold a thread for long (resolv.conf(5)).
  ::setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
  raise_descriptor_limit();

  const sys::ServiceManager manager;
  auto given_sockets = sys::ServiceManager::take_sockets();
  const bool own_socket = given_sockets.empty();
  auto listener = own_socket ? listen_control(socket) : Result<sys::UniqueFd>(std::move(given_sockets.front()));
  if (!listener) return fail(listener.error(), kExitRuntime);
  if (own_socket) {
    if (auto given = give_to_group(socket, group); !given) return fail(given.error(), kExitRuntime);
  }
  if (auto dropped = daemon::drop_privileges(user); !dropped) return fail(dropped.error(), kExitRuntime);

  const auto log = daemon::make_log("egress");
  boost::asio::io_context io(1);
  Proxy proxy(io, options, *log);
  boost::asio::co_spawn(io, serve_control(proxy, std::move(*listener)), boost::asio::detached);
  boost::asio::signal_set signals(io, SIGTERM, SIGINT);
  signals.async_wait([&](const boost::system::error_code&, int) {
    log->info("stopping");
    manager.tell("STOPPING=1");
    io.stop();
  });
  boost::asio::co_spawn(io, daemon::feed_watchdog(manager), boost::asio::detached);
  log->info("ready socket={} version={}", own_socket ? socket : "of the service manager", CODESPACE_VERSION);
  manager.tell("READY=1");
  io.run();
  if (own_socket) (void)::unlink(socket.c_str());
  // A thread may be waiting for a name server; nothing of it is worth waiting for.
  std::_Exit(0);
}

}  // namespace codespace::egress

int main(int argc, char** argv) { return codespace::egress::run(argc, argv); }
