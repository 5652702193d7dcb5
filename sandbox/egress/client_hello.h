// The server name in the first bytes of a TLS connection (RFC 8446 section 4.1.2, RFC 6066
// section 3). A list of names is worth nothing if one permitted name of a shared address opens
// all the others behind it.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace codespace::egress {

struct ServerName {
  enum class Found {
    incomplete,  // more bytes are needed to tell
    name,        // `name` is what the client asks for, in lower case
    none,        // a ClientHello without a name
    not_tls,     // no ClientHello, or a malformed one
  };
  Found found = Found::incomplete;
  std::string name;
};

/// More bytes than this are not read before a decision; larger ClientHellos are `not_tls`.
inline constexpr std::size_t kMaxClientHello = 16 * 1024;

ServerName server_name(std::span<const std::uint8_t> bytes);

}  // namespace codespace::egress
