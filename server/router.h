// The static table of routes, and what each does. The table is the list a newcomer reads
// first, and what a unit test compares with api/openapi.yaml.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "api/handlers.h"
#include "sandbox/metrics/metrics.h"
#include "server/http.h"

namespace codespace::server {

enum class Route {
  sessions_create, sessions_list, session_get, session_patch, session_delete, session_pause, session_resume,
  session_metrics, runs_create, runs_list, run_get, run_cancel, commands_create, commands_list, command_get, command_cancel,
  contexts_list, context_delete,
  file_get, file_put, file_delete, files_mkdir, files_move, files_edit, files_search, one_shot, images, metrics, healthz, livez, readyz, version, openapi,
};

/// How the body of a request is taken.
enum class BodyKind { none, json, stream };

struct RouteEntry {
  http::verb method;
  std::string_view pattern;   // {name} takes one segment, {name...} the rest, slashes included
  Route route;
  BodyKind body = BodyKind::none;
  bool needs_key = true;
};
const std::vector<RouteEntry>& route_table();

struct Match {
  const RouteEntry* entry = nullptr;      // none: no route
  std::vector<std::string> parameters;    // in order of the pattern
  std::string allowed;                    // methods of the path, if only the method is wrong
};
/// HEAD is served wherever GET is.
Match match_route(http::verb method, std::string_view path);

struct RoutedRequest {
  Match match;
  Target target;
  api::Caller caller;
  std::string body;
};

/// Serves every route but the two that stream (file_get without stat or list, file_put).
class Router {
 public:
  Router(api::Handlers& handlers, metrics::Metrics& metrics) : handlers_(handlers), metrics_(metrics) {}

  boost::asio::awaitable<Result<Response>> serve(RoutedRequest request);
  [[nodiscard]] api::Handlers& handlers() { return handlers_; }
  [[nodiscard]] metrics::Metrics& metrics() { return metrics_; }
  /// What this machine lacks, as /readyz tells it; set before the first request.
  std::string host_lacks;
  /// While draining, readyz says so and load balancers go elsewhere.
  std::atomic<bool> draining{false};
  /// Requests being served, for the drain to wait for.
  std::atomic<int> in_flight{0};

 private:
  boost::asio::awaitable<Result<Response>> ready(bool verbose);
  api::Handlers& handlers_;
  metrics::Metrics& metrics_;
};

/// The OpenAPI document as JSON, made from api/openapi.yaml at build time.
std::string_view openapi_json();

}  // namespace codespace::server
