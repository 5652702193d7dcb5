// Egress requests over SOCK_SEQPACKET, and descriptors from an init. Descriptors travel in
// control messages, which Asio does not know, so it only tells when a socket is readable.
#include "sandbox/manager/egress_client.h"

#include <errno.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <span>

#include "sandbox/manager/launcher_client.h"
#include "sandbox/manager/timed_socket.h"
#include "sandbox/wire/codec.h"

namespace codespace::manager {
namespace {

namespace asio = boost::asio;
using Descriptor = asio::posix::stream_descriptor;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

// Its answers need no waiting for anybody; this is for a machine that swaps.
constexpr std::chrono::seconds kPatience{5};
constexpr std::size_t kMaxAnswer = 4096;

std::unexpected<Error> unavailable(int saved_errno) {
  return server_error(ErrorCode::egress_unavailable,
                      "the egress proxy does not answer, so no session with a network can be made; start it, for example with "
                      "`systemctl start codespace-egress`, and look whether network.egress_socket names its socket",
                      saved_errno);
}

wire::Writer request(wire::EgressOp op) {
  wire::Writer w;
  w.u32(wire::kEgressMagic);
  w.u32(static_cast<std::uint32_t>(op));
  return w;
}

/// A socket of ours while a coroutine waits on it.
class Waiting {
 public:
  Waiting(const asio::any_io_executor& executor, async::DeadlineQueue& deadlines, sys::UniqueFd fd, bool bounded)
      : descriptor_(executor) {
    if (bounded) timed_.arm(deadlines, std::chrono::steady_clock::now() + kPatience, fd.get());
    descriptor_.assign(fd.release());
  }
  [[nodiscard]] int fd() { return descriptor_.native_handle(); }
  asio::awaitable<void> readable() { co_await descriptor_.async_wait(Descriptor::wait_read, asio::use_awaitable); }

