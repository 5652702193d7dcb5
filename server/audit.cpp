// See audit.h.
#include "server/audit.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "sandbox/sys/clock.h"

namespace codespace::server {
namespace {

std::string utc_now() {
  const auto ms = sys::wall_ms();
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  char text[40];
  const std::size_t n = std::strftime(text, sizeof text, "%FT%T", &parts);
  std::snprintf(text + n, sizeof text - n, ".%03dZ", static_cast<int>(ms % 1000));
  return text;
}

}  // namespace

Result<void> Audit::open() {
  if (!on()) return {};
  sys::UniqueFd file(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return sys_error(errno, "open the audit log " + path_ + " (audit.file)");
  const std::lock_guard lock(mutex_);
  file_ = std::move(file);
  return {};
}

void Audit::record(const AuditRecord& r) {
  if (!on()) return;
  nlohmann::ordered_json line{{"time", utc_now()}, {"key_id", r.key_id}, {"peer", r.peer}, {"method", r.method}, {"route", r.route}, {"session_id", r.session_id},
                              {"status", r.status}, {"code", r.code}, {"duration_ms", static_cast<double>(static_cast<std::int64_t>(r.duration_ms * 100)) / 100}, {"request_id", r.request_id}, {"trace_id", r.trace_id}};
  for (auto field = line.begin(); field != line.end();) field = field->is_string() && field->get_ref<const std::string&>().empty() ? line.erase(field) : std::next(field);
  if (content_ && !r.request.empty()) line["request"] = r.request.substr(0, kAuditBodyBytes);
  if (content_ && !r.answer.empty()) line["answer"] = r.answer.substr(0, kAuditBodyBytes);
  // Whatever bytes a client sent, the line is valid JSON and has no line feed in it.
  const std::string text = line.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n";
  const std::lock_guard lock(mutex_);
  if (::write(file_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    log_.error("the audit log could not be written file={} errno={} lost={}", path_, std::strerror(errno), ++lost_);
}

}  // namespace codespace::server
