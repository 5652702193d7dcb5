// The real gateway in this process: listener, connections, router, handlers and session
// manager, over the fakes of the manager's tests, on a free port of 127.0.0.1. And a client
// that sends exactly the bytes it is given.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <map>
#include <memory>
#include <optional>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <sstream>
#include <string>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/async/task_group.h"
#include "server/listener.h"
#include "tests/unit/manager/fakes.h"

namespace codespace::test {

struct HttpAnswer {
  int status = 0;  // 0: the connection was closed without one
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  [[nodiscard]] std::string header(const std::string& name) const;
};

/// One blocking connection.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port);
  /// False if the server has closed it.
  bool send(std::string_view bytes);
  /// Everything up to the end of one answer; `head`: it has no body.
  HttpAnswer read(bool head = false);
  HttpAnswer exchange(std::string_view bytes, bool head = false) {
    send(bytes);
    return read(head);
  }
  void half_close();
  /// True if the server closes the connection within the bound, whatever it sends before.
  bool closed_within(std::chrono::seconds bound);
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  bool receive();
  sys::UniqueFd socket_;
  std::string buffer_;
};

class Gateway {
 public:
  Gateway();
  ~Gateway();
  Gateway(const Gateway&) = delete;
  Gateway& operator=(const Gateway&) = delete;

  /// One request on a connection of its own, with alice's key.
  HttpAnswer request(const std::string& method, const std::string& target, const std::string& body = {},
                     const std::string& extra_headers = {});
  [[nodiscard]] std::string text_of(const std::string& method, const std::string& target, const std::string& body = {},
                                    const std::string& extra_headers = {}, bool with_key = true) const;
  [[nodiscard]] std::uint16_t port() const { return listener_->port(); }
  /// Created over HTTP; its id.
  std::string create_session();
  [[nodiscard]] std::string log();

  World world;
  std::string key;        // alice's
  std::string other_key;  // bob's

 private:
  // Read while the server writes: a sink that locks both ways.
  std::shared_ptr<spdlog::sinks::ringbuffer_sink_mt> log_ = std::make_shared<spdlog::sinks::ringbuffer_sink_mt>(100'000);
  std::shared_ptr<spdlog::logger> logger_;
  std::unique_ptr<api::Handlers> handlers_;
  metrics::Metrics metrics_{"test"};
  std::unique_ptr<server::Router> router_;
  std::unique_ptr<api::Rpc> rpc_;
  std::atomic<std::uint64_t> form_bytes_{0};
  server::Quotas quotas_;
  std::unique_ptr<server::Audit> audit_;
  const std::vector<std::string> names_{"gateway.example"};
  server::Auth auth_;
  std::unique_ptr<async::DeadlineQueue> deadlines_;
  std::unique_ptr<async::TaskGroup> connections_;
  std::unique_ptr<async::TaskGroup> accepting_;
  std::shared_ptr<boost::asio::ssl::context> tls_;
  std::unique_ptr<server::Listener> listener_;
};

}  // namespace codespace::test
