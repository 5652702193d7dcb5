// Frames on the byte-stream channels: gateway <-> init, and init <-> kernel driver.
// A frame is a fixed header and a payload of at most kMaxFrame bytes. Payload fields are
// little-endian integers and length-prefixed byte strings, read by a bounds-checked
// Reader that can only fail, never overrun. Every byte read here may be hostile.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace codespace::wire {

inline constexpr std::size_t kHeaderSize = 8;
/// Room for the largest code string the API accepts (1 MiB) with its environment.
inline constexpr std::uint32_t kMaxFrame = 4U << 20;
/// Bulk data (file bytes, output) travels in pieces of at most this many bytes.
inline constexpr std::uint32_t kMaxChunk = 256U << 10;

struct FrameHeader {
  std::uint32_t type = 0;
  std::uint32_t length = 0;  // of the payload, without this header
};
static_assert(sizeof(FrameHeader) == kHeaderSize);

/// Appends fields to a payload.
class Writer {
 public:
  void u8(std::uint8_t v) { put(&v, sizeof v); }
  void u32(std::uint32_t v) { put(&v, sizeof v); }
  void u64(std::uint64_t v) { put(&v, sizeof v); }
  void i64(std::int64_t v) { put(&v, sizeof v); }
  void bytes(std::string_view v) {
    u32(static_cast<std::uint32_t>(v.size()));
    put(v.data(), v.size());
  }
  void raw(std::string_view v) { put(v.data(), v.size()); }
  [[nodiscard]] const std::vector<char>& data() const { return out_; }

  /// Header and payload as one contiguous buffer, ready to be sent.
  [[nodiscard]] std::vector<char> frame(std::uint32_t type) const {
    FrameHeader header{type, static_cast<std::uint32_t>(out_.size())};
    std::vector<char> whole(kHeaderSize + out_.size());
    std::memcpy(whole.data(), &header, kHeaderSize);
    if (!out_.empty()) std::memcpy(whole.data() + kHeaderSize, out_.data(), out_.size());
    return whole;
  }

 private:
  void put(const void* p, std::size_t n) {
    const char* c = static_cast<const char*>(p);
    out_.insert(out_.end(), c, c + n);
  }
  std::vector<char> out_;
};

/// Takes fields off a payload. After any failure ok() is false and every further read
/// yields zero or empty; a caller checks once, at the end, with done().
class Reader {
 public:
  explicit Reader(std::span<const char> in) : in_(in) {}
  std::uint8_t u8() { return number<std::uint8_t>(); }
  std::uint32_t u32() { return number<std::uint32_t>(); }
  std::uint64_t u64() { return number<std::uint64_t>(); }
  std::int64_t i64() { return number<std::int64_t>(); }
  /// A view into the payload; valid as long as the buffer given to the constructor.
  std::string_view bytes() {
    const std::uint32_t n = u32();
    if (!ok_ || n > in_.size()) return fail();
    std::string_view v(in_.data(), n);
    in_ = in_.subspan(n);
    return v;
  }
  std::string_view rest() {
    std::string_view v(in_.data(), in_.size());
    in_ = {};
    return ok_ ? v : std::string_view{};
  }
  [[nodiscard]] bool ok() const { return ok_; }
  /// True if every read succeeded and nothing is left over.
  [[nodiscard]] bool done() const { return ok_ && in_.empty(); }

 private:
  std::string_view fail() {
    ok_ = false;
    in_ = {};
    return {};
  }
  template <class N>
  N number() {
    if (!ok_ || in_.size() < sizeof(N)) {
      fail();
      return 0;
    }
    N v;
    std::memcpy(&v, in_.data(), sizeof v);
    in_ = in_.subspan(sizeof v);
    return v;
  }
  std::span<const char> in_;
  bool ok_ = true;
};

}  // namespace codespace::wire
