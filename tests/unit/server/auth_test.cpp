// API keys: how they look, and that only exact ones pass.
#include <catch2/catch.hpp>
#include <set>

#include "server/auth.h"

using namespace codespace::server;

TEST_CASE("a key is csk_ and 256 bits in base64url, never the same twice", "[server]") {
  std::set<std::string> seen;
  for (int i = 0; i < 50; ++i) {
    const auto key = make_key();
    REQUIRE(key);
    CHECK(key->size() == 47);
    CHECK(key->starts_with("csk_"));
    CHECK(key->find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == std::string::npos);
    CHECK(seen.insert(*key).second);
  }
}

TEST_CASE("a digest is SHA-256", "[server]") {
  const Digest digest = digest_of("abc");
  CHECK(digest[0] == 0xba);
  CHECK(digest[1] == 0x78);
  CHECK(digest[31] == 0xad);
}

TEST_CASE("a known key passes in either header, and nothing else does", "[server]") {
  const std::string key = *make_key();
  const std::string other = *make_key();
  Auth auth;
  CHECK_FALSE(auth.check("Bearer " + key, ""));
  auth.set_keys({{"alice", digest_of(key)}, {"bob", digest_of(other)}});
  CHECK(auth.check("Bearer " + key, "") == "alice");
  CHECK(auth.check("bearer " + key, "") == "alice");
  CHECK(auth.check("", key) == "alice");
  CHECK(auth.check("BEARER " + other, "") == "bob");
  for (const std::string& header : {std::string(), key, "Basic " + key, std::string("Bearer"), std::string("Bearer "), "Bearer" + key, "Bearer " + key + "x",
                                    "Bearer " + key.substr(1), "Bearer " + key.substr(0, 46), "Bearer " + std::string(300, 'a')}) {
    INFO(header.substr(0, 12));
    CHECK_FALSE(auth.check(header, ""));
  }
  CHECK_FALSE(auth.check("", key + " "));
  auth.set_keys({{"bob", digest_of(other)}});
  CHECK_FALSE(auth.check("Bearer " + key, ""));
}

TEST_CASE("a digest is not a key", "[server]") {
  const std::string key = *make_key();
  Auth auth;
  auth.set_keys({{"alice", digest_of(key)}});
  const Digest digest = digest_of(key);
  CHECK_FALSE(auth.check("", {reinterpret_cast<const char*>(digest.data()), digest.size()}));
}

TEST_CASE("a link's token is of one session and one key, and goes with the key", "[server]") {
  const std::string key = *make_key();
  Auth auth;
  auth.set_keys({{"alice", digest_of(key)}, {"bob", digest_of("other")}});
  const std::string token = auth.link_token("alice", "session-1");
  CHECK(token.starts_with("cst_"));
  CHECK(auth.check_link(token, "session-1") == "alice");
  CHECK(auth.link_token("bob", "session-1") != token);
  CHECK_FALSE(auth.check_link(token, "session-2"));
  CHECK_FALSE(auth.check_link(token + "A", "session-1"));
  CHECK_FALSE(auth.check_link(token.substr(0, token.size() - 1), "session-1"));
  CHECK_FALSE(auth.check_link("", "session-1"));
  CHECK_FALSE(auth.check_link(key, "session-1"));
  CHECK_FALSE(auth.check_key(token));
  CHECK(auth.link_token("nobody", "session-1").empty());
  auth.set_keys({{"bob", digest_of("other")}});
  CHECK_FALSE(auth.check_link(token, "session-1"));
}
