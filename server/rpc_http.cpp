// See rpc_http.h.
#include "server/rpc_http.h"

namespace codespace::server {

using boost::beast::http::verb;

bool is_rpc(verb method, std::string_view target) {
  if (method == verb::post) return target == "/" || target.starts_with("/?");
  return method == verb::get && target.starts_with("/?") && target.find("Action=") != std::string_view::npos;
}

std::optional<std::string> link_session(verb method, std::string_view target) {
  constexpr std::string_view kBefore = "/link/";
  constexpr std::string_view kAfter = "/callTool";
  if (method != verb::post || !target.starts_with(kBefore) || !target.ends_with(kAfter)) return std::nullopt;
  const std::string_view session = target.substr(kBefore.size(), target.size() - kBefore.size() - kAfter.size());
  constexpr std::string_view kCharacters = "abcdefghijklmnopqrstuvwxyz234567-";
  if (session.empty() || session.size() > 64 || session.find_first_not_of(kCharacters) != std::string_view::npos) return std::nullopt;
  return std::string(session);
}

std::string endpoint_of(std::string_view host, bool tls) {
  // A client was seen to send its endpoint with the scheme as Host.
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (host.starts_with(scheme)) host.remove_prefix(scheme.size());
  }
  constexpr std::string_view kCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]";
  const bool usable = !host.empty() && host.size() <= 255 && host.find_first_not_of(kCharacters) == std::string_view::npos;
  return (tls ? "https://" : "http://") + (usable ? std::string(host) : "localhost");
}

}  // namespace codespace::server
