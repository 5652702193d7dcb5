// See client_hello.h. A reader that can only fail, over bytes of a stranger.
#include "sandbox/egress/client_hello.h"

#include <optional>
#include <vector>

namespace codespace::egress {
namespace {

class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> in) : in_(in) {}
  [[nodiscard]] std::size_t left() const { return in_.size(); }
  std::optional<std::uint32_t> number(unsigned size) {
    if (in_.size() < size) return std::nullopt;
    std::uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) value = value << 8U | in_[i];
    in_ = in_.subspan(size);
    return value;
  }
  std::optional<std::span<const std::uint8_t>> take(std::size_t n) {
    if (in_.size() < n) return std::nullopt;
    const auto part = in_.first(n);
    in_ = in_.subspan(n);
    return part;
  }
  /// A vector with its length before it, in so many bytes.
  std::optional<std::span<const std::uint8_t>> vector(unsigned length_bytes) {
    const auto n = number(length_bytes);
    if (!n) return std::nullopt;
    return take(*n);
  }

 private:
  std::span<const std::uint8_t> in_;
};

constexpr std::uint32_t kHandshake = 22;
constexpr std::uint32_t kClientHello = 1;
constexpr std::uint32_t kServerNameExtension = 0;
constexpr std::uint32_t kHostName = 0;
constexpr std::uint32_t kMaxRecord = 1U << 14U;

ServerName not_tls() { return {ServerName::Found::not_tls, {}}; }

/// The list of names in the extension; there may be one only.
ServerName name_of(std::span<const std::uint8_t> extension) {
  Bytes in(extension);
  const auto list = in.vector(2);
  if (!list || in.left() != 0) return not_tls();
  Bytes names(*list);
  const auto type = names.number(1);
  const auto name = names.vector(2);
  if (type != kHostName || !name || name->empty() || names.left() != 0) return not_tls();
  ServerName out{ServerName::Found::name, {}};
  for (const std::uint8_t c : *name) out.name += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

ServerName name_in_hello(std::span<const std::uint8_t> hello) {
  Bytes in(hello);
  constexpr std::size_t kVersionAndRandom = 2 + 32;
  if (!in.take(kVersionAndRandom) || !in.vector(1) || !in.vector(2) || !in.vector(1)) return not_tls();
  if (in.left() == 0) return {ServerName::Found::none, {}};  // no extensions: TLS 1.0 to 1.2 allow that
  const auto extensions = in.vector(2);
  if (!extensions || in.left() != 0) return not_tls();
  ServerName out{ServerName::Found::none, {}};
  for (Bytes rest(*extensions); rest.left() > 0;) {
    const auto type = rest.number(2);
    const auto body = rest.vector(2);
    if (!type || !body) return not_tls();
    if (*type != kServerNameExtension) continue;
    if (out.found != ServerName::Found::none) return not_tls();  // twice: two readers could take different ones
    out = name_of(*body);
    if (out.found == ServerName::Found::not_tls) return out;
  }
  return out;
}

}  // namespace

ServerName server_name(std::span<const std::uint8_t> bytes) {
  // The message may be cut into several records (RFC 8446 section 5.1).
  std::vector<std::uint8_t> message;
  for (Bytes in(bytes);;) {
    if (message.size() >= 4) {
      const std::uint32_t length = static_cast<std::uint32_t>(message[1]) << 16U | static_cast<std::uint32_t>(message[2]) << 8U | message[3];
      if (message[0] != kClientHello || length > kMaxClientHello) return not_tls();
      if (message.size() >= 4 + length) return name_in_hello(std::span(message).subspan(4, length));
    }
    const auto type = in.number(1);
    if (type && *type != kHandshake) return not_tls();
    const auto version = in.number(2);
    if (version && *version >> 8U != 3) return not_tls();
    const auto length = in.number(2);
    if (length && (*length == 0 || *length > kMaxRecord)) return not_tls();
    const auto record = length ? in.take(*length) : std::nullopt;
    if (!record) {
      // What has arrived of an unfinished record can already be too much.
      if (bytes.size() >= kMaxClientHello) return not_tls();
      return {};
    }
    message.insert(message.end(), record->begin(), record->end());
  }
}

}  // namespace codespace::egress
