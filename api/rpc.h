// The RPC surface of the official AgentBay SDKs: one address, the action and its parameters in
// a form, every answer one JSON envelope. As thin as the REST surface: decode, call the session
// manager or a tool, encode. No sockets, no HTTP. The contract is in docs/compatibility.md.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "api/file_changes.h"
#include "api/handlers.h"
#include "api/rpc_form.h"
#include "sandbox/manager/session_manager.h"

namespace codespace::api {

struct RpcRequest {
  RpcParameters parameters;
  Caller caller;
  std::string request_id;
  std::string user_agent;
  std::string endpoint;          // scheme and host that the client used, for addresses in answers
  std::function<std::string(const std::string& session_id)> link_token;  // empty: there is no direct link
};

struct RpcReply {
  unsigned status = 200;
  std::string body;              // always a JSON object
  std::string_view code;         // of the error, for the log; empty if there is none
  std::optional<Error> fault;    // of the server, for the log
  std::string session_id;        // of the session that was created, for the log
};

/// The answer of a request that failed before or without an action. The caller is told what a
/// client's error says, and of a server's only where the log has it.
RpcReply rpc_error(const Error& error, std::string_view request_id);

class Rpc {
 public:
  /// The two durations are what a session gets that does not say; 0 means never.
  Rpc(manager::SessionManager& manager, std::chrono::seconds idle_timeout, std::chrono::seconds max_lifetime)
      : manager_(manager), idle_timeout_(idle_timeout), max_lifetime_(max_lifetime) {}

  boost::asio::awaitable<RpcReply> call(RpcRequest request);
  /// A tool call by the direct link: `body` is JSON text of {"tool", "args"}.
  boost::asio::awaitable<RpcReply> call_link(Caller caller, std::string session_id, std::string body, std::string request_id);
  /// Whether it is one of ours: what a log line may name.
  static bool knows(std::string_view action);

 private:
  struct Answer;
  struct Action;
  using Reply = boost::asio::awaitable<Result<Answer>>;
  static const Action kActions[];
  static const Action* find_action(std::string_view name);

  Reply create(RpcRequest& r);
  Reply get(RpcRequest& r);
  Reply detail(RpcRequest& r);
  Reply list(RpcRequest& r);
  Reply remove(RpcRequest& r);
  Reply pause(RpcRequest& r);
  Reply resume(RpcRequest& r);
  Reply keep_alive(RpcRequest& r);
  Reply set_labels(RpcRequest& r);
  Reply get_labels(RpcRequest& r);
  Reply call_tool(RpcRequest& r);
  Reply list_tools(RpcRequest& r);
  Reply resource(RpcRequest& r);
  Reply list_contexts(RpcRequest& r);
  Reply get_context(RpcRequest& r);
  Reply no_context(RpcRequest& r);
  Reply sync_context(RpcRequest& r);
  Reply context_info(RpcRequest& r);
  Reply unavailable(RpcRequest& r);

  /// Of this caller and not ended.
  manager::Task<manager::SessionInfo> live(RpcRequest& r);

  manager::SessionManager& manager_;
  const std::chrono::seconds idle_timeout_;
  const std::chrono::seconds max_lifetime_;
  FileChanges changes_;

  /// Sessions made by a Java SDK from before it named itself, which shows tool results as they
  /// come. Known until this daemon restarts; the newest of them only, if there are very many.
  static constexpr std::size_t kMaxPlain = 10'000;
  bool is_plain(const std::string& session_id);
  std::mutex plain_mutex_;
  std::set<std::string> plain_;
  std::deque<std::string> plain_order_;
};

}  // namespace codespace::api
