// Launcher requests over SOCK_SEQPACKET. Boost 1.81 has no local protocol of that type, so
// the descriptor is raw and Asio only tells when it is readable.
#include "sandbox/manager/launcher_client.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/system_error.hpp>
#include <optional>

#include "sandbox/manager/timed_socket.h"

namespace codespace::manager {
namespace {

namespace asio = boost::asio;
using wire::LauncherReply;
using wire::LauncherRequest;
using wire::LauncherStatus;

// More sessions than any launcher can hold; a list that goes on past it is not one.
constexpr std::size_t kMaxListed = 100'000;

constexpr const char* kLauncherAdvice =
    "the launcher does not answer; sessions that exist go on, new ones wait for it. Start it, for "
    "example with `systemctl start codespace-launcher`";

std::unexpected<Error> unavailable(int saved_errno) {
  return server_error(ErrorCode::launcher_unavailable, kLauncherAdvice, saved_errno);
}

/// One packet if there is one: a reply, nothing yet, or an error (0: the launcher closed).
Result<std::optional<LauncherReply>> receive_now(int fd) {
  LauncherReply reply;
  // MSG_TRUNC: a packet longer than a reply shows its real length and is refused.
  const ssize_t n = ::recv(fd, &reply, sizeof reply, MSG_DONTWAIT | MSG_TRUNC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (n < 0) return unavailable(errno);
  if (n == 0) return unavailable(0);
  if (n != static_cast<ssize_t>(sizeof reply) || reply.magic != wire::kLauncherMagic)
    return server_error(
        ErrorCode::launcher_unavailable,
        "the launcher speaks another protocol than this gateway; install both from the same version");
  return reply;
}

Result<void> send_now(int fd, const LauncherRequest& request) {
  const ssize_t n = ::send(fd, &request, sizeof request, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n != static_cast<ssize_t>(sizeof request)) return unavailable(n < 0 ? errno : 0);
  return {};
}

/// A connection that has been told the request. Frames of it are read with next().
class Exchange {
 public:
  explicit Exchange(const asio::any_io_executor& executor) : descriptor_(executor) {}

  asio::awaitable<Result<void>> begin(const std::string& path, const LauncherRequest& request,
                                      async::DeadlineQueue& deadlines,
                                      std::optional<async::TimePoint> until, sys::UniqueFd idle = {}) {
    std::chrono::milliseconds pause{1};
    for (;;) {
      const bool anew = !idle;
      auto fd = anew ? try_connect_unix(path, SOCK_SEQPACKET) : Result<sys::UniqueFd>(std::move(idle));
      if (fd) {
        if (until) timed_.arm(deadlines, *until, fd->get());
        const auto sent = send_now(fd->get(), request);
        if (!sent && !anew) {  // closed since it was last used
          timed_.disarm();
          continue;
        }
        descriptor_.assign(fd->release());
        co_return sent;
      }
      const bool busy = fd.error().sys_errno == EAGAIN;
      if (!busy || (until && std::chrono::steady_clock::now() + pause >= *until))
        co_return unavailable(fd.error().sys_errno);
      asio::steady_timer timer(descriptor_.get_executor(), pause);
      co_await timer.async_wait(asio::use_awaitable);
      pause = std::min(pause * 2, std::chrono::milliseconds(50));
    }
  }

  asio::awaitable<Result<LauncherReply>> next() {
    for (;;) {
      const auto reply = receive_now(descriptor_.native_handle());
      if (!reply && timed_.expired())
        co_return server_error(
            ErrorCode::deadline_exceeded,
            "the launcher did not answer in time; look at its log and at the load of this machine");
      if (!reply) co_return std::unexpected(reply.error());
      if (*reply) co_return **reply;
      co_await descriptor_.async_wait(asio::posix::stream_descriptor::wait_read, asio::use_awaitable);
    }
  }

  /// The connection, after its one reply; empty if it was shut down by then.
  sys::UniqueFd release() {
    timed_.disarm();
    return timed_.expired() ? sys::UniqueFd() : sys::UniqueFd(descriptor_.release());
  }

 private:
  asio::posix::stream_descriptor descriptor_;
  TimedSocket timed_;  // destroyed first: it must let go of the descriptor before it is closed
};

}  // namespace

Result<sys::UniqueFd> try_connect_unix(const std::string& path, int type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return sys_error(ENAMETOOLONG, "connect " + path + "; choose a runtime directory with a shorter path");
  ::memcpy(address.sun_path, path.data(), path.size());
  sys::UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return sys_error(errno, "socket");
  // unix(7): a non-blocking connect either succeeds at once or fails, with EAGAIN when the
  // backlog is full; there is nothing to wait for on the descriptor, unlike with TCP.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return sys_error(errno, "connect " + path);
  return fd;
}

asio::awaitable<Result<LauncherReply>> LauncherClient::ask(LauncherRequest request,
                                                           std::chrono::milliseconds patience) {
  const auto executor = co_await asio::this_coro::executor;
  Exchange exchange(executor);
  auto idle = take_idle();
  const auto begun = co_await exchange.begin(socket_path_, request, deadlines_,
                                             std::chrono::steady_clock::now() + patience, std::move(idle));
  if (!begun) co_return std::unexpected(begun.error());
  auto reply = co_await exchange.next();
  if (!reply || reply->status == LauncherStatus::bad_request) co_return reply;
  if (reply->session != request.session)
    co_return server_error(ErrorCode::internal, "the launcher answered about another session");
  keep_idle(exchange.release());
  co_return reply;
}

sys::UniqueFd LauncherClient::take_idle() {
  for (;;) {
    sys::UniqueFd connection;
    {
      const std::lock_guard lock(mutex_);
      if (idle_.empty()) return connection;
      connection = std::move(idle_.back());
      idle_.pop_back();
    }
    char any = 0;
    if (::recv(connection.get(), &any, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) return connection;
  }
}

void LauncherClient::keep_idle(sys::UniqueFd connection) {
  if (!connection) return;
  const std::lock_guard lock(mutex_);
  if (idle_.size() < kMostIdle) idle_.push_back(std::move(connection));
}

asio::awaitable<Result<std::vector<LauncherReply>>> LauncherClient::list(std::chrono::milliseconds patience) {
  const auto executor = co_await asio::this_coro::executor;
  Exchange exchange(executor);
  LauncherRequest request;
  request.op = wire::LauncherOp::list;
  const auto begun =
      co_await exchange.begin(socket_path_, request, deadlines_, std::chrono::steady_clock::now() + patience);
  if (!begun) co_return std::unexpected(begun.error());
  std::vector<LauncherReply> sessions;
  while (sessions.size() < kMaxListed) {
    const auto reply = co_await exchange.next();
    if (!reply) co_return std::unexpected(reply.error());
    if (reply->status == LauncherStatus::end_of_list) co_return sessions;
    sessions.push_back(*reply);
  }
  co_return server_error(ErrorCode::internal, "the launcher's list of sessions does not end");
}

Result<std::vector<LauncherReply>> LauncherClient::list_blocking(std::chrono::milliseconds patience) {
  const auto fd = try_connect_unix(socket_path_, SOCK_SEQPACKET);
  if (!fd) return unavailable(fd.error().sys_errno);
  LauncherRequest request;
  request.op = wire::LauncherOp::list;
  if (const auto sent = send_now(fd->get(), request); !sent) return std::unexpected(sent.error());
  const auto until = std::chrono::steady_clock::now() + patience;
  std::vector<LauncherReply> sessions;
  while (sessions.size() < kMaxListed) {
    const auto reply = receive_now(fd->get());
    if (!reply) return std::unexpected(reply.error());
    if (!*reply) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      pollfd ready{.fd = fd->get(), .events = POLLIN, .revents = 0};
      if (left.count() <= 0 || ::poll(&ready, 1, static_cast<int>(left.count())) == 0)
        return unavailable(ETIMEDOUT);
      continue;
    }
    if ((*reply)->status == LauncherStatus::end_of_list) return sessions;
    sessions.push_back(**reply);
  }
  return server_error(ErrorCode::internal, "the launcher's list of sessions does not end");
}

asio::awaitable<Error> LauncherClient::watch(std::function<void()> connected,
                                             std::function<void(const LauncherReply&)> ended) {
  const auto executor = co_await asio::this_coro::executor;
  Exchange exchange(executor);
  LauncherRequest request;
  request.op = wire::LauncherOp::watch;
  const auto begun = co_await exchange.begin(socket_path_, request, deadlines_, std::nullopt);
  if (!begun) co_return begun.error();
  connected();
  for (;;) {
    const auto reply = co_await exchange.next();
    if (!reply) co_return reply.error();
    if (reply->status == LauncherStatus::ended) ended(*reply);
  }
}

}  // namespace codespace::manager
