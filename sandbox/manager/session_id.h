// Identifiers: 128 random bits, shown as a prefix and 26 characters of base32 in lower case.
// Pure functions, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::manager {

/// The bits of any identifier; wire::SessionKey and wire::RunId are this type.
using IdBits = std::array<std::uint8_t, 16>;

inline constexpr std::string_view kSessionPrefix = "session-";
inline constexpr std::string_view kRunPrefix = "run-";
inline constexpr std::string_view kCommandPrefix = "cmd-";
inline constexpr std::string_view kKeyPrefix = "key-";

/// Fresh bits from getrandom(2); aborts if the kernel has none, because an id that can be
/// guessed is worse than no service.
IdBits random_id();

/// RFC 4648 base32, lower case, without padding.
std::string base32_encode(std::string_view bytes);
/// Exact inverse: one text per value, nothing else is accepted.
std::optional<std::string> base32_decode(std::string_view text);

std::string format_id(std::string_view prefix, const IdBits& bits);
/// Strict: this prefix, 26 characters, and no bits beyond the 128.
std::optional<IdBits> parse_id(std::string_view prefix, std::string_view text);

/// Sixteen bytes as 32 lower-case hex digits; the name of a session's runtime directory.
std::string hex(const IdBits& bits);

}  // namespace codespace::manager
