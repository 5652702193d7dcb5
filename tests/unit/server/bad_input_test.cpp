// What clients get wrong, by mistake or on purpose. Each answer is problem+json with a stable
// code and a request id, and the server goes on.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "tests/unit/server/gateway.h"

using namespace codespace;
using codespace::test::Gateway;
using codespace::test::HttpAnswer;
using codespace::test::RawClient;
using nlohmann::json;

namespace {

void check_problem(const HttpAnswer& answer, int status, const std::string& code) {
  INFO(answer.body);
  REQUIRE(answer.status == status);
  CHECK(answer.header("content-type") == "application/problem+json");
  const json problem = json::parse(answer.body);
  for (const char* field : {"type", "title", "status", "detail", "instance", "code", "request_id"}) CHECK(problem.contains(field));
  CHECK(problem["status"] == status);
  CHECK(problem["code"] == code);
  CHECK(problem["request_id"] == answer.header("x-request-id"));
  CHECK_FALSE(problem["detail"].get<std::string>().empty());
}

std::string head(const Gateway& gateway, const std::string& line, const std::string& fields = {}) {
  return line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + gateway.key + "\r\n" + fields + "\r\n";
}

}  // namespace

TEST_CASE("without a good key nothing below /v1 is served", "[server][bad]") {
  Gateway gateway;
  RawClient client(gateway.port());
  for (const std::string& key : {std::string(), "Authorization: Bearer csk_" + std::string(43, 'A') + "\r\n", std::string("Authorization: Bearer \r\n"),
                                 "Authorization: Basic " + gateway.key + "\r\n", "Authorization: Bearer " + gateway.key + "x\r\n",
                                 std::string("X-API-Key: nonsense\r\n")}) {
    INFO(key);
    for (const char* line : {"GET /v1/images", "GET /v1/sessions", "DELETE /v1/sessions/x", "GET /v1/sessions/x/files/a"}) {
      const HttpAnswer answer = client.exchange(std::string(line) + " HTTP/1.1\r\nHost: x\r\n" + key + "\r\n");
      check_problem(answer, 401, "unauthorized");
      CHECK(answer.header("www-authenticate").starts_with("Bearer"));
    }
  }
  CHECK(client.exchange(head(gateway, "GET /v1/images")).status == 200);
}

TEST_CASE("unknown paths, methods and query values are told apart", "[server][bad]") {
  Gateway gateway;
  check_problem(gateway.request("GET", "/v1/nothing"), 404, "not_found");
  const HttpAnswer wrong = gateway.request("PUT", "/v1/sessions");
  check_problem(wrong, 405, "method_not_allowed");
  CHECK(wrong.header("allow").find("POST") != std::string::npos);
  CHECK(wrong.header("allow").find("GET") != std::string::npos);
  check_problem(gateway.request("BREW", "/v1/images"), 405, "method_not_allowed");
  check_problem(gateway.request("GET", "/v1/sessions?limit=0"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?limit=1001"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?limit=x"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?status=alive"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?label=x"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?colour=red"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?cursor=nonsense"), 400, "invalid_request");
  check_problem(gateway.request("GET", "/v1/sessions?limit=1&limit=2"), 400, "invalid_request");
}

TEST_CASE("sessions that never were are 404, whatever their id looks like", "[server][bad]") {
  Gateway gateway;
  for (const std::string& id : {std::string("session-") + std::string(26, 'a'), std::string("session-x"), std::string("x"),
                                std::string(300, 'x'), std::string("..%2f..%2fetc"), std::string("%F0%9F%98%80")})
    CHECK(gateway.request("GET", "/v1/sessions/" + id).status == 404);
}

