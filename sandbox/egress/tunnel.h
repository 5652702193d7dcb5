// One connection of a program in a session to the proxy, and the one it gets to the outside.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <chrono>
#include <memory>

#include "sandbox/egress/session.h"

namespace codespace::egress {

class Tunnel : public std::enable_shared_from_this<Tunnel> {
 public:
  Tunnel(std::shared_ptr<Session> session, boost::asio::ip::tcp::socket client);
  ~Tunnel();
  boost::asio::awaitable<void> run();
  void close();

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::buffer_body>;
  using Clock = std::chrono::steady_clock;

  /// A refusal, and the sentence for the program that asked.
  struct Refused {
    Verdict verdict;
    unsigned status;
    std::string sentence;
  };

  boost::asio::awaitable<std::expected<void, Refused>> reach(Target target, bool connect);
  boost::asio::awaitable<std::expected<Resolver::Addresses, Refused>> addresses_of(const Target& target);
  boost::asio::awaitable<bool> wait_for_lookup();
  [[nodiscard]] std::expected<void, Refused> permitted(const Target& target, bool connect) const;
  boost::asio::awaitable<void> refuse(Refused why);
  boost::asio::awaitable<void> tunnel(const Target& target);
  boost::asio::awaitable<bool> name_is_right(const Target& target);
  boost::asio::awaitable<void> forward(Parser& parser, const Target& target);
  boost::asio::awaitable<void> send_request(Parser& parser);
  boost::asio::awaitable<void> relay(boost::asio::ip::tcp::socket& from, boost::asio::ip::tcp::socket& to, bool up);
  boost::asio::awaitable<bool> send_up(std::string_view bytes);
  boost::asio::awaitable<void> watch_time();
  void allow(std::chrono::seconds time) { deadline_ = Clock::now() + time; }

  std::shared_ptr<Session> session_;
  boost::asio::ip::tcp::socket client_;
  boost::asio::ip::tcp::socket server_;
  boost::asio::steady_timer timer_;
  Clock::time_point deadline_;
  bool closed_ = false;
  boost::beast::flat_buffer buffer_;
  std::string asked_;    // method and target as logged; empty if it had no accepted spelling
  std::string address_;  // that the connection was made to
  const Clock::time_point began_ = Clock::now();
  std::uint64_t up_ = 0, down_ = 0;
};

}  // namespace codespace::egress
