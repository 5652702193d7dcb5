// Which requests a foreign web page can have caused.
#include "server/origin.h"

#include <catch2/catch.hpp>

using namespace codespace::server;

TEST_CASE("the name in a Host header", "[server]") {
  CHECK(host_name("LocalHost:8642") == "localhost");
  CHECK(host_name("[::1]:8642") == "::1");
  CHECK(host_name("https://server.example:8642/") == "server.example");
  CHECK(host_name("server.example") == "server.example");
  CHECK(host_name("[::1") == "::1");
  CHECK(host_name("").empty());
}

TEST_CASE("addresses, loopback names and the server's own names are its own", "[server]") {
  const std::vector<std::string> names{"Box", "api.example.com"};
  for (const char* own : {"localhost", "localhost:1", "a.localhost", "127.0.0.1:8642", "[::1]:8642", "192.168.1.5", "box:8642", "API.example.com"}) {
    INFO(own);
    CHECK(is_own_host(own, names));
  }
  for (const char* other : {"evil.example", "localhost.evil.example", "api.example.com.evil.example", "127.0.0.1.nip.io", "", "1.2.3"}) {
    INFO(other);
    CHECK_FALSE(is_own_host(other, names));
  }
}

TEST_CASE("only pages of the same origin may ask", "[server]") {
  CHECK_FALSE(is_cross_origin("", "", "localhost:8642"));
  CHECK_FALSE(is_cross_origin("http://localhost:8642", "same-origin", "localhost:8642"));
  CHECK_FALSE(is_cross_origin("", "none", "localhost:8642"));
  CHECK(is_cross_origin("http://evil.example", "", "localhost:8642"));
  CHECK(is_cross_origin("null", "", "localhost:8642"));
  CHECK(is_cross_origin("http://localhost:3000", "", "localhost:8642"));
  CHECK(is_cross_origin("", "cross-site", "localhost:8642"));
  CHECK(is_cross_origin("http://localhost:8642", "same-site", "localhost:8642"));
}
