// The parameters of an RPC call, as each of the clients encodes them.
#include <catch2/catch.hpp>

#include "api/rpc_form.h"

using codespace::ErrorCode;
using codespace::api::kMaxFormFields;
using codespace::api::RpcParameters;

TEST_CASE("query and body are one set of parameters and the body's value counts", "[api][rpc]") {
  RpcParameters parameters;
  REQUIRE(parameters.add("Action=GetSessionDetail&SessionId=from-query&Format=json"));
  REQUIRE(parameters.add("Authorization=Bearer+key-1&SessionId=from-body"));
  CHECK(parameters.text("Action") == "GetSessionDetail");
  CHECK(parameters.text("SessionId") == "from-body");
  CHECK(parameters.text("sessionid").empty());
  CHECK(parameters.key() == "key-1");
}

TEST_CASE("both spellings of a space, and bytes that no path may have, arrive unchanged", "[api][rpc]") {
  RpcParameters parameters;
  REQUIRE(parameters.add("a=x+y&b=x%20y&c=%2B%26%3D%25&d=line%0Anext%00end&e=%C3%a9%ff&f=a=b&T=10:20"));
  CHECK(parameters.text("a") == "x y");
  CHECK(parameters.text("b") == "x y");
  CHECK(parameters.text("c") == "+&=%");
  CHECK(parameters.text("d") == std::string("line\nnext\0end", 13));
  CHECK(parameters.text("e") == "\xc3\xa9\xff");
  CHECK(parameters.text("f") == "a=b");
  CHECK(parameters.text("T") == "10:20");
}

TEST_CASE("an empty field is an absent one and does not hide the query's value", "[api][rpc]") {
  RpcParameters parameters;
  REQUIRE(parameters.add("SessionId=s1&&Server&x"));
  REQUIRE(parameters.add("SessionId=&Server=&AutoGenSession="));
  CHECK(parameters.text("SessionId") == "s1");
  CHECK(parameters.text("Server").empty());
  CHECK(parameters.flag("AutoGenSession").value() == std::nullopt);
  CHECK(parameters.number("MaxResults").value() == std::nullopt);
}

TEST_CASE("a broken escape is refused wherever it stands", "[api][rpc]") {
  for (const char* form : {"a=%", "a=%4", "a=%zz", "%4=a", "ok=1&a=%g0"}) {
    INFO(form);
    RpcParameters parameters;
    const auto added = parameters.add(form);
    REQUIRE_FALSE(added);
    CHECK(added.error().code == ErrorCode::invalid_request);
    CHECK(added.error().what.find("percent") != std::string::npos);
  }
}

TEST_CASE("truth values in any case, whole numbers only", "[api][rpc]") {
  RpcParameters parameters;
  REQUIRE(parameters.add("p=True&q=false&r=FALSE&s=yes&t=1&n=10&m=-1&o=4294967296&u=3x"));
  CHECK(parameters.flag("p").value() == true);
  CHECK(parameters.flag("q").value() == false);
  CHECK(parameters.flag("r").value() == false);
  CHECK_FALSE(parameters.flag("s"));
  CHECK_FALSE(parameters.flag("t"));
  CHECK(parameters.number("n").value() == 10U);
  for (const char* name : {"m", "o", "u"}) {
    INFO(name);
    REQUIRE_FALSE(parameters.number(name));
    CHECK(parameters.number(name).error().what.find(name) == 0);
  }
}

TEST_CASE("only a bearer key is a key", "[api][rpc]") {
  for (const char* form : {"", "Authorization=", "Authorization=Bearer", "Authorization=Bearer+", "Authorization=Basic+abc"}) {
    INFO(form);
    RpcParameters parameters;
    REQUIRE(parameters.add(form));
    CHECK(parameters.key().empty());
  }
  RpcParameters parameters;
  REQUIRE(parameters.add("Authorization=bearer%20k"));
  CHECK(parameters.key() == "k");
}

TEST_CASE("the number of fields is bounded, a repeated name takes no place", "[api][rpc]") {
  std::string form;
  for (std::size_t i = 0; i < kMaxFormFields; ++i) form += "f" + std::to_string(i) + "=v&";
  RpcParameters parameters;
  REQUIRE(parameters.add(form));
  REQUIRE(parameters.add("f0=again"));
  CHECK(parameters.text("f0") == "again");
  REQUIRE_FALSE(parameters.add("one=more"));
}
