// Base64 of RFC 4648, section 4, by OpenSSL.
#pragma once

#include <openssl/evp.h>

#include <string>
#include <string_view>

namespace codespace::api {

inline std::string base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  const int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                                static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(n));
  return out;
}

}  // namespace codespace::api
