// Identifiers and their text form.
#include "sandbox/manager/session_id.h"

#include <sys/random.h>

#include <algorithm>

#include "sandbox/sys/assert.h"

namespace codespace::manager {
namespace {

constexpr std::string_view kAlphabet = "abcdefghijklmnopqrstuvwxyz234567";

int value_of(char c) {
  if (c >= 'a' && c <= 'z') return c - 'a';
  if (c >= '2' && c <= '7') return c - '2' + 26;
  return -1;
}

}  // namespace

IdBits random_id() {
  IdBits bits{};
  // getrandom(2), Linux 3.17: requests of up to 256 bytes are never cut short once seeded.
  const ssize_t n = ::getrandom(bits.data(), bits.size(), 0);
  CODESPACE_ASSERT(n == static_cast<ssize_t>(bits.size()), "ids must not be guessable");
  return bits;
}

std::string base32_encode(std::string_view bytes) {
  std::string text;
  text.reserve((bytes.size() * 8 + 4) / 5);
  std::uint32_t held = 0;
  unsigned held_bits = 0;
  for (const char c : bytes) {
    held = (held << 8) | static_cast<std::uint8_t>(c);
    held_bits += 8;
    while (held_bits >= 5) {
      held_bits -= 5;
      text += kAlphabet[(held >> held_bits) & 31];
    }
    held &= (1U << held_bits) - 1;
  }
  if (held_bits > 0) text += kAlphabet[(held << (5 - held_bits)) & 31];
  return text;
}

std::optional<std::string> base32_decode(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size() * 5 / 8);
  std::uint32_t held = 0;
  unsigned held_bits = 0;
  for (const char c : text) {
    const int value = value_of(c);
    if (value < 0) return std::nullopt;
    held = (held << 5) | static_cast<std::uint32_t>(value);
    held_bits += 5;
    if (held_bits >= 8) {
      held_bits -= 8;
      bytes += static_cast<char>((held >> held_bits) & 0xff);
    }
    held &= (1U << held_bits) - 1;
  }
  // A whole superfluous character, or padding bits that are not zero, would be a second
  // spelling of the same value.
  if (held_bits >= 5 || held != 0) return std::nullopt;
  return bytes;
}

std::string format_id(std::string_view prefix, const IdBits& bits) {
  std::string text(prefix);
  text += base32_encode({reinterpret_cast<const char*>(bits.data()), bits.size()});
  return text;
}

std::optional<IdBits> parse_id(std::string_view prefix, std::string_view text) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  if (text.size() != 26) return std::nullopt;
  const auto bytes = base32_decode(text);
  if (!bytes || bytes->size() != sizeof(IdBits)) return std::nullopt;
  IdBits bits{};
  std::copy_n(reinterpret_cast<const std::uint8_t*>(bytes->data()), bits.size(), bits.begin());
  return bits;
}

std::string hex(const IdBits& bits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(bits.size() * 2);
  for (const std::uint8_t byte : bits) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace codespace::manager
