// See proxy_port.h.
#include "sandbox/init/proxy_port.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string_view>
#include <utility>

#include "sandbox/sys/clock.h"
#include "sandbox/wire/egress_protocol.h"

namespace codespace::init {
namespace {

constexpr int kBacklog = 128;
// What one connection may hold of the kernel's memory for what the other side has not taken.
constexpr int kReceiveBytes = 256 * 1024;
constexpr std::size_t kMaxGuests = 8;
constexpr std::uint64_t kGuestTimeNs = 2 * sys::kNsPerSecond;
constexpr std::string_view kNoNetwork =
    "HTTP/1.1 403 CodeSpace: this session has no network; create one with \"network\": {\"mode\": \"allowlist\", \"allow\": [\"HOST\"]}\r\n"
    "Content-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

}  // namespace

ProxyPort::ProxyPort(EventLoop& loop) : loop_(loop) {
  listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(wire::kProxyPort);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  (void)::setsockopt(listener_.get(), SOL_SOCKET, SO_RCVBUF, &kReceiveBytes, sizeof kReceiveBytes);
  if (!listener_ || ::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_.get(), kBacklog) != 0) {
    listener_.reset();
    return;
  }
  loop_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

ProxyPort::Ends ProxyPort::hand_over() {
  if (!listener_) return {};
  if (!life_reader_) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {};
    life_reader_.reset(ends[0]);
    life_writer_.reset(ends[1]);
  }
  if (!std::exchange(handed_over_, true)) loop_.remove(listener_.get());
  return {listener_.get(), life_reader_.get()};
}

void ProxyPort::accept() {
  // The others wait in the backlog; the first guest to leave makes room.
  if (guests_.size() >= kMaxGuests) drop(guests_.front());
  sys::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd) return;
  Guest& guest = guests_.emplace_back();
  guest.fd = std::move(fd);
  guest.timer = loop_.at(sys::monotonic_ns() + kGuestTimeNs, [this, &guest] { drop(guest); });
  loop_.add(guest.fd.get(), EPOLLIN | EPOLLRDHUP, [this, &guest](std::uint32_t) { on_event(guest); });
}

void ProxyPort::on_event(Guest& guest) {
  char ignored[2048];
  const ssize_t n = ::recv(guest.fd.get(), ignored, sizeof ignored, MSG_DONTWAIT);
  if (n <= 0) return drop(guest);
  if (std::exchange(guest.answered, true)) return;
  // The first words on this connection: they fit into its buffer.
  (void)::send(guest.fd.get(), kNoNetwork.data(), kNoNetwork.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)::shutdown(guest.fd.get(), SHUT_WR);
}

void ProxyPort::drop(Guest& guest) {
  loop_.remove(guest.fd.get());
  loop_.cancel(guest.timer);
  guests_.remove_if([&guest](const Guest& other) { return &other == &guest; });
}

}  // namespace codespace::init
