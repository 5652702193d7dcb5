// Init's side of the channel to the gateway: accepts connections, reads a request from each,
// and either answers, lets it follow a run's log, or hands it to a file helper. After the log of
// a run the next request may come on the same connection; after any other answer it is closed.
#pragma once

#include <list>
#include <memory>
#include <vector>

#include "sandbox/init/event_loop.h"
#include "sandbox/init/proxy_port.h"
#include "sandbox/init/session.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::init {

class Server {
 public:
  Server(EventLoop& loop, Session& session, sys::UniqueFd listener);

 private:
  struct Connection {
    sys::UniqueFd fd;
    std::uint64_t number = 0;       // names it to what outlives it
    std::vector<char> inbound;
    bool requested = false;         // its request was read and is not answered in full
    std::shared_ptr<Run> run;       // whose log it follows
    bool follow = true;
    bool prepares = false;          // a kernel that comes later; the launcher may say when
    std::size_t sent = 0;           // of the log, or of `reply`
    std::vector<char> reply;
    std::function<void()> on_log;
    EventLoop::TimerId timer = 0;   // for the request to arrive; then, for what was not sent at once
    bool blocked = false;           // waits for room in the socket
    std::vector<sys::UniqueFd> descriptors;        // that came with the request
    std::shared_ptr<int> life = std::make_shared<int>(0);  // held by nobody else: a weak copy knows its end
  };

  void accept();
  void on_event(Connection& c, std::uint32_t events);
  void read_request(Connection& c);
  void handle(Connection& c, std::uint32_t type, std::string_view payload, std::string_view early);
  void handle_run(Connection& c, bool command, wire::Reader& r);
  void handle_prepare(Connection& c, wire::Reader& r);
  void handle_open_network(Connection& c, wire::Reader& r);
  void handle_list_runs(Connection& c, wire::Reader& r);
  void handle_delete_context(Connection& c, wire::Reader& r);
  void handle_attach(Connection& c, wire::Reader& r);
  void answer(Connection& c, wire::InitReply type, const wire::Writer& w);
  void refuse(Connection& c, wire::Refusal why, std::string_view detail);
  void follow(Connection& c, std::shared_ptr<Run> run);
  void on_log(Connection& c);
  void pump(Connection& c);
  void limit_request(Connection& c);
  void renew(Connection& c);
  void drop(Connection& c);

  EventLoop& loop_;
  Session& session_;
  sys::UniqueFd listener_;
  ProxyPort proxy_port_;
  std::list<Connection> connections_;
  std::uint64_t next_number_ = 0;
};

}  // namespace codespace::init
