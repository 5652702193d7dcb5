// What a client reads: names and types of the fields, and that any bytes give valid JSON.
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "api/base64.h"
#include "api/json.h"

using namespace codespace;
using namespace codespace::api;
using nlohmann::json;

namespace {

manager::RunRecord finished_run() {
  manager::RunRecord run;
  run.id = "run-" + std::string(26, 'a');
  run.session_id = "session-" + std::string(26, 'b');
  run.language = "python";
  run.finished = true;
  run.stdout_data = "hello\n";
  run.done.stdout_bytes = 6;
  run.done.execution_count = 3;
  run.done.queue_ns = 1'000'000;
  run.done.spawn_ns = 2'000'000;
  run.done.run_ns = 3'000'000;
  run.done.collect_ns = 500'000;
  run.done.cpu_ns = 1'230'000;
  run.done.memory_peak_bytes = 4096;
  run.done.pids_peak = 2;
  run.done.started_wall_ms = 1'769'860'800'123;
  return run;
}

}  // namespace

TEST_CASE("a finished run has every field of the record", "[api]") {
  const json out = json::parse(encode(finished_run()));
  for (const char* field : {"run_id", "session_id", "language", "status", "outcome", "stdout", "stderr", "stdout_truncated",
                            "stderr_truncated", "stdout_bytes", "stderr_bytes", "results", "execution_count", "context_reset",
                            "duration_ms", "cpu_ms", "memory_peak_bytes", "pids_peak"}) {
    INFO(field);
    CHECK(out.contains(field));
  }
  CHECK(out["outcome"] == "ok");
  CHECK_FALSE(out.contains("killed_by"));
  CHECK_FALSE(out.contains("error"));
  CHECK_FALSE(out.contains("stdout_base64"));
  CHECK(out["duration_ms"] == 5.5);
  CHECK(out["queue_ms"] == 1.0);
  CHECK(out["cpu_ms"] == 1.23);
  CHECK(out["started_at"] == "2026-01-31T12:00:00.123Z");
}

TEST_CASE("outcomes and what killed a run have their public names", "[api]") {
  manager::RunRecord run = finished_run();
  const std::vector<std::pair<wire::Outcome, std::string>> outcomes = {
      {wire::Outcome::ok, "ok"},           {wire::Outcome::error, "error"},
      {wire::Outcome::timed_out, "timed_out"}, {wire::Outcome::out_of_memory, "out_of_memory"},
      {wire::Outcome::kernel_died, "kernel_died"}, {wire::Outcome::cancelled, "cancelled"}};
  for (const auto& [outcome, name] : outcomes) {
    run.done.outcome = outcome;
    CHECK(json::parse(encode(run))["outcome"] == name);
  }
  const std::vector<std::pair<wire::KilledBy, std::string>> killers = {{wire::KilledBy::deadline, "deadline"},
                                                                       {wire::KilledBy::memory, "memory"},
                                                                       {wire::KilledBy::client, "client"},
                                                                       {wire::KilledBy::signal, "signal"}};
  for (const auto& [killer, name] : killers) {
    run.done.killed_by = killer;
    CHECK(json::parse(encode(run))["killed_by"] == name);
  }
}

TEST_CASE("flags of a run are told", "[api]") {
  manager::RunRecord run = finished_run();
  run.done.flags = wire::kStdoutTruncated | wire::kResultsTruncated | wire::kContextReset;
  const json out = json::parse(encode(run));
  CHECK(out["stdout_truncated"] == true);
  CHECK(out["stderr_truncated"] == false);
  CHECK(out["results_truncated"] == true);
  CHECK(out["context_reset"] == true);
}

