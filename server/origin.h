// Whether a request can come from a web page of somebody else's: what a browser says of itself,
// and the name it was told this server has. A page that was served under a name which later
// resolves to this machine (DNS rebinding) is of the same origin to the browser; its name is not ours.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace codespace::server {

/// The name in a Host header, in lower case, without port and brackets. One SDK writes a whole URL there.
std::string host_name(std::string_view host);

/// Names of one label and below localhost, and every address, which no rebinding can be, beside the `names` of this server.
bool is_own_host(std::string_view host, const std::vector<std::string>& names);

/// What Origin (RFC 6454) and Sec-Fetch-Site (W3C Fetch Metadata) say. Both are empty from
/// anything but a browser.
bool is_cross_origin(std::string_view origin, std::string_view fetch_site, std::string_view host);

}  // namespace codespace::server
