// See response_head.h.
#include "server/response_head.h"

#include <ostream>  // which Boost's string_view uses and does not include
#include <utility>

#include <boost/beast/http/status.hpp>

namespace codespace::server {

ResponseHead::ResponseHead(unsigned version, unsigned status) : version_(version) {
  constexpr std::size_t kUsual = 1024;  // with room for a small body behind it
  text_.reserve(kUsual);
  text_ += version == 10 ? "HTTP/1.0 " : "HTTP/1.1 ";
  text_ += std::to_string(status);
  text_ += ' ';
  text_ += std::string_view(boost::beast::http::obsolete_reason(static_cast<boost::beast::http::status>(status)));
  text_ += "\r\n";
}

void ResponseHead::set(std::string_view name, std::string_view value) {
  text_ += name;
  text_ += ": ";
  text_ += value;
  text_ += "\r\n";
}

std::string ResponseHead::finish(std::optional<std::size_t> length, bool keep_alive) && {
  if (length) set("Content-Length", std::to_string(*length));
  // What a connection does of itself is not said: 1.1 stays, 1.0 closes.
  if (keep_alive != (version_ != 10)) set("Connection", keep_alive ? "keep-alive" : "close");
  text_ += "\r\n";
  return std::move(text_);
}

}  // namespace codespace::server
