// One session's way out: its listening socket, its connections, what it has used.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <set>

#include "sandbox/egress/proxy.h"

namespace codespace::egress {

class Tunnel;

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Proxy& proxy, const wire::SessionKey& key, Policy policy);

  std::expected<void, std::string> start(sys::UniqueFd listener, sys::UniqueFd life);
  /// Ends every connection. Also what happens when init ends.
  void stop();

  void set_policy(Policy policy) { policy_ = std::move(policy); }
  [[nodiscard]] const Policy& policy() const { return policy_; }
  [[nodiscard]] const wire::EgressCounts& counts() const { return counts_; }

  // For Tunnel.
  Proxy& proxy;
  /// False when this one is too much.
  bool spend(std::uint64_t up, std::uint64_t down);
  [[nodiscard]] bool spent() const { return counts_.bytes_up + counts_.bytes_down >= proxy.options.session_bytes; }
  void decided(Verdict verdict);
  bool begin_lookup();
  void end_lookup() { --lookups_; }
  void remove(Tunnel* tunnel);

 private:
  boost::asio::awaitable<void> accept_all();
  boost::asio::awaitable<void> watch_life();
  boost::asio::awaitable<void> wait_for_turn();

  const wire::SessionKey key_;
  Policy policy_;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::posix::stream_descriptor life_;
  boost::asio::steady_timer pause_;
  std::set<Tunnel*> tunnels_;
  wire::EgressCounts counts_;
  std::uint32_t lookups_ = 0;
  bool stopped_ = false;
  // A bucket of tokens: how many connections may come at once, and how many a second after that.
  double tokens_;
  std::chrono::steady_clock::time_point refilled_;
};

}  // namespace codespace::egress
