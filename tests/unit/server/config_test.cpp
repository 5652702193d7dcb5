// The configuration: precedence, origins, and that every mistake is found at once.
#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "server/config.h"
#include "tests/unit/manager/fakes.h"

using namespace codespace::server;

namespace {

/// Set for the life of the object.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Environment() { ::unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

std::string file_with(const codespace::test::TempDir& dir, const std::string& text) {
  const std::string path = dir.path() + "/codespace.toml";
  std::ofstream(path) << text;
  return path;
}

}  // namespace

TEST_CASE("without anything every key has its default", "[server]") {
  const auto loaded = load_config("", {});
  REQUIRE(loaded);
  CHECK(loaded->config.listen == "127.0.0.1:8642");
  CHECK(loaded->config.max_connections == 1024);
  CHECK(loaded->config.image_dir == loaded->config.state_dir + "/images");
  for (const ConfigKey& key : config_keys()) CHECK(loaded->origins.at(key.name) == "default");
}

TEST_CASE("a flag beats the environment, which beats the file, which beats the default", "[server]") {
  const codespace::test::TempDir dir;
  const std::string file = file_with(dir, "[server]\nmax_sessions = 11\nthreads = 3\nstate_dir = '/file'\n[limits]\npids = 20\n");
  const Environment sessions("CODESPACE_SERVER_MAX_SESSIONS", "12");
  const Environment state("CODESPACE_SERVER_STATE_DIR", "/env");
  const auto loaded = load_config(file, {{"server.state_dir", "/flag"}});
  REQUIRE(loaded);
  CHECK(loaded->config.threads == 3);
  CHECK(loaded->config.pids == 20);
  CHECK(loaded->config.max_sessions == 12);
  CHECK(loaded->config.state_dir == "/flag");
  CHECK(loaded->config.image_dir == "/flag/images");
  CHECK(loaded->origins.at("server.threads") == "file:3");
  CHECK(loaded->origins.at("limits.pids") == "file:6");
  CHECK(loaded->origins.at("server.max_sessions") == "env:CODESPACE_SERVER_MAX_SESSIONS");
  CHECK(loaded->origins.at("server.state_dir") == "flag");
}

TEST_CASE("every mistake is reported, with its key and line", "[server]") {
  const codespace::test::TempDir dir;
  const std::string file = file_with(dir,
                                     "[server]\nmax_conections = 5\nthreads = 'two'\nmax_sessions = 0\n"
                                     "listen = 'nowhere'\n[limits]\ncpu_milli = 1.5\n[colour]\nred = 1\n");
  const auto loaded = load_config(file, {});
  REQUIRE_FALSE(loaded);
  const auto& mistakes = loaded.error();
  const auto has = [&](const std::string& a, const std::string& b) {
    for (const std::string& mistake : mistakes)
      if (mistake.find(a) != std::string::npos && mistake.find(b) != std::string::npos) return true;
    return false;
  };
  for (const std::string& mistake : mistakes) UNSCOPED_INFO(mistake);
  CHECK(mistakes.size() == 6);
  CHECK(has(":2:", "did you mean `server.max_connections`?"));
  CHECK(has(":3:", "server.threads"));
  CHECK(has(":4:", "between 1 and 65536"));
  CHECK(has("server.listen", "nowhere"));
  CHECK(has(":7:", "limits.cpu_milli"));
  CHECK(has(":9:", "colour.red"));
}

TEST_CASE("a file that is no TOML, or is not there, is one mistake with its line", "[server]") {
  const codespace::test::TempDir dir;
  const auto broken = load_config(file_with(dir, "[server]\nlisten = \n"), {});
  REQUIRE_FALSE(broken);
  CHECK(broken.error().size() == 1);
  CHECK(broken.error()[0].find(":2") != std::string::npos);
  const auto missing = load_config(dir.path() + "/none.toml", {});
  REQUIRE_FALSE(missing);
  CHECK(missing.error()[0].find("none.toml") != std::string::npos);
}

TEST_CASE("numbers are held to the bounds of the table", "[server]") {
  for (const ConfigKey& key : config_keys()) {
    if (key.number == nullptr) continue;
    INFO(key.name);
    CHECK(load_config("", {{key.name, std::to_string(key.low)}}));
    CHECK(load_config("", {{key.name, std::to_string(key.high)}}));
    CHECK_FALSE(load_config("", {{key.name, std::to_string(key.high + 1)}}));
    if (key.low > 0) CHECK_FALSE(load_config("", {{key.name, std::to_string(key.low - 1)}}));
    for (const char* text : {"", "-1", "1.5", "1k", " 1", "x"}) CHECK_FALSE(load_config("", {{key.name, text}}));
  }
}

TEST_CASE("a listen address is an address and a port", "[server]") {
  CHECK(parse_listen("127.0.0.1:8642")->port == 8642);
  CHECK(parse_listen("[::1]:80")->host == "::1");
  CHECK(parse_listen("0.0.0.0:0")->port == 0);
  for (const char* text : {"", ":80", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x"}) {
    INFO(text);
    CHECK_FALSE(parse_listen(text));
  }
}
