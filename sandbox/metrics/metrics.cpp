// On prometheus-cpp's core: registry, families, text. docs/decisions/0016-metrics.md says why.
#include "sandbox/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <initializer_list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

namespace codespace::metrics {
namespace {

namespace prom = prometheus;
using Labels = prom::Labels;

// Seconds; from a hot run in a warm cache to the longest a request may take.
const prom::Histogram::BucketBoundaries kSeconds{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};

prom::Family<prom::Counter>& counter(prom::Registry& registry, const char* name, const char* help) {
  return prom::BuildCounter().Name(name).Help(help).Register(registry);
}
prom::Family<prom::Gauge>& gauge(prom::Registry& registry, const char* name, const char* help) {
  return prom::BuildGauge().Name(name).Help(help).Register(registry);
}
prom::Family<prom::Histogram>& histogram(prom::Registry& registry, const char* name, const char* help) {
  return prom::BuildHistogram().Name(name).Help(help).Register(registry);
}

/// A counter of ours after one of another process, which may have begun anew.
void follow(prom::Family<prom::Counter>& family, const Labels& labels, std::uint64_t total) {
  const double now = static_cast<double>(total);
  prom::Counter* counter = &family.Add(labels);
  if (now < counter->Value()) {
    family.Remove(counter);
    counter = &family.Add(labels);
  }
  counter->Increment(now - counter->Value());
}

/// The series of a family that each request counts in. Family::Add makes a whole new one before it finds that there is one.
template <class Series>
class Known {
 public:
  explicit Known(prom::Family<Series>& family) : family_(family) {}
  template <class... Args>
  Series& get(std::initializer_list<std::pair<const char*, std::string_view>> labels, const Args&... args) {
    std::string key;
    for (const auto& [name, value] : labels) (key += value) += '\n';
    const std::lock_guard lock(mutex_);
    if (const auto found = series_.find(key); found != series_.end()) return *found->second;
    Labels all;
    for (const auto& [name, value] : labels) all.emplace(name, value);
    Series& made = family_.Add(all, args...);
    series_.emplace(std::move(key), &made);
    return made;
  }

