// The route table: which path and method mean what.
#include <catch2/catch.hpp>
#include <set>

#include "server/error_response.h"
#include "server/router.h"

using namespace codespace;
using namespace codespace::server;
using V = http::verb;

TEST_CASE("a path and a method find their route and parameters", "[server]") {
  const Match run = match_route(V::get, "/v1/sessions/s1/runs/r1");
  REQUIRE(run.entry != nullptr);
  CHECK(run.entry->route == Route::run_get);
  CHECK(run.parameters == std::vector<std::string>{"s1", "r1"});
  CHECK(match_route(V::post, "/v1/sessions").entry->route == Route::sessions_create);
  CHECK(match_route(V::post, "/v1/sessions/s1/files:mkdir").entry->route == Route::files_mkdir);
  CHECK(match_route(V::head, "/healthz").entry->route == Route::healthz);
}

TEST_CASE("a file's path is the rest of the address, with its slashes", "[server]") {
  const auto path = [](std::string_view rest) {
    const Match match = match_route(V::get, "/v1/sessions/s1/files/" + std::string(rest));
    REQUIRE(match.entry != nullptr);
    CHECK(match.entry->route == Route::file_get);
    return match.parameters.at(1);
  };
  CHECK(path("a.txt") == "a.txt");
  CHECK(path("a/b/c.txt") == "a/b/c.txt");
  CHECK(path("/tmp/x") == "/tmp/x");  // files//tmp/x
  CHECK(path("a//b") == "a//b");
  CHECK(path("a/") == "a/");
  CHECK(path("").empty());
}

TEST_CASE("a path that nobody serves matches nothing", "[server]") {
  for (const char* path : {"/", "/v1", "/v1/", "/v1/session", "/v1/sessions/", "/v1/sessions//runs", "/v1/sessions/s/runs/r/x",
                           "/v2/sessions", "/healthz/", "/V1/sessions", "/v1/sessions/s/files:copy"}) {
    INFO(path);
    const Match match = match_route(V::get, path);
    CHECK(match.entry == nullptr);
    CHECK(match.allowed.empty());
  }
}

TEST_CASE("a wrong method is told the right ones", "[server]") {
  const Match match = match_route(V::put, "/v1/sessions/s1");
  CHECK(match.entry == nullptr);
  CHECK(match.allowed == "GET, HEAD, PATCH, DELETE");
  CHECK(match_route(V::get, "/v1/runs").allowed == "POST");
  CHECK(match_route(V::unknown, "/healthz").allowed == "GET, HEAD");
}

TEST_CASE("only the addresses of probes and documents are open without a key", "[server]") {
  for (const RouteEntry& entry : route_table()) {
    const bool open = !entry.pattern.starts_with("/v1/") && entry.pattern != "/metrics";
    INFO(entry.pattern);
    CHECK(entry.needs_key == !open);
  }
}

TEST_CASE("every error has a status that fits, and a code of its own", "[server]") {
  std::set<std::string_view> codes;
  for (int code = 0; code <= static_cast<int>(ErrorCode::deadline_exceeded); ++code) {
    const PublicError error = public_error(static_cast<ErrorCode>(code));
    INFO(error.code);
    CHECK(error.status >= 400);
    CHECK(error.status < 600);
    CHECK_FALSE(error.title.empty());
    CHECK(codes.insert(error.code).second);
  }
  CHECK(public_error(ErrorCode::session_ended).status == 410);
  CHECK(public_error(ErrorCode::idempotency_mismatch).status == 422);
  CHECK(public_error(ErrorCode::range_not_satisfiable).status == 416);
  CHECK(public_error(ErrorCode::unauthorized).status == 401);
}
