// See tool_args.h.
#include "api/tool_args.h"

#include <nlohmann/json.hpp>

#include "api/json.h"

namespace codespace::api {

using nlohmann::json;

namespace {

/// The 16 bits of a `\uXXXX` at `at`; nothing if there is none.
std::optional<unsigned> unit_at(const std::string& text, std::size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return std::nullopt;
  unsigned unit = 0;
  for (std::size_t i = at + 2; i < at + 6; ++i) {
    const char c = text[i];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    unit = unit * 16 + static_cast<unsigned>(digit);
  }
  return unit;
}

/// The parser refuses half a surrogate pair; what stands for it is U+FFFD, of the same length.
std::string without_lone_surrogates(std::string text) {
  const auto high = [](unsigned unit) { return unit >= 0xD800 && unit < 0xDC00; };
  const auto low = [](unsigned unit) { return unit >= 0xDC00 && unit < 0xE000; };
  for (std::size_t at = text.find('\\'); at != std::string::npos; at = text.find('\\', at)) {
    const auto unit = unit_at(text, at);
    if (!unit || !(high(*unit) || low(*unit))) {
      at += 2;  // over the escaped character, which may be a backslash
      continue;
    }
    const auto next = unit_at(text, at + 6);
    if (high(*unit) && next && low(*next)) {
      at += 12;
      continue;
    }
    text.replace(at, 6, "\\ufffd");
    at += 6;
  }
  return text;
}

}  // namespace

struct ToolArgs::Object {
  json value;
};

ToolArgs::ToolArgs(std::unique_ptr<Object> object) : object_(std::move(object)) {}
ToolArgs::ToolArgs(ToolArgs&&) noexcept = default;
ToolArgs& ToolArgs::operator=(ToolArgs&&) noexcept = default;
ToolArgs::~ToolArgs() = default;

Result<ToolArgs> ToolArgs::parse(const std::string& text) {
  if (json_depth(text) > kMaxJsonDepth)
    return client_error(ErrorCode::invalid_request, "the tool's arguments (Args) are nested deeper than " + std::to_string(kMaxJsonDepth) + " levels");
  json value = json::parse(without_lone_surrogates(text), nullptr, false);
  if (!value.is_object())
    return client_error(ErrorCode::invalid_request, "the tool's arguments (Args) must be the text of one JSON object in UTF-8");
  auto object = std::make_unique<Object>();
  object->value = std::move(value);
  return ToolArgs(std::move(object));
}

Result<ToolArgs> ToolArgs::object(const char* name) {
  const auto found = object_->value.find(name);
  auto object = std::make_unique<Object>();
  object->value = found == object_->value.end() || found->is_null() ? json::object() : std::move(*found);
  if (!object->value.is_object()) return client_error(ErrorCode::invalid_request, std::string("`") + name + "` must be a JSON object");
  return ToolArgs(std::move(object));
}

void ToolArgs::fail(const std::string& name, const std::string& what) {
  if (!mistake_) mistake_ = "argument `" + name + "` " + what;
}

std::string ToolArgs::required(const char* name) {
  const auto found = object_->value.find(name);
  if (found == object_->value.end() || found->is_null()) {
    fail(name, "is missing");
    return {};
  }
  return text(name);
}

std::string ToolArgs::text(const char* name, std::string fallback) {
  const auto found = object_->value.find(name);
  if (mistake_ || found == object_->value.end() || found->is_null()) return fallback;
  if (!found->is_string()) {
    fail(name, "must be a string");
    return fallback;
  }
  return std::move(found->get_ref<std::string&>());  // may be megabytes of a file
}

std::int64_t ToolArgs::integer(const char* name, std::int64_t fallback, std::int64_t low, std::int64_t high) {
  const auto found = object_->value.find(name);
  if (mistake_ || found == object_->value.end() || found->is_null()) return fallback;
  const double n = found->is_number() ? found->get<double>() : 0;
  if (!found->is_number() || n != static_cast<double>(static_cast<std::int64_t>(n)) || n < static_cast<double>(low) || n > static_cast<double>(high)) {
    fail(name, "must be a whole number from " + std::to_string(low) + " to " + std::to_string(high) + ", not " + found->dump().substr(0, 64));
    return fallback;
  }
  return static_cast<std::int64_t>(n);
}

std::optional<bool> ToolArgs::flag(const char* name) {
  const auto found = object_->value.find(name);
  if (mistake_ || found == object_->value.end() || found->is_null()) return std::nullopt;
  if (found->is_boolean()) return found->get<bool>();
  if (*found == "true") return true;
  if (*found == "false") return false;
  fail(name, "must be true or false");
  return std::nullopt;
}

std::vector<std::string> ToolArgs::list(const char* name) {
  std::vector<std::string> out;
  const auto found = object_->value.find(name);
  if (mistake_ || found == object_->value.end() || found->is_null()) return out;
  if (found->is_string()) {
    const std::string& joined = found->get_ref<const std::string&>();
    for (std::size_t at = 0; at <= joined.size();) {
      const std::size_t comma = std::min(joined.find(',', at), joined.size());
      if (comma > at) out.push_back(joined.substr(at, comma - at));
      at = comma + 1;
    }
    return out;
  }
  if (!found->is_array()) fail(name, "must be an array of strings");
  for (const json& element : *found) {
    if (!element.is_string()) {
      fail(name, "must be an array of strings");
      return {};
    }
    out.push_back(element.get<std::string>());
  }
  return out;
}

manager::Env ToolArgs::env(const char* name) {
  manager::Env out;
  const auto found = object_->value.find(name);
  if (mistake_ || found == object_->value.end() || found->is_null()) return out;
  const auto put = [&](const json& key, const json& value) {
    if (!key.is_string() || !value.is_string()) return fail(name, "must hold strings only");
    out.emplace_back(key.get<std::string>(), value.get<std::string>());
  };
  if (found->is_object()) {
    for (const auto& [key, value] : found->items()) put(key, value);
  } else if (found->is_array()) {
    for (const json& pair : *found) {
      if (!pair.is_object() || !pair.contains("key") || !pair.contains("value")) {
        fail(name, "must hold objects with `key` and `value`");
        break;
      }
      put(pair["key"], pair["value"]);
    }
  } else {
    fail(name, "must be an object of strings");
  }
  return out;
}

std::vector<TextEdit> ToolArgs::edits(const char* name) {
  std::vector<TextEdit> out;
  const auto found = object_->value.find(name);
  if (mistake_) return out;
  if (found == object_->value.end() || !found->is_array()) {
    fail(name, "must be an array of objects with `oldText` and `newText`");
    return out;
  }
  for (const json& edit : *found) {
    const bool whole = edit.is_object() && edit.contains("oldText") && edit.contains("newText") && edit["oldText"].is_string() && edit["newText"].is_string();
    if (!whole) {
      fail(name, "must be an array of objects with `oldText` and `newText`");
      return {};
    }
    out.push_back({edit["oldText"].get<std::string>(), edit["newText"].get<std::string>()});
  }
  return out;
}

}  // namespace codespace::api
