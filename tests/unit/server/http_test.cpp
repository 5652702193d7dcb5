// Whole requests against the real listener and the real session manager over fakes.
#include <openssl/ssl.h>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "server/response_head.h"
#include "tests/unit/server/gateway.h"

using namespace codespace;
using codespace::server::ResponseHead;
using codespace::test::Gateway;
using codespace::test::HttpAnswer;
using codespace::test::RawClient;
using nlohmann::json;

TEST_CASE("the head of an answer says its length, and of the connection what is not so of itself", "[http]") {
  const auto head = [](unsigned version, unsigned status, std::optional<std::size_t> length, bool keep_alive) {
    ResponseHead made(version, status);
    made.set("Server", "x");
    return std::move(made).finish(length, keep_alive);
  };
  CHECK(head(11, 200, 5, true) == "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n");
  CHECK(head(11, 404, 0, false) == "HTTP/1.1 404 Not Found\r\nServer: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  CHECK(head(10, 201, 1, true) == "HTTP/1.0 201 Created\r\nServer: x\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\n");
  CHECK(head(10, 200, 1, false) == "HTTP/1.0 200 OK\r\nServer: x\r\nContent-Length: 1\r\n\r\n");
  CHECK(head(11, 204, std::nullopt, true) == "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n");
}

TEST_CASE("health, version and the contract need no key", "[server][http]") {
  Gateway gateway;
  for (const char* path : {"/healthz", "/livez", "/version", "/openapi.json", "/readyz", "/readyz?verbose"}) {
    INFO(path);
    RawClient client(gateway.port());
    const HttpAnswer answer = client.exchange(gateway.text_of("GET", path, {}, {}, false));
    CHECK(answer.status == 200);
    CHECK(json::accept(answer.body));
    CHECK(answer.header("content-type") == "application/json");
    CHECK(answer.header("x-request-id").starts_with("req-"));
  }
}

TEST_CASE("a session goes from creation to its end", "[server][http]") {
  Gateway gateway;
  const HttpAnswer created = gateway.request("POST", "/v1/sessions", R"({"labels":{"a":"b"}})");
  REQUIRE(created.status == 201);
  const json session = json::parse(created.body);
  const std::string path = "/v1/sessions/" + session["session_id"].get<std::string>();
  CHECK(created.header("location") == path);
  CHECK(session["status"] == "running");
  CHECK(json::parse(gateway.request("GET", path).body)["labels"]["a"] == "b");
  CHECK(json::parse(gateway.request("GET", "/v1/sessions?label=a%3Db").body)["total"] == 1);
  CHECK(json::parse(gateway.request("GET", "/v1/sessions?label=a=c").body)["total"] == 0);
  CHECK(json::parse(gateway.request("PATCH", path, R"({"idle_timeout_s":7})").body)["idle_timeout_s"] == 7);
  CHECK(json::parse(gateway.request("POST", path + "/pause").body)["status"] == "paused");
  const HttpAnswer paused = gateway.request("POST", path + "/runs", R"({"language":"py","code":"print 1"})");
  CHECK(paused.status == 409);
  CHECK(json::parse(paused.body)["code"] == "session_paused");
  CHECK(json::parse(gateway.request("POST", path + "/resume").body)["status"] == "running");
  const HttpAnswer removed = gateway.request("DELETE", path);
  CHECK(removed.status == 204);
  CHECK(removed.body.empty());
  CHECK(gateway.request("DELETE", path).status == 204);  // twice is fine
  const HttpAnswer gone = gateway.request("GET", path);
  CHECK(gone.status == 410);
  const json problem = json::parse(gone.body);
  CHECK(problem["code"] == "session_ended");
  CHECK(problem["end_reason"] == "deleted");
  CHECK(problem.contains("ended_at"));
  const HttpAnswer run = gateway.request("POST", path + "/runs", R"({"language":"py","code":"print 1"})");
  CHECK(run.status == 410);
  CHECK(json::parse(run.body)["end_reason"] == "deleted");
}

TEST_CASE("two label filters must both match", "[server][http]") {
  Gateway gateway;
  REQUIRE(gateway.request("POST", "/v1/sessions", R"({"labels":{"a":"1","b":"1"}})").status == 201);
  REQUIRE(gateway.request("POST", "/v1/sessions", R"({"labels":{"a":"1","b":"2"}})").status == 201);
  CHECK(json::parse(gateway.request("GET", "/v1/sessions?label=a=1").body)["total"] == 2);
  CHECK(json::parse(gateway.request("GET", "/v1/sessions?label=a=1&label=b=2").body)["total"] == 1);
}

TEST_CASE("a run and a command answer with their record and their times", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session();
  const HttpAnswer run = gateway.request("POST", path + "/runs", R"({"language":"python","code":"print hello"})");
  REQUIRE(run.status == 200);
  const json record = json::parse(run.body);
  CHECK(record["stdout"] == "hello");
  CHECK(record["outcome"] == "ok");
  CHECK(record["session_id"] == path.substr(13));
  for (const char* part : {"queue;dur=", "spawn;dur=", "run;dur=", "collect;dur=", "total;dur="})
    CHECK(run.header("server-timing").find(part) != std::string::npos);
  CHECK(gateway.request("GET", path + "/runs/" + record["run_id"].get<std::string>()).status == 200);
  const json command = json::parse(gateway.request("POST", path + "/commands", R"({"command":"print x"})").body);
  CHECK(command.contains("command_id"));
  CHECK(gateway.request("GET", path + "/commands/" + command["command_id"].get<std::string>()).status == 200);
}

TEST_CASE("a run is not a command, and a command not a run", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session();
  const json run = json::parse(gateway.request("POST", path + "/runs", R"({"language":"py","code":"print 1"})").body);
  const json command = json::parse(gateway.request("POST", path + "/commands", R"({"command":"print 1"})").body);
  CHECK(gateway.request("GET", path + "/commands/" + run["run_id"].get<std::string>()).status == 404);
  CHECK(gateway.request("GET", path + "/runs/" + command["command_id"].get<std::string>()).status == 404);
}

TEST_CASE("the same Idempotency-Key gives the same run, and another body is refused", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/runs";
  const std::string body = R"({"language":"python","code":"print 1"})";
  const json first = json::parse(gateway.request("POST", path, body, "Idempotency-Key: k1\r\n").body);
  const json second = json::parse(gateway.request("POST", path, body, "Idempotency-Key: k1\r\n").body);
  CHECK(first["run_id"] == second["run_id"]);
  const HttpAnswer other = gateway.request("POST", path, R"({"language":"python","code":"print 2"})", "Idempotency-Key: k1\r\n");
  CHECK(other.status == 422);
  CHECK(json::parse(other.body)["code"] == "idempotency_mismatch");
}

TEST_CASE("a one-shot run leaves no session", "[server][http]") {
  Gateway gateway;
  const HttpAnswer run = gateway.request("POST", "/v1/runs", R"({"language":"py","code":"print 7","files":{"a.txt":"x"}})");
  CHECK(run.status == 200);
  CHECK(json::parse(run.body)["stdout"] == "7");
  CHECK(gateway.world.launcher->count() == 0);
  const HttpAnswer refused = gateway.request("POST", "/v1/runs", R"({"language":"py","code":"print 7","files":{"../a":"x"}})");
  CHECK(refused.status == 400);
  CHECK(gateway.world.launcher->count() == 0);
}

TEST_CASE("a file goes in and comes out byte for byte", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/files/";
  std::string bytes;
  for (int i = 0; i < 3'000'000; ++i) bytes += static_cast<char>(i * 7 + i / 256);
  const HttpAnswer put = gateway.request("PUT", path + "d/data.bin", bytes, "Content-Type: application/octet-stream\r\n");
  REQUIRE(put.status == 201);
  CHECK(json::parse(put.body)["bytes_written"] == bytes.size());
  const HttpAnswer whole = gateway.request("GET", path + "d/data.bin");
  CHECK(whole.status == 200);
  CHECK(whole.body == bytes);
  CHECK(whole.header("x-content-type-options") == "nosniff");
}

TEST_CASE("a body in chunks is read, and 100-continue is answered", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session();
  RawClient client(gateway.port());
  const std::string head = "PUT " + path + "/files/c.txt HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + gateway.key +
                           "\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n";
  CHECK(client.exchange(head).status == 100);
  const HttpAnswer put = client.exchange("5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n");
  CHECK(put.status == 201);
  CHECK(gateway.request("GET", path + "/files/c.txt").body == "hello!");
}

TEST_CASE("a connection serves one request after the other, pipelined ones too", "[server][http]") {
  Gateway gateway;
  RawClient client(gateway.port());
  const std::string request = gateway.text_of("GET", "/version");
  for (int i = 0; i < 5; ++i) CHECK(client.exchange(request).status == 200);
  client.send(request + gateway.text_of("GET", "/nowhere") + request);
  CHECK(client.read().status == 200);
  CHECK(client.read().status == 404);
  CHECK(client.read().status == 200);
  CHECK(client.exchange(gateway.text_of("GET", "/version", {}, "Connection: close\r\n")).header("connection") == "close");
  CHECK(client.closed_within(std::chrono::seconds(5)));
}

TEST_CASE("HEAD has the length of GET and no body", "[server][http]") {
  Gateway gateway;
  const HttpAnswer get = gateway.request("GET", "/version");
  RawClient client(gateway.port());
  const HttpAnswer head = client.exchange(gateway.text_of("HEAD", "/version"), true);
  CHECK(head.status == 200);
  CHECK(head.header("content-length") == get.header("content-length"));
  CHECK(client.exchange(gateway.text_of("GET", "/version")).body == get.body);  // nothing was left over
}

TEST_CASE("a request id is echoed, and stands in the log with the key's id and not the key", "[server][http]") {
  Gateway gateway;
  const HttpAnswer answer = gateway.request("GET", "/v1/images", {}, "X-Request-Id: my-id.1\r\n");
  CHECK(answer.header("x-request-id") == "my-id.1");
  CHECK(gateway.request("GET", "/v1/images", {}, "X-Request-Id: a b\r\n").header("x-request-id").starts_with("req-"));
  gateway.request("POST", "/v1/runs", R"({"language":"py","code":"print s3cret-code","env":{"T":"s3cret-env"}})");
  CHECK(test::World::eventually([&] { return gateway.log().find("route=/v1/runs") != std::string::npos; }));
  const std::string log = gateway.log();
  CHECK(log.find("request_id=my-id.1") != std::string::npos);
  CHECK(log.find("key_id=alice") != std::string::npos);
  CHECK(log.find(gateway.key) == std::string::npos);
  CHECK(log.find("s3cret") == std::string::npos);
}

TEST_CASE("someone else's session does not exist", "[server][http]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session();
  RawClient client(gateway.port());
  for (const std::string& request :
       {"GET " + path, "DELETE " + path, "GET " + path + "/metrics", "GET " + path + "/files/a", "GET " + path + "/runs/run-" + std::string(26, 'a')}) {
    INFO(request);
    const HttpAnswer answer = client.exchange(request + " HTTP/1.1\r\nHost: x\r\nX-API-Key: " + gateway.other_key + "\r\n\r\n");
    CHECK(answer.status == 404);
    CHECK(json::parse(answer.body)["code"] == "session_not_found");
  }
  CHECK(gateway.request("GET", path).status == 200);
}

TEST_CASE("a launcher that is away is told as such", "[server][http]") {
  Gateway gateway;
  gateway.world.launcher->go_away();
  const HttpAnswer answer = gateway.request("POST", "/v1/sessions", "{}");
  CHECK(answer.status == 503);
  CHECK(json::parse(answer.body)["code"] == "launcher_unavailable");
  CHECK_FALSE(answer.header("retry-after").empty());
  CHECK(test::World::eventually([&] { return gateway.request("GET", "/readyz").status == 503; }));
  CHECK(gateway.request("GET", "/healthz").status == 200);
}

TEST_CASE("the same port speaks TLS, verified against the CA it made", "[server][http]") {
  Gateway gateway;
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  REQUIRE(SSL_CTX_load_verify_locations(context.get(), (gateway.world.dir.path() + "/tls/ca.pem").c_str(), nullptr) == 1);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  for (const char* name : {"localhost", "127.0.0.1", "::1"}) {
    INFO(name);
    RawClient client(gateway.port());
    const std::unique_ptr<SSL, decltype(&SSL_free)> tls(SSL_new(context.get()), SSL_free);
    const bool address = std::string_view(name).find_first_not_of("0123456789.:") == std::string_view::npos;
    if (address) REQUIRE(X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls.get()), name) == 1);
    else REQUIRE(SSL_set1_host(tls.get(), name) == 1);
    SSL_set_fd(tls.get(), client.fd());
    REQUIRE(SSL_connect(tls.get()) == 1);
    const std::string request = gateway.text_of("GET", "/version");
    REQUIRE(SSL_write(tls.get(), request.data(), static_cast<int>(request.size())) > 0);
    char answer[4096];
    const int n = SSL_read(tls.get(), answer, sizeof answer);
    REQUIRE(n > 0);
    CHECK(std::string_view(answer, static_cast<std::size_t>(n)).starts_with("HTTP/1.1 200"));
    SSL_shutdown(tls.get());
  }
}
