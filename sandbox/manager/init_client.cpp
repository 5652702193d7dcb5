// Frames to and from init over a unix stream socket.
#include "sandbox/manager/init_client.h"

#include <errno.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/system_error.hpp>
#include <cstring>
#include <memory>

#include "sandbox/manager/launcher_client.h"

namespace codespace::manager {
namespace {

namespace asio = boost::asio;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// The usual answer fits; a large one makes the buffer grow with what really arrives.
constexpr std::size_t kFirstBuffer = 8 * 1024;

void throw_if_cancelled(const boost::system::error_code& error) {
  if (error == asio::error::operation_aborted) throw boost::system::system_error(error);
}

}  // namespace

InitConnection::InitConnection(const asio::any_io_executor& executor, async::DeadlineQueue& deadlines,
                               std::string path)
    : deadlines_(deadlines), path_(std::move(path)), socket_(executor) {}

asio::awaitable<LinkFault> InitConnection::begin(std::vector<char> request, async::TimePoint until) {
  heard_ = false;
  std::chrono::milliseconds pause{1};
  for (;;) {
    auto fd = resting_ ? Result<sys::UniqueFd>(std::move(resting_)) : try_connect_unix(path_, SOCK_STREAM);
    if (fd) {
      boost::system::error_code error;
      timed_.arm(deadlines_, until, fd->get());
      socket_.assign(asio::local::stream_protocol(), fd->release(), error);
      if (error) co_return LinkFault::closed;
      break;
    }
    // The backlog is full: init is behind with accepting. Anything else means nobody listens.
    if (fd.error().sys_errno != EAGAIN) co_return LinkFault::no_listener;
    if (std::chrono::steady_clock::now() + pause >= until) co_return LinkFault::busy;
    asio::steady_timer timer(socket_.get_executor(), pause);
    co_await timer.async_wait(asio::use_awaitable);
    pause = std::min(pause * 2, std::chrono::milliseconds(20));
  }
  co_return co_await send(std::move(request));
}

asio::awaitable<LinkFault> InitConnection::send(std::vector<char> frame) {
  // Nearly always there is room, and then there is nothing to wait for.
  const ssize_t n = ::send(socket_.native_handle(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n == static_cast<ssize_t>(frame.size())) co_return LinkFault::none;
  const auto rest = asio::buffer(frame) + static_cast<std::size_t>(std::max<ssize_t>(n, 0));
  const auto [error, sent] = co_await asio::async_write(socket_, rest, kTuple);
  (void)sent;
  throw_if_cancelled(error);
  co_return error ? fault(LinkFault::closed) : LinkFault::none;
}

LinkResult<Frame> InitConnection::buffered(bool& complete) {
  complete = false;
  if (end_ - begin_ < wire::kHeaderSize) return Frame{};
  wire::FrameHeader header;
  std::memcpy(&header, buffer_.data() + begin_, wire::kHeaderSize);
  if (header.length > wire::kMaxFrame) return std::unexpected(LinkFault::malformed);
  if (end_ - begin_ < wire::kHeaderSize + header.length) return Frame{};
  complete = true;
  Frame frame{static_cast<wire::InitReply>(header.type),
              {buffer_.data() + begin_ + wire::kHeaderSize, header.length}};
  begin_ += wire::kHeaderSize + header.length;
  return frame;
}

void InitConnection::make_room() {
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // Doubling with the bytes that arrived, not with the length that was claimed.
  if (end_ == buffer_.size()) buffer_.resize(std::max(kFirstBuffer, buffer_.size() * 2));
}

asio::awaitable<LinkResult<Frame>> InitConnection::next() {
  for (;;) {
    bool complete = false;
    const auto frame = buffered(complete);
    if (!frame || complete) co_return frame;
    make_room();
    const auto [error, n] =
        co_await socket_.async_read_some(asio::buffer(buffer_.data() + end_, buffer_.size() - end_), kTuple);
    throw_if_cancelled(error);
    if (error || n == 0) co_return std::unexpected(fault(LinkFault::closed));
    end_ += n;
    heard_ = true;
  }
}

void InitConnection::limit(async::TimePoint until) {
  if (socket_.is_open() && !timed_.expired()) timed_.arm(deadlines_, until, socket_.native_handle());
}

bool InitConnection::rest() {
  timed_.disarm();
  if (timed_.expired() || begin_ != end_) return false;  // shut down, or more came than a run has to say
  buffer_ = {};
  begin_ = end_ = 0;
  boost::system::error_code error;
  resting_.reset(socket_.release(error));
  return !error;
}

void IdleLinks::keep(const wire::SessionKey& session, std::unique_ptr<InitConnection> link) {
  std::unique_ptr<InitConnection> dropped;  // closed without the lock
  const std::lock_guard lock(mutex_);
  links_.emplace_back(session, std::move(link));
  if (links_.size() <= kMost) return;
  dropped = std::move(links_.front().second);
  links_.pop_front();
}

void IdleLinks::drop(const wire::SessionKey& session) {
  while (take(session)) {}
}

std::unique_ptr<InitConnection> IdleLinks::take(const wire::SessionKey& session) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(links_, session, &decltype(links_)::value_type::first);
  if (found == links_.end()) return nullptr;
  auto link = std::move(found->second);
  links_.erase(found);
  return link;
}

}  // namespace codespace::manager
