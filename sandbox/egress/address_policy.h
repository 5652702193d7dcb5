// Which addresses a session may reach at all: those of the public internet that are not this
// machine's. Asked about the very address a connection is about to be made to.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <vector>

namespace codespace::egress {

/// An IPv4 address is held as its IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2).
using Address = std::array<std::uint8_t, 16>;

/// An address and how many of its first bits count.
struct Network {
  Address base{};
  unsigned bits = 128;
};

/// "10.0.0.0/8", "2001:db8::/32", or one address.
std::expected<Network, std::string> parse_network(std::string_view text);
bool contains(const Network& network, const Address& address);

/// Why nobody may go there, in a word for logs and people; empty if the address is public. The
/// ranges are those of the IANA registries of special-purpose addresses (RFC 6890) and of
/// metadata services. Of IPv6, only 2000::/3 is public, and of that no range that carries an
/// IPv4 address within it (6to4, Teredo), so nothing is reached by another spelling.
std::string_view special_purpose(const Address& address);

/// The addresses of this machine's interfaces now (getifaddrs(3)).
std::vector<Address> own_addresses();

/// For bytes in network order, as in in_addr and in6_addr.
Address from_v4(const std::uint8_t* bytes);
Address from_v6(const std::uint8_t* bytes);

}  // namespace codespace::egress
