// The frame codec under hostile input: it may fail, never overrun.
#include "sandbox/wire/codec.h"

#include <catch2/catch.hpp>

#include <random>
#include <string>

using codespace::wire::Reader;
using codespace::wire::Writer;

TEST_CASE("what a Writer puts in, a Reader takes out", "[wire]") {
  Writer w;
  w.u8(7);
  w.u32(0xdeadbeef);
  w.u64(1ULL << 60);
  w.i64(-5);
  w.bytes(std::string("a\0b", 3));
  w.raw("tail");
  Reader r(w.data());
  CHECK(r.u8() == 7);
  CHECK(r.u32() == 0xdeadbeef);
  CHECK(r.u64() == 1ULL << 60);
  CHECK(r.i64() == -5);
  CHECK(r.bytes() == std::string("a\0b", 3));
  CHECK(r.rest() == "tail");
  CHECK(r.done());
}

TEST_CASE("a length that points past the end fails and stays failed", "[wire]") {
  Writer w;
  w.u32(1000);
  w.raw("short");
  Reader r(w.data());
  CHECK(r.bytes().empty());
  CHECK_FALSE(r.ok());
  CHECK(r.u8() == 0);
  CHECK_FALSE(r.done());
}

TEST_CASE("a truncated number fails", "[wire]") {
  const char three[3] = {1, 2, 3};
  Reader r(three);
  CHECK(r.u32() == 0);
  CHECK_FALSE(r.ok());
}

TEST_CASE("left-over bytes are not done", "[wire]") {
  const char two[2] = {1, 2};
  Reader r(two);
  CHECK(r.u8() == 1);
  CHECK(r.ok());
  CHECK_FALSE(r.done());
}

TEST_CASE("random bytes never read outside the payload", "[wire]") {
  std::mt19937 random(1);  // AddressSanitizer watches the bounds in the dev preset
  for (int round = 0; round < 20'000; ++round) {
    std::vector<char> bytes(random() % 64);
    for (char& b : bytes) b = static_cast<char>(random());
    Reader r(bytes);
    std::size_t taken = 0;
    while (r.ok() && taken < 100) {
      switch (random() % 4) {
        case 0: (void)r.u8(); break;
        case 1: (void)r.u32(); break;
        case 2: (void)r.u64(); break;
        default: taken += r.bytes().size();
      }
      ++taken;
    }
    CHECK(taken <= 200);
  }
}

TEST_CASE("a frame carries its type and length before the payload", "[wire]") {
  Writer w;
  w.raw("xyz");
  const auto frame = w.frame(42);
  REQUIRE(frame.size() == codespace::wire::kHeaderSize + 3);
  Reader r(frame);
  CHECK(r.u32() == 42);
  CHECK(r.u32() == 3);
  CHECK(r.rest() == "xyz");
}
