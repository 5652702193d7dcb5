// The audit log and the trace context a caller sends.
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/spdlog.h>

#include "server/audit.h"
#include "server/trace_context.h"

namespace codespace::server {
namespace {

struct Scratch {
  Scratch() {
    char name[] = "/tmp/codespace-audit-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::string path;
};

std::vector<nlohmann::json> lines_of(const std::string& path) {
  std::vector<nlohmann::json> out;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) out.push_back(nlohmann::json::parse(line));
  return out;
}

AuditRecord sample() {
  AuditRecord r;
  r.request_id = "req-1";
  r.key_id = "key-1";
  r.session_id = "session-1";
  r.method = "POST";
  r.route = "/v1/sessions/{id}/runs";
  r.peer = "127.0.0.1";
  r.status = 200;
  r.duration_ms = 1.239;
  r.request = R"({"code":"secret"})";
  r.answer = R"({"stdout":"secret"})";
  return r;
}

}  // namespace

TEST_CASE("an audit line says who did what, and no content unless asked to") {
  const Scratch scratch;
  spdlog::logger log("test", std::make_shared<spdlog::sinks::null_sink_mt>());
  const std::string file = scratch.path + "/audit";
  {
    Audit audit(file, false, log);
    REQUIRE(audit.open());
    audit.record(sample());
  }
  Audit audit(file, true, log);
  REQUIRE(audit.open());
  audit.record(sample());
  const auto lines = lines_of(file);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0]["key_id"] == "key-1");
  CHECK(lines[0]["route"] == "/v1/sessions/{id}/runs");
  CHECK(lines[0]["duration_ms"] == 1.23);
  CHECK(lines[0].dump().find("secret") == std::string::npos);
  CHECK_FALSE(lines[0].contains("trace_id"));
  CHECK(lines[1]["request"] == R"({"code":"secret"})");
  CHECK(lines[1]["answer"] == R"({"stdout":"secret"})");
  struct stat st {};
  REQUIRE(::stat(file.c_str(), &st) == 0);
  CHECK((st.st_mode & 0777) == 0600);
}

TEST_CASE("no bytes of a client's can forge an audit line") {
  const Scratch scratch;
  spdlog::logger log("test", std::make_shared<spdlog::sinks::null_sink_mt>());
  Audit audit(scratch.path + "/audit", true, log);
  REQUIRE(audit.open());
  AuditRecord r = sample();
  static constexpr char kStart[] = "a\n{\"key_id\":\"root\"}\n\xff\xfe\0";  // with the NUL before its own
  const std::string hostile = std::string(kStart, sizeof kStart - 1) + std::string(kAuditBodyBytes, 'x');
  r.session_id = std::string_view(hostile).substr(0, sizeof kStart - 1);
  r.request = hostile;
  audit.record(r);
  const auto lines = lines_of(scratch.path + "/audit");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0]["key_id"] == "key-1");
  CHECK(lines[0]["request"].get<std::string>().size() <= kAuditBodyBytes + 16);
}

TEST_CASE("a file that was moved away is opened anew, and one that cannot be is an error") {
  const Scratch scratch;
  spdlog::logger log("test", std::make_shared<spdlog::sinks::null_sink_mt>());
  const std::string file = scratch.path + "/audit";
  Audit audit(file, false, log);
  REQUIRE(audit.open());
  audit.record(sample());
  REQUIRE(::rename(file.c_str(), (file + ".1").c_str()) == 0);
  audit.record(sample());
  REQUIRE(audit.open());
  audit.record(sample());
  CHECK(lines_of(file + ".1").size() == 2);
  CHECK(lines_of(file).size() == 1);
  CHECK_FALSE(Audit("/nonexistent/audit", false, log).open());
  Audit none("", true, log);
  CHECK(none.open());
  CHECK_FALSE(none.on());
  CHECK_FALSE(none.with_content());
}

TEST_CASE("traceparent is taken as the recommendation says") {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736", parent = "00f067aa0ba902b7";
  const auto good = take_trace_context("00-" + trace + "-" + parent + "-01");
  REQUIRE(good);
  CHECK(good->trace_id == trace);
  CHECK(good->flags == "01");
  CHECK(good->span_id.size() == 16);
  CHECK(good->span_id != parent);
  CHECK(good->text() == "00-" + trace + "-" + good->span_id + "-01");
  CHECK(take_trace_context("cc-" + trace + "-" + parent + "-01-what-comes-later"));
  for (const std::string& bad :
       {std::string(), "00-" + trace + "-" + parent, "ff-" + trace + "-" + parent + "-01", "00-" + trace + "-" + parent + "-01-x", "cc-" + trace + "-" + parent + "-01x",
        "00-" + std::string(32, '0') + "-" + parent + "-01", "00-" + trace + "-" + std::string(16, '0') + "-01", "00-4BF92F3577B34DA6A3CE929D0E0E4736-" + parent + "-01",
        "00_" + trace + "_" + parent + "_01", "00-" + trace + "-" + parent + "-0g"}) {
    CHECK_FALSE(take_trace_context(bad));
  }
}

}  // namespace codespace::server
