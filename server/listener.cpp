// See listener.h.
#include "server/listener.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace codespace::server {

namespace asio = boost::asio;
using asio::as_tuple;
using asio::use_awaitable;
using tcp = asio::ip::tcp;

constexpr std::size_t kRefusedAtOnce = 64;

Listener::Listener(asio::any_io_executor executor, async::TaskGroup& connections, ConnectionContext context, TlsSource tls,
                   std::size_t max_connections)
    : executor_(std::move(executor)), connections_(connections), context_(context), tls_(std::move(tls)),
      max_connections_(max_connections), acceptor_(executor_) {}

Result<void> Listener::open(const std::string& host, std::uint16_t port) {
  boost::system::error_code ec;
  const auto address = asio::ip::make_address(host, ec);
  if (ec) return client_error(ErrorCode::invalid_request, "listen address " + host + " is not an IP address");
  const tcp::endpoint endpoint(address, port);
  acceptor_.open(endpoint.protocol(), ec);
  if (!ec) acceptor_.set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec && address.is_v6()) acceptor_.set_option(boost::asio::ip::v6_only(true), ec);
  if (!ec) acceptor_.bind(endpoint, ec);
  if (!ec) acceptor_.listen(1024, ec);
  if (ec) return server_error(ErrorCode::internal, "listen on " + host + ":" + std::to_string(port) + ": " + ec.message(), ec.value());
  return {};
}

Result<void> Listener::adopt(sys::UniqueFd socket) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  int listening = 0;
  socklen_t flag_size = sizeof listening;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0 || (bound.ss_family != AF_INET && bound.ss_family != AF_INET6) ||
      ::getsockopt(socket.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &flag_size) != 0 || listening == 0)
    return server_error(ErrorCode::internal, "the service manager gave a descriptor that is no listening TCP socket; see ListenStream= of codespaced.socket");
  boost::system::error_code ec;
  acceptor_.assign(bound.ss_family == AF_INET ? tcp::v4() : tcp::v6(), socket.get(), ec);
  if (ec) return server_error(ErrorCode::internal, "take over a listening socket: " + ec.message(), ec.value());
  (void)socket.release();
  return {};
}

std::string Listener::address() const {
  boost::system::error_code ec;
  const auto endpoint = acceptor_.local_endpoint(ec);
  const std::string host = endpoint.address().is_v6() ? "[" + endpoint.address().to_string() + "]" : endpoint.address().to_string();
  return host + ":" + std::to_string(endpoint.port());
}

std::uint16_t Listener::port() const {
  boost::system::error_code ec;
  return acceptor_.local_endpoint(ec).port();
}

asio::awaitable<void> Listener::accept_loop() {
  for (;;) {
    const auto executor = async::serial(executor_);
    auto [ec, socket] = co_await acceptor_.async_accept(executor, as_tuple(use_awaitable));
    if (ec == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
    if (ec) {
      // Out of descriptors or memory: trying again at once would only spin.
      asio::steady_timer pause(executor_, std::chrono::milliseconds(100));
      co_await pause.async_wait(as_tuple(use_awaitable));
      continue;
    }
    // Above the bound some are told so, and those beyond are only closed.
    if (connections_.size() >= max_connections_ + kRefusedAtOnce) continue;
    if (connections_.size() >= max_connections_) {
      connections_.spawn(executor, refuse_connection(tcp::socket(std::move(socket))));
      continue;
    }
    connections_.spawn(executor, serve_connection(tcp::socket(std::move(socket)), tls_(), context_));
  }
}

void Listener::close() {
  boost::system::error_code ignored;
  acceptor_.close(ignored);
}

}  // namespace codespace::server