TEST_CASE("a body that is no good JSON is the client's mistake, with a pointer where there is one", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/runs";
  for (const std::string& body : {std::string("nonsense"), std::string("{"), std::string("[]"), std::string("{\"language\":\"python\",\"code\":\"\xff\"}"),
                                  std::string(40, '[') + std::string(40, ']'), std::string(R"({"language":"python","code":"1","code":"2"})")})
    check_problem(gateway.request("POST", path, body), 400, "invalid_request");
  const HttpAnswer late = gateway.request("POST", path, R"({"language":"python","code":"1","timeout_s":61})");
  check_problem(late, 400, "invalid_request");
  CHECK(json::parse(late.body)["errors"][0]["pointer"] == "/timeout_s");
  check_problem(gateway.request("POST", path, R"({"language":"cobol","code":"1"})"), 400, "unknown_language");
  check_problem(gateway.request("POST", path, "{}", "Content-Type: text/plain\r\n"), 415, "unsupported_media_type");
  CHECK(gateway.request("POST", path, R"({"language":"py","code":"print 1"})", "Content-Type: application/json; charset=utf-8\r\n").status == 200);
}

TEST_CASE("code above its limit is too large", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/runs";
  const HttpAnswer answer = gateway.request("POST", path, R"({"language":"python","code":")" + std::string((1U << 20) + 1, 'x') + "\"}");
  CHECK((answer.status == 400 || answer.status == 413));
  CHECK(json::parse(answer.body)["errors"][0]["pointer"] == "/code");
}

