// The log of a run: caps, counts and the strictness towards what an interpreter claims.
#include "sandbox/init/run.h"

#include <catch2/catch.hpp>

using namespace codespace;
using init::Run;
using init::RunRequest;

namespace {

Run make_run(std::uint32_t cap) {
  RunRequest request;
  request.language = "python";
  request.stream_cap = cap;
  return Run(std::move(request));
}

/// (type, payload) pairs of a log.
std::vector<std::pair<std::uint32_t, std::string>> frames(const Run& run) {
  std::vector<std::pair<std::uint32_t, std::string>> out;
  wire::Reader r(run.log());
  while (r.ok() && !r.done()) {
    const std::uint32_t type = r.u32();
    const auto payload = r.bytes();
    if (r.ok()) out.emplace_back(type, payload);
  }
  return out;
}

std::string result_payload(const std::string& text) {
  wire::Writer w;
  w.u8(1);
  w.u32(1);
  w.bytes("text/plain");
  w.bytes(text);
  return {w.data().begin(), w.data().end()};
}

}  // namespace

TEST_CASE("output past the cap is counted, dropped and flagged", "[init]") {
  Run run = make_run(10);
  run.add_output(1, "0123456");
  run.add_output(1, "789abcdef");
  run.add_output(1, "more");
  run.add_output(2, "err");
  CHECK(run.done.stdout_bytes == 20);
  CHECK(run.done.stderr_bytes == 3);
  CHECK(run.done.flags == wire::kStdoutTruncated);
  const auto f = frames(run);
  REQUIRE(f.size() == 3);
  CHECK(f[0].second == std::string("\1") + "0123456");
  CHECK(f[1].second == std::string("\1") + "789");
  CHECK(f[2].second == std::string("\2") + "err");
}

TEST_CASE("a result that does not parse is dropped", "[init]") {
  Run run = make_run(10);
  run.add_result("garbage");
  run.add_result("");
  run.add_result(result_payload("42") + "x");
  CHECK(run.log().empty());
  run.add_result(result_payload("42"));
  CHECK(frames(run).size() == 1);
}

TEST_CASE("results beyond the bound are dropped and flagged", "[init]") {
  Run run = make_run(10);
  const std::string big = result_payload(std::string(3 << 20, 'x'));
  for (int i = 0; i < 4; ++i) run.add_result(big);
  CHECK(frames(run).size() == 2);
  CHECK((run.done.flags & wire::kResultsTruncated) != 0);
}

TEST_CASE("only the first error of a run counts", "[init]") {
  Run run = make_run(10);
  wire::Writer w;
  w.bytes("ValueError");
  w.bytes("x");
  w.u32(0);
  const std::string payload(w.data().begin(), w.data().end());
  run.add_error(payload);
  run.add_error(payload);
  CHECK(run.errored);
  CHECK(frames(run).size() == 1);
}

TEST_CASE("nothing is added after the end, and the end is told once", "[init]") {
  Run run = make_run(10);
  int told = 0;
  std::function<void()> listener = [&] { ++told; };
  run.listeners.push_back(&listener);
  run.finish();
  run.finish();
  run.add_output(1, "late");
  run.refuse(wire::Refusal::overloaded, 0, wire::Stage::none, "");
  CHECK(told == 1);
  CHECK(frames(run).size() == 1);
  CHECK_FALSE(run.refused());
}

TEST_CASE("a listener may detach itself while it is told", "[init]") {
  Run run = make_run(100);
  std::function<void()> other = [] {};
  std::function<void()> self;
  self = [&] { std::erase(run.listeners, &self); };
  run.listeners = {&self, &other};
  run.add_output(1, "x");
  CHECK(run.listeners.size() == 1);
}
