// Lists that can drift: the route table and the error codes against api/openapi.yaml (as it is
// served) and docs/api.md, the configuration keys against docs/configuration.md. Every request
// example of the contract goes through the decoder that serves it.
#include <algorithm>
#include <catch2/catch.hpp>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>

#include "api/json.h"
#include "server/config.h"
#include "server/error_response.h"
#include "server/router.h"

using namespace codespace;
using namespace codespace::server;
using nlohmann::json;

namespace {

const json& contract() {
  static const json document = json::parse(openapi_json());
  return document;
}

std::string document(const std::string& path) {
  std::ifstream in(std::string(CODESPACE_SOURCE_DIR) + "/" + path);
  REQUIRE(in);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// {path...} of the table is {path} in OpenAPI, which has no name for "the rest".
std::string contract_path(std::string_view pattern) {
  std::string path(pattern);
  if (const auto dots = path.find("...}"); dots != std::string::npos) path.erase(dots, 3);
  return path;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::set<std::string> table_operations() {
  std::set<std::string> operations;
  for (const RouteEntry& entry : route_table())
    operations.insert(lower(std::string(http::to_string(entry.method))) + " " + contract_path(entry.pattern));
  return operations;
}

std::set<std::string> all_codes() {
  // Those of ErrorCode, and those that the connection answers before there is a request.
  std::set<std::string> codes{"bad_request", "target_too_long", "header_too_large", "tls_required", "misdirected_request", "cross_origin"};
  for (int code = 0; code <= static_cast<int>(ErrorCode::deadline_exceeded); ++code)
    codes.insert(std::string(public_error(static_cast<ErrorCode>(code)).code));
  return codes;
}

const json& operation(const std::string& path, const std::string& method) { return contract()["paths"][path][method]; }

}  // namespace

TEST_CASE("the contract has exactly the routes of the table", "[server][contract]") {
  std::set<std::string> operations;
  for (const auto& [path, item] : contract()["paths"].items())
    for (const auto& [method, what] : item.items())
      if (method != "parameters") operations.insert(method + " " + path);
  CHECK(operations == table_operations());
}

TEST_CASE("the contract says which operations are open", "[server][contract]") {
  for (const RouteEntry& entry : route_table()) {
    const std::string path = contract_path(entry.pattern);
    INFO(path);
    const json& what = operation(path, lower(std::string(http::to_string(entry.method))));
    REQUIRE(what.is_object());
    const bool open = what.contains("security") && what["security"].empty();
    CHECK(open == !entry.needs_key);
    CHECK(what.contains("requestBody") == (entry.body != BodyKind::none));
    CHECK(what.contains("operationId"));
  }
}

TEST_CASE("the contract has exactly the codes that can be answered", "[server][contract]") {
  const auto listed = contract()["components"]["schemas"]["ErrorCode"]["enum"].get<std::set<std::string>>();
  CHECK(listed == all_codes());
}

TEST_CASE("every request example of the contract is accepted", "[server][contract]") {
  using Accepts = std::function<bool(const std::string&)>;
  const std::vector<std::pair<std::string, Accepts>> decoders = {
      {"post /v1/sessions", [](const std::string& b) { return api::decode_session(b, {}, {}).has_value(); }},
      {"patch /v1/sessions/{id}", [](const std::string& b) { return api::decode_patch(b).has_value(); }},
      {"post /v1/sessions/{id}/runs", [](const std::string& b) { return api::decode_run(b).has_value(); }},
      {"post /v1/sessions/{id}/commands", [](const std::string& b) { return api::decode_command(b).has_value(); }},
      {"post /v1/sessions/{id}/files:mkdir", [](const std::string& b) { return api::decode_mkdir(b).has_value(); }},
      {"post /v1/sessions/{id}/files:move", [](const std::string& b) { return api::decode_move(b).has_value(); }},
      {"post /v1/sessions/{id}/files:edit", [](const std::string& b) { return api::decode_edit(b).has_value(); }},
      {"post /v1/sessions/{id}/files:search", [](const std::string& b) { return api::decode_search(b).has_value(); }},
      {"post /v1/runs", [](const std::string& b) { return api::decode_one_shot(b).has_value(); }}};
  std::size_t json_routes = 0;
  for (const RouteEntry& entry : route_table()) json_routes += entry.body == BodyKind::json ? 1 : 0;
  CHECK(decoders.size() == json_routes);
  for (const auto& [name, accepts] : decoders) {
    const std::string method = name.substr(0, name.find(' '));
    const json& what = operation(name.substr(name.find(' ') + 1), method);
    REQUIRE(what.is_object());
    const json& examples = what["requestBody"]["content"]["application/json"]["examples"];
    CHECK_FALSE(examples.empty());
    for (const auto& [title, example] : examples.items()) {
      INFO(name << " " << title);
      CHECK(accepts(example["value"].dump()));
    }
  }
}

TEST_CASE("the fields of a request in the contract are those the decoder knows", "[server][contract]") {
  // A decoder that is given one unknown field lists the known ones.
  const auto known_by = [](const Error& error) {
    std::set<std::string> names;
    std::string list = error.what.substr(error.what.find("known are ") + 10);
    std::replace(list.begin(), list.end(), ',', ' ');
    std::stringstream words(list);
    for (std::string word; words >> word;) names.insert(word);
    return names;
  };
  const auto in_contract = [](const char* schema) {
    std::set<std::string> names;
    for (const auto& [name, value] : contract()["components"]["schemas"][schema]["properties"].items()) names.insert(name);
    return names;
  };
  CHECK(known_by(api::decode_session(R"({"zzz":1})", {}, {}).error()) == in_contract("CreateSession"));
  CHECK(known_by(api::decode_patch(R"({"zzz":1})").error()) == in_contract("PatchSession"));
  CHECK(known_by(api::decode_run(R"({"language":"python","code":"","zzz":1})").error()) == in_contract("CreateRun"));
  CHECK(known_by(api::decode_command(R"({"command":"x","zzz":1})").error()) == in_contract("CreateCommand"));
  CHECK(known_by(api::decode_one_shot(R"({"language":"python","code":"","zzz":1})").error()) == in_contract("RunOnce"));
  CHECK(known_by(api::decode_mkdir(R"({"path":"x","zzz":1})").error()) == in_contract("MakeDirectory"));
  CHECK(known_by(api::decode_move(R"({"from":"x","to":"x","zzz":1})").error()) == in_contract("MoveFile"));
  CHECK(known_by(api::decode_session(R"({"limits":{"zzz":1}})", {}, {}).error()) == in_contract("Limits"));
}

TEST_CASE("an encoded run has no field that the contract does not know", "[server][contract]") {
  const auto check = [](const manager::RunRecord& record, const char* schema) {
    const json& properties = contract()["components"]["schemas"][schema]["properties"];
    const json out = json::parse(api::encode(record));
    for (const auto& [name, value] : out.items()) {
      INFO(schema << " " << name);
      CHECK(properties.contains(name));
    }
    for (const auto& name : contract()["components"]["schemas"][schema]["required"]) CHECK(out.contains(name.get<std::string>()));
  };
  manager::RunRecord run;
  run.id = "run-a";
  run.language = "python";
  run.finished = true;
  run.stdout_data = "\xff";
  run.stderr_data = "\xff";
  run.failure.emplace();
  run.done.exit_code = 1;
  run.done.signal = 9;
  run.done.killed_by = wire::KilledBy::deadline;
  check(run, "Run");
  run.id = "cmd-a";
  run.language.clear();
  run.failure.reset();
  check(run, "Command");
}

TEST_CASE("the lists of runs, commands and contexts have exactly the fields of the contract", "[server][contract]") {
  const auto check = [](const std::string& text, const char* schema, const char* list) {
    const json& item = contract()["components"]["schemas"][schema]["properties"][list]["items"];
    const json out = json::parse(text)[list][0];
    std::set<std::string> written;
    std::set<std::string> known;
    for (const auto& [name, value] : out.items()) written.insert(name);
    for (const auto& [name, value] : item["properties"].items()) known.insert(name);
    INFO(schema);
    CHECK(written == known);
    for (const auto& name : item["required"]) CHECK(written.contains(name.get<std::string>()));
  };
  manager::RunSummary run;
  run.id = "run-a";
  run.language = "python";
  run.context = "default";
  run.phase = wire::RunPhase::finished;
  run.killed_by = wire::KilledBy::client;
  check(api::encode_runs({run}, false), "Runs", "runs");
  check(api::encode_runs({run}, true), "Commands", "commands");
  check(api::encode(std::vector<manager::ContextInfo>(1)), "Contexts", "contexts");
}

TEST_CASE("docs/api.md names every operation and explains every code", "[server][contract]") {
  const std::string text = document("docs/api.md");
  for (const RouteEntry& entry : route_table()) {
    const std::string call = std::string(http::to_string(entry.method)) + " " + contract_path(entry.pattern);
    INFO(call);
    CHECK(text.find("`" + call) != std::string::npos);
  }
  for (const std::string& code : all_codes()) {
    INFO(code);
    CHECK(text.find("| `" + code + "` |") != std::string::npos);
  }
}

TEST_CASE("docs/configuration.md lists every key with its unit and default, and no other", "[server][contract]") {
  const std::string text = document("docs/configuration.md");
  const Config defaults;
  std::set<std::string> known;
  for (const ConfigKey& key : config_keys()) {
    INFO(key.name);
    known.insert(key.name);
    const std::string unit = std::regex_replace(std::string(key.unit), std::regex("\\|"), " / ");  // a bar would end the cell
    const std::string value = key.text != nullptr ? "\"" + defaults.*key.text + "\"" : std::to_string(defaults.*key.number);
    CHECK(text.find("| `" + std::string(key.name) + "` | " + unit + " | `" + value + "` |") != std::string::npos);
    if (key.number != nullptr)
      CHECK(text.find("| `" + std::to_string(key.low) + "` to `" + std::to_string(key.high) + "` |") != std::string::npos);
  }
  const std::regex row("\\| `([a-z_]+\\.[a-z_]+)` \\|");
  for (auto it = std::sregex_iterator(text.begin(), text.end(), row); it != std::sregex_iterator(); ++it) {
    INFO((*it)[1].str());
    CHECK(known.contains((*it)[1].str()));
  }
}
