// See log.h.
#include "sandbox/daemon/log.h"

#include <cstdlib>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>

namespace codespace::daemon {
namespace {

/// Priorities of syslog(3).
class Priority final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    char digit = '7';
    if (message.level == spdlog::level::info) digit = '6';
    else if (message.level == spdlog::level::warn) digit = '4';
    else if (message.level >= spdlog::level::err) digit = '3';
    out.push_back(digit);
  }
  [[nodiscard]] std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<Priority>(); }
};

}  // namespace

std::shared_ptr<spdlog::logger> make_log(const std::string& name) {
  auto log = std::make_shared<spdlog::logger>(name, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>(spdlog::pattern_time_type::utc);
  const bool journal = std::getenv("JOURNAL_STREAM") != nullptr;
  formatter->add_flag<Priority>('*').set_pattern(journal ? "<%*>%v" : "%Y-%m-%dT%H:%M:%S.%eZ %l %v");
  log->set_formatter(std::move(formatter));
  return log;
}

}  // namespace codespace::daemon
