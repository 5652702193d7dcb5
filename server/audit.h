// Who did what to which session: one JSON object a line, appended to a file of the operator's choice. Never code, output or
// file contents, unless the operator switched that on; never keys. Records are of requests that came with a valid key, and of those refused for
// want of one. Called by every thread.
#pragma once

#include <cstdint>
#include <mutex>
#include <spdlog/logger.h>
#include <string>
#include <string_view>

#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::server {

struct AuditRecord {
  std::string_view request_id, trace_id, key_id, session_id;
  std::string_view method, route;  // the pattern, or an SDK's action
  std::string_view peer;           // address of the client
  unsigned status = 0;
  std::string_view code;           // of the error; empty if there is none
  double duration_ms = 0;
  std::string_view request, answer;  // bodies; written only with `content`, cut to kAuditBodyBytes
};

inline constexpr std::size_t kAuditBodyBytes = 64U << 10;

class Audit {
 public:
  /// Without a path nothing is recorded.
  Audit(std::string path, bool content, spdlog::logger& log) : path_(std::move(path)), content_(content), log_(log) {}

  /// Opens the file, or opens it anew after somebody moved it away (logrotate(8)); mode 0600.
  Result<void> open();
  [[nodiscard]] bool on() const { return !path_.empty(); }
  [[nodiscard]] bool with_content() const { return on() && content_; }
  /// One write(2) of the whole line. A line that cannot be written is an error in the log, and counted there.
  void record(const AuditRecord& record);

 private:
  const std::string path_;
  const bool content_;
  spdlog::logger& log_;
  std::mutex mutex_;
  sys::UniqueFd file_;
  std::uint64_t lost_ = 0;
};

}  // namespace codespace::server