TEST_CASE("output that is not UTF-8 is replaced and sent exactly as well", "[api]") {
  manager::RunRecord run = finished_run();
  const std::vector<std::string> broken = {"\xff", "a\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                           "\x80", "ok\xf0\x9f\x98", std::string("\0\xfe\0", 3)};
  for (const std::string& bytes : broken) {
    run.stdout_data = bytes;
    const json out = json::parse(encode(run));  // throws if it is not JSON
    CHECK(out["stdout"].get<std::string>().find("\xEF\xBF\xBD") != std::string::npos);
    CHECK(out["stdout_base64"] == base64(bytes));
    CHECK_FALSE(out.contains("stderr_base64"));
  }
  run.stdout_data = std::string("a\0b\x1b[0m\x7f", 8) + "\u00e9\U0001F600\uFFFD";
  const json out = json::parse(encode(run));
  CHECK(out["stdout"] == run.stdout_data);
  CHECK_FALSE(out.contains("stdout_base64"));
}

TEST_CASE("every pair of bytes as output gives valid JSON", "[api]") {
  manager::RunRecord run = finished_run();
  for (int a = 0; a < 256; a += 5) {
    run.stdout_data.clear();
    for (int b = 0; b < 256; ++b) {
      run.stdout_data += static_cast<char>(a);
      run.stdout_data += static_cast<char>(b);
    }
    CHECK(json::accept(encode(run)));
  }
}

TEST_CASE("results keep their order, and JSON types travel as JSON", "[api]") {
  manager::RunRecord run = finished_run();
  run.results.push_back({false, {{"image/png", "aGk="}, {"text/plain", "<Figure>"}}});
  run.results.push_back({true, {{"application/json", R"({"a":[1,2]})"}, {"text/plain", "x\xff"}}});
  run.results.push_back({false, {{"application/vnd.vega.v5+json", "{not json"}}});
  const json out = json::parse(encode(run));
  REQUIRE(out["results"].size() == 3);
  CHECK(out["results"][0]["data"]["image/png"] == "aGk=");
  CHECK(out["results"][0]["is_main_result"] == false);
  CHECK(out["results"][1]["data"]["application/json"]["a"][1] == 2);
  CHECK(out["results"][1]["data"]["text/plain"] == "x\xEF\xBF\xBD");
  CHECK(out["results"][2]["data"]["application/vnd.vega.v5+json"] == "{not json");
}

TEST_CASE("a failure carries name, value and traceback", "[api]") {
  manager::RunRecord run = finished_run();
  run.done.outcome = wire::Outcome::error;
  run.failure = manager::RunFailure{"ZeroDivisionError", "division by zero", {"line 1", "bad \xff"}};
  const json out = json::parse(encode(run));
  CHECK(out["error"]["name"] == "ZeroDivisionError");
  CHECK(out["error"]["value"] == "division by zero");
  CHECK(out["error"]["traceback"].size() == 2);
}

TEST_CASE("a run under way says so and claims nothing about its end", "[api]") {
  manager::RunRecord run = finished_run();
  run.finished = false;
  const json out = json::parse(encode(run));
  CHECK(out["status"] == "running");
  CHECK(out["stdout"] == "hello\n");
  CHECK_FALSE(out.contains("outcome"));
  CHECK_FALSE(out.contains("duration_ms"));
}

TEST_CASE("a command has an exit code and no results", "[api]") {
  manager::RunRecord command = finished_run();
  command.id = "cmd-" + std::string(26, 'a');
  command.language.clear();
  command.done.exit_code = 2;
  command.done.outcome = wire::Outcome::error;
  json out = json::parse(encode(command));
  CHECK(out["command_id"] == command.id);
  CHECK_FALSE(out.contains("run_id"));
  CHECK_FALSE(out.contains("results"));
  CHECK(out["exit_code"] == 2);
  command.done.exit_code = -1;
  command.done.signal = 9;
  out = json::parse(encode(command));
  CHECK_FALSE(out.contains("exit_code"));
  CHECK(out["signal"] == 9);
}

TEST_CASE("a session shows its limits and never its environment", "[api]") {
  manager::SessionInfo session;
  session.id = "session-" + std::string(26, 'a');
  session.image = "code_latest";
  session.status = manager::SessionStatus::running;
  session.labels = {{"a", "b"}};
  session.env = {{"TOKEN", "secret"}};
  session.limits.cpu_milli = 1500;
  session.limits.memory_bytes = 1ULL << 30;
  const std::string text = encode(session);
  CHECK(text.find("secret") == std::string::npos);
  json out = json::parse(text);
  CHECK(out["status"] == "running");
  CHECK(out["labels"]["a"] == "b");
  CHECK(out["limits"]["cpus"] == 1.5);
  CHECK(out["limits"]["memory_bytes"] == 1ULL << 30);
  CHECK(out["network"]["mode"] == "none");
  CHECK(out["expires_at"].is_null());
  CHECK_FALSE(out.contains("ended_at"));
  session.status = manager::SessionStatus::ended;
  session.end_reason = manager::EndReason::idle;
  session.ended_at_ms = 1'769'860'800'000;
  out = json::parse(encode(session));
  CHECK(out["end_reason"] == "idle");
  CHECK(out["ended_at"] == "2026-01-31T12:00:00.000Z");
}

TEST_CASE("names of states and end reasons go both ways", "[api]") {
  for (const char* name : {"starting", "running", "paused", "ending", "ended"}) {
    const auto status = status_by_name(name);
    REQUIRE(status);
    CHECK(name_of(*status) == name);
  }
  CHECK_FALSE(status_by_name("Running"));
  using R = manager::EndReason;
  CHECK(name_of(R::deleted) == "deleted");
  CHECK(name_of(R::idle) == "idle");
  CHECK(name_of(R::lifetime) == "lifetime");
  CHECK(name_of(R::out_of_memory) == "out_of_memory");
  CHECK(name_of(R::init_died) == "init_died");
  CHECK(name_of(R::lost_at_reboot) == "lost_at_reboot");
}

TEST_CASE("files are described; names that are not UTF-8 do not break the answer", "[api]") {
  manager::FileEntry entry;
  entry.name = "b\xff";
  entry.kind = wire::FileKind::symlink;
  entry.mode = 0120777;
  entry.size = 4;
  entry.link_target = "a";
  const json one = json::parse(encode(entry, "x/b"));
  CHECK(one["type"] == "symlink");
  CHECK(one["mode"] == "0777");
  CHECK(one["link_target"] == "a");
  manager::FileListing listing;
  listing.entries.push_back(entry);
  listing.truncated = true;
  const json all = json::parse(encode(listing, "."));
  CHECK(all["entries"].size() == 1);
  CHECK(all["truncated"] == true);
}

TEST_CASE("a problem has what RFC 9457 and our clients want", "[api]") {
  Problem problem;
  problem.status = 410;
  problem.code = "session_ended";
  problem.title = "The session has ended";
  problem.detail = "it \xff ended";
  problem.instance = "/v1/sessions/x";
  problem.request_id = "req-1";
  json out = json::parse(encode(problem));
  for (const char* field : {"type", "title", "status", "detail", "instance", "code", "request_id"}) CHECK(out.contains(field));
  CHECK_FALSE(out.contains("errors"));
  manager::SessionInfo ended;
  ended.ended_at_ms = 1'769'860'800'123;
  ended.end_reason = manager::EndReason::lifetime;
  problem.ended = ended;
  problem.pointer = "/code";
  out = json::parse(encode(problem));
  CHECK(out["ended_at"] == "2026-01-31T12:00:00.123Z");
  CHECK(out["end_reason"] == "lifetime");
  CHECK(out["errors"][0]["pointer"] == "/code");
}

TEST_CASE("base64 of every remainder", "[api]") {
  CHECK(base64("").empty());
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foo") == "Zm9v");
  CHECK(base64(std::string("\xff\x00\xfe", 3)) == "/wD+");
}
