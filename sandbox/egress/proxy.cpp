// The table of sessions, and each session's accept loop. See proxy.h and session.h.
#include "sandbox/egress/proxy.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "sandbox/egress/session.h"
#include "sandbox/egress/tunnel.h"

namespace codespace::egress {

namespace asio = boost::asio;
using namespace std::chrono_literals;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

namespace {

constexpr std::size_t kResolverThreads = 16;
constexpr std::uint32_t kLookupsOfOneSession = 4;
constexpr auto kOwnAddressesAge = 5s;
// A package manager opens some dozens at once; more than this is a flood, and waits in the backlog.
constexpr double kBurst = 256;
constexpr double kPerSecond = 32;
constexpr auto kAcceptPause = 50ms;

}  // namespace

std::string_view name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::allowed: return "allowed";
    case Verdict::malformed: return "malformed";
    case Verdict::not_listed: return "not_listed";
    case Verdict::port: return "port";
    case Verdict::address: return "address";
    case Verdict::unresolved: return "unresolved";
    case Verdict::unreachable: return "unreachable";
    case Verdict::quota: return "quota";
    case Verdict::wrong_name: return "wrong_name";
  }
  return "malformed";
}

// --- Proxy ----------------------------------------------------------------------------------------

Proxy::Proxy(asio::io_context& context, ProxyOptions with, spdlog::logger& logger)
    : io(context), options(std::move(with)), log(logger), resolver(context, kResolverThreads) {}

Proxy::~Proxy() {
  for (const auto& [key, session] : sessions_) session->stop();
}

std::expected<void, std::string> Proxy::open(const wire::SessionKey& key, Policy policy, sys::UniqueFd listener,
                                             sys::UniqueFd life) {
  if (const auto found = sessions_.find(key); found != sessions_.end()) {
    found->second->set_policy(std::move(policy));
    return {};
  }
  log.info("session opened session_id={} mode={} rules={}", policy.session_id,
           policy.mode == wire::NetworkMode::full ? "full" : "allowlist", policy.rules.size());
  const auto session = std::make_shared<Session>(*this, key, std::move(policy));
  if (auto started = session->start(std::move(listener), std::move(life)); !started) return started;
  sessions_.emplace(key, session);
  return {};
}

wire::EgressCounts Proxy::counts(const wire::SessionKey& key) const {
  const auto found = sessions_.find(key);
  return found == sessions_.end() ? wire::EgressCounts{} : found->second->counts();
}

void Proxy::forget(const wire::SessionKey& key) { sessions_.erase(key); }

std::string_view Proxy::forbidden(const asio::ip::address& address) {
  const Address bytes = address.is_v4() ? from_v4(address.to_v4().to_bytes().data()) : from_v6(address.to_v6().to_bytes().data());
  if (const auto why = special_purpose(bytes); !why.empty()) return why;
  const auto now = std::chrono::steady_clock::now();
  if (own_.empty() || now - own_read_ > kOwnAddressesAge) {
    own_ = own_addresses();
    own_read_ = now;
  }
  if (own_.empty()) return "not known to be another machine's";  // fails closed
  if (std::ranges::find(own_, bytes) != own_.end()) return "this machine's own";
  for (const Network& network : options.denied) {
    if (contains(network, bytes)) return "denied by the operator";
  }
  return {};
}

// --- Session --------------------------------------------------------------------------------------

Session::Session(Proxy& of, const wire::SessionKey& key, Policy policy)
    : proxy(of), key_(key), policy_(std::move(policy)), acceptor_(of.io), life_(of.io), pause_(of.io), tokens_(kBurst),
      refilled_(std::chrono::steady_clock::now()) {}

std::expected<void, std::string> Session::start(sys::UniqueFd listener, sys::UniqueFd life) {
  int type = 0, domain = 0, listening = 0;
  socklen_t size = sizeof type;
  if (::getsockopt(listener.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 ||
      ::getsockopt(listener.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0 ||
      ::getsockopt(listener.get(), SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || type != SOCK_STREAM ||
      domain != AF_INET || listening == 0)
    return std::unexpected("the first descriptor is no listening TCP socket");
  boost::system::error_code failed;
  acceptor_.assign(asio::ip::tcp::v4(), listener.get(), failed);
  if (failed) return std::unexpected("the listening socket: " + failed.message());
  (void)listener.release();
  life_.assign(life.get(), failed);
  if (failed) return std::unexpected("the second descriptor: " + failed.message());
  (void)life.release();
  asio::co_spawn(proxy.io, [self = shared_from_this()] { return self->accept_all(); }, asio::detached);
  asio::co_spawn(proxy.io, [self = shared_from_this()] { return self->watch_life(); }, asio::detached);
  return {};
}

void Session::stop() {
  if (std::exchange(stopped_, true)) return;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  life_.close(ignored);
  pause_.cancel();
  for (Tunnel* tunnel : tunnels_) tunnel->close();
}

bool Session::spend(std::uint64_t up, std::uint64_t down) {
  counts_.bytes_up += up;
  counts_.bytes_down += down;
  proxy.count().bytes_up += up;
  proxy.count().bytes_down += down;
  return !spent();
}

void Session::decided(Verdict verdict) {
  ++(verdict == Verdict::allowed ? counts_.allowed : counts_.refused);
  ++proxy.count().decisions[static_cast<std::size_t>(verdict)];
}

bool Session::begin_lookup() {
  if (lookups_ >= kLookupsOfOneSession) return false;
  ++lookups_;
  return true;
}

void Session::remove(Tunnel* tunnel) {
  if (tunnels_.erase(tunnel) == 0) return;
  --counts_.connections;
  --proxy.count().connections;
}

/// Until this session may have one more connection. A flood waits in the backlog, where it costs
/// nobody but the session anything.
asio::awaitable<void> Session::wait_for_turn() {
  for (;;) {
    const auto now = std::chrono::steady_clock::now();
    tokens_ = std::min(kBurst, tokens_ + kPerSecond * std::chrono::duration<double>(now - std::exchange(refilled_, now)).count());
    const bool room = counts_.connections < proxy.options.session_connections && proxy.totals().connections < proxy.options.connections;
    if (stopped_ || (room && tokens_ >= 1)) break;
    pause_.expires_after(kAcceptPause);
    (void)co_await pause_.async_wait(kTuple);
  }
  tokens_ -= 1;
}

asio::awaitable<void> Session::accept_all() {
  while (!stopped_) {
    auto [failed, socket] = co_await acceptor_.async_accept(kTuple);
    if (stopped_ || failed == asio::error::operation_aborted) break;
    if (failed) {  // out of descriptors or memory
      pause_.expires_after(kAcceptPause);
      (void)co_await pause_.async_wait(kTuple);
      continue;
    }
    co_await wait_for_turn();
    if (stopped_) break;
    const auto tunnel = std::make_shared<Tunnel>(shared_from_this(), std::move(socket));
    tunnels_.insert(tunnel.get());
    ++counts_.connections;
    ++proxy.count().connections;
    asio::co_spawn(proxy.io, [tunnel] { return tunnel->run(); }, asio::detached);
  }
}

asio::awaitable<void> Session::watch_life() {
  char byte;
  // Init writes nothing; whatever comes, it has ended or means no good.
  (void)co_await life_.async_read_some(asio::buffer(&byte, 1), kTuple);
  if (stopped_) co_return;
  proxy.log.info("session closed session_id={} allowed={} refused={} bytes_up={} bytes_down={}", policy_.session_id,
                 counts_.allowed, counts_.refused, counts_.bytes_up, counts_.bytes_down);
  stop();
  proxy.forget(key_);
}

}  // namespace codespace::egress
