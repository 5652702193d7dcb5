// What a client may send, and how its mistakes are named. Everything here is text in, error out.
#include <catch2/catch.hpp>

#include "api/json.h"

using namespace codespace;
using namespace codespace::api;
using namespace std::chrono_literals;

namespace {

template <class T>
Error error_of(const Result<T>& result) {
  REQUIRE_FALSE(result.has_value());
  CHECK(result.error().fault == Fault::client);
  CHECK_FALSE(result.error().what.empty());
  return result.error();
}

Result<manager::SessionSpec> session(const std::string& body) { return decode_session(body, 1800s, 86'400s); }

std::string run_with(const std::string& fields) { return R"({"language":"python","code":"1")" + fields + "}"; }

}  // namespace

TEST_CASE("a run takes its language, code and timeout", "[api]") {
  const auto spec = decode_run(R"raw({"language":"python","code":"print(1)","timeout_s":2.5})raw");
  REQUIRE(spec);
  CHECK(spec->language == "python");
  CHECK(spec->code == "print(1)");
  CHECK(spec->timeout == 2500ms);
  CHECK(decode_run(run_with(""))->timeout == 60s);
  CHECK(decode_run(run_with(R"(,"timeout_s":1)"))->timeout == 1s);
  CHECK(decode_run(run_with(R"(,"timeout_s":60)"))->timeout == 60s);
  CHECK(decode_run(R"({"language":"python","code":""})")->code.empty());
}

TEST_CASE("a language has other names, in any case", "[api]") {
  for (const char* name : {"python", "py", "python3", "Python", "PY"}) CHECK(canonical_language(name) == "python");
  for (const char* name : {"javascript", "js", "node", "nodejs", "JavaScript", "NodeJS"})
    CHECK(canonical_language(name) == "javascript");
  for (const char* name : {"", " python", "python2", "ruby", "pythön"}) CHECK_FALSE(canonical_language(name));
}

TEST_CASE("an unknown language is an error that lists the known ones", "[api]") {
  const Error error = error_of(decode_run(R"({"language":"cobol","code":"1"})"));
  CHECK(error.code == ErrorCode::unknown_language);
  CHECK(error.pointer == "/language");
  CHECK(error.what.find("cobol") != std::string::npos);
  CHECK(error.what.find("python") != std::string::npos);
  CHECK(error.what.find("javascript") != std::string::npos);
}

TEST_CASE("a timeout outside 1 to 60 names the limit and is never adjusted", "[api]") {
  for (const char* value : {"0", "0.5", "0.999", "-1", "61", "60.001", "1e300", "-1e300"}) {
    INFO(value);
    const Error error = error_of(decode_run(run_with(std::string(R"(,"timeout_s":)") + value)));
    CHECK(error.code == ErrorCode::invalid_request);
    CHECK(error.pointer == "/timeout_s");
    CHECK(error.what.find("60") != std::string::npos);
  }
  for (const char* value : {"\"10\"", "true", "[10]", "{}"})
    CHECK(error_of(decode_run(run_with(std::string(R"(,"timeout_s":)") + value))).pointer == "/timeout_s");
}

TEST_CASE("a field that is unknown, missing or of another type is named", "[api]") {
  const Error unknown = error_of(decode_run(run_with(R"(,"timout_s":2)")));
  CHECK(unknown.code == ErrorCode::invalid_request);
  CHECK(unknown.pointer == "/timout_s");
  CHECK(unknown.what.find("timeout_s") != std::string::npos);  // what is known is listed
  CHECK(error_of(decode_run(R"({"language":"python"})")).pointer == "/code");
  CHECK(error_of(decode_run(R"({"code":"1"})")).pointer == "/language");
  CHECK(error_of(decode_run(R"({"language":"python","code":null})")).pointer == "/code");
  for (const char* value : {"1", "true", "[\"1\"]", "{}"})
    CHECK(error_of(decode_run(std::string(R"({"language":"python","code":)") + value + "}")).pointer == "/code");
  CHECK(error_of(session(R"({"limits":{"memory":1}})")).pointer == "/limits/memory");
  CHECK(error_of(session(R"({"limits":[]})")).pointer == "/limits");
}

TEST_CASE("text that is not JSON, or not an object, is refused", "[api]") {
  for (const char* body : {"", "nonsense", "{", "[]", "1", "null", "\"text\"", "{}{}", "{\"language\":\"python\",}",
                           "{'language':'python'}", "{\"language\":\"python\",\"code\":NaN}",
                           "{\"language\":\"python\",\"code\":\"\xff\"}", "{\"language\":\"python\",\"code\":\"\xed\xa0\x80\"}",
                           "{\"timeout_s\":1e999}", "{\"timeout_s\":Infinity}"}) {
    INFO(body);
    CHECK(error_of(decode_run(body)).code == ErrorCode::invalid_request);
  }
}

TEST_CASE("a key that is there twice is refused at every level", "[api]") {
  const Error top = error_of(decode_run(R"({"language":"python","code":"1","code":"2"})"));
  CHECK(top.code == ErrorCode::invalid_request);
  CHECK(top.what.find("twice") != std::string::npos);
  CHECK(error_of(session(R"({"labels":{"a":"1","a":"2"}})")).code == ErrorCode::invalid_request);
  CHECK(error_of(session(R"({"env":{"A":"1"},"env":{}})")).code == ErrorCode::invalid_request);
  // The same key in two different objects is no duplicate.
  CHECK(session(R"({"labels":{"a":"1"},"env":{"a":"2"}})"));
}

TEST_CASE("nesting beyond 32 levels is refused before anything is built", "[api]") {
  const auto nested = [](std::size_t depth) {
    return run_with(R"(,"x":)" + std::string(depth, '[') + std::string(depth, ']'));
  };
  CHECK(error_of(decode_run(nested(31))).pointer == "/x");  // deep enough for a field, but unknown
  CHECK(error_of(decode_run(nested(32))).what.find("32") != std::string::npos);
  CHECK(error_of(decode_run(std::string(2'000'000, '['))).what.find("32") != std::string::npos);
  // Brackets inside a text are no nesting.
  CHECK(decode_run(R"({"language":"python","code":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[ \" [[[[[[[[["})"));
}

TEST_CASE("code has a limit of its own", "[api]") {
  const auto with = [](std::size_t size) { return R"({"language":"python","code":")" + std::string(size, 'x') + "\"}"; };
  CHECK(decode_run(with(kMaxCodeBytes)));
  const Error error = error_of(decode_run(with(kMaxCodeBytes + 1)));
  CHECK(error.pointer == "/code");
  CHECK(error.what.find("1048576") != std::string::npos);
}

TEST_CASE("escapes in a text arrive as what they stand for", "[api]") {
  CHECK(decode_run(R"({"language":"python","code":"a\u0000b\n\"\u00e9\ud83d\ude00"})")->code ==
        std::string("a\0b\n\"\xC3\xA9\xF0\x9F\x98\x80", 11));
  CHECK(error_of(decode_run(R"({"language":"python","code":"\ud83d"})")).code == ErrorCode::invalid_request);
}

