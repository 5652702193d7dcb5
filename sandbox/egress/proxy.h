// The way out of sessions: an HTTP proxy (RFC 9110 section 9.3.6, RFC 9112 section 3.2) that
// serves, for each session, the listening socket its init handed over. The socket belongs to
// the session's network namespace, so who connects to it is that session and can be no other.
//
// For each request: the target is read in one spelling only, the session's rules are asked,
// the name is resolved, every address that is not public is dropped, and the connection is
// made to an address that was looked at. Everything is bounded: headers, times, connections,
// bytes. One thread runs all of it, so nothing here is locked.
#pragma once

#include <spdlog/logger.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/egress/address_policy.h"
#include "sandbox/egress/resolver.h"
#include "sandbox/egress/rules.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/egress_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::egress {

/// Of every request for a connection. Closed set; the names are those of the log and the metrics.
enum class Verdict {
  allowed,
  malformed,       // no proxy request, or a target in no accepted spelling
  not_listed,      // no rule of the session names it
  port,            // not a port the operator permits
  address,         // it has no public address
  unresolved,      // the name has no address, or the name server is silent
  unreachable,     // nobody took the connection in time
  quota,           // the session has used up its bytes or its connections
  wrong_name,      // the TLS handshake asks for another server than the request
};
inline constexpr std::size_t kVerdicts = 9;
std::string_view name_of(Verdict verdict);

struct ProxyOptions {
  std::vector<Network> denied;                    // beside what is not public
  std::vector<std::uint16_t> ports{80, 443};      // of sessions with full access
  std::uint64_t session_bytes = 10ULL << 30;      // up and down together, in a session's life
  std::uint32_t session_connections = 64;         // at the same time
  std::uint32_t connections = 4096;               // at the same time, of all sessions
};

struct Policy {
  std::string session_id;  // for the log
  wire::NetworkMode mode = wire::NetworkMode::none;
  std::vector<Rule> rules;
};

struct Totals {
  std::array<std::uint64_t, kVerdicts> decisions{};
  std::uint64_t connections = 0;  // now
  std::uint64_t bytes_up = 0;
  std::uint64_t bytes_down = 0;
};

class Session;

class Proxy {
 public:
  Proxy(boost::asio::io_context& io, ProxyOptions options, spdlog::logger& log);
  ~Proxy();

  /// Serves `listener` until `life`, a pipe, is closed at its other end, which init's end does. A
  /// session that is known keeps its socket and its connections and takes the new policy.
  std::expected<void, std::string> open(const wire::SessionKey& key, Policy policy, sys::UniqueFd listener, sys::UniqueFd life);
  [[nodiscard]] wire::EgressCounts counts(const wire::SessionKey& key) const;
  [[nodiscard]] const Totals& totals() const { return totals_; }

  // For Session.
  boost::asio::io_context& io;
  const ProxyOptions options;
  spdlog::logger& log;
  Resolver resolver;
  void forget(const wire::SessionKey& key);
  Totals& count() { return totals_; }
  /// Why this address is out of reach; empty if it is not.
  std::string_view forbidden(const boost::asio::ip::address& address);

 private:
  std::map<wire::SessionKey, std::shared_ptr<Session>> sessions_;
  Totals totals_;
  std::vector<Address> own_;
  std::chrono::steady_clock::time_point own_read_{};
};

}  // namespace codespace::egress
