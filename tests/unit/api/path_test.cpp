// Paths that a client may name.
#include <catch2/catch.hpp>

#include "api/handlers.h"

using codespace::ErrorCode;
using codespace::api::check_path;

TEST_CASE("ordinary paths pass, absolute and relative", "[api]") {
  for (const char* path : {"a", "a/b.txt", "/tmp/x", "/", ".", "./a", "a//b", "...", "..a", "a..", "a/..b/c", " ", "\xff"})
    CHECK(check_path(path));
  CHECK(check_path(std::string(4095, 'x')));
}

TEST_CASE("a path with .., NUL, nothing or too much in it is refused", "[api]") {
  for (const std::string& path : {std::string(), std::string(".."), std::string("../a"), std::string("a/.."), std::string("a/../b"),
                                  std::string("/.."), std::string("/a/../../etc/passwd"), std::string("a\0b", 3),
                                  std::string(4096, 'x')}) {
    INFO(path.substr(0, 32));
    const auto checked = check_path(path);
    REQUIRE_FALSE(checked);
    CHECK(checked.error().code == ErrorCode::invalid_request);
    CHECK_FALSE(checked.error().what.empty());
  }
}
