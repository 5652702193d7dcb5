// What the router works on: one request with its path taken apart, decoded once, and the
// answer to send. No sockets here.
#pragma once

#include <boost/beast/http/fields.hpp>
#include <boost/beast/http/verb.hpp>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/handlers.h"
#include "sandbox/sys/result.h"

namespace codespace::server {

namespace http = boost::beast::http;

struct Target {
  std::string path;                          // percent-decoded once
  std::map<std::string, std::string> query;  // decoded; a key without value has ""
  std::vector<std::string> labels;           // values of `label`, the one parameter that may repeat
};

/// Takes the request target apart. Refuses NUL, control characters and broken escapes.
Result<Target> parse_target(std::string_view target);

struct Response {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> headers;
};

/// `bytes=a-b`, `bytes=a-` or `bytes=-n` of RFC 9110 for a file of `size` bytes. Nothing if the
/// header asks for no range that we serve (several ranges, another unit): send it whole.
std::optional<Result<manager::FileRange>> parse_range(std::string_view header, std::uint64_t size);

}  // namespace codespace::server
