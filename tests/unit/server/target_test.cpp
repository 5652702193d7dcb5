// Request targets and ranges: decoded once, refused when broken.
#include <catch2/catch.hpp>

#include "server/http.h"
#include "server/request_id.h"

using namespace codespace;
using namespace codespace::server;

TEST_CASE("a target is split into path and query and decoded once", "[server]") {
  const auto target = parse_target("/v1/a%20b/%2520?x=1&y=%26&flag&plus=a+b%2Bc");
  REQUIRE(target);
  CHECK(target->path == "/v1/a b/%20");
  CHECK(target->query.at("x") == "1");
  CHECK(target->query.at("y") == "&");
  CHECK(target->query.at("flag").empty());
  CHECK(target->query.at("plus") == "a b+c");
  CHECK(parse_target("/a+b")->path == "/a+b");
  CHECK(parse_target("/?")->query.empty());
  CHECK(parse_target("/?&&a=1&")->query.size() == 1);
}

TEST_CASE("the absolute form of a target means its path", "[server]") {
  CHECK(parse_target("http://localhost:8642/v1/images?x=1")->path == "/v1/images");
  CHECK(parse_target("https://localhost")->path == "/");
}

TEST_CASE("broken escapes, NUL and control characters are refused", "[server]") {
  for (const char* target : {"/%", "/%1", "/%zz", "/%00", "/a%00b", "/%0a", "/%7f", "/?a=%00", "/?%", "/?a=%0d%0a", "", "*", "v1", "//%g0"}) {
    INFO(target);
    const auto parsed = parse_target(target);
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == ErrorCode::invalid_request);
    CHECK(parsed.error().fault == Fault::client);
  }
  CHECK(parse_target("/%C3%A9")->path == "/\xC3\xA9");
}

TEST_CASE("a query parameter given twice is refused", "[server]") {
  CHECK_FALSE(parse_target("/?a=1&a=2"));
  CHECK_FALSE(parse_target("/?a=1&%61=2"));
}

TEST_CASE("a range is cut to the file", "[server]") {
  const auto range = [](std::string_view header, std::uint64_t size) {
    const auto parsed = parse_range(header, size);
    REQUIRE(parsed.has_value());
    REQUIRE(parsed->has_value());
    return **parsed;
  };
  CHECK(range("bytes=0-0", 10).length == 1);
  CHECK(range("bytes=2-5", 10).offset == 2);
  CHECK(range("bytes=2-5", 10).length == 4);
  CHECK(range("bytes=5-", 10).length == 5);
  CHECK(range("bytes=5-99", 10).length == 5);
  CHECK(range("bytes=-3", 10).offset == 7);
  CHECK(range("bytes=-99", 10).offset == 0);
  CHECK(range("bytes=-99", 10).length == 10);
  CHECK(range("bytes=1-18446744073709551614", 10).length == 9);
}

TEST_CASE("the largest last byte of a range does not wrap around", "[server]") {
  const auto parsed = parse_range("bytes=1-18446744073709551615", 10);
  REQUIRE(parsed.has_value());
  REQUIRE(parsed->has_value());
  CHECK((*parsed)->length == 9);
}

TEST_CASE("a range outside the file is an error that tells its size", "[server]") {
  for (const char* header : {"bytes=10-", "bytes=10-20", "bytes=18446744073709551615-", "bytes=-0"}) {
    const auto parsed = parse_range(header, 10);
    REQUIRE(parsed.has_value());
    REQUIRE_FALSE(parsed->has_value());
    CHECK(parsed->error().code == ErrorCode::range_not_satisfiable);
    CHECK(parsed->error().what.find("10") != std::string::npos);
  }
  CHECK_FALSE(parse_range("bytes=0-", 0)->has_value());
  CHECK_FALSE(parse_range("bytes=-1", 0)->has_value());
}

TEST_CASE("what is no single range of bytes asks for the whole file", "[server]") {
  for (const char* header : {"", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=1",
                             "bytes=99999999999999999999-", "bytes= 1-2", "bytes=1-2x", "bytes=--1"}) {
    INFO(header);
    CHECK_FALSE(parse_range(header, 10).has_value());
  }
}

TEST_CASE("a request id is taken if it is harmless, and made otherwise", "[server]") {
  CHECK(accept_request_id("abc-1.2_3") == "abc-1.2_3");
  CHECK(accept_request_id(std::string(128, 'a')) == std::string(128, 'a'));
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\nb"), std::string("a\"b"), std::string(129, 'a')}) {
    const std::string made = accept_request_id(bad);
    CHECK(made.starts_with("req-"));
    CHECK(made.size() == 30);
    CHECK(made != accept_request_id(bad));
  }
}

TEST_CASE("text for the log is one harmless word", "[server]") {
  CHECK(printable("") == "-");
  CHECK(printable("a b\n\"c\xff") == "a?b??c?");
  CHECK(printable(std::string(100, 'x')).size() == 64);
}
