// See trace_context.h. https://www.w3.org/TR/trace-context-1/#traceparent-header
#include "server/trace_context.h"

#include <openssl/rand.h>

#include <algorithm>

namespace codespace::server {
namespace {

constexpr std::size_t kLength = 55;  // 00-<32>-<16>-<2>

bool is_hex(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool is_zero(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c == '0'; });
}

std::string new_span_id() {
  unsigned char bytes[8];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return "0000000000000001";
  std::string id;
  for (const unsigned char byte : bytes) {
    id += "0123456789abcdef"[byte >> 4];
    id += "0123456789abcdef"[byte & 15];
  }
  return id;
}

}  // namespace

std::optional<TraceContext> take_trace_context(std::string_view header) {
  if (header.size() < kLength || header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  const std::string_view version = header.substr(0, 2), trace = header.substr(3, 32), parent = header.substr(36, 16), flags = header.substr(53, 2);
  if (!is_hex(version) || !is_hex(trace) || !is_hex(parent) || !is_hex(flags) || version == "ff" || is_zero(trace) || is_zero(parent)) return std::nullopt;
  // A later version may have more behind a dash.
  if (version == "00" ? header.size() != kLength : header.size() > kLength && header[kLength] != '-') return std::nullopt;
  return TraceContext{std::string(trace), new_span_id(), std::string(flags)};
}

}  // namespace codespace::server