TEST_CASE("a session takes defaults for what is absent", "[api]") {
  for (const char* body : {"", "{}"}) {
    const auto spec = session(body);
    REQUIRE(spec);
    CHECK(spec->image.empty());
    CHECK(spec->idle_timeout == 1800s);
    CHECK(spec->max_lifetime == 86'400s);
    CHECK(spec->limits.memory_bytes == 0);  // the manager fills it in
  }
}

TEST_CASE("a session takes every field", "[api]") {
  const auto spec = session(R"({"image":"host","labels":{"a":"b"},"env":{"X":"1","Y":""},"idle_timeout_s":0,"max_lifetime_s":90,
    "limits":{"memory_bytes":67108864,"cpus":1.5,"pids":64,"workspace_bytes":2097152},"network":{"mode":"none"}})");
  REQUIRE(spec);
  CHECK(spec->image == "host");
  CHECK(spec->labels.at("a") == "b");
  CHECK(spec->env == manager::Env{{"X", "1"}, {"Y", ""}});
  CHECK(spec->idle_timeout == 0s);
  CHECK(spec->max_lifetime == 90s);
  CHECK(spec->limits.memory_bytes == 67'108'864);
  CHECK(spec->limits.cpu_milli == 1500);
  CHECK(spec->limits.pids == 64);
  CHECK(spec->limits.workspace_bytes == 2'097'152);
}

TEST_CASE("a limit that is zero, negative, a fraction or beyond 64 bits is an error", "[api]") {
  for (const char* limits : {R"("memory_bytes":0)", R"("memory_bytes":-1)", R"("memory_bytes":1.5)", R"("memory_bytes":"1")",
                             R"("memory_bytes":18446744073709551616)", R"("pids":0)", R"("pids":4294967297)", R"("cpus":0)",
                             R"("cpus":-1)", R"("cpus":"2")", R"("cpus":1e9)"}) {
    INFO(limits);
    const Error error = error_of(session(std::string(R"({"limits":{)") + limits + "}}"));
    CHECK(error.code == ErrorCode::invalid_request);
    CHECK(error.pointer.starts_with("/limits/"));
  }
}

TEST_CASE("session times are whole seconds up to thirty days", "[api]") {
  CHECK(session(R"({"idle_timeout_s":2592000})")->idle_timeout == 2'592'000s);
  for (const char* value : {"-1", "1.5", "\"1\"", "2592001", "1e12", "true"}) {
    INFO(value);
    CHECK(error_of(session(std::string(R"({"idle_timeout_s":)") + value + "}")).pointer == "/idle_timeout_s");
    CHECK(error_of(session(std::string(R"({"max_lifetime_s":)") + value + "}")).pointer == "/max_lifetime_s");
  }
}

