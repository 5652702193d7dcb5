// See router.h.
#include "server/router.h"

#include <charconv>

#include "api/json.h"

namespace codespace::server {
namespace {

using V = http::verb;

/// Splits at '/', keeping empty parts, so that `//` is never silently one slash.
std::vector<std::string_view> split(std::string_view path) {
  std::vector<std::string_view> parts;
  std::size_t at = 1;
  while (at <= path.size()) {
    std::size_t slash = path.find('/', at);
    if (slash == std::string_view::npos) slash = path.size();
    parts.push_back(path.substr(at, slash - at));
    at = slash + 1;
  }
  return parts;
}

bool match_pattern(std::string_view pattern, std::string_view path, std::vector<std::string>& parameters) {
  parameters.clear();
  const auto want = split(pattern);
  const auto have = split(path);
  std::size_t i = 0;
  for (; i < want.size(); ++i) {
    if (want[i].ends_with("...}")) {
      if (i >= have.size()) return false;
      // The rest of the path as it is: `files//tmp/x` names the absolute path /tmp/x.
      parameters.emplace_back(path.substr(static_cast<std::size_t>(have[i].data() - path.data())));
      return true;
    }
    if (i >= have.size()) return false;
    if (want[i].starts_with("{")) {
      if (have[i].empty()) return false;
      parameters.emplace_back(have[i]);
    } else if (want[i] != have[i]) {
      return false;
    }
  }
  return i == have.size();
}

Result<bool> flag(const Target& target, const char* name) {
  const auto found = target.query.find(name);
  if (found == target.query.end() || found->second == "0" || found->second == "false") return false;
  if (found->second == "1" || found->second == "true" || found->second.empty()) return true;
  return client_error(ErrorCode::invalid_request, std::string("query parameter `") + name + "` must be 0 or 1");
}

Result<std::uint32_t> number(const Target& target, const char* name, std::uint32_t fallback, std::uint32_t low, std::uint32_t high) {
  const auto found = target.query.find(name);
  if (found == target.query.end()) return fallback;
  std::uint32_t value = 0;
  const std::string& text = found->second;
  const auto end = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || end.ec != std::errc{} || end.ptr != text.data() + text.size() || value < low || value > high)
    return client_error(ErrorCode::invalid_request, std::string("query parameter `") + name + "` must be a number from " +
                                                        std::to_string(low) + " to " + std::to_string(high));
  return value;
}

Result<manager::SessionQuery> session_query(const Target& target) {
  manager::SessionQuery query;
  for (const std::string& label : target.labels) {
    const std::size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0)
      return client_error(ErrorCode::invalid_request, "query parameter `label` must be NAME=VALUE");
    query.labels[label.substr(0, equals)] = label.substr(equals + 1);
  }
  for (const auto& [name, value] : target.query) {
    if (name == "status") {
      query.status = api::status_by_name(value);
      if (!query.status)
        return client_error(ErrorCode::invalid_request, "query parameter `status` must be starting, running, paused, ending or ended");
    } else if (name == "cursor") {
      query.cursor = value;
    } else if (name != "limit") {
      return client_error(ErrorCode::invalid_request, "query parameter `" + name + "` is not known; known: label, status, limit, cursor");
    }
  }
  auto limit = number(target, "limit", 50, 1, 1000);
  if (!limit) return std::unexpected(limit.error());
  query.limit = *limit;
  return query;
}

/// A run is not a command, and a command not a run, though both are kept alike.
Result<void> check_run_id(const Match& match) {
  const bool command = match.entry->route == Route::command_get || match.entry->route == Route::command_cancel;
  if (match.parameters[1].starts_with(command ? "cmd-" : "run-")) return {};
  return client_error(ErrorCode::run_not_found, command ? "a command's id starts with cmd-; runs are below /runs" : "a run's id starts with run-; commands are below /commands");
}

Result<Response> to_response(Result<api::Answer> answer, unsigned status) {
  if (!answer) return std::unexpected(answer.error());
  Response response;
  response.status = answer->body.empty() ? 204 : status;
  response.body = std::move(answer->body);
  if (!answer->timing.empty()) response.headers.emplace_back("Server-Timing", std::move(answer->timing));
  return response;
}

Response plain(std::string body) {
  Response response;
  response.body = std::move(body);
  return response;
}

}  // namespace

