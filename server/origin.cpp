// See origin.h.
#include "server/origin.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <cctype>

namespace codespace::server {
namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

/// `host:port` of a URL, or of what is that already.
std::string authority_of(std::string_view text) {
  const std::size_t scheme = text.find("://");
  if (scheme != std::string_view::npos) text.remove_prefix(scheme + 3);
  return lower(text.substr(0, text.find_first_of("/?#")));
}

}  // namespace

std::string host_name(std::string_view host) {
  const std::string authority = authority_of(host);
  if (authority.starts_with('[')) return authority.substr(1, authority.find(']') - 1);
  return authority.substr(0, authority.find(':'));
}

bool is_own_host(std::string_view host, const std::vector<std::string>& names) {
  const std::string name = host_name(host);
  boost::system::error_code not_an_address;
  (void)boost::asio::ip::make_address(name, not_an_address);
  // A name without a dot is in nobody's public zone.
  if (!not_an_address || (!name.empty() && name.find('.') == std::string::npos) || name.ends_with(".localhost")) return true;
  return std::ranges::any_of(names, [&](const std::string& own) { return lower(own) == name; });
}

bool is_cross_origin(std::string_view origin, std::string_view fetch_site, std::string_view host) {
  if (!fetch_site.empty() && fetch_site != "same-origin" && fetch_site != "none") return true;
  return !origin.empty() && authority_of(origin) != authority_of(host);
}

}  // namespace codespace::server
