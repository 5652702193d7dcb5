// See tunnel.h.
#include "sandbox/egress/tunnel.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/http/write.hpp>

#include "sandbox/egress/client_hello.h"

namespace codespace::egress {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using namespace asio::experimental::awaitable_operators;
using namespace std::chrono_literals;
using tcp = asio::ip::tcp;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

namespace {

constexpr auto kHeaderTime = 10s;
constexpr auto kLookupTime = 8s;
constexpr auto kTurnPause = 10ms;
constexpr auto kTurnTime = 30s;
constexpr auto kConnectTime = 15s;
constexpr auto kHelloTime = 10s;
constexpr auto kIdleTime = 300s;
constexpr auto kFarewellTime = 5s;
constexpr std::uint32_t kHeaderBytes = 16 * 1024;
constexpr std::size_t kPiece = 16 * 1024;
constexpr std::uint16_t kHttpPort = 80;
constexpr std::uint16_t kHttpsPort = 443;

/// RFC 9110 section 7.6.1: fields for this connection only, beside those that Connection names.
constexpr http::field kHopByHop[] = {http::field::connection, http::field::keep_alive, http::field::proxy_authenticate,
                                     http::field::proxy_authorization, http::field::proxy_connection, http::field::te,
                                     http::field::trailer, http::field::upgrade};

/// Of `http://authority/path?query`; a program that speaks to a proxy writes nothing else.
struct AbsoluteForm {
  std::string_view authority;
  std::string path;
};
std::expected<AbsoluteForm, std::string> parse_absolute(std::string_view target) {
  constexpr std::string_view kScheme = "http://";
  if (!target.starts_with(kScheme))
    return std::unexpected("this is a proxy; a request needs a target that begins with http://, and https goes through CONNECT");
  target.remove_prefix(kScheme.size());
  const std::size_t end = target.find_first_of("/?#");
  AbsoluteForm out{target.substr(0, end), "/"};
  if (end != std::string_view::npos) out.path = target[end] == '/' ? std::string(target.substr(end)) : "/" + std::string(target.substr(end));
  return out;
}

}  // namespace

Tunnel::Tunnel(std::shared_ptr<Session> session, tcp::socket client)
    : session_(std::move(session)), client_(std::move(client)), server_(session_->proxy.io), timer_(session_->proxy.io),
      buffer_(kHeaderBytes + kPiece) {
  allow(kHeaderTime);
}

Tunnel::~Tunnel() { session_->remove(this); }

void Tunnel::close() {
  if (std::exchange(closed_, true)) return;
  boost::system::error_code ignored;
  client_.close(ignored);
  server_.close(ignored);
  timer_.cancel();
}

/// Ends the connection when its time is over. allow() moves that.
asio::awaitable<void> Tunnel::watch_time() {
  while (!closed_ && Clock::now() < deadline_) {
    timer_.expires_at(deadline_);
    (void)co_await timer_.async_wait(kTuple);
  }
  close();
}

asio::awaitable<void> Tunnel::run() {
  asio::co_spawn(session_->proxy.io, [self = shared_from_this()] { return self->watch_time(); }, asio::detached);
  Parser parser;
  parser.header_limit(kHeaderBytes);
  parser.body_limit(boost::none);
  const auto [unreadable, got] = co_await http::async_read_header(client_, buffer_, parser, kTuple);
  (void)got;
  if (closed_ || unreadable == http::error::end_of_stream) {
    close();
    co_return;
  }
  std::expected<Target, std::string> target = std::unexpected("this is no HTTP request: " + unreadable.message());
  const bool connect = !unreadable && parser.get().method() == http::verb::connect;
  std::string path;
  if (!unreadable && connect) {
    target = parse_target(parser.get().target(), std::nullopt);
  } else if (!unreadable) {
    const auto absolute = parse_absolute(parser.get().target());
    target = absolute ? parse_target(absolute->authority, kHttpPort) : std::unexpected(absolute.error());
    if (absolute) path = absolute->path;
  }
  if (!target) {
    Refused why{Verdict::malformed, 400, target.error()};
    co_await refuse(std::move(why));
    co_return;
  }
  asked_ = (connect ? "CONNECT " : "HTTP ") + to_string(*target);
  const auto reached = co_await reach(*target, connect);
  if (!reached) {
    Refused why = reached.error();
    co_await refuse(std::move(why));
    co_return;
  }
  if (connect) {
    co_await tunnel(*target);
  } else {
    parser.get().target(path);
    co_await forward(parser, *target);
  }
  if (!address_.empty())
    session_->proxy.log.info("closed session_id={} asked=\"{}\" address={} bytes_up={} bytes_down={} duration_ms={}",
                             session_->policy().session_id, asked_, address_, up_, down_,
                             std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began_).count());
  close();
}