const std::vector<RouteEntry>& route_table() {
  static const std::vector<RouteEntry> table = {
      {V::post, "/v1/sessions", Route::sessions_create, BodyKind::json},
      {V::get, "/v1/sessions", Route::sessions_list},
      {V::get, "/v1/sessions/{id}", Route::session_get},
      {V::patch, "/v1/sessions/{id}", Route::session_patch, BodyKind::json},
      {V::delete_, "/v1/sessions/{id}", Route::session_delete},
      {V::post, "/v1/sessions/{id}/pause", Route::session_pause},
      {V::post, "/v1/sessions/{id}/resume", Route::session_resume},
      {V::get, "/v1/sessions/{id}/metrics", Route::session_metrics},
      {V::post, "/v1/sessions/{id}/runs", Route::runs_create, BodyKind::json},
      {V::get, "/v1/sessions/{id}/runs", Route::runs_list},
      {V::get, "/v1/sessions/{id}/runs/{run_id}", Route::run_get},
      {V::post, "/v1/sessions/{id}/runs/{run_id}/cancel", Route::run_cancel},
      {V::post, "/v1/sessions/{id}/commands", Route::commands_create, BodyKind::json},
      {V::get, "/v1/sessions/{id}/commands", Route::commands_list},
      {V::get, "/v1/sessions/{id}/commands/{command_id}", Route::command_get},
      {V::post, "/v1/sessions/{id}/commands/{command_id}/cancel", Route::command_cancel},
      {V::get, "/v1/sessions/{id}/contexts", Route::contexts_list},
      {V::delete_, "/v1/sessions/{id}/contexts/{language}/{context}", Route::context_delete},
      {V::post, "/v1/sessions/{id}/files:mkdir", Route::files_mkdir, BodyKind::json},
      {V::post, "/v1/sessions/{id}/files:move", Route::files_move, BodyKind::json},
      {V::post, "/v1/sessions/{id}/files:edit", Route::files_edit, BodyKind::json},
      {V::post, "/v1/sessions/{id}/files:search", Route::files_search, BodyKind::json},
      {V::get, "/v1/sessions/{id}/files/{path...}", Route::file_get},
      {V::put, "/v1/sessions/{id}/files/{path...}", Route::file_put, BodyKind::stream},
      {V::delete_, "/v1/sessions/{id}/files/{path...}", Route::file_delete},
      {V::post, "/v1/runs", Route::one_shot, BodyKind::json},
      {V::get, "/v1/images", Route::images},
      {V::get, "/metrics", Route::metrics},
      {V::get, "/healthz", Route::healthz, BodyKind::none, false},
      {V::get, "/livez", Route::livez, BodyKind::none, false},
      {V::get, "/readyz", Route::readyz, BodyKind::none, false},
      {V::get, "/version", Route::version, BodyKind::none, false},
      {V::get, "/openapi.json", Route::openapi, BodyKind::none, false},
  };
  return table;
}

Match match_route(http::verb method, std::string_view path) {
  const http::verb wanted = method == V::head ? V::get : method;
  Match match;
  for (const RouteEntry& entry : route_table()) {
    std::vector<std::string> parameters;
    if (!match_pattern(entry.pattern, path, parameters)) continue;
    if (entry.method == wanted) {
      match.entry = &entry;
      match.parameters = std::move(parameters);
      return match;
    }
    match.allowed += (match.allowed.empty() ? "" : ", ") + std::string(http::to_string(entry.method));
    if (entry.method == V::get) match.allowed += ", HEAD";
  }
  return match;
}

boost::asio::awaitable<Result<Response>> Router::ready(bool verbose) {
  auto readiness = co_await handlers_.manager().readiness();
  if (!readiness) co_return std::unexpected(readiness.error());
  if (draining) {
    readiness->ready = false;
    readiness->checks.push_back({"draining", false, "the server is stopping"});
  }
  readiness->checks.push_back({"host", true, host_lacks});
  Response response = plain(verbose || !readiness->ready ? api::encode(*readiness) : "{\"ready\":true}");
  response.status = readiness->ready ? 200 : 503;
  co_return response;
}

