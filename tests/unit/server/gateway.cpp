// See gateway.h.
#include "tests/unit/server/gateway.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>
#include <nlohmann/json.hpp>

#include "server/tls.h"

namespace codespace::test {

namespace asio = boost::asio;

// --- the client -----------------------------------------------------------------------------------

std::string HttpAnswer::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string() : found->second;
}

RawClient::RawClient(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    throw std::runtime_error("connect");
  // A test must not hang if the server does.
  const timeval patience{.tv_sec = 20, .tv_usec = 0};
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool RawClient::receive() {
  char piece[65536];
  const ssize_t n = ::recv(socket_.get(), piece, sizeof piece, 0);
  if (n <= 0) return false;
  buffer_.append(piece, static_cast<std::size_t>(n));
  return true;
}

HttpAnswer RawClient::read(bool head) {
  HttpAnswer answer;
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos)
    if (!receive()) return answer;
  std::istringstream lines(buffer_.substr(0, end));
  std::string line;
  std::getline(lines, line);
  answer.status = std::stoi(line.substr(9, 3));
  while (std::getline(lines, line)) {
    if (line.ends_with('\r')) line.pop_back();
    const auto colon = line.find(':');
    std::string name = line.substr(0, colon);
    std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    answer.headers[name] = line.substr(colon + 2);
  }
  buffer_.erase(0, end + 4);
  const std::string length = answer.header("content-length");
  const std::size_t size = head || length.empty() ? 0 : std::stoul(length);
  while (buffer_.size() < size)
    if (!receive()) break;
  answer.body = buffer_.substr(0, size);
  buffer_.erase(0, size);
  return answer;
}

void RawClient::half_close() { ::shutdown(socket_.get(), SHUT_WR); }

bool RawClient::closed_within(std::chrono::seconds bound) {
  const auto until = std::chrono::steady_clock::now() + bound;
  while (std::chrono::steady_clock::now() < until) {
    pollfd wait{.fd = socket_.get(), .events = POLLIN, .revents = 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    if (::poll(&wait, 1, static_cast<int>(std::max<std::int64_t>(left.count(), 1))) <= 0) return false;
    char piece[65536];
    if (::recv(socket_.get(), piece, sizeof piece, 0) <= 0) return true;
  }
  return false;
}

// --- the gateway ----------------------------------------------------------------------------------

Gateway::Gateway() : key(*server::make_key()), other_key(*server::make_key()) {
  logger_ = std::make_shared<spdlog::logger>("test", log_);
  audit_ = std::make_unique<server::Audit>("", false, *logger_);
  handlers_ = std::make_unique<api::Handlers>(*world.manager, std::chrono::seconds(1800), std::chrono::seconds(86'400));
  router_ = std::make_unique<server::Router>(*handlers_, metrics_);
  auth_.set_keys({{"alice", server::digest_of(key)}, {"bob", server::digest_of(other_key)}});
  deadlines_ = std::make_unique<async::DeadlineQueue>(world.io.get_executor());
  const auto escaped = [this](std::exception_ptr what) {
    try {
      std::rethrow_exception(what);
    } catch (const std::exception& error) {
      logger_->error("escaped {}", error.what());
    }
  };
  connections_ = std::make_unique<async::TaskGroup>(escaped);
  accepting_ = std::make_unique<async::TaskGroup>(escaped);
  tls_ = std::make_shared<asio::ssl::context>(std::move(*server::make_tls(world.dir.path(), "")));
  rpc_ = std::make_unique<api::Rpc>(*world.manager, std::chrono::seconds(1800), std::chrono::seconds(86'400));
  const server::ConnectionContext context{*router_, *rpc_, auth_, quotas_, *logger_, *audit_, 8U << 20, form_bytes_, names_, true};
  listener_ = std::make_unique<server::Listener>(world.io.get_executor(), *connections_, context, [this] { return tls_; }, 64);
  if (!listener_->open("127.0.0.1", 0)) throw std::runtime_error("listen");
  accepting_->spawn(asio::make_strand(world.io), listener_->accept_loop());
}

Gateway::~Gateway() {
  asio::post(world.io, asio::use_future([this] { listener_->close(); })).get();
  accepting_->stop();
  connections_->stop();
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  world.run(accepting_->wait_empty(*deadlines_, until));
  world.run(connections_->wait_empty(*deadlines_, until));
  deadlines_->stop();
}

std::string Gateway::log() {
  std::string lines;
  for (const std::string& line : log_->last_formatted()) lines += line;
  return lines;
}

std::string Gateway::text_of(const std::string& method, const std::string& target, const std::string& body,
                             const std::string& extra_headers, bool with_key) const {
  std::string text = method + " " + target + " HTTP/1.1\r\nHost: localhost\r\n" + extra_headers;
  if (with_key) text += "Authorization: Bearer " + key + "\r\n";
  if (!body.empty()) {
    if (extra_headers.find("Content-Type") == std::string::npos) text += "Content-Type: application/json\r\n";
    text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return text + "\r\n" + body;
}

HttpAnswer Gateway::request(const std::string& method, const std::string& target, const std::string& body,
                            const std::string& extra_headers) {
  RawClient client(port());
  return client.exchange(text_of(method, target, body, extra_headers), method == "HEAD");
}

std::string Gateway::create_session() {
  const HttpAnswer answer = request("POST", "/v1/sessions", "{}");
  if (answer.status != 201) throw std::runtime_error("create: " + answer.body);
  return nlohmann::json::parse(answer.body)["session_id"].get<std::string>();
}

}  // namespace codespace::test
