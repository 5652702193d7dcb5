// See rules.h.
#include "sandbox/egress/rules.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace codespace::egress {
namespace {

constexpr std::size_t kMaxName = 253;  // RFC 1035 section 2.3.4, without the final dot
constexpr std::size_t kMaxLabel = 63;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

/// The address in its one spelling; nothing if the text is another one, or none.
std::optional<std::string> canonical_address(int family, const std::string& text) {
  unsigned char bytes[16];
  char again[INET6_ADDRSTRLEN];
  if (::inet_pton(family, text.c_str(), bytes) != 1) return std::nullopt;
  if (::inet_ntop(family, bytes, again, sizeof again) == nullptr || text != again) return std::nullopt;
  return text;
}

std::expected<std::uint16_t, std::string> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (failure != std::errc{} || end != text.data() + text.size() || port == 0 || text.front() == '0')
    return std::unexpected("the port must be a number from 1 to 65535");
  return port;
}

/// A name of two labels or more whose last is no number: what ends in one is meant as an address.
std::optional<std::string> mistake_of_name(std::string_view name) {
  if (name.size() > kMaxName) return "the host name is longer than 253 characters";
  std::size_t labels = 0;
  std::string_view label;
  for (std::string_view rest = name;;) {
    const std::size_t dot = rest.find('.');
    label = rest.substr(0, dot);
    ++labels;
    if (label.empty()) return "the host name has an empty label; it may not begin or end with a dot";
    if (label.size() > kMaxLabel) return "a label of the host name is longer than 63 characters";
    if (label.front() == '-' || label.back() == '-') return "a label of the host name begins or ends with a hyphen";
    if (!std::ranges::all_of(label, [](char c) { return is_letter(c) || is_digit(c) || c == '-' || c == '_'; }))
      return "the host name may have letters, digits, hyphens, underscores and dots only";
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  if (!is_letter(label.front())) return "this spelling of an address is not taken; write it as four decimal numbers without leading zeros";
  if (labels < 2) return "a host name of one label is a name of the local network, which is out of reach";
  return std::nullopt;
}

}  // namespace

std::expected<Target, std::string> parse_target(std::string_view text, std::optional<std::uint16_t> default_port) {
  Target target;
  std::string_view host = text;
  std::string_view port;
  bool has_port = false;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return std::unexpected("an IPv6 address needs its closing bracket");
    host = text.substr(1, close - 1);
    const std::string_view after = text.substr(close + 1);
    if (!after.empty() && after.front() != ':') return std::unexpected("after an IPv6 address there may only be a port");
    has_port = !after.empty();
    if (has_port) port = after.substr(1);
    const auto address = canonical_address(AF_INET6, std::string(host));
    if (!address) return std::unexpected("the IPv6 address is not in its canonical spelling (RFC 5952)");
    target.host = *address;
    target.is_address = true;
  } else {
    const std::size_t colon = text.find(':');
    host = text.substr(0, colon);
    has_port = colon != std::string_view::npos;
    if (has_port) port = text.substr(colon + 1);
    target.host = lower(host);
    if (canonical_address(AF_INET, target.host)) {
      target.is_address = true;
    } else if (const auto mistake = mistake_of_name(target.host)) {
      return std::unexpected(*mistake);
    }
  }
  if (!has_port) {
    if (!default_port) return std::unexpected("the port is missing");
    target.port = *default_port;
    return target;
  }
  const auto number = port.empty() ? std::unexpected(std::string("the port is missing after the colon")) : parse_port(port);
  if (!number) return std::unexpected(number.error());
  target.port = *number;
  return target;
}

std::expected<Rule, std::string> parse_rule(std::string_view text) {
  Rule rule;
  if (text == "*") return std::unexpected("`*` alone is the network mode `full`");
  if (text.starts_with("*.")) {
    rule.subdomains = true;
    text.remove_prefix(2);
  }
  if (text.find("://") != std::string_view::npos) return std::unexpected("write a host, not a URL: no `https://` and no path");
  constexpr std::uint16_t kNone = 1;  // stands for "not given" in a text without a colon after the host
  const bool bracket = text.starts_with('[');
  const bool has_port = bracket ? text.find("]:") != std::string_view::npos : text.find(':') != std::string_view::npos;
  // `*.com` names every host below one label; the label itself can be no target.
  const bool one_label = rule.subdomains && text.substr(0, text.find(':')).find('.') == std::string_view::npos;
  auto target = parse_target(one_label ? "x." + std::string(text) : std::string(text), kNone);
  if (!target) return std::unexpected(target.error());
  if (one_label) target->host.erase(0, 2);
  if (rule.subdomains && target->is_address) return std::unexpected("an address has no names below it");
  rule.host = std::move(target->host);
  rule.port = has_port ? target->port : 0;
  return rule;
}

bool permits(const Rule& rule, const Target& target) {
  if (rule.port != 0 ? target.port != rule.port : target.port != 80 && target.port != 443) return false;
  if (!rule.subdomains) return target.host == rule.host;
  return !target.is_address && target.host.size() > rule.host.size() + 1 && target.host.ends_with(rule.host) &&
         target.host[target.host.size() - rule.host.size() - 1] == '.';
}

std::string to_string(const Target& target) {
  const bool v6 = target.is_address && target.host.find(':') != std::string::npos;
  return (v6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
}

}  // namespace codespace::egress