 private:
  Descriptor descriptor_;
  TimedSocket timed_;  // destroyed first: it must let go of the descriptor before it is closed
};

ssize_t send_with(int to, std::span<const char> bytes, std::span<const int> descriptors) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 2)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!descriptors.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(descriptors.size_bytes());
    std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size_bytes());
  }
  return ::sendmsg(to, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

asio::awaitable<Result<std::vector<char>>> EgressClient::ask(std::vector<char> packet, WayOut descriptors) {
  const auto executor = co_await asio::this_coro::executor;
  auto fd = try_connect_unix(socket_path_, SOCK_SEQPACKET);
  if (!fd) co_return unavailable(fd.error().sys_errno);
  std::vector<int> sent;
  if (descriptors.listener) sent = {descriptors.listener.get(), descriptors.life.get()};
  if (send_with(fd->get(), packet, sent) < 0) co_return unavailable(errno);
  Waiting peer(executor, deadlines_, std::move(*fd), true);
  co_await peer.readable();
  std::vector<char> answer(kMaxAnswer);
  const ssize_t n = ::recv(peer.fd(), answer.data(), answer.size(), MSG_DONTWAIT);
  if (n <= 0) co_return unavailable(n < 0 ? errno : 0);
  answer.resize(static_cast<std::size_t>(n));
  wire::Reader r(answer);
  const std::uint32_t magic = r.u32();
  const auto status = static_cast<wire::EgressStatus>(r.u32());
  if (!r.ok() || magic != wire::kEgressMagic || status == wire::EgressStatus::bad_request)
    co_return server_error(ErrorCode::egress_unavailable,
                           "the egress proxy speaks another protocol than this gateway; install both from the same version");
  if (status != wire::EgressStatus::ok)
    co_return server_error(ErrorCode::egress_unavailable, "the egress proxy has no room for another session; its log says of what");
  const std::string_view rest = r.rest();
  std::vector<char> body(rest.begin(), rest.end());
  co_return body;
}

asio::awaitable<Result<void>> EgressClient::open(wire::SessionKey key, std::string session_id, Network network, WayOut way_out) {
  wire::Writer w = request(wire::EgressOp::open);
  w.raw({reinterpret_cast<const char*>(key.data()), key.size()});
  w.bytes(session_id);
  w.u32(static_cast<std::uint32_t>(network.mode));
  w.u32(static_cast<std::uint32_t>(network.allow.size()));
  for (const std::string& rule : network.allow) w.bytes(rule);
  const auto answer = co_await ask(w.data(), std::move(way_out));
  if (!answer) co_return std::unexpected(answer.error());
  co_return Result<void>{};
}

asio::awaitable<Result<wire::EgressCounts>> EgressClient::counts(wire::SessionKey key) {
  wire::Writer w = request(wire::EgressOp::counts);
  w.raw({reinterpret_cast<const char*>(key.data()), key.size()});
  WayOut none;
  const auto answer = co_await ask(w.data(), std::move(none));
  if (!answer) co_return std::unexpected(answer.error());
  wire::Reader r(*answer);
  wire::EgressCounts counts;
  for (std::uint64_t* n : {&counts.connections, &counts.allowed, &counts.refused, &counts.bytes_up, &counts.bytes_down}) *n = r.u64();
  if (!r.done()) co_return unavailable(0);
  co_return counts;
}

asio::awaitable<Result<EgressTotals>> EgressClient::totals() {
  WayOut none;
  const auto answer = co_await ask(request(wire::EgressOp::totals).data(), std::move(none));
  if (!answer) co_return std::unexpected(answer.error());
  wire::Reader r(*answer);
  EgressTotals totals;
  for (std::uint32_t left = std::min<std::uint32_t>(r.u32(), 64); left > 0 && r.ok(); --left) {
    std::string verdict(r.bytes());
    totals.decisions[std::move(verdict)] = r.u64();
  }
  for (std::uint64_t* n : {&totals.connections, &totals.bytes_up, &totals.bytes_down}) *n = r.u64();
  if (!r.done()) co_return unavailable(0);
  co_return totals;
}

asio::awaitable<Error> EgressClient::watch(std::function<void()> connected) {
  const auto executor = co_await asio::this_coro::executor;
  auto fd = try_connect_unix(socket_path_, SOCK_SEQPACKET);
  if (!fd) co_return unavailable(fd.error().sys_errno).error();
  const auto packet = request(wire::EgressOp::watch).data();
  if (send_with(fd->get(), packet, {}) < 0) co_return unavailable(errno).error();
  Waiting peer(executor, deadlines_, std::move(*fd), false);
  for (bool heard = false;;) {
    co_await peer.readable();
    char answer[64];
    const ssize_t n = ::recv(peer.fd(), answer, sizeof answer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (n <= 0) co_return unavailable(n < 0 ? errno : 0).error();
    if (!std::exchange(heard, true)) connected();
  }
}

asio::awaitable<Result<WayOut>> take_way_out(std::string path, async::DeadlineQueue& deadlines) {
  const auto executor = co_await asio::this_coro::executor;
  auto fd = try_connect_unix(path, SOCK_STREAM);
  if (!fd) co_return std::unexpected(fd.error());
  const auto frame = wire::Writer().frame(static_cast<std::uint32_t>(wire::InitRequest::open_network));
  if (send_with(fd->get(), frame, {}) < 0) co_return sys_error(errno, "ask init for the way out");
  Waiting init(executor, deadlines, std::move(*fd), true);
  co_await init.readable();
  char answer[wire::kHeaderSize];
  iovec part{answer, sizeof answer};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 2)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(init.fd(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  std::vector<sys::UniqueFd> got;
  for (cmsghdr* h = n < 0 ? nullptr : CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int taken = -1;
      std::memcpy(&taken, CMSG_DATA(h) + i * sizeof taken, sizeof taken);
      got.emplace_back(taken);
    }
  }
  wire::FrameHeader header;
  std::memcpy(&header, answer, sizeof header);
  if (n != static_cast<ssize_t>(sizeof answer) || header.type != static_cast<std::uint32_t>(wire::InitReply::ok) || got.size() != 2)
    co_return server_error(ErrorCode::sandbox_failed, "the session's init has no way out to give");
  WayOut out{std::move(got[0]), std::move(got[1])};
  co_return out;
}

}  // namespace codespace::manager
