// The arguments of one tool call: a JSON object in which clients of several languages put the
// same thing in several ways. Lenient about what is there (unknown names are ignored, as a
// cloud API does), strict about types. Runs in the gateway on the connection's strand.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/file_work.h"
#include "sandbox/manager/records.h"
#include "sandbox/sys/result.h"

namespace codespace::api {

/// Reads like the list of a tool's arguments: the first mistake is kept, and after it every
/// getter gives its fallback.
class ToolArgs {
 public:
  /// Fails for what is no JSON object. A lone surrogate escape, which a client that cuts UTF-16
  /// text into chunks can produce, becomes U+FFFD; RFC 8259 (8.2) leaves that to us.
  static Result<ToolArgs> parse(const std::string& text);
  ToolArgs(ToolArgs&&) noexcept;
  ToolArgs& operator=(ToolArgs&&) noexcept;
  ~ToolArgs();

  /// The arguments in an object of that name; none if it is absent.
  Result<ToolArgs> object(const char* name);
  /// A string that must be there; it may be empty.
  std::string required(const char* name);
  std::string text(const char* name, std::string fallback = "");
  /// A whole number; a fallback outside of what may be asked for says that it was not asked for.
  std::int64_t integer(const char* name, std::int64_t fallback, std::int64_t low, std::int64_t high);
  std::optional<bool> flag(const char* name);
  /// An array of strings, or one string with commas between them.
  std::vector<std::string> list(const char* name);
  /// An object of strings, or an array of {"key", "value"}.
  manager::Env env(const char* name);
  /// An array of {"oldText", "newText"}.
  std::vector<TextEdit> edits(const char* name);

  [[nodiscard]] const std::optional<std::string>& mistake() const { return mistake_; }

 private:
  struct Object;
  explicit ToolArgs(std::unique_ptr<Object> object);
  void fail(const std::string& name, const std::string& what);
  std::unique_ptr<Object> object_;
  std::optional<std::string> mistake_;
};

}  // namespace codespace::api
