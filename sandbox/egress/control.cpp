// See control.h.
#include "sandbox/egress/control.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <memory>

#include "sandbox/wire/codec.h"

namespace codespace::egress {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using Descriptor = asio::posix::stream_descriptor;
using wire::EgressOp;
using wire::EgressStatus;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

constexpr auto kRequestTime = 5s;
constexpr std::size_t kDescriptors = 2;
constexpr std::size_t kMaxSessionId = 64;

wire::Writer answer(EgressStatus status) {
  wire::Writer w;
  w.u32(wire::kEgressMagic);
  w.u32(static_cast<std::uint32_t>(status));
  return w;
}

bool is_session_id(std::string_view id) {
  return !id.empty() && id.size() <= kMaxSessionId &&
         std::ranges::all_of(id, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; });
}

wire::Writer open_session(Proxy& proxy, wire::Reader& r, const wire::SessionKey& key, std::vector<sys::UniqueFd> descriptors) {
  Policy policy;
  policy.session_id = r.bytes();
  policy.mode = static_cast<wire::NetworkMode>(r.u32());
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && count <= wire::kMaxRules && r.ok(); ++i) {
    auto rule = parse_rule(r.bytes());
    if (!rule) return answer(EgressStatus::bad_request);
    policy.rules.push_back(std::move(*rule));
  }
  const bool known_mode = policy.mode == wire::NetworkMode::allowlist || policy.mode == wire::NetworkMode::full;
  if (!r.done() || count > wire::kMaxRules || !known_mode || !is_session_id(policy.session_id) || descriptors.size() != kDescriptors)
    return answer(EgressStatus::bad_request);
  const auto opened = proxy.open(key, std::move(policy), std::move(descriptors[0]), std::move(descriptors[1]));
  if (!opened) {
    proxy.log.error("a session could not be opened what=\"{}\"", opened.error());
    return answer(EgressStatus::no_capacity);
  }
  return answer(EgressStatus::ok);
}

/// One packet with its descriptors; a longer one, or more of them, is cut and then does not decode.
ssize_t receive(int fd, std::vector<char>& packet, std::vector<sys::UniqueFd>& descriptors) {
  iovec part{packet.data(), packet.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kDescriptors)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  for (cmsghdr* h = n < 0 ? nullptr : CMSG_FIRSTHDR(&message); h != nullptr; h = CMSG_NXTHDR(&message, h)) {
    if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int taken = -1;
      std::memcpy(&taken, CMSG_DATA(h) + i * sizeof taken, sizeof taken);
      descriptors.emplace_back(taken);
    }
  }
  return n;
}

asio::awaitable<void> serve_one(Proxy& proxy, std::shared_ptr<Descriptor> peer) {
  asio::steady_timer timer(proxy.io);
  timer.expires_after(kRequestTime);
  timer.async_wait([peer](boost::system::error_code stopped) {
    boost::system::error_code ignored;
    if (!stopped) peer->close(ignored);
  });
  const auto [failed] = co_await peer->async_wait(Descriptor::wait_read, kTuple);
  timer.cancel();
  if (failed || !peer->is_open()) co_return;
  std::vector<char> packet(wire::kMaxEgressRequest);
  std::vector<sys::UniqueFd> descriptors;
  const ssize_t n = receive(peer->native_handle(), packet, descriptors);
  if (n <= 0) co_return;
  bool keep = false;
  const std::vector<char> out = answer_request(proxy, std::span(packet).first(static_cast<std::size_t>(n)), std::move(descriptors), keep);
  if (::send(peer->native_handle(), out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || !keep) co_return;
  (void)co_await peer->async_wait(Descriptor::wait_read, kTuple);  // until the gateway lets go
}

}  // namespace

std::vector<char> answer_request(Proxy& proxy, std::span<const char> packet, std::vector<sys::UniqueFd> descriptors, bool& keep) {
  wire::Reader r(packet);
  const std::uint32_t magic = r.u32();
  const auto op = static_cast<EgressOp>(r.u32());
  wire::SessionKey key{};
  if (op == EgressOp::open || op == EgressOp::counts) {
    for (auto& byte : key) byte = r.u8();
  }
  if (!r.ok() || magic != wire::kEgressMagic) return answer(EgressStatus::bad_request).data();
  if (op == EgressOp::open) return open_session(proxy, r, key, std::move(descriptors)).data();
  if (!r.done() || !descriptors.empty()) return answer(EgressStatus::bad_request).data();
  wire::Writer w = answer(EgressStatus::ok);
  switch (op) {
    case EgressOp::counts: {
      const wire::EgressCounts c = proxy.counts(key);
      for (const std::uint64_t n : {c.connections, c.allowed, c.refused, c.bytes_up, c.bytes_down}) w.u64(n);
      return w.data();
    }
    case EgressOp::totals: {
      const Totals& t = proxy.totals();
      w.u32(kVerdicts);
      for (std::size_t i = 0; i < kVerdicts; ++i) {
        w.bytes(name_of(static_cast<Verdict>(i)));
        w.u64(t.decisions[i]);
      }
      for (const std::uint64_t n : {t.connections, t.bytes_up, t.bytes_down}) w.u64(n);
      return w.data();
    }
    case EgressOp::watch: keep = true; return w.data();
    default: return answer(EgressStatus::bad_request).data();
  }
}

Result<sys::UniqueFd> listen_control(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return sys_error(ENAMETOOLONG, "listen on " + path + "; choose a shorter path");
  std::memcpy(address.sun_path, path.data(), path.size());
  sys::UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return sys_error(errno, "socket");
  struct stat there {};
  if (::lstat(path.c_str(), &there) == 0 && S_ISSOCK(there.st_mode)) (void)::unlink(path.c_str());
  const mode_t before = ::umask(0117);
  const int bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int failed = errno;
  ::umask(before);
  if (bound != 0) return sys_error(failed, "listen on " + path);
  if (::listen(fd.get(), 128) != 0) return sys_error(errno, "listen on " + path);
  return fd;
}

asio::awaitable<void> serve_control(Proxy& proxy, sys::UniqueFd listener) {
  Descriptor waiting(proxy.io, listener.release());
  asio::steady_timer pause(proxy.io);
  for (;;) {
    const auto [failed] = co_await waiting.async_wait(Descriptor::wait_read, kTuple);
    if (failed) co_return;
    const int fd = ::accept4(waiting.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
      if (errno != EAGAIN) {  // out of descriptors or memory
        pause.expires_after(100ms);
        (void)co_await pause.async_wait(kTuple);
      }
      continue;
    }
    const auto peer = std::make_shared<Descriptor>(proxy.io, fd);
    asio::co_spawn(proxy.io, [&proxy, peer] { return serve_one(proxy, peer); }, asio::detached);
  }
}

}  // namespace codespace::egress
