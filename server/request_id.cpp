// See request_id.h.
#include "server/request_id.h"

#include <sys/random.h>

#include <cctype>

namespace codespace::server {

std::string mint_request_id() {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
  unsigned char bits[26];
  if (::getrandom(bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) return "req-unavailable";
  std::string id = "req-";
  for (const unsigned char b : bits) id += kAlphabet[b & 31];
  return id;
}

std::string accept_request_id(std::string_view header) {
  if (header.empty() || header.size() > 128) return mint_request_id();
  for (const char c : header) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '_' && c != '-') return mint_request_id();
  }
  return std::string(header);
}

std::string printable(std::string_view text) {
  if (text.empty()) return "-";
  std::string out;
  for (const char c : text.substr(0, 64)) out += c > 0x20 && c < 0x7f && c != '"' ? c : '?';
  return out;
}

}  // namespace codespace::server
