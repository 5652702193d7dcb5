// A connection to a session's init, for one request at a time: a frame out, frames in. Every
// byte read here may come from a compromised session: lengths are capped, memory grows only
// with bytes that arrived, and nothing is believed that does not decode. One coroutine owns it.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/manager/timed_socket.h"
#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/codec.h"
#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

/// The payload is valid until the next read from the same connection.
struct Frame {
  wire::InitReply type{};
  std::span<const char> payload;
};

/// What can go wrong below the protocol.
enum class LinkFault {
  none,
  no_listener,  // nobody listens: the session is gone, or going
  busy,         // the backlog stayed full until the time limit
  closed,       // init closed before its last frame
  malformed,    // bytes that are no frame, or a frame that may not come now
  expired,      // the time limit passed
};

template <class T>
using LinkResult = std::expected<T, LinkFault>;

class InitConnection {
 public:
  /// `path` is that of the session's socket.
  InitConnection(const boost::asio::any_io_executor& executor, async::DeadlineQueue& deadlines, std::string path);

  /// Sends `request`, a whole frame, over a new connection or that of an earlier run. `until`
  /// bounds it until it is moved by limit().
  boost::asio::awaitable<LinkFault> begin(std::vector<char> request, async::TimePoint until);
  boost::asio::awaitable<LinkFault> send(std::vector<char> frame);
  /// The next frame, whatever its type.
  boost::asio::awaitable<LinkResult<Frame>> next();
  /// The next frame if it has already been read, with nothing to wait for.
  LinkResult<Frame> buffered(bool& complete);
  void limit(async::TimePoint until);
  /// After the last frame of a run: gives its memory back, has no time limit any more and hears
  /// nothing, so that the end of the session wakes nobody here. False if it cannot take another request.
  bool rest();
  /// True once any byte of an answer to this request arrived.
  [[nodiscard]] bool heard() const { return heard_; }

 private:
  LinkFault fault(LinkFault otherwise) const { return timed_.expired() ? LinkFault::expired : otherwise; }
  void make_room();

  async::DeadlineQueue& deadlines_;
  const std::string path_;
  boost::asio::local::stream_protocol::socket socket_;
  TimedSocket timed_;  // destroyed before the socket it may shut down
  sys::UniqueFd resting_;
  std::vector<char> buffer_;
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool heard_ = false;
};

/// Connections that wait for the next run of their session, the most recent ones. Any thread.
class IdleLinks {
 public:
  void keep(const wire::SessionKey& session, std::unique_ptr<InitConnection> link);
  /// One of the session, if there is one.
  std::unique_ptr<InitConnection> take(const wire::SessionKey& session);
  /// Closes all of the session.
  void drop(const wire::SessionKey& session);

 private:
  // Each costs a descriptor here and one in the session, and 4 KiB of Linux's memory.
  static constexpr std::size_t kMost = 64;
  std::mutex mutex_;
  std::deque<std::pair<wire::SessionKey, std::unique_ptr<InitConnection>>> links_;  // oldest first
};

}  // namespace codespace::manager
