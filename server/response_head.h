// The head of an answer as one text. Beast's serializer gathers it from a dozen pieces, which is what a file wants that
// comes in parts, and more work than all the rest of sending a small answer.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace codespace::server {

class ResponseHead {
 public:
  /// `version` as Beast has it: 10 or 11.
  ResponseHead(unsigned version, unsigned status);
  /// Neither may have a line end in it: they are ours, or were checked when they came in.
  void set(std::string_view name, std::string_view value);
  /// Ends the head. No `length` for an answer that has no content at all, not even an empty one (RFC 9110 section 8.6).
  [[nodiscard]] std::string finish(std::optional<std::size_t> length, bool keep_alive) &&;

 private:
  unsigned version_;
  std::string text_;
};

}  // namespace codespace::server
