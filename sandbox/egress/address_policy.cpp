// See address_policy.h.
#include "sandbox/egress/address_policy.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>

namespace codespace::egress {
namespace {

constexpr unsigned kMappedBits = 96;

struct Special {
  const char* network;
  std::string_view why;
};

constexpr Special kSpecial[] = {
    {"0.0.0.0/8", "this network"},
    {"10.0.0.0/8", "private"},
    {"100.64.0.0/10", "shared address space"},
    {"127.0.0.0/8", "loopback"},
    {"168.63.129.16", "a cloud's metadata service"},
    {"169.254.0.0/16", "link-local"},
    {"172.16.0.0/12", "private"},
    {"192.0.0.0/24", "protocol assignments"},
    {"192.0.2.0/24", "documentation"},
    {"192.31.196.0/24", "AS112"},
    {"192.52.193.0/24", "AMT"},
    {"192.88.99.0/24", "6to4 relay"},
    {"192.168.0.0/16", "private"},
    {"192.175.48.0/24", "AS112"},
    {"198.18.0.0/15", "benchmarking"},
    {"198.51.100.0/24", "documentation"},
    {"203.0.113.0/24", "documentation"},
    {"224.0.0.0/4", "multicast"},
    {"240.0.0.0/4", "reserved"},
    {"2001::/23", "protocol assignments"},
    {"2001:db8::/32", "documentation"},
    {"2002::/16", "6to4"},
    {"2620:4f:8000::/48", "AS112"},
    {"3fff::/20", "documentation"},
};

bool is_v4(const Address& a) {
  static constexpr std::uint8_t kMapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(a.data(), kMapped, sizeof kMapped) == 0;
}

}  // namespace

Address from_v4(const std::uint8_t* bytes) {
  Address a{};
  a[10] = a[11] = 0xff;
  std::memcpy(a.data() + 12, bytes, 4);
  return a;
}

Address from_v6(const std::uint8_t* bytes) {
  Address a{};
  std::memcpy(a.data(), bytes, a.size());
  return a;
}

std::expected<Network, std::string> parse_network(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string address(text.substr(0, slash));
  Network network;
  std::uint8_t bytes[16];
  unsigned shift = 0;
  if (::inet_pton(AF_INET, address.c_str(), bytes) == 1) {
    network.base = from_v4(bytes);
    shift = kMappedBits;
  } else if (::inet_pton(AF_INET6, address.c_str(), bytes) == 1) {
    network.base = from_v6(bytes);
  } else {
    return std::unexpected("`" + std::string(text) + "` is neither an address nor a network such as 192.0.2.0/24");
  }
  if (slash == std::string_view::npos) return network;
  const std::string_view bits = text.substr(slash + 1);
  unsigned count = 0;
  const auto [end, failure] = std::from_chars(bits.data(), bits.data() + bits.size(), count);
  if (failure != std::errc{} || end != bits.data() + bits.size() || count > 128 - shift)
    return std::unexpected("`" + std::string(text) + "` has no valid number of bits after the slash");
  network.bits = count + shift;
  return network;
}

bool contains(const Network& network, const Address& address) {
  const unsigned whole = network.bits / 8;
  if (std::memcmp(network.base.data(), address.data(), whole) != 0) return false;
  const unsigned left = network.bits % 8;
  if (left == 0) return true;
  const unsigned mask = (0xFFU << (8 - left)) & 0xFFU;
  return ((network.base[whole] ^ address[whole]) & mask) == 0;
}

std::string_view special_purpose(const Address& address) {
  static const auto kTable = [] {
    std::vector<std::pair<Network, std::string_view>> table;
    for (const Special& s : kSpecial) table.emplace_back(parse_network(s.network).value(), s.why);
    return table;
  }();
  for (const auto& [network, why] : kTable) {
    if (contains(network, address)) return why;
  }
  if (!is_v4(address) && (address[0] & 0xE0U) != 0x20U) return "not a public IPv6 range";
  return {};
}

std::vector<Address> own_addresses() {
  std::vector<Address> own;
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return own;
  for (const ifaddrs* i = first; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr) continue;
    if (i->ifa_addr->sa_family == AF_INET)
      own.push_back(from_v4(reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in*>(i->ifa_addr)->sin_addr)));
    if (i->ifa_addr->sa_family == AF_INET6)
      own.push_back(from_v6(reinterpret_cast<const std::uint8_t*>(&reinterpret_cast<const sockaddr_in6*>(i->ifa_addr)->sin6_addr)));
  }
  ::freeifaddrs(first);
  return own;
}

}  // namespace codespace::egress
