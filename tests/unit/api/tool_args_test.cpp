// The arguments of a tool call: what clients of several languages send for the same thing.
#include <catch2/catch.hpp>

#include "api/tool_args.h"

using codespace::api::ToolArgs;

TEST_CASE("only the text of one JSON object is arguments", "[api][rpc]") {
  for (const char* text : {"", "[]", "5", "\"x\"", "null", "{", "{\"a\":}", "{\"a\":\"\xff\"}"}) CHECK_FALSE(ToolArgs::parse(text));
  CHECK(ToolArgs::parse("{}"));
  CHECK(ToolArgs::parse(std::string("{\"a\":") + std::string(20, '[') + std::string(20, ']') + "}"));
  CHECK_FALSE(ToolArgs::parse(std::string("{\"a\":") + std::string(40, '[') + std::string(40, ']') + "}"));
}

TEST_CASE("half a surrogate pair becomes the replacement character, a whole one is a character", "[api][rpc]") {
  auto args = ToolArgs::parse(R"({"a":"x\ud83d","b":"\ude00y","c":"\ud83d\ude00","d":"\\ud83d","e":"\ud83d\ud83d\ude00","f":"\uD83Dn","g":"\u00e9"})");
  REQUIRE(args);
  CHECK(args->required("a") == "x\uFFFD");
  CHECK(args->required("b") == "\uFFFDy");
  CHECK(args->required("c") == "\U0001F600");
  CHECK(args->required("d") == "\\ud83d");
  CHECK(args->required("e") == "\uFFFD\U0001F600");
  CHECK(args->required("f") == "\uFFFDn");
  CHECK(args->required("g") == "\u00e9");
  CHECK_FALSE(args->mistake());
}

TEST_CASE("the first mistake is kept and names the argument", "[api][rpc]") {
  auto args = ToolArgs::parse(R"({"n":1.5,"s":7,"big":1e300,"ok":"x"})");
  REQUIRE(args);
  CHECK(args->integer("n", 3, 0, 10) == 3);
  CHECK(args->mistake()->find("`n` must be a whole number from 0 to 10, not 1.5") != std::string::npos);
  CHECK(args->required("s").empty());
  CHECK(args->mistake()->find("`n`") != std::string::npos);
  auto missing = ToolArgs::parse("{}");
  CHECK(missing->required("path").empty());
  CHECK(*missing->mistake() == "argument `path` is missing");
  auto large = ToolArgs::parse(R"({"big":1e300})");
  CHECK(large->integer("big", 1, 0, 10) == 1);
  CHECK(large->mistake());
}

TEST_CASE("null and absent are the same, truth may be text", "[api][rpc]") {
  auto args = ToolArgs::parse(R"({"a":null,"t":true,"f":"false","x":"yes"})");
  REQUIRE(args);
  CHECK(args->text("a", "fallback") == "fallback");
  CHECK(args->integer("a", 9, 0, 10) == 9);
  CHECK(args->list("a").empty());
  CHECK_FALSE(args->flag("a"));
  CHECK(args->flag("t") == true);
  CHECK(args->flag("f") == false);
  CHECK_FALSE(args->mistake());
  CHECK_FALSE(args->flag("x"));
  CHECK(args->mistake());
}

TEST_CASE("lists come as arrays or joined by commas, environments as objects or pairs", "[api][rpc]") {
  auto args = ToolArgs::parse(R"({"l":["a","b,c"],"j":"a,,b,","o":{"A":"1"},"p":[{"key":"B","value":""}],"e":[{"oldText":"x","newText":""}]})");
  REQUIRE(args);
  CHECK(args->list("l") == std::vector<std::string>{"a", "b,c"});
  CHECK(args->list("j") == std::vector<std::string>{"a", "b"});
  CHECK(args->env("o") == codespace::manager::Env{{"A", "1"}});
  CHECK(args->env("p") == codespace::manager::Env{{"B", ""}});
  const auto edits = args->edits("e");
  REQUIRE(edits.size() == 1);
  CHECK((edits[0].old_text == "x" && edits[0].new_text.empty()));
  CHECK_FALSE(args->mistake());
  for (const char* wrong : {R"({"x":[1]})", R"({"x":5})", R"({"x":[{"key":"A"}]})", R"({"x":{"A":1}})", R"({"x":[{"oldText":"a"}]})"}) {
    auto env = ToolArgs::parse(wrong);
    env->env("x");
    CHECK(env->mistake());
    auto list = ToolArgs::parse(wrong);
    list->list("x");
    CHECK(list->mistake());
    auto edit = ToolArgs::parse(wrong);
    edit->edits("x");
    CHECK(edit->mistake());
  }
}
