// Accepts connections on one address, bounded in number, each as a task of its own.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <functional>
#include <memory>
#include <mutex>

#include "sandbox/async/task_group.h"
#include "sandbox/sys/unique_fd.h"
#include "server/connection.h"

namespace codespace::server {

class Listener {
 public:
  /// `tls` gives the context for a new connection, so that a reload needs no restart.
  using TlsSource = std::function<std::shared_ptr<boost::asio::ssl::context>()>;

  Listener(boost::asio::any_io_executor executor, async::TaskGroup& connections, ConnectionContext context, TlsSource tls,
           std::size_t max_connections);

  /// Binds and listens; port 0 takes a free one.
  Result<void> open(const std::string& host, std::uint16_t port);
  /// Takes a listening TCP socket that somebody else made.
  Result<void> adopt(sys::UniqueFd socket);
  /// As ADDR:PORT.
  [[nodiscard]] std::string address() const;
  [[nodiscard]] std::uint16_t port() const;
  /// Until close(). On too many connections or descriptors it waits a moment and goes on.
  boost::asio::awaitable<void> accept_loop();
  void close();

 private:
  boost::asio::any_io_executor executor_;
  async::TaskGroup& connections_;
  ConnectionContext context_;
  TlsSource tls_;
  std::size_t max_connections_;
  boost::asio::ip::tcp::acceptor acceptor_;
};

}  // namespace codespace::server
