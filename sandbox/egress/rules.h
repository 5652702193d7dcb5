// Names of hosts as a session may write them, and the rules that permit some. Pure functions
// over strangers' text. What is spelled oddly is refused and never normalised: a filter that
// reads an address in another way than the connecting call does is no filter.
#pragma once

#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

namespace codespace::egress {

/// Where a connection is to go.
struct Target {
  std::string host;         // a name in lower case, or an address as inet_ntop(3) writes it
  std::uint16_t port = 0;
  bool is_address = false;
};

/// `host:port`, `host` (if there is a default port), `1.2.3.4:port`, `[v6]:port`. Refused with a
/// sentence: user information, percent signs, a trailing dot, names of one label, and every
/// spelling of an address but the canonical one (RFC 3986 section 3.2.2, RFC 5952).
std::expected<Target, std::string> parse_target(std::string_view text, std::optional<std::uint16_t> default_port);

/// One entry of a session's allow list.
struct Rule {
  std::string host;         // as in Target
  bool subdomains = false;  // written `*.host`: every name below it, and not itself
  std::uint16_t port = 0;   // 0: 80 and 443
};

/// `host`, `*.host`, an address, each with or without `:port`.
std::expected<Rule, std::string> parse_rule(std::string_view text);

bool permits(const Rule& rule, const Target& target);

/// `host:port` as a person writes it.
std::string to_string(const Target& target);

}  // namespace codespace::egress
