// Names to addresses by getaddrinfo(3), which blocks: on threads of its own, so that one slow
// name server delays those who asked for it and nobody else.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace codespace::egress {

class Resolver {
 public:
  using Addresses = std::vector<boost::asio::ip::address>;

  Resolver(boost::asio::io_context& io, std::size_t threads) : io_(io), pool_(threads) {}

  /// All addresses of a name, in the order to try them; empty if it has none; nothing if the
  /// answer did not come in time or too many questions are waiting.
  boost::asio::awaitable<std::optional<Addresses>> lookup(std::string name, std::chrono::milliseconds patience);

 private:
  boost::asio::io_context& io_;
  boost::asio::thread_pool pool_;
  std::size_t waiting_ = 0;  // questions that no thread has finished
};

}  // namespace codespace::egress