// --- the decision ---------------------------------------------------------------------------------

std::expected<void, Tunnel::Refused> Tunnel::permitted(const Target& target, bool connect) const {
  const Policy& policy = session_->policy();
  if (session_->spent())
    return std::unexpected(Refused{Verdict::quota, 403, "this session has used up the bytes it may send and receive"});
  if (policy.mode == wire::NetworkMode::full) {
    const auto& ports = session_->proxy.options.ports;
    if (std::ranges::find(ports, target.port) != ports.end()) return {};
    std::string known;
    for (const std::uint16_t port : ports) known += (known.empty() ? "" : ", ") + std::to_string(port);
    return std::unexpected(Refused{Verdict::port, 403, "port " + std::to_string(target.port) + " is out of reach; this server permits " + known});
  }
  const auto permits_it = [&target](const Rule& rule) { return permits(rule, target); };
  const bool listed = std::ranges::any_of(policy.rules, permits_it);
  // In a tunnel the program would write the Host, and behind one address are many of them.
  if (listed && connect && target.port == kHttpPort && !target.is_address)
    return std::unexpected(Refused{Verdict::wrong_name, 403, "no tunnel to port 80 where a list of names decides; send the request itself to this proxy"});
  if (listed) return {};
  const bool usual = target.port == kHttpPort || target.port == kHttpsPort;
  return std::unexpected(Refused{Verdict::not_listed, 403,
                                 to_string(target) + " is not in this session's allow list; create a session with network.allow containing \"" +
                                     (usual ? target.host : to_string(target)) + "\""});
}

/// Of one session, few questions at a time: the others' are not to wait for its.
asio::awaitable<bool> Tunnel::wait_for_lookup() {
  asio::steady_timer pause(session_->proxy.io);
  for (;;) {
    if (closed_) co_return false;
    if (session_->begin_lookup()) co_return true;
    pause.expires_after(kTurnPause);
    (void)co_await pause.async_wait(kTuple);
  }
}

asio::awaitable<std::expected<Resolver::Addresses, Tunnel::Refused>> Tunnel::addresses_of(const Target& target) {
  Resolver::Addresses all;
  if (target.is_address) {
    all.push_back(asio::ip::make_address(target.host));
  } else {
    if (!co_await wait_for_lookup()) co_return std::unexpected(Refused{Verdict::unresolved, 504, "the time for looking up " + target.host + " is over"});
    auto found = co_await session_->proxy.resolver.lookup(target.host, kLookupTime);
    session_->end_lookup();
    if (!found) co_return std::unexpected(Refused{Verdict::unresolved, 504, "no answer about " + target.host + " from the name server"});
    if (found->empty()) co_return std::unexpected(Refused{Verdict::unresolved, 502, target.host + " is no known host"});
    all = std::move(*found);
  }
  Resolver::Addresses out;
  std::string_view why;
  for (const auto& address : all) {
    const auto forbidden = session_->proxy.forbidden(address);
    if (forbidden.empty()) out.push_back(address);
    else why = forbidden;
  }
  if (out.empty())
    co_return std::unexpected(Refused{Verdict::address, 403, target.host + " has no public address (" + std::string(why) + "), and sessions reach only those"});
  co_return out;
}

