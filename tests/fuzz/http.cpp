// A request's head as the gateway reads it: Beast's parser with our limits, then what we make of
// target, range, request id and key.
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "server/auth.h"
#include "server/http.h"
#include "server/request_id.h"
#include "server/router.h"
#include "tests/fuzz/fuzz.h"

using namespace codespace;
using namespace codespace::fuzz;
namespace http = boost::beast::http;

namespace {

void take_target(std::string_view target) {
  const auto parsed = server::parse_target(target);
  if (!parsed) return;
  for (const char c : parsed->path) must_hold(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "no control character in a path");
  for (const auto method : {http::verb::get, http::verb::put, http::verb::post, http::verb::delete_}) {
    const auto match = server::match_route(method, parsed->path);
    if (match.entry == nullptr) continue;
    // Everything below a session has its id as one segment.
    if (match.entry->pattern.starts_with("/v1/sessions/{id}"))
      must_hold(match.parameters[0].find('/') == std::string::npos && !match.parameters[0].empty(), "a session's id is one segment");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const server::Auth auth;
  take_target(text(data, size));
  const auto range = server::parse_range(text(data, size), 1000);
  if (range && *range) must_hold((*range)->offset < 1000 && (*range)->length <= 1000, "a range lies within the file");
  http::request_parser<http::string_body> parser;
  parser.header_limit(32U << 10);
  parser.body_limit(1U << 20);
  parser.eager(true);
  boost::system::error_code failed;
  (void)parser.put(boost::asio::buffer(data, size), failed);
  if (!parser.is_header_done()) return 0;
  const auto& head = parser.get();
  take_target({head.target().data(), head.target().size()});
  must_hold(!auth.check(head[http::field::authorization], head["X-API-Key"]), "no key is right where there is none");
  const std::string id = server::accept_request_id(head["X-Request-Id"]);
  for (const char c : id) must_hold(c > 0x20 && c < 0x7f, "a request id is printable");
  return 0;
}
