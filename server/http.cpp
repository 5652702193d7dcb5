// See http.h.
#include "server/http.h"

#include <algorithm>
#include <charconv>

namespace codespace::server {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Decodes percent escapes once. False for a broken escape, NUL or a control character.
bool decode(std::string_view in, bool plus_is_space, std::string& out) {
  out.clear();
  for (std::size_t i = 0; i < in.size(); ++i) {
    char c = in[i];
    if (c == '%') {
      if (in.size() - i < 3) return false;
      const int high = hex_digit(in[i + 1]);
      const int low = hex_digit(in[i + 2]);
      if (high < 0 || low < 0) return false;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) return false;
    out += c;
  }
  return true;
}

bool parse_number(std::string_view text, std::uint64_t& out) {
  const auto end = std::from_chars(text.data(), text.data() + text.size(), out);
  return !text.empty() && end.ec == std::errc{} && end.ptr == text.data() + text.size();
}

}  // namespace

Result<Target> parse_target(std::string_view target) {
  const auto refuse = [](const char* what) { return client_error(ErrorCode::invalid_request, what); };
  // A client may send the absolute form (RFC 9112, 3.2.2); only its path matters here.
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.starts_with(scheme)) {
      const std::size_t slash = target.find('/', scheme.size());
      target = slash == std::string_view::npos ? "/" : target.substr(slash);
    }
  }
  if (target.empty() || target.front() != '/') return refuse("the request target must be a path");
  Target out;
  const std::size_t question = target.find('?');
  if (!decode(target.substr(0, question), false, out.path))
    return refuse("the path has a broken percent escape, NUL or a control character");
  std::string_view rest = question == std::string_view::npos ? std::string_view() : target.substr(question + 1);
  while (!rest.empty()) {
    const std::size_t amp = rest.find('&');
    const std::string_view pair = rest.substr(0, amp);
    rest = amp == std::string_view::npos ? std::string_view() : rest.substr(amp + 1);
    if (pair.empty()) continue;
    const std::size_t equals = pair.find('=');
    std::string key;
    std::string value;
    if (!decode(pair.substr(0, equals), true, key) ||
        !decode(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1), true, value))
      return refuse("the query has a broken percent escape, NUL or a control character");
    if (key == "label") {
      out.labels.push_back(std::move(value));
    } else if (!out.query.emplace(std::move(key), std::move(value)).second)
      return refuse("a query parameter is there twice");
  }
  return out;
}

std::optional<Result<manager::FileRange>> parse_range(std::string_view header, std::uint64_t size) {
  constexpr std::string_view kUnit = "bytes=";
  if (!header.starts_with(kUnit)) return std::nullopt;
  const std::string_view spec = header.substr(kUnit.size());
  const std::size_t dash = spec.find('-');
  if (dash == std::string_view::npos || spec.find(',') != std::string_view::npos) return std::nullopt;
  const std::string_view first = spec.substr(0, dash);
  const std::string_view last = spec.substr(dash + 1);
  const auto outside = [&]() -> Result<manager::FileRange> {
    return client_error(ErrorCode::range_not_satisfiable, "the file has " + std::to_string(size) + " bytes");
  };
  manager::FileRange range;
  std::uint64_t a = 0;
  std::uint64_t b = 0;
  if (first.empty()) {
    if (!parse_number(last, b)) return std::nullopt;
    if (b == 0 || size == 0) return outside();
    range.length = std::min(b, size);
    range.offset = size - range.length;
    return range;
  }
  if (!parse_number(first, a)) return std::nullopt;
  if (!last.empty() && (!parse_number(last, b) || b < a)) return std::nullopt;
  if (a >= size) return outside();
  range.offset = a;
  range.length = (last.empty() ? size - 1 : std::min(size - 1, b)) - a + 1;
  return range;
}

}  // namespace codespace::server