asio::awaitable<std::expected<void, Tunnel::Refused>> Tunnel::reach(Target target, bool connect) {
  if (const auto ok = permitted(target, connect); !ok) co_return ok;
  allow(kTurnTime + kLookupTime);
  const auto addresses = co_await addresses_of(target);
  if (!addresses) co_return std::unexpected(addresses.error());
  allow(kConnectTime);
  for (const auto& address : *addresses) {
    if (closed_) break;
    boost::system::error_code ignored;
    server_.close(ignored);
    const tcp::endpoint endpoint(address, target.port);
    const auto [failed] = co_await server_.async_connect(endpoint, kTuple);
    if (failed || closed_) continue;
    // An address of this machine that was not known as one: a connection to oneself tells.
    if (server_.local_endpoint(ignored).address() == address)
      co_return std::unexpected(Refused{Verdict::address, 403, target.host + " is this machine"});
    address_ = address.to_string();
    session_->decided(Verdict::allowed);
    session_->proxy.log.info("allowed session_id={} asked=\"{}\" address={}", session_->policy().session_id, asked_, address_);
    allow(kIdleTime);
    co_return std::expected<void, Refused>{};
  }
  co_return std::unexpected(Refused{Verdict::unreachable, 504, to_string(target) + " did not take the connection"});
}

asio::awaitable<void> Tunnel::refuse(Refused why) {
  session_->decided(why.verdict);
  session_->proxy.log.info("refused session_id={} asked=\"{}\" verdict={} status={}", session_->policy().session_id, asked_,
                           name_of(why.verdict), why.status);
  allow(kFarewellTime);
  http::response<http::string_body> answer{static_cast<http::status>(why.status), 11};
  // Most programs show the reason phrase of a proxy's refusal and nothing else of it.
  const std::string sentence = "CodeSpace: " + why.sentence;
  answer.reason(sentence);
  answer.set(http::field::content_type, "text/plain; charset=utf-8");
  answer.set("X-CodeSpace-Verdict", std::string(name_of(why.verdict)));
  answer.keep_alive(false);
  answer.body() = sentence + "\n";
  answer.prepare_payload();
  (void)co_await http::async_write(client_, answer, kTuple);
  boost::system::error_code ignored;
  client_.shutdown(tcp::socket::shutdown_send, ignored);
  // What the program still sends would make the kernel reset the connection, and the answer be lost.
  char rest[1024];
  for (std::size_t drained = 0; drained < kHeaderBytes && !closed_;) {
    const auto [over, n] = co_await client_.async_read_some(asio::buffer(rest), kTuple);
    if (over) break;
    drained += n;
  }
  close();
}

// --- CONNECT --------------------------------------------------------------------------------------

asio::awaitable<void> Tunnel::tunnel(const Target& target) {
  static constexpr std::string_view kEstablished = "HTTP/1.1 200 Connection established\r\n\r\n";
  const auto [failed, sent] = co_await asio::async_write(client_, asio::buffer(kEstablished), kTuple);
  (void)sent;
  if (failed) co_return;
  // Where a list of names decides, the name in the handshake must be the one that was permitted.
  const bool by_name = session_->policy().mode == wire::NetworkMode::allowlist && !target.is_address;
  const auto upwards = [](Tunnel& t, const Target& to, bool check) -> asio::awaitable<void> {
    if (check && !co_await t.name_is_right(to)) {
      t.close();
      co_return;
    }
    const auto early = t.buffer_.data();
    if (early.size() > 0 && !co_await t.send_up({static_cast<const char*>(early.data()), early.size()})) {
      t.close();
      co_return;
    }
    co_await t.relay(t.client_, t.server_, true);
  };
  auto both = upwards(*this, target, by_name) && relay(server_, client_, false);
  co_await std::move(both);
}

/// Holds back what the program says first until it is known that it asks for the right server.
asio::awaitable<bool> Tunnel::name_is_right(const Target& target) {
  allow(target.port == kHttpsPort ? kHelloTime : kIdleTime);
  for (;;) {
    const auto data = buffer_.data();
    const std::span<const std::uint8_t> bytes(static_cast<const std::uint8_t*>(data.data()), data.size());
    const bool plain = !bytes.empty() && bytes[0] != 22;
    if (plain && target.port != kHttpsPort) co_return true;  // no TLS, on a port that the list names itself
    const ServerName asked = bytes.empty() ? ServerName{} : server_name(bytes);
    if (asked.found == ServerName::Found::name && asked.name == target.host) break;
    if (asked.found != ServerName::Found::incomplete) {
      session_->decided(Verdict::wrong_name);
      session_->proxy.log.info("refused session_id={} asked=\"{}\" verdict=wrong_name", session_->policy().session_id, asked_);
      co_return false;
    }
    boost::system::error_code failed;
    std::size_t n = 0;
    std::tie(failed, n) = co_await client_.async_read_some(buffer_.prepare(kPiece / 4), kTuple);
    if (failed) co_return false;
    buffer_.commit(n);
  }
  allow(kIdleTime);
  co_return true;
}