 private:
  prom::Family<Series>& family_;
  std::mutex mutex_;
  std::unordered_map<std::string, Series*> series_;  // none is ever removed from such a family
};

}  // namespace

struct Metrics::Families {
  prom::Registry registry;
  prom::Family<prom::Gauge>& build = gauge(registry, "codespace_build_info", "Always 1; the labels say what runs.");
  prom::Family<prom::Gauge>& sessions = gauge(registry, "codespace_sessions", "Sessions there are now, by status.");
  prom::Family<prom::Gauge>& pool_ready =
      gauge(registry, "codespace_pool_ready_sessions", "Sessions that were ready when the wanted number last changed.");
  prom::Family<prom::Gauge>& pool_wanted = gauge(registry, "codespace_pool_wanted_sessions", "Sessions that should be kept ready.");
  prom::Family<prom::Gauge>& launcher = gauge(registry, "codespace_launcher_up", "1 if the launcher answers.");
  prom::Family<prom::Gauge>& egress = gauge(registry, "codespace_egress_up", "1 if the egress proxy answers.");
  prom::Family<prom::Gauge>& egress_connections = gauge(registry, "codespace_egress_connections", "Connections of sessions through the proxy now.");
  prom::Family<prom::Counter>& egress_decisions =
      counter(registry, "codespace_egress_decisions_total", "Connections that sessions asked for, by what was decided.");
  prom::Family<prom::Counter>& egress_bytes = counter(registry, "codespace_egress_bytes_total", "Bytes through the proxy, as sessions see the direction.");
  prom::Family<prom::Histogram>& creation = histogram(
      registry, "codespace_session_creation_duration_seconds",
      "From asking the launcher for a session to having it, by what was ready: pool (all of it), zygote (a preloaded interpreter), cold (nothing).");
  prom::Family<prom::Counter>& failed = counter(registry, "codespace_session_creation_failures_total", "Sessions that could not be created.");
  prom::Family<prom::Counter>& ended = counter(registry, "codespace_sessions_ended_total", "Sessions ended, by reason.");
  prom::Family<prom::Counter>& runs = counter(registry, "codespace_runs_total", "Runs and commands (shell) ended, by outcome.");
  prom::Family<prom::Histogram>& run_time =
      histogram(registry, "codespace_run_duration_seconds", "Time of runs without their queue, by where the interpreter came from.");
  prom::Family<prom::Histogram>& queue_time = histogram(registry, "codespace_run_queue_seconds", "Time runs waited for their kernel.");
  prom::Family<prom::Counter>& output = counter(registry, "codespace_run_output_bytes_total", "Bytes that runs and commands wrote.");
  // Looked up once: these are counted in every run.
  prom::Counter& stdout_bytes = output.Add({{"stream", "stdout"}});
  prom::Counter& stderr_bytes = output.Add({{"stream", "stderr"}});
  prom::Family<prom::Counter>& requests = counter(registry, "codespace_http_requests_total", "Requests answered.");
  prom::Family<prom::Histogram>& request_time =
      histogram(registry, "codespace_http_request_duration_seconds", "From a request's first byte to its answer.");
  Known<prom::Counter> known_runs{runs}, known_requests{requests};
  Known<prom::Histogram> known_run_time{run_time}, known_queue_time{queue_time}, known_request_time{request_time};
};

Metrics::Metrics(std::string_view version) : families_(std::make_unique<Families>()) {
  families_->build.Add({{"version", std::string(version)}, {"compiler", __VERSION__}}).Set(1);
  // A series that is not there cannot be told from one that is 0.
  families_->failed.Add({});
  for (const char* origin : {"pool", "zygote", "cold"}) families_->creation.Add({{"origin", origin}}, kSeconds);
}

Metrics::~Metrics() = default;

void Metrics::session_created(std::string_view origin, double seconds) {
  families_->creation.Add({{"origin", std::string(origin)}}, kSeconds).Observe(seconds);
}

void Metrics::session_failed() { families_->failed.Add({}).Increment(); }

void Metrics::session_ended(std::string_view reason) { families_->ended.Add({{"reason", std::string(reason)}}).Increment(); }

void Metrics::run_ended(const EndedRun& run) {
  families_->known_runs.get({{"language", run.language}, {"outcome", run.outcome}}).Increment();
  families_->known_run_time.get({{"language", run.language}, {"kernel", run.kernel}}, kSeconds).Observe(run.run_s);
  families_->known_queue_time.get({{"language", run.language}}, kSeconds).Observe(run.queue_s);
  families_->stdout_bytes.Increment(static_cast<double>(run.stdout_bytes));
  families_->stderr_bytes.Increment(static_cast<double>(run.stderr_bytes));
}

void Metrics::request_served(std::string_view route, unsigned status, double seconds) {
  families_->known_requests.get({{"route", route}, {"status", std::to_string(status)}}).Increment();
  families_->known_request_time.get({{"route", route}}, kSeconds).Observe(seconds);
}

void Metrics::set_sessions(std::string_view status, double count) { families_->sessions.Add({{"status", std::string(status)}}).Set(count); }

void Metrics::set_pool(std::string_view flavour, double ready, double wanted) {
  const Labels labels{{"flavour", std::string(flavour)}};
  families_->pool_ready.Add(labels).Set(ready);
  families_->pool_wanted.Add(labels).Set(wanted);
}

void Metrics::set_launcher_up(bool up) { families_->launcher.Add({}).Set(up ? 1 : 0); }

void Metrics::set_egress_up(bool up) { families_->egress.Add({}).Set(up ? 1 : 0); }

void Metrics::set_egress_decisions(std::string_view verdict, std::uint64_t total) {
  follow(families_->egress_decisions, {{"verdict", std::string(verdict)}}, total);
}

void Metrics::set_egress_traffic(std::uint64_t connections, std::uint64_t bytes_sent, std::uint64_t bytes_received) {
  families_->egress_connections.Add({}).Set(static_cast<double>(connections));
  follow(families_->egress_bytes, {{"direction", "sent"}}, bytes_sent);
  follow(families_->egress_bytes, {{"direction", "received"}}, bytes_received);
}

std::string Metrics::text() const { return prom::TextSerializer().Serialize(families_->registry.Collect()); }

}  // namespace codespace::metrics