TEST_CASE("a session's network has a mode of the set and hosts as text", "[api]") {
  CHECK_FALSE(session("{}")->network);
  const auto listed = session(R"({"network":{"mode":"allowlist","allow":["pypi.org","*.example.com:8443"]}})");
  REQUIRE(listed);
  CHECK(listed->network->mode == wire::NetworkMode::allowlist);
  CHECK(listed->network->allow == std::vector<std::string>{"pypi.org", "*.example.com:8443"});
  CHECK(session(R"({"network":{"mode":"full"}})")->network->mode == wire::NetworkMode::full);
  for (const char* mode : {"host", "", "NONE", "bridge"}) {
    const Error error = error_of(session(std::string(R"({"network":{"mode":")") + mode + "\"}}"));
    CHECK(error.pointer == "/network/mode");
    CHECK(error.what.find("allowlist") != std::string::npos);
  }
  CHECK(error_of(session(R"({"network":{}})")).pointer == "/network/mode");
  CHECK(error_of(session(R"({"network":{"mode":"allowlist","allow":["a.b",1]}})")).pointer == "/network/allow/1");
  CHECK(error_of(session(R"({"network":{"mode":"allowlist","allow":"a.b"}})")).pointer == "/network/allow");
  CHECK(error_of(session(R"({"network":{"mode":"none","hosts":[]}})")).pointer == "/network/hosts");
  CHECK(error_of(session(R"({"network":"none"})")).pointer == "/network");
}

TEST_CASE("labels and env are texts", "[api]") {
  CHECK(error_of(session(R"({"labels":{"a":1}})")).pointer == "/labels/a");
  CHECK(error_of(session(R"({"labels":[]})")).pointer == "/labels");
  CHECK(error_of(session(R"({"env":{"A":null}})")).pointer == "/env/A");
  CHECK(error_of(session(R"({"labels":{"a":")" + std::string(257, 'x') + "\"}}")).pointer == "/labels/a");
}

TEST_CASE("a patch changes what it names and nothing else", "[api]") {
  const auto patch = decode_patch(R"({"idle_timeout_s":5})");
  REQUIRE(patch);
  CHECK(patch->idle_timeout == 5s);
  CHECK_FALSE(patch->max_lifetime);
  CHECK_FALSE(patch->labels);
  CHECK(decode_patch(R"({"labels":{}})")->labels->empty());
  CHECK(error_of(decode_patch(R"({"image":"x"})")).pointer == "/image");
}

TEST_CASE("a command takes its fields", "[api]") {
  const auto spec = decode_command(R"({"command":"cat","cwd":"/tmp","env":{"A":"1"},"stdin":"x","timeout_s":3})");
  REQUIRE(spec);
  CHECK(spec->command == "cat");
  CHECK(spec->cwd == "/tmp");
  CHECK(spec->stdin_data == "x");
  CHECK(spec->timeout == 3s);
  CHECK(error_of(decode_command("{}")).pointer == "/command");
  CHECK(error_of(decode_command(R"({"command":"a\u0000b"})")).pointer == "/command");
  CHECK(error_of(decode_command(R"({"command":"ls","cwd":"a\u0000b"})")).pointer == "/cwd");
  CHECK(error_of(decode_command(R"({"command":["ls"]})")).pointer == "/command");
  CHECK(error_of(decode_command(R"({"command":"ls","timeout_s":99})")).pointer == "/timeout_s");
}

TEST_CASE("a one-shot run is bounded in its files and in its life", "[api]") {
  const auto request = decode_one_shot(R"({"language":"js","code":"1","files":{"a.txt":"x"},"image":"host","env":{"A":"1"}})");
  REQUIRE(request);
  CHECK(request->run.language == "javascript");
  CHECK(request->files.at("a.txt") == "x");
  CHECK(request->session.image == "host");
  CHECK(request->session.max_lifetime > 60s);   // outlives the longest run
  CHECK(request->session.max_lifetime <= 300s);  // and not much else, should we die before it is removed
  std::string files;
  for (int i = 0; i < 101; ++i) files += (i == 0 ? "" : ",") + std::string("\"f") + std::to_string(i) + "\":\"\"";
  CHECK(error_of(decode_one_shot(R"({"language":"js","code":"1","files":{)" + files + "}}")).pointer == "/files");
  CHECK(error_of(decode_one_shot(R"({"language":"js","code":"1","files":{"a":1}})")).pointer == "/files/a");
}

TEST_CASE("directories and moves take their fields", "[api]") {
  CHECK(decode_mkdir(R"({"path":"a/b"})")->parents);
  CHECK_FALSE(decode_mkdir(R"({"path":"a/b","parents":false})")->parents);
  CHECK(error_of(decode_mkdir("{}")).pointer == "/path");
  CHECK(error_of(decode_mkdir(R"({"path":"a","parents":1})")).pointer == "/parents");
  const auto move = decode_move(R"({"from":"a","to":"b"})");
  REQUIRE(move);
  CHECK_FALSE(move->overwrite);
  CHECK(error_of(decode_move(R"({"from":"a"})")).pointer == "/to");
}

TEST_CASE("a pointer escapes what RFC 6901 wants escaped", "[api]") {
  CHECK(error_of(session(R"({"labels":{"a/b~c":1}})")).pointer == "/labels/a~1b~0c");
}
