// One client connection, from its first byte to its last: TLS or not, one request after the
// other, limits and time limits set before anything is read. Runs as one coroutine on one
// strand; nothing of it is touched by another thread.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <spdlog/logger.h>

#include "api/rpc.h"
#include "server/auth.h"
#include "server/router.h"

namespace codespace::server {

/// What all connections share; owned by main.
struct ConnectionContext {
  Router& router;
  api::Rpc& rpc;
  const Auth& auth;
  spdlog::logger& log;
  std::uint64_t max_file_bytes = 0;
  /// Bytes of RPC forms being taken in over all connections: they come before their key does.
  std::atomic<std::uint64_t>& form_bytes;
  bool direct_link = false;   // tools may be called past the RPC, by a token
};

/// Serves the socket until it is closed. `tls` is held for the connection's life, so a reload
/// of the certificate affects new ones only.
boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              std::shared_ptr<boost::asio::ssl::context> tls, ConnectionContext context);

}  // namespace codespace::server
