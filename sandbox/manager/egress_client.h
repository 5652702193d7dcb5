// The gateway's side of the egress proxy's socket: one packet out, one back, per connection.
// Knows nothing of sessions but what it passes on. Coroutines run on the executor of their caller.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/manager/records.h"
#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/egress_protocol.h"

namespace codespace::manager {

/// What the proxy has done since it was started.
struct EgressTotals {
  std::map<std::string, std::uint64_t> decisions;  // by verdict
  std::uint64_t connections = 0;                   // now
  std::uint64_t bytes_up = 0, bytes_down = 0;
};

/// What an init gives for its session's way out; see InitRequest::open_network.
struct WayOut {
  sys::UniqueFd listener;
  sys::UniqueFd life;
};

class EgressClient {
 public:
  EgressClient(std::string socket_path, async::DeadlineQueue& deadlines)
      : socket_path_(std::move(socket_path)), deadlines_(deadlines) {}

  boost::asio::awaitable<Result<void>> open(wire::SessionKey key, std::string session_id, Network network, WayOut way_out);
  boost::asio::awaitable<Result<wire::EgressCounts>> counts(wire::SessionKey key);
  boost::asio::awaitable<Result<EgressTotals>> totals();
  /// Says `connected` once the proxy hears us, and returns when the connection is lost.
  boost::asio::awaitable<Error> watch(std::function<void()> connected);

 private:
  boost::asio::awaitable<Result<std::vector<char>>> ask(std::vector<char> packet, WayOut descriptors);
  const std::string socket_path_;
  async::DeadlineQueue& deadlines_;
};

/// Asks the init that listens at `path` for its session's way out.
boost::asio::awaitable<Result<WayOut>> take_way_out(std::string path, async::DeadlineQueue& deadlines);

}  // namespace codespace::manager
