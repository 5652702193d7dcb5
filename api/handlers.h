// One function per operation of the API: JSON text in, JSON text out. Thin on purpose: every
// surface (REST today) decodes, calls the session manager, encodes. No sockets, no HTTP.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "sandbox/manager/session_manager.h"
#include "sandbox/sys/result.h"

namespace codespace::api {

/// Who asks, when it arrived, and under which key a retry is recognised.
struct Caller {
  std::string owner;
  manager::TimePoint arrived;
  std::string idempotency_key;
  std::string traceparent;  // of Trace Context, for what the request starts; empty if there is none
};

struct Answer {
  std::string body;        // JSON text; empty for none
  std::string id;          // of what was created, for Location
  std::string timing;      // Server-Timing, of runs and commands
};

class Handlers {
 public:
  /// The two durations are what a session gets that does not say; 0 means never.
  Handlers(manager::SessionManager& manager, std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime)
      : manager_(manager), idle_timeout_(idle_timeout), max_lifetime_(max_lifetime) {}

  using Reply = boost::asio::awaitable<Result<Answer>>;

  Reply create_session(Caller caller, std::string body);
  Reply list_sessions(Caller caller, manager::SessionQuery query);
  Reply get_session(Caller caller, std::string id);
  Reply patch_session(Caller caller, std::string id, std::string body);
  Reply delete_session(Caller caller, std::string id);
  Reply pause(Caller caller, std::string id);
  Reply resume(Caller caller, std::string id);
  Reply metrics(Caller caller, std::string id);
  Reply run(Caller caller, std::string id, std::string body);
  Reply command(Caller caller, std::string id, std::string body);
  Reply find_run(Caller caller, std::string id, std::string run_id);
  Reply cancel_run(Caller caller, std::string id, std::string run_id);
  Reply list_runs(Caller caller, std::string id, bool commands, std::uint32_t limit);
  Reply list_contexts(Caller caller, std::string id);
  Reply delete_context(Caller caller, std::string id, std::string language, std::string context);
  Reply one_shot(Caller caller, std::string body);
  Reply stat(Caller caller, std::string id, std::string path);
  Reply list_files(Caller caller, std::string id, std::string path, std::uint32_t depth);
  Reply make_directory(Caller caller, std::string id, std::string body);
  Reply move(Caller caller, std::string id, std::string body);
  Reply edit(Caller caller, std::string id, std::string body);
  Reply search(Caller caller, std::string id, std::string body);
  Reply remove_file(Caller caller, std::string id, std::string path, bool recursive);
  Reply images(Caller caller);

  manager::SessionManager& manager() { return manager_; }

 private:
  boost::asio::awaitable<Result<manager::RunRecord>> run_once(Caller caller, std::string session_id, manager::RunSpec run,
                                                              std::map<std::string, std::string> files);
  manager::SessionManager& manager_;
  std::chrono::seconds idle_timeout_;
  std::chrono::seconds max_lifetime_;
};

/// A path a client may name: not empty, no NUL, no `..` component, at most 4095 bytes.
Result<void> check_path(const std::string& path);

}  // namespace codespace::api
