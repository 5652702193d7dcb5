// Which requests are the RPC's and the link's, and what of a Host header gets into an address.
#include <catch2/catch.hpp>

#include "server/rpc_http.h"

using namespace codespace::server;
using boost::beast::http::verb;

TEST_CASE("the RPC is a POST to the root, or a GET there with an action", "[server][rpc]") {
  CHECK(is_rpc(verb::post, "/"));
  CHECK(is_rpc(verb::post, "/?Action=X"));
  CHECK(is_rpc(verb::get, "/?a=b&Action=X"));
  CHECK_FALSE(is_rpc(verb::get, "/"));
  CHECK_FALSE(is_rpc(verb::post, "/v1/sessions?Action=X"));
  CHECK_FALSE(is_rpc(verb::put, "/?Action=X"));
  CHECK_FALSE(is_rpc(verb::post, "//"));
}

TEST_CASE("a link names one session by the characters that ids have", "[server][rpc]") {
  CHECK(link_session(verb::post, "/link/session-abc/callTool") == "session-abc");
  for (const char* target : {"/link//callTool", "/link/callTool", "/link/a/b/callTool", "/link/../callTool", "/link/A/callTool", "/link/session-abc/callTool?x=1", "/link/%61/callTool"})
    CHECK_FALSE(link_session(verb::post, target));
  CHECK_FALSE(link_session(verb::get, "/link/session-abc/callTool"));
}

TEST_CASE("an address takes from Host what a host can be", "[server][rpc]") {
  CHECK(endpoint_of("box:8642", true) == "https://box:8642");
  CHECK(endpoint_of("http://127.0.0.1:1", false) == "http://127.0.0.1:1");
  CHECK(endpoint_of("[::1]:8642", true) == "https://[::1]:8642");
  for (const char* host : {"", "a b", "a/b", "a\"b", "evil.example#"}) CHECK(endpoint_of(host, true) == "https://localhost");
}

TEST_CASE("what requests hold together is bounded and given back", "[server][rpc]") {
  std::atomic<std::uint64_t> all{0};
  {
    FormShare first(all);
    CHECK(first.take(kAllFormBytes - 10));
    FormShare second(all);
    CHECK(second.take(10));
    CHECK_FALSE(second.take(1));
  }
  CHECK(all == 0);
}
