// What HTTP knows of the RPC surface and of the direct link: which requests they are, and the
// bound on what such requests hold in memory before their sender is known. Any thread.
#pragma once

#include <ostream>  // http/verb.hpp prints without it

#include <atomic>
#include <boost/beast/http/verb.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace codespace::server {

/// Of one form or one body of the link; percent encoding can make nine bytes of one.
inline constexpr std::uint64_t kFormBytes = 64U << 20;
/// Of all connections together.
inline constexpr std::uint64_t kAllFormBytes = 512U << 20;

/// The RPC's one address. One client sends one action as a GET; without an action it is a person who looks.
bool is_rpc(boost::beast::http::verb method, std::string_view target);

/// The session of `POST /link/{session_id}/callTool`.
std::optional<std::string> link_session(boost::beast::http::verb method, std::string_view target);

/// `https://host:port` of the request, as far as that can stand in an address.
std::string endpoint_of(std::string_view host, bool tls);

/// What one connection holds of kAllFormBytes; given back when it leaves.
class FormShare {
 public:
  explicit FormShare(std::atomic<std::uint64_t>& all) : all_(all) {}
  FormShare(const FormShare&) = delete;
  FormShare& operator=(const FormShare&) = delete;
  ~FormShare() { all_.fetch_sub(held_); }
  /// False: that would be too much.
  bool take(std::uint64_t bytes) {
    held_ += bytes;
    return all_.fetch_add(bytes) + bytes <= kAllFormBytes;
  }

 private:
  std::atomic<std::uint64_t>& all_;
  std::uint64_t held_ = 0;
};

}  // namespace codespace::server
