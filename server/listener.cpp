// See listener.h.
#include "server/listener.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace codespace::server {

namespace asio = boost::asio;
using asio::as_tuple;
using asio::use_awaitable;
using tcp = asio::ip::tcp;

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

std::uint16_t Listener::port() const {
  boost::system::error_code ec;
  return acceptor_.local_endpoint(ec).port();
}

asio::awaitable<void> Listener::accept_loop() {
  for (;;) {
    auto strand = asio::make_strand(executor_.target<asio::io_context::executor_type>()->context());
    auto [ec, socket] = co_await acceptor_.async_accept(strand, as_tuple(use_awaitable));
    if (ec == asio::error::operation_aborted || !acceptor_.is_open()) co_return;
    if (ec) {
      // Out of descriptors or memory: trying again at once would only spin.
      asio::steady_timer pause(executor_, std::chrono::milliseconds(100));
      co_await pause.async_wait(as_tuple(use_awaitable));
      continue;
    }
    if (connections_.size() >= max_connections_) continue;  // closed: the sign a client understands best
    connections_.spawn(strand, serve_connection(tcp::socket(std::move(socket)), tls_(), context_));
  }
}

void Listener::close() {
  boost::system::error_code ignored;
  acceptor_.close(ignored);
}

}  // namespace codespace::server