TEST_CASE("a body above the limit is refused before it is read, and the refusal arrives", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/runs";
  RawClient announced(gateway.port());
  check_problem(announced.exchange(head(gateway, "POST " + path, "Content-Type: application/json\r\nContent-Length: 5000000000\r\n")), 413,
                "payload_too_large");
  // A client that sends everything before it reads must get to see the answer too.
  RawClient eager(gateway.port());
  eager.send(head(gateway, "POST " + path, "Content-Type: application/json\r\nContent-Length: 6000000\r\n"));
  eager.send(std::string(6'000'000, ' '));
  check_problem(eager.read(), 413, "payload_too_large");
  RawClient chunked(gateway.port());
  chunked.send(head(gateway, "POST " + path, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"));
  for (int i = 0; i < 80; ++i)
    if (!chunked.send("10000\r\n" + std::string(65536, ' ') + "\r\n")) break;
  check_problem(chunked.read(), 413, "payload_too_large");
}

TEST_CASE("a file above the limit is refused by its announced length", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/files/big";
  RawClient client(gateway.port());
  check_problem(client.exchange(head(gateway, "PUT " + path, "Content-Length: 9000000000\r\n")), 413, "file_too_large");
}

TEST_CASE("paths with .., NUL or broken escapes are refused", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/files";
  for (const char* rest : {"/../x", "/a/../b", "/%2e%2e/x", "/..%2fx", "/a%00b", "/%zz", "/a%0ab", "//../etc/passwd"}) {
    INFO(rest);
    check_problem(gateway.request("GET", path + rest), 400, "invalid_request");
    check_problem(gateway.request("PUT", path + rest, "x"), 400, "invalid_request");
    check_problem(gateway.request("DELETE", path + rest), 400, "invalid_request");
  }
  check_problem(gateway.request("POST", path + ":mkdir", R"({"path":"../x"})"), 400, "invalid_request");
  check_problem(gateway.request("POST", path + ":mkdir", R"({"path":"a\u0000b"})"), 400, "invalid_request");
  check_problem(gateway.request("POST", path + ":move", R"({"from":"a","to":"/../b"})"), 400, "invalid_request");
  CHECK(gateway.request("GET", path + "/" + std::string(4096, 'x')).status == 400);
}

TEST_CASE("what is not HTTP is answered and closed", "[server][bad]") {
  Gateway gateway;
  for (const char* bytes : {"nonsense\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n",
                            "GET / HTTP/1.1\r\nBad Name: x\r\n\r\n", "GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
                            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    INFO(bytes);
    RawClient client(gateway.port());
    const HttpAnswer answer = client.exchange(bytes);
    CHECK((answer.status == 400 || answer.status == 505));
    CHECK(client.closed_within(std::chrono::seconds(5)));
  }
  CHECK(gateway.request("GET", "/healthz").status == 200);
}

TEST_CASE("a request with two lengths, or a length and chunks, is refused and the connection closed", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session() + "/runs";
  for (const char* framing : {"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
                              "Content-Length: 4\r\nContent-Length: 5\r\n", "Content-Length: -1\r\n", "Content-Length: 4x\r\n",
                              "Content-Length: 99999999999999999999\r\n"}) {
    INFO(framing);
    RawClient client(gateway.port());
    const HttpAnswer answer =
        client.exchange(head(gateway, "POST " + path, std::string("Content-Type: application/json\r\n") + framing) + "0\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(answer.status == 400);
    CHECK(client.read().status == 0);  // what followed was never taken for a request
  }
}

TEST_CASE("broken chunks never become a run", "[server][bad]") {
  Gateway gateway;
  const std::string id = gateway.create_session();
  for (const char* body : {"zz\r\n{}\r\n0\r\n\r\n", "5\r\nhello world\r\n0\r\n\r\n", "ffffffffffffffffff\r\n", "-1\r\n\r\n"}) {
    INFO(body);
    RawClient client(gateway.port());
    client.send(head(gateway, "POST /v1/sessions/" + id + "/runs", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n") + body);
    client.half_close();
    const HttpAnswer answer = client.read();
    CHECK((answer.status == 400 || answer.status == 0));
  }
  CHECK(gateway.world.init_of(id)->runs().empty());
}

TEST_CASE("a header flood is cut off at its limits", "[server][bad]") {
  Gateway gateway;
  RawClient many(gateway.port());
  std::string fields;
  for (int i = 0; i < 200; ++i) fields += "X-" + std::to_string(i) + ": y\r\n";
  check_problem(many.exchange(head(gateway, "GET /version", fields)), 431, "header_too_large");
  RawClient large(gateway.port());
  large.send("GET /version HTTP/1.1\r\n");
  for (int i = 0; i < 64; ++i)
    if (!large.send("X-Y: " + std::string(1000, 'y') + "\r\n")) break;
  check_problem(large.read(), 431, "header_too_large");
  RawClient target(gateway.port());
  check_problem(target.exchange(head(gateway, "GET /version?x=" + std::string(9000, 'x'))), 414, "target_too_long");
  CHECK(gateway.request("GET", "/healthz").status == 200);
}

TEST_CASE("a client that hangs up in the middle costs nothing but its connection", "[server][bad]") {
  Gateway gateway;
  const std::string id = gateway.create_session();
  const std::string path = "/v1/sessions/" + id;
  for (const std::string& bytes : {std::string("GET /ver"), head(gateway, "POST " + path + "/runs", "Content-Type: application/json\r\nContent-Length: 100\r\n") + "{\"lang",
                                   head(gateway, "PUT " + path + "/files/half.txt", "Content-Length: 100\r\n") + "half"}) {
    RawClient client(gateway.port());
    client.send(bytes);
  }
  CHECK(test::World::eventually([&] { return gateway.request("GET", "/healthz").status == 200; }));
  CHECK(gateway.world.init_of(id)->runs().empty());
  CHECK_FALSE(gateway.world.init_of(id)->files().contains("half.txt"));
  CHECK(gateway.request("GET", path).status == 200);
}

TEST_CASE("a client that leaves during a run does not cancel it", "[server][bad]") {
  Gateway gateway;
  const std::string id = gateway.create_session();
  {
    RawClient client(gateway.port());
    client.send(gateway.text_of("POST", "/v1/sessions/" + id + "/runs", R"({"language":"python","code":"hang"})"));
    CHECK(test::World::eventually([&] { return !gateway.world.init_of(id)->runs().empty(); }));
  }
  const auto run = gateway.world.init_of(id)->runs().begin()->first;
  CHECK_FALSE(gateway.world.init_of(id)->runs().at(run).finished);
  gateway.world.init_of(id)->finish(run);
  CHECK(gateway.request("DELETE", "/v1/sessions/" + id).status == 204);
}

TEST_CASE("an operation that takes no body does not mind a small one", "[server][bad]") {
  Gateway gateway;
  const std::string path = "/v1/sessions/" + gateway.create_session();
  CHECK(gateway.request("POST", path + "/pause", "{}").status == 200);
  CHECK(gateway.request("POST", path + "/resume", "{}").status == 200);
}
