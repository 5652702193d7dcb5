// The gateway's side of the launcher's socket: one fixed struct out, one back; a connection is
// kept for the next request. A launcher that is away is an ordinary error here (launcher_unavailable), never
// a reason to lose a session. Coroutines run on the executor of their caller.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

class LauncherClient {
 public:
  LauncherClient(std::string socket_path, async::DeadlineQueue& deadlines)
      : socket_path_(std::move(socket_path)), deadlines_(deadlines) {}

  /// The one reply to a request that is neither list nor watch. Its status may be any.
  boost::asio::awaitable<Result<wire::LauncherReply>> ask(wire::LauncherRequest request,
                                                          std::chrono::milliseconds patience);
  boost::asio::awaitable<Result<std::vector<wire::LauncherReply>>> list(std::chrono::milliseconds patience);
  /// For the start of the daemon, before its threads run.
  Result<std::vector<wire::LauncherReply>> list_blocking(std::chrono::milliseconds patience);
  /// Says `connected` once the launcher hears us, then hands on every end of a session.
  /// Returns when the connection is lost; only cancellation ends it otherwise.
  boost::asio::awaitable<Error> watch(std::function<void()> connected,
                                      std::function<void(const wire::LauncherReply&)> ended);

 private:
  /// A connection that nothing is asked on, if there is one that the launcher has not closed.
  sys::UniqueFd take_idle();
  void keep_idle(sys::UniqueFd connection);

  static constexpr std::size_t kMostIdle = 4;
  const std::string socket_path_;
  async::DeadlineQueue& deadlines_;
  std::mutex mutex_;
  std::vector<sys::UniqueFd> idle_;
};

/// Connects a unix socket without blocking. EAGAIN in the error means that the listener's
/// backlog is full, which passes.
Result<sys::UniqueFd> try_connect_unix(const std::string& path, int type);

}  // namespace codespace::manager
