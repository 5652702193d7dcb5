// See resolver.h.
#include "sandbox/egress/resolver.h"

#include <netdb.h>
#include <netinet/in.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <memory>

namespace codespace::egress {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kMaxWaiting = 512;

Resolver::Addresses ask(const std::string& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* first = nullptr;
  Resolver::Addresses out;
  if (::getaddrinfo(name.c_str(), nullptr, &hints, &first) != 0) return out;
  for (const addrinfo* i = first; i != nullptr; i = i->ai_next) {
    if (i->ai_family == AF_INET) {
      asio::ip::address_v4::bytes_type bytes;
      std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in*>(i->ai_addr)->sin_addr, bytes.size());
      out.emplace_back(asio::ip::address_v4(bytes));
    } else if (i->ai_family == AF_INET6) {
      asio::ip::address_v6::bytes_type bytes;
      std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6*>(i->ai_addr)->sin6_addr, bytes.size());
      out.emplace_back(asio::ip::address_v6(bytes));
    }
  }
  ::freeaddrinfo(first);
  return out;
}

struct Question {
  Question(asio::io_context& io, std::string asked) : timer(io), name(std::move(asked)) {}
  asio::steady_timer timer;
  const std::string name;
  std::optional<Resolver::Addresses> answer;
};

}  // namespace

asio::awaitable<std::optional<Resolver::Addresses>> Resolver::lookup(std::string name, std::chrono::milliseconds patience) {
  if (waiting_ >= kMaxWaiting) co_return std::nullopt;
  ++waiting_;
  const auto question = std::make_shared<Question>(io_, std::move(name));
  question->timer.expires_after(patience);
  asio::post(pool_, [this, question] {
    auto found = ask(question->name);
    asio::post(io_, [this, question, found = std::move(found)]() mutable {
      --waiting_;
      question->answer = std::move(found);
      question->timer.cancel();
    });
  });
  (void)co_await question->timer.async_wait(asio::as_tuple(asio::use_awaitable));
  co_return question->answer;
}

}  // namespace codespace::egress