asio::awaitable<bool> Tunnel::send_up(std::string_view bytes) {
  const auto [failed, sent] = co_await asio::async_write(server_, asio::buffer(bytes.data(), bytes.size()), kTuple);
  up_ += sent;
  co_return session_->spend(sent, 0) && !failed;
}

asio::awaitable<void> Tunnel::relay(tcp::socket& from, tcp::socket& to, bool up) {
  std::vector<char> piece(kPiece);
  for (;;) {
    const auto [over, n] = co_await from.async_read_some(asio::buffer(piece), kTuple);
    if (over) break;
    const auto [failed, sent] = co_await asio::async_write(to, asio::buffer(piece.data(), n), kTuple);
    (up ? up_ : down_) += sent;
    const bool within = session_->spend(up ? sent : 0, up ? 0 : sent);
    if (failed || !within) {
      if (!within) session_->decided(Verdict::quota);
      close();
      co_return;
    }
    allow(kIdleTime);
  }
  boost::system::error_code ignored;
  to.shutdown(tcp::socket::shutdown_send, ignored);
}

// --- plain HTTP -----------------------------------------------------------------------------------

/// One request, in our own words, and its answer as it comes. The connection ends with it, so no
/// second request with another Host can ride on it.
asio::awaitable<void> Tunnel::forward(Parser& parser, const Target& target) {
  auto& request = parser.get();
  std::vector<std::string> named;
  for (const auto token : http::token_list(request[http::field::connection])) named.emplace_back(token);
  for (const std::string& name : named) {
    if (!boost::beast::iequals(name, "host") && !boost::beast::iequals(name, "transfer-encoding") && !boost::beast::iequals(name, "content-length"))
      request.erase(name);
  }
  for (const http::field field : kHopByHop) request.erase(field);
  request.set(http::field::host, target.port == kHttpPort ? target.host : to_string(target));
  request.set(http::field::connection, "close");
  request.version(11);
  const auto answer = [](Tunnel& t) -> asio::awaitable<void> {
    co_await t.relay(t.server_, t.client_, false);
    t.close();  // also ends a request that is still being sent
  };
  auto both = send_request(parser) && answer(*this);
  co_await std::move(both);
}

asio::awaitable<void> Tunnel::send_request(Parser& parser) {
  auto& request = parser.get();
  request.body().data = nullptr;
  request.body().more = !parser.is_done();
  http::request_serializer<http::buffer_body> serializer(request);
  const auto [failed, head] = co_await http::async_write_header(server_, serializer, kTuple);
  up_ += head;
  if (failed || !session_->spend(head, 0)) {
    close();
    co_return;
  }
  std::vector<char> piece(kPiece);
  while (!serializer.is_done()) {
    if (!parser.is_done()) {
      request.body().data = piece.data();
      request.body().size = piece.size();
      const auto [over, n] = co_await http::async_read(client_, buffer_, parser, kTuple);
      (void)n;
      if (over && over != http::error::need_buffer) {
        close();
        co_return;
      }
      request.body().size = piece.size() - request.body().size;
      request.body().data = piece.data();
      request.body().more = !parser.is_done();
    } else {
      request.body().data = nullptr;
      request.body().size = 0;
      request.body().more = false;
    }
    const auto [broken, sent] = co_await http::async_write(server_, serializer, kTuple);
    up_ += sent;
    if ((broken && broken != http::error::need_buffer) || !session_->spend(sent, 0)) {
      close();
      co_return;
    }
    allow(kIdleTime);
  }
}

}  // namespace codespace::egress
