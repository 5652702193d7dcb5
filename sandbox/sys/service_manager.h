// What a service manager and its services tell each other: sd_notify(3), sd_watchdog_enabled(3)
// and sd_listen_fds(3). A datagram and a few variables of the environment, all optional: started by
// hand, none of this does anything.
#pragma once

#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <string_view>
#include <vector>

#include "sandbox/sys/unique_fd.h"

namespace codespace::sys {

class ServiceManager {
 public:
  /// Reads the environment and connects, so later changes of environment and root do not matter.
  ServiceManager() {
    const char* path = ::getenv("NOTIFY_SOCKET");
    sockaddr_un address{};
    if (path == nullptr || ::strlen(path) >= sizeof address.sun_path) return;
    address.sun_family = AF_UNIX;
    ::strcpy(address.sun_path, path);
    if (path[0] == '@') address.sun_path[0] = 0;  // abstract, unix(7)
    socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + ::strlen(path));
    if (socket_ && ::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) socket_.reset();
    if (socket_) watchdog_ms_ = read_watchdog();
  }

  /// Such as "READY=1", "STOPPING=1", "WATCHDOG=1".
  void tell(std::string_view state) const {
    if (socket_) (void)::send(socket_.get(), state.data(), state.size(), MSG_NOSIGNAL);
  }

  /// How often to say "WATCHDOG=1": half the time after which the manager gives us up. 0: nobody watches.
  [[nodiscard]] int watchdog_ms() const { return watchdog_ms_; }

  /// The listening sockets that were made for us, in the order of the unit; none if started by
  /// hand. Theirs is the manager's choice of address. A second call gives none.
  static std::vector<UniqueFd> take_sockets() {
    constexpr int kFirst = 3, kMost = 64;  // SD_LISTEN_FDS_START; more of them is nobody's unit
    std::vector<UniqueFd> sockets;
    if (number("LISTEN_PID") == ::getpid()) {
      const long count = number("LISTEN_FDS");
      for (int fd = kFirst; fd < kFirst + count && fd < kFirst + kMost; ++fd) {
        (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
        sockets.emplace_back(fd);
      }
    }
    for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}) ::unsetenv(name);
    return sockets;
  }

 private:
  static long number(const char* name) {
    const char* text = ::getenv(name);
    return text == nullptr ? 0 : ::strtol(text, nullptr, 10);
  }

  static int read_watchdog() {
    const char* meant_for = ::getenv("WATCHDOG_PID");
    const long us = number("WATCHDOG_USEC");
    if (us <= 0 || us > 3'600'000'000L || (meant_for != nullptr && number("WATCHDOG_PID") != ::getpid())) return 0;
    return us < 2000 ? 1 : static_cast<int>(us / 2000);
  }

  UniqueFd socket_;
  int watchdog_ms_ = 0;
};

}  // namespace codespace::sys
