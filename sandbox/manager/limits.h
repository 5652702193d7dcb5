// Limits of sessions as an operator writes them, "memory_bytes=2147483648 cpus=1.5", and how those of a request, its key, its
// image and the server become the ones a session gets.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "sandbox/sys/result.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

/// Fields that are not named are 0. Names are those of the API, and scratch_bytes and inodes; values lie within kMinLimits and kMaxLimits.
Result<wire::SessionLimits> parse_limits(std::string_view text);
/// What parse_limits() takes; empty if every field is 0.
std::string limits_text(const wire::SessionLimits& limits);

/// "code_latest cpus=4 pids=512, host pids=64": limits by image.
Result<std::map<std::string, wire::SessionLimits>> parse_image_limits(std::string_view text);

/// What a field has that is 0 in `limits` is taken from `other`.
void fill(wire::SessionLimits& limits, const wire::SessionLimits& other);
/// No field is more than that of `most`, where that is not 0.
void clamp(wire::SessionLimits& limits, const wire::SessionLimits& most);

/// What one key may have, beside what the server has for all.
struct KeyLimits {
  std::uint32_t max_sessions = 0;  // alive at the same time; 0: any number
  wire::SessionLimits standard;    // of sessions that ask for nothing else; fields that are 0 are the image's or the server's
  wire::SessionLimits most;        // whatever they ask for; fields that are 0 are the server's
};

}  // namespace codespace::manager
