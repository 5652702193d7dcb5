// See auth.h.
#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <cctype>

#include "api/base64.h"

namespace codespace::server {

Result<std::string> make_key() {
  unsigned char bits[32];
  if (RAND_bytes(bits, sizeof bits) != 1) return server_error(ErrorCode::internal, "no random bytes from OpenSSL");
  std::string text = api::base64({reinterpret_cast<const char*>(bits), sizeof bits});
  while (!text.empty() && text.back() == '=') text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return "csk_" + text;
}

Digest digest_of(std::string_view key) {
  Digest digest;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), digest.data());
  return digest;
}

void Auth::set_keys(std::vector<KeyDigest> keys) {
  const std::lock_guard lock(mutex_);
  keys_ = std::make_shared<const std::vector<KeyDigest>>(std::move(keys));
}

std::optional<std::string> Auth::check(std::string_view authorization, std::string_view api_key) const {
  std::string_view key = api_key;
  constexpr std::string_view kScheme = "bearer ";
  if (key.empty() && authorization.size() > kScheme.size()) {
    bool bearer = true;
    for (std::size_t i = 0; i < kScheme.size(); ++i)
      bearer = bearer && std::tolower(static_cast<unsigned char>(authorization[i])) == kScheme[i];
    if (bearer) key = authorization.substr(kScheme.size());
  }
  return check_key(key);
}

std::optional<std::string> Auth::check_key(std::string_view key) const {
  if (key.empty() || key.size() > 256) return std::nullopt;
  std::shared_ptr<const std::vector<KeyDigest>> keys;
  {
    const std::lock_guard lock(mutex_);
    keys = keys_;
  }
  const Digest given = digest_of(key);
  const KeyDigest* match = nullptr;
  for (const KeyDigest& known : *keys) {
    if (CRYPTO_memcmp(known.sha256.data(), given.data(), given.size()) == 0) match = &known;
  }
  if (match == nullptr) return std::nullopt;
  return match->id;
}

}  // namespace codespace::server
