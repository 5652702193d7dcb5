// Gateway -> codespace-egress, over a SOCK_SEQPACKET socket: one packet with the request, one
// with the answer, then the connection is closed (watch: it stays open, and its end says that
// the proxy has ended). Fields are those of codec.h, in the order given.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace codespace::wire {

inline constexpr std::uint32_t kEgressMagic = 0x43534531;  // "CSE1"; changes with the layout

/// The way out a session has. It always has an interface `lo` and no other.
enum class NetworkMode : std::uint32_t {
  none = 0,       // no way out
  allowlist = 1,  // to the hosts and ports of its list, if their addresses are public
  full = 2,       // to every public address, on the ports the operator permits
};

/// As the API and the configuration spell it.
constexpr std::string_view name_of(NetworkMode mode) {
  switch (mode) {
    case NetworkMode::none: return "none";
    case NetworkMode::allowlist: return "allowlist";
    case NetworkMode::full: return "full";
  }
  return "none";
}
constexpr std::optional<NetworkMode> network_mode(std::string_view name) {
  for (const NetworkMode mode : {NetworkMode::none, NetworkMode::allowlist, NetworkMode::full}) {
    if (name == name_of(mode)) return mode;
  }
  return std::nullopt;
}

/// Where a session's programs find their way out, or the sentence that says they have none:
/// a TCP port of its own loopback address.
inline constexpr std::uint16_t kProxyPort = 3128;

inline constexpr std::uint32_t kMaxRules = 128;
inline constexpr std::uint32_t kMaxRuleBytes = 300;
/// One request: its fixed fields and kMaxRules rules.
inline constexpr std::uint32_t kMaxEgressRequest = 64U << 10;

enum class EgressOp : std::uint32_t {
  // u32 magic, u32 op, raw session key (16), bytes session id, u32 NetworkMode, u32 count, {bytes rule}*;
  // with two descriptors: the session's listening socket, and a pipe that ends with its init.
  // A session that is known keeps its connections and takes the new rules.
  open = 1,
  counts = 2,  // u32 magic, u32 op, raw session key (16) -> EgressCounts of it, zero if not known
  totals = 3,  // u32 magic, u32 op -> u32 count, {bytes verdict, u64 decisions}*, u64 open connections, u64 bytes_up, u64 bytes_down
  watch = 4,   // u32 magic, u32 op -> ok at once
};

enum class EgressStatus : std::uint32_t {
  ok = 0,
  bad_request = 1,  // does not decode, or a rule that is none
  no_capacity = 2,  // out of descriptors or memory
};

/// In wire order after u32 magic, u32 status.
struct EgressCounts {
  std::uint64_t connections = 0;  // now
  std::uint64_t allowed = 0;      // requests for a connection, so far
  std::uint64_t refused = 0;
  std::uint64_t bytes_up = 0;     // from the session
  std::uint64_t bytes_down = 0;
};

}  // namespace codespace::wire
