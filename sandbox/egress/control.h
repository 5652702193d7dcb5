// The gateway's way to the proxy: a SOCK_SEQPACKET socket in a directory that only the
// gateway's group may enter. wire/egress_protocol.h has the language.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <span>
#include <string>
#include <vector>

#include "sandbox/egress/proxy.h"
#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::egress {

/// One request's answer, as a packet. `keep` is set if the connection is to stay open.
std::vector<char> answer_request(Proxy& proxy, std::span<const char> packet, std::vector<sys::UniqueFd> descriptors, bool& keep);

/// Makes the socket, mode 0660. A stale one of that name is replaced.
Result<sys::UniqueFd> listen_control(const std::string& path);

/// Serves requests until the io_context stops.
boost::asio::awaitable<void> serve_control(Proxy& proxy, sys::UniqueFd listener);

}  // namespace codespace::egress
