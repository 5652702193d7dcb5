// See limits.h.
#include "sandbox/manager/limits.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

namespace codespace::manager {
namespace {

using wire::SessionLimits;

/// One field by its name. cpus is a number of cores in text and thousandths of one in the struct.
struct Field {
  std::string_view name;
  std::uint64_t SessionLimits::*wide = nullptr;
  std::uint32_t SessionLimits::*narrow = nullptr;

  [[nodiscard]] std::uint64_t of(const SessionLimits& limits) const { return wide != nullptr ? limits.*wide : limits.*narrow; }
  void set(SessionLimits& limits, std::uint64_t value) const {
    if (wide != nullptr) limits.*wide = value;
    else limits.*narrow = static_cast<std::uint32_t>(value);
  }
};
constexpr std::string_view kCpus = "cpus";
constexpr Field kFields[] = {{"memory_bytes", &SessionLimits::memory_bytes, nullptr},   {"workspace_bytes", &SessionLimits::workspace_bytes, nullptr},
                             {"scratch_bytes", &SessionLimits::scratch_bytes, nullptr}, {"inodes", &SessionLimits::inodes, nullptr},
                             {kCpus, nullptr, &SessionLimits::cpu_milli},               {"pids", nullptr, &SessionLimits::pids}};

std::string show(const Field& field, std::uint64_t value) {
  if (field.name != kCpus) return std::to_string(value);
  char text[32];
  (void)std::snprintf(text, sizeof text, "%g", static_cast<double>(value) / 1000.0);
  return text;
}

std::unexpected<Error> wrong(const std::string& what) { return client_error(ErrorCode::invalid_request, what); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

/// Takes what is before the next `separator` off the front of `text`.
std::string_view take(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view taken = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return taken;
}

Result<std::uint64_t> parse_value(const Field& field, std::string_view text) {
  std::uint64_t value = 0;
  const char* const end = text.data() + text.size();
  bool whole = false;
  if (field.name == kCpus) {
    double cores = 0;
    const auto parsed = std::from_chars(text.data(), end, cores);
    whole = parsed.ec == std::errc{} && parsed.ptr == end && cores >= 0 && cores < 1e6;
    if (whole) value = static_cast<std::uint64_t>(std::llround(cores * 1000));
  } else {
    const auto parsed = std::from_chars(text.data(), end, value);
    whole = parsed.ec == std::errc{} && parsed.ptr == end;
  }
  const std::uint64_t least = field.of(wire::kMinLimits), most = field.of(wire::kMaxLimits);
  if (!whole || value < least || value > most)
    return wrong("`" + std::string(field.name) + "` must be a number from " + show(field, least) + " to " + show(field, most) + ", not `" + std::string(text) + "`");
  return value;
}

}  // namespace

Result<SessionLimits> parse_limits(std::string_view text) {
  SessionLimits limits;
  while (!text.empty()) {
    const std::string_view word = take(text, ' ');
    if (word.empty()) continue;
    const std::size_t equals = word.find('=');
    const auto field = std::ranges::find(kFields, word.substr(0, equals), &Field::name);
    if (equals == std::string_view::npos || field == std::end(kFields))
      return wrong("`" + std::string(word) + "` is no limit; write NAME=NUMBER, with memory_bytes, workspace_bytes, scratch_bytes, inodes, cpus or pids");
    const auto value = parse_value(*field, word.substr(equals + 1));
    if (!value) return std::unexpected(value.error());
    field->set(limits, *value);
  }
  return limits;
}

std::string limits_text(const SessionLimits& limits) {
  std::string text;
  for (const Field& field : kFields) {
    if (field.of(limits) == 0) continue;
    text += (text.empty() ? "" : " ") + std::string(field.name) + "=" + show(field, field.of(limits));
  }
  return text;
}

Result<std::map<std::string, SessionLimits>> parse_image_limits(std::string_view text) {
  std::map<std::string, SessionLimits> images;
  while (!text.empty()) {
    std::string_view part = trimmed(take(text, ','));
    if (part.empty()) continue;
    const std::string name(take(part, ' '));
    auto limits = parse_limits(part);
    if (!limits) return std::unexpected(limits.error());
    if (name.find('=') != std::string::npos || limits_text(*limits).empty()) return wrong("`" + name + "` wants an image and its limits, as in `code_latest cpus=4 pids=512`");
    images[name] = *limits;
  }
  return images;
}

void fill(SessionLimits& limits, const SessionLimits& other) {
  for (const Field& field : kFields) {
    if (field.of(limits) == 0) field.set(limits, field.of(other));
  }
}

void clamp(SessionLimits& limits, const SessionLimits& most) {
  for (const Field& field : kFields) {
    if (field.of(most) != 0 && field.of(limits) > field.of(most)) field.set(limits, field.of(most));
  }
}

}  // namespace codespace::manager
