#include <catch2/catch.hpp>

#include "sandbox/manager/session_id.h"

using namespace codespace::manager;

TEST_CASE("an id survives the way through its text", "[manager]") {
  for (int i = 0; i < 200; ++i) {
    const IdBits bits = random_id();
    const std::string text = format_id(kSessionPrefix, bits);
    CHECK(text.size() == kSessionPrefix.size() + 26);
    CHECK(text.find_first_not_of("abcdefghijklmnopqrstuvwxyz234567", kSessionPrefix.size()) ==
          std::string::npos);
    REQUIRE(parse_id(kSessionPrefix, text) == bits);
  }
  CHECK(random_id() != random_id());
}

TEST_CASE("an id has one spelling only", "[manager]") {
  const std::string good = "session-" + std::string(26, 'a');
  REQUIRE(parse_id(kSessionPrefix, good));
  CHECK_FALSE(parse_id(kRunPrefix, good));
  CHECK_FALSE(parse_id(kSessionPrefix, ""));
  CHECK_FALSE(parse_id(kSessionPrefix, "session-"));
  CHECK_FALSE(parse_id(kSessionPrefix, good + "a"));
  CHECK_FALSE(parse_id(kSessionPrefix, good.substr(0, good.size() - 1)));
  CHECK_FALSE(parse_id(kSessionPrefix, "session-" + std::string(26, 'A')));
  CHECK_FALSE(parse_id(kSessionPrefix, "session-" + std::string(25, 'a') + "1"));
  // The last character carries three bits of the id and two that must be zero.
  CHECK_FALSE(parse_id(kSessionPrefix, "session-" + std::string(25, 'a') + "b"));
  CHECK(parse_id(kSessionPrefix, "session-" + std::string(25, 'a') + "e"));
}

TEST_CASE("base32 is the exact inverse of itself for any length", "[manager]") {
  for (std::size_t size = 0; size < 40; ++size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; ++i) bytes += static_cast<char>(i * 37 + size);
    REQUIRE(base32_decode(base32_encode(bytes)) == bytes);
  }
  CHECK_FALSE(base32_decode("a"));
  CHECK_FALSE(base32_decode("a!"));
}

TEST_CASE("the directory name of a session is 32 hex digits", "[manager]") {
  IdBits bits{};
  bits[0] = 0xab;
  bits[15] = 0x01;
  CHECK(hex(bits) == "ab000000000000000000000000000001");
}
