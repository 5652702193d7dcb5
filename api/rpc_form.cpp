// See rpc_form.h.
#include "api/rpc_form.h"

#include <algorithm>
#include <charconv>

namespace codespace::api {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// Decodes one name or value. Unlike a path's, every byte is permitted: code and file content
/// hold line ends and NUL.
bool decode(std::string_view in, std::string& out) {
  out.clear();
  out.reserve(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (in[i] == '+') {
      out += ' ';
    } else if (in[i] != '%') {
      out += in[i];
    } else {
      if (in.size() - i < 3) return false;
      const int high = hex_digit(in[i + 1]);
      const int low = hex_digit(in[i + 2]);
      if (high < 0 || low < 0) return false;
      out += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return true;
}

bool equals_ignoring_case(std::string_view a, std::string_view lower) {
  return std::equal(a.begin(), a.end(), lower.begin(), lower.end(), [](char x, char y) {
    return (x >= 'A' && x <= 'Z' ? static_cast<char>(x - 'A' + 'a') : x) == y;
  });
}

}  // namespace

Result<void> RpcParameters::add(std::string_view form) {
  std::string name;
  std::string value;
  while (!form.empty()) {
    const std::size_t amp = form.find('&');
    const std::string_view pair = form.substr(0, amp);
    form = amp == std::string_view::npos ? std::string_view() : form.substr(amp + 1);
    const std::size_t equals = pair.find('=');
    if (equals == std::string_view::npos) continue;  // no value, so as if it were not there
    if (!decode(pair.substr(0, equals), name) || !decode(pair.substr(equals + 1), value))
      return client_error(ErrorCode::invalid_request,
                          "a form field has a broken percent escape; send the form percent-encoded, % itself as %25");
    if (value.empty()) continue;
    if (values_.size() == kMaxFormFields && !values_.contains(name))
      return client_error(ErrorCode::invalid_request,
                          "the form has more than " + std::to_string(kMaxFormFields) + " fields; send fewer");
    values_.insert_or_assign(std::move(name), std::move(value));
  }
  return {};
}

const std::string& RpcParameters::text(const std::string& name) const {
  static const std::string kNone;
  const auto found = values_.find(name);
  return found == values_.end() ? kNone : found->second;
}

Result<std::optional<bool>> RpcParameters::flag(const std::string& name) const {
  const std::string& value = text(name);
  if (value.empty()) return std::nullopt;
  if (equals_ignoring_case(value, "true")) return true;
  if (equals_ignoring_case(value, "false")) return false;
  return client_error(ErrorCode::invalid_request, name + " must be true or false");
}

Result<std::optional<std::uint32_t>> RpcParameters::number(const std::string& name) const {
  const std::string& value = text(name);
  if (value.empty()) return std::nullopt;
  std::uint32_t out = 0;
  const auto end = std::from_chars(value.data(), value.data() + value.size(), out);
  if (end.ec != std::errc{} || end.ptr != value.data() + value.size())
    return client_error(ErrorCode::invalid_request, name + " must be a whole number from 0 to 4294967295");
  return out;
}

std::string_view RpcParameters::key() const {
  constexpr std::string_view kScheme = "bearer ";
  const std::string_view value = text("Authorization");
  if (value.size() <= kScheme.size() || !equals_ignoring_case(value.substr(0, kScheme.size()), kScheme)) return {};
  return value.substr(kScheme.size());
}

}  // namespace codespace::api
