// The server's certificate. On first start a local CA and a server certificate are made in
// <state>/tls; later starts renew the certificate when fewer than 30 days are left.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <string>

#include "sandbox/sys/result.h"

namespace codespace::server {

/// Makes what is missing and returns a context that serves it: TLS 1.2 and newer.
/// `names` are extra DNS names or addresses, comma-separated.
Result<boost::asio::ssl::context> make_tls(const std::string& state_dir, const std::string& names);

/// A context that serves an operator's certificate chain and key (PEM). Refuses a key that is not the certificate's.
Result<boost::asio::ssl::context> load_tls(const std::string& certificate, const std::string& key);

}  // namespace codespace::server