boost::asio::awaitable<Result<Response>> Router::serve(RoutedRequest r) {
  auto& p = r.match.parameters;
  api::Caller caller = std::move(r.caller);
  switch (r.match.entry->route) {
    case Route::sessions_create: {
      auto answer = co_await handlers_.create_session(std::move(caller), std::move(r.body));
      const std::string id = answer ? answer->id : "";
      auto response = to_response(std::move(answer), 201);
      if (response) response->headers.emplace_back("Location", "/v1/sessions/" + id);
      co_return response;
    }
    case Route::sessions_list: {
      auto query = session_query(r.target);
      if (!query) co_return std::unexpected(query.error());
      co_return to_response(co_await handlers_.list_sessions(std::move(caller), std::move(*query)), 200);
    }
    case Route::session_get: co_return to_response(co_await handlers_.get_session(std::move(caller), p[0]), 200);
    case Route::session_patch: co_return to_response(co_await handlers_.patch_session(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::session_delete: co_return to_response(co_await handlers_.delete_session(std::move(caller), p[0]), 200);
    case Route::session_pause: co_return to_response(co_await handlers_.pause(std::move(caller), p[0]), 200);
    case Route::session_resume: co_return to_response(co_await handlers_.resume(std::move(caller), p[0]), 200);
    case Route::session_metrics: co_return to_response(co_await handlers_.metrics(std::move(caller), p[0]), 200);
    case Route::runs_create: co_return to_response(co_await handlers_.run(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::commands_create: co_return to_response(co_await handlers_.command(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::runs_list:
    case Route::commands_list: {
      auto limit = number(r.target, "limit", 50, 1, 1000);
      if (!limit) co_return std::unexpected(limit.error());
      const bool commands = r.match.entry->route == Route::commands_list;
      co_return to_response(co_await handlers_.list_runs(std::move(caller), p[0], commands, *limit), 200);
    }
    case Route::contexts_list: co_return to_response(co_await handlers_.list_contexts(std::move(caller), p[0]), 200);
    case Route::context_delete:
      co_return to_response(co_await handlers_.delete_context(std::move(caller), p[0], p[1], p[2]), 200);
    case Route::run_get:
    case Route::command_get:
      if (auto fits = check_run_id(r.match); !fits) {
        // Whether the session exists is the first question, as everywhere.
        auto session = co_await handlers_.get_session(std::move(caller), p[0]);
        co_return std::unexpected(session ? fits.error() : session.error());
      }
      co_return to_response(co_await handlers_.find_run(std::move(caller), p[0], p[1]), 200);
    case Route::run_cancel:
    case Route::command_cancel:
      if (auto fits = check_run_id(r.match); !fits) {
        // Whether the session exists is the first question, as everywhere.
        auto session = co_await handlers_.get_session(std::move(caller), p[0]);
        co_return std::unexpected(session ? fits.error() : session.error());
      }
      co_return to_response(co_await handlers_.cancel_run(std::move(caller), p[0], p[1]), 200);
    case Route::one_shot: co_return to_response(co_await handlers_.one_shot(std::move(caller), std::move(r.body)), 200);
    case Route::files_mkdir: co_return to_response(co_await handlers_.make_directory(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::files_move: co_return to_response(co_await handlers_.move(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::files_edit: co_return to_response(co_await handlers_.edit(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::files_search: co_return to_response(co_await handlers_.search(std::move(caller), p[0], std::move(r.body)), 200);
    case Route::file_get: {
      auto list = flag(r.target, "list");
      if (!list) co_return std::unexpected(list.error());
      if (!*list) co_return to_response(co_await handlers_.stat(std::move(caller), p[0], p[1]), 200);
      auto depth = number(r.target, "depth", 1, 1, 64);
      if (!depth) co_return std::unexpected(depth.error());
      if (p[1].empty()) p[1] = ".";  // named before the co_await: GCC 12 frees a conditional temporary twice
      co_return to_response(co_await handlers_.list_files(std::move(caller), p[0], p[1], *depth), 200);
    }
    case Route::file_delete: {
      auto recursive = flag(r.target, "recursive");
      if (!recursive) co_return std::unexpected(recursive.error());
      co_return to_response(co_await handlers_.remove_file(std::move(caller), p[0], p[1], *recursive), 200);
    }
    case Route::images: co_return to_response(co_await handlers_.images(std::move(caller)), 200);
    case Route::metrics: {
      co_await handlers_.manager().measure();
      Response response = plain(metrics_.text());
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      co_return response;
    }
    case Route::healthz:
    case Route::livez: co_return plain("{\"ok\":true}");
    case Route::readyz: co_return co_await ready(r.target.query.contains("verbose"));
    case Route::version: co_return plain(api::encode_version(CODESPACE_VERSION, __VERSION__));
    case Route::openapi: co_return plain(std::string(openapi_json()));
    case Route::file_put: break;
  }
  co_return server_error(ErrorCode::internal, "a streaming route reached the router");
}

}  // namespace codespace::server
