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
#include "server/audit.h"
#include "server/auth.h"
#include "server/quotas.h"
#include "server/router.h"

namespace codespace::server {

/// What all connections share; owned by main.
struct ConnectionContext {
  Router& router;
  api::Rpc& rpc;
  const Auth& auth;
  Quotas& quotas;
  spdlog::logger& log;
  Audit& audit;
  std::uint64_t max_file_bytes = 0;
  /// Bytes of RPC forms being taken in over all connections: they come before their key does.
  std::atomic<std::uint64_t>& form_bytes;
  const std::vector<std::string>& names;  // of this server, beside localhost and addresses
  bool direct_link = false;   // tools may be called past the RPC, by a token
};

/// Serves the socket until it is closed. `tls` is held for the connection's life, so a reload
/// of the certificate affects new ones only.
boost::asio::awaitable<void> serve_connection(boost::asio::ip::tcp::socket socket,
                                              std::shared_ptr<boost::asio::ssl::context> tls, ConnectionContext context);

/// Tells a client that there are too many connections, if it speaks plain HTTP (503, Retry-After), and closes. One that speaks TLS
/// is only closed: a handshake is what there is no room for.
boost::asio::awaitable<void> refuse_connection(boost::asio::ip::tcp::socket socket);

}  // namespace codespace::server
