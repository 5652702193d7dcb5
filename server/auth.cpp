// See auth.h.
#include "server/auth.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <cctype>

#include "api/base64.h"
#include "sandbox/sys/assert.h"

namespace codespace::server {
namespace {

/// base64url of RFC 4648, section 5, without padding.
std::string base64url(const unsigned char* bytes, std::size_t size) {
  std::string text = api::base64({reinterpret_cast<const char*>(bytes), size});
  while (!text.empty() && text.back() == '=') text.pop_back();
  for (char& c : text) c = c == '+' ? '-' : c == '/' ? '_' : c;
  return text;
}

std::string token_of(const KeyDigest& key, std::string_view session_id) {
  const std::string message = "codespace link " + std::string(session_id);
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  HMAC(EVP_sha256(), key.sha256.data(), static_cast<int>(key.sha256.size()), reinterpret_cast<const unsigned char*>(message.data()),
       message.size(), mac, &size);
  return "cst_" + base64url(mac, size);
}

}  // namespace

Result<std::string> make_key() {
  unsigned char bits[32];
  if (RAND_bytes(bits, sizeof bits) != 1) return server_error(ErrorCode::internal, "no random bytes from OpenSSL");
  return "csk_" + base64url(bits, sizeof bits);
}

Digest digest_of(std::string_view key) {
  // Found once: OpenSSL's one-shot functions look the algorithm up in every call, which takes longer than the hash.
  static EVP_MD* const sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  Digest digest;
  CODESPACE_ASSERT(EVP_Digest(key.data(), key.size(), digest.data(), nullptr, sha256, nullptr) == 1, "OpenSSL can hash");
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
  const auto all = keys();
  const Digest given = digest_of(key);
  const KeyDigest* match = nullptr;
  for (const KeyDigest& known : *all) {
    if (CRYPTO_memcmp(known.sha256.data(), given.data(), given.size()) == 0) match = &known;
  }
  if (match == nullptr) return std::nullopt;
  return match->id;
}

std::string Auth::link_token(std::string_view owner, std::string_view session_id) const {
  for (const KeyDigest& known : *keys()) {
    if (known.id == owner) return token_of(known, session_id);
  }
  return {};
}

std::optional<std::string> Auth::check_link(std::string_view token, std::string_view session_id) const {
  const auto all = keys();
  const KeyDigest* match = nullptr;
  for (const KeyDigest& known : *all) {
    const std::string right = token_of(known, session_id);
    if (right.size() == token.size() && CRYPTO_memcmp(right.data(), token.data(), right.size()) == 0) match = &known;
  }
  if (match == nullptr) return std::nullopt;
  return match->id;
}

std::shared_ptr<const std::vector<KeyDigest>> Auth::keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

}  // namespace codespace::server
