// What the daemon counts and times, for GET /metrics: names and units as Prometheus's
// conventions have them (prometheus.io/docs/practices/naming). Any thread may call anything.
// Label values come from our own tables, never from a client, so the number of series is bounded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace codespace::metrics {

/// A run or command that has ended.
struct EndedRun {
  std::string_view language;   // "shell": a command
  std::string_view outcome;
  std::string_view kernel;     // where its interpreter came from
  double queue_s = 0;
  double run_s = 0;            // without the queue
  std::uint64_t stdout_bytes = 0;
  std::uint64_t stderr_bytes = 0;
};

class Metrics {
 public:
  explicit Metrics(std::string_view version);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// `origin`: the state the launcher had ready, "pool", "zygote" or "cold".
  void session_created(std::string_view origin, double seconds);
  void session_failed();
  void session_ended(std::string_view reason);
  void run_ended(const EndedRun& run);
  /// `route` is a pattern of the route table.
  void request_served(std::string_view route, unsigned status, double seconds);

  /// Gauges. Those of the pool are of the moment its wanted size last changed, the others of when somebody asks.
  void set_sessions(std::string_view status, double count);
  void set_pool(std::string_view flavour, double ready, double wanted);
  void set_launcher_up(bool up);
  void set_egress_up(bool up);
  /// What the egress proxy has counted since its start; a smaller number than before is a new start.
  void set_egress_decisions(std::string_view verdict, std::uint64_t total);
  void set_egress_traffic(std::uint64_t connections, std::uint64_t bytes_sent, std::uint64_t bytes_received);

  /// The text exposition format, version 0.0.4.
  [[nodiscard]] std::string text() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace codespace::metrics
