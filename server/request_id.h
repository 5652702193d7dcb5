// Request ids and the taming of text for the log.
#pragma once

#include <string>
#include <string_view>

namespace codespace::server {

/// "req-" and 26 characters of base32: 128 random bits.
std::string mint_request_id();
/// The client's own id if it has 1 to 128 characters of [A-Za-z0-9._-], else a new one.
std::string accept_request_id(std::string_view header);
/// For log lines: what is not printable ASCII becomes '?', at most 64 characters, "-" if empty.
std::string printable(std::string_view text);

}  // namespace codespace::server
