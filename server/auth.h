// API keys: 256 random bits, kept by clients; the server has only their SHA-256. Every known
// digest is compared in constant time, without an early exit, on every request.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sys/result.h"

namespace codespace::server {

using Digest = std::array<std::uint8_t, 32>;

struct KeyDigest {
  std::string id;
  Digest sha256{};
};

/// "csk_" and 43 characters of base64url.
Result<std::string> make_key();
Digest digest_of(std::string_view key);

class Auth {
 public:
  void set_keys(std::vector<KeyDigest> keys);
  /// The id of the key, if it is one of ours.
  [[nodiscard]] std::optional<std::string> check_key(std::string_view key) const;
  /// The same of the key in the headers: `authorization` is the value of that header
  /// ("Bearer ..."), `api_key` that of X-API-Key; either may be empty.
  [[nodiscard]] std::optional<std::string> check(std::string_view authorization, std::string_view api_key) const;

  /// What lets its holder call the tools of that one session of that key, without the key: an
  /// HMAC (RFC 2104) of the session's id under the key's digest. It ends with the key.
  [[nodiscard]] std::string link_token(std::string_view owner, std::string_view session_id) const;
  /// The id of the key that the token was made from; whether the session is that key's is asked later.
  [[nodiscard]] std::optional<std::string> check_link(std::string_view token, std::string_view session_id) const;

 private:
  [[nodiscard]] std::shared_ptr<const std::vector<KeyDigest>> keys() const;
  mutable std::mutex mutex_;
  std::shared_ptr<const std::vector<KeyDigest>> keys_ = std::make_shared<std::vector<KeyDigest>>();  // swapped whole on reload
};

}  // namespace codespace::server
