// Trace Context, W3C Recommendation: the ids by which a caller finds its request in our log, and which go on to the commands it starts.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace codespace::server {

struct TraceContext {
  std::string trace_id;  // 32 hexadecimal digits, the caller's
  std::string span_id;   // 16, ours, made for this request
  std::string flags;     // two, the caller's

  /// As a `traceparent` of version 00 whose parent is this request.
  [[nodiscard]] std::string text() const { return "00-" + trace_id + "-" + span_id + "-" + flags; }
};

/// Of a `traceparent` header; nothing if it is missing or not valid (section 3.2), which is then as if it were missing.
std::optional<TraceContext> take_trace_context(std::string_view header);

}  // namespace codespace::server
