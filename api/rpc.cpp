// See rpc.h. GCC 12: what holds strings is named before it is moved into a co_await.
#include "api/rpc.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "api/json.h"
#include "api/tools.h"

namespace codespace::api {
namespace {

using nlohmann::ordered_json;
using manager::SessionStatus;

constexpr std::uint32_t kDefaultPage = 10;
constexpr std::uint32_t kMaxPage = 100;

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

struct Shown {
  unsigned status;
  std::string_view code;
};

/// The codes are the cloud's where a client acts on them, and ours in its style elsewhere.
Shown shown(ErrorCode code) {
  switch (code) {
    case ErrorCode::session_not_found:
    case ErrorCode::session_ended: return {404, "InvalidMcpSession.NotFound"};
    case ErrorCode::session_paused: return {409, "InvalidMcpSession.Paused"};
    case ErrorCode::unauthorized: return {401, "NOT_LOGIN"};
    case ErrorCode::forbidden: return {403, "Forbidden"};
    case ErrorCode::not_found: return {404, "InvalidAction.NotFound"};
    case ErrorCode::context_not_found: return {404, "Context.NotFound"};
    case ErrorCode::unknown_image: return {400, "InvalidImage.NotFound"};
    case ErrorCode::conflict: return {409, "OperationConflict"};
    case ErrorCode::quota_exceeded: return {429, "Throttling.User"};
    case ErrorCode::overloaded:
    case ErrorCode::egress_unavailable:
    case ErrorCode::launcher_unavailable: return {503, "ServiceUnavailable"};
    case ErrorCode::payload_too_large: return {413, "RequestTooLarge"};
    case ErrorCode::method_not_allowed: return {405, "MethodNotAllowed"};
    case ErrorCode::unsupported_media_type: return {415, "UnsupportedMediaType"};
    case ErrorCode::invalid_request: return {400, "InvalidParameter"};
    default: return {500, "InternalError"};
  }
}

ordered_json envelope(std::string_view code, unsigned status, std::string_view message, std::string_view request_id, bool success) {
  ordered_json out;
  out["Code"] = code;
  out["HttpStatusCode"] = status;
  out["Message"] = message;
  out["RequestId"] = request_id;
  out["Success"] = success;
  return out;
}

std::string_view status_name(SessionStatus status) {
  switch (status) {
    case SessionStatus::starting:
    case SessionStatus::running: return "RUNNING";
    case SessionStatus::paused: return "PAUSED";
    case SessionStatus::ending: return "DELETING";
    case SessionStatus::ended: return "FINISH";
  }
  return "FINISH";
}

/// Clients stop watching and polling at these words.
Error gone(const std::string& session_id, const manager::SessionInfo* ended = nullptr) {
  Error error;
  error.code = ErrorCode::session_not_found;
  error.fault = Fault::client;
  error.what = "session not found or expired: " + clean(session_id.substr(0, 128));
  if (ended != nullptr) error.what += " (it ended at " + rfc3339(ended->ended_at_ms) + ": " + std::string(name_of(ended->end_reason)) + ")";
  return error;
}

std::string resource_url(const RpcRequest& r, const std::string& session_id) {
  return r.endpoint + "/console?resourceId=" + session_id;
}

/// JSON text of an object of strings, as labels come; empty for none.
Result<manager::Labels> labels_of(const RpcParameters& parameters) {
  const std::string& text = parameters.text("Labels");
  manager::Labels labels;
  if (text.empty()) return labels;
  const auto wrong = [] { return client_error(ErrorCode::invalid_request, "Labels must be the text of a JSON object of strings"); };
  if (json_depth(text) > kMaxJsonDepth) return wrong();
  const auto object = ordered_json::parse(text, nullptr, false);
  if (!object.is_object()) return wrong();
  for (const auto& [name, value] : object.items()) {
    if (!value.is_string()) return wrong();
    labels[name] = value.get<std::string>();
  }
  return labels;
}

Result<std::string> session_id_of(const RpcParameters& parameters) {
  const std::string& id = parameters.text("SessionId");
  if (id.empty()) return client_error(ErrorCode::invalid_request, "SessionId is missing");
  return id;
}

ordered_json base_data(const RpcRequest& r, const std::string& id) {
  ordered_json data;
  data["SessionId"] = id;
  data["AppInstanceId"] = id;
  data["ResourceId"] = id;
  data["ResourceUrl"] = resource_url(r, id);
  data["Success"] = true;
  data["ToolList"] = encode_tools();
  data["HttpPort"] = "";
  data["NetworkInterfaceIp"] = "";
  data["VpcResource"] = false;
  return data;
}

}  // namespace

struct Rpc::Answer {
  std::optional<ordered_json> data;
  struct Page {
    std::string next;
    std::uint32_t limit = 0;
    std::uint64_t total = 0;
  };
  std::optional<Page> page;
  std::optional<std::string> created;  // the session
};

struct Rpc::Action {
  std::string_view name;
  Reply (Rpc::*serve)(RpcRequest&);
};

const Rpc::Action Rpc::kActions[] = {
    {"CreateMcpSession", &Rpc::create},
    {"GetSession", &Rpc::get},
    {"GetSessionDetail", &Rpc::detail},
    {"ListSession", &Rpc::list},
    {"DeleteSessionAsync", &Rpc::remove},
    {"ReleaseMcpSession", &Rpc::remove},
    {"PauseSessionAsync", &Rpc::pause},
    {"ResumeSessionAsync", &Rpc::resume},
    {"RefreshSessionIdleTime", &Rpc::keep_alive},
    {"SetLabel", &Rpc::set_labels},
    {"GetLabel", &Rpc::get_labels},
    {"CallMcpTool", &Rpc::call_tool},
    {"ListMcpTools", &Rpc::list_tools},
    {"GetMcpResource", &Rpc::resource},
    {"ListContexts", &Rpc::list_contexts},
    {"GetContext", &Rpc::get_context},
    {"ModifyContext", &Rpc::no_context},
    {"DeleteContext", &Rpc::no_context},
    {"ClearContext", &Rpc::no_context},
    {"DescribeContextFiles", &Rpc::no_context},
    {"GetContextFileUploadUrl", &Rpc::no_context},
    {"GetContextFileDownloadUrl", &Rpc::no_context},
    {"DeleteContextFile", &Rpc::no_context},
    {"SyncContext", &Rpc::sync_context},
    {"GetContextInfo", &Rpc::context_info},
    {"GetAndLoadInternalContext", &Rpc::unavailable},
    {"GetLink", &Rpc::unavailable},
    {"InitBrowser", &Rpc::unavailable},
    {"GetCdpLink", &Rpc::unavailable},
    {"GetAdbLink", &Rpc::unavailable},
    {"CreateNetwork", &Rpc::unavailable},
    {"DescribeNetwork", &Rpc::unavailable},
};

const Rpc::Action* Rpc::find_action(std::string_view name) {
  const auto found = std::ranges::find(kActions, name, &Action::name);
  return found == std::end(kActions) ? nullptr : found;
}

bool Rpc::knows(std::string_view action) { return find_action(action) != nullptr; }

RpcReply rpc_error(const Error& error, std::string_view request_id) {
  const Shown as = shown(error.code);
  const bool ours = error.fault == Fault::server;
  std::string message = clean(error.what);
  if (ours && (error.code == ErrorCode::internal || as.code == "InternalError"))
    message = "this is the server's fault; its log has more under request id " + std::string(request_id);
  RpcReply reply;
  reply.status = as.status;
  reply.code = as.code;
  reply.body = dump(envelope(as.code, as.status, message, request_id, false));
  if (ours) reply.fault = error;
  return reply;
}

boost::asio::awaitable<RpcReply> Rpc::call(RpcRequest request) {
  const std::string request_id = request.request_id;
  const std::string name = request.parameters.text("Action");
  const Action* action = find_action(name);
  if (action == nullptr) {
    Error unknown;
    unknown.code = ErrorCode::not_found;
    unknown.fault = Fault::client;
    unknown.what = name.empty() ? "Action is missing: name the operation in the query, as ?Action=GetSession"
                                : "this server has no action `" + clean(name.substr(0, 64)) + "`; docs/compatibility.md lists those it has";
    co_return rpc_error(unknown, request_id);
  }
  auto answer = co_await (this->*action->serve)(request);
  if (!answer) {
    Error error = answer.error();
    if (error.code == ErrorCode::session_not_found || error.code == ErrorCode::session_ended) {
      const std::string id = request.parameters.text("SessionId");
      auto info = co_await manager_.find(request.caller.owner, id);
      error = gone(id, info && info->status == SessionStatus::ended ? &*info : nullptr);
    } else if (error.code == ErrorCode::session_paused) {
      error.what = "session " + clean(request.parameters.text("SessionId")) + " is paused; resume it and call again";
    }
    co_return rpc_error(error, request_id);
  }
  ordered_json body = envelope("ok", 200, "success", request_id, true);
  if (answer->data) body["Data"] = std::move(*answer->data);
  if (answer->page) {
    body["NextToken"] = answer->page->next;
    body["MaxResults"] = answer->page->limit;
    body["TotalCount"] = answer->page->total;
  }
  RpcReply reply;
  if (answer->created) reply.session_id = std::move(*answer->created);
  reply.body = dump(body);
  co_return reply;
}

manager::Task<manager::SessionInfo> Rpc::live(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto info = co_await manager_.find(r.caller.owner, *id);
  if (!info) co_return std::unexpected(info.error());
  if (info->status == SessionStatus::ended) co_return client_error(ErrorCode::session_ended, "the session has ended");
  co_return std::move(*info);
}

// --- sessions -------------------------------------------------------------------------------------

Rpc::Reply Rpc::create(RpcRequest& r) {
  auto labels = labels_of(r.parameters);
  if (!labels) co_return std::unexpected(labels.error());
  const std::string& contexts = r.parameters.text("PersistenceDataList");
  if (!contexts.empty() && contexts != "[]")
    co_return client_error(ErrorCode::context_not_found,
                           "this server keeps no persistent contexts yet; create the session without them and use files in /workspace");
  manager::SessionSpec spec;
  spec.owner = r.caller.owner;
  spec.image = r.parameters.text("ImageId");
  if (spec.image == "linux_latest") spec.image.clear();  // one image has the tools of both
  spec.labels = std::move(*labels);
  spec.idle_timeout = idle_timeout_;
  spec.max_lifetime = max_lifetime_;
  std::string no_key;
  auto created = co_await manager_.create(std::move(spec), std::move(no_key));
  if (!created) co_return std::unexpected(created.error());
  if (r.parameters.text("SdkStats").empty() && r.user_agent.find(" Java/") != std::string::npos) {
    const std::lock_guard lock(plain_mutex_);
    plain_.insert(created->id);
    plain_order_.push_back(created->id);
    if (plain_order_.size() > kMaxPlain) {
      plain_.erase(plain_order_.front());
      plain_order_.pop_front();
    }
  }
  Answer answer;
  answer.data = base_data(r, created->id);
  answer.created = created->id;
  (*answer.data)["ErrMsg"] = "";
  // A client takes the link only if it has both.
  (*answer.data)["Token"] = r.link_token ? r.link_token(created->id) : "";
  (*answer.data)["LinkUrl"] = r.link_token ? r.endpoint + "/link/" + created->id : "";
  co_return answer;
}

Rpc::Reply Rpc::get(RpcRequest& r) {
  auto info = co_await live(r);
  if (!info) co_return std::unexpected(info.error());
  Answer answer;
  answer.data = base_data(r, info->id);
  (*answer.data)["Status"] = status_name(info->status);
  (*answer.data)["Token"] = "";
  (*answer.data)["contexts"] = ordered_json::array();
  co_return answer;
}

Rpc::Reply Rpc::detail(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto info = co_await manager_.find(r.caller.owner, *id);
  if (!info) co_return std::unexpected(info.error());
  Answer answer;
  answer.data.emplace();
  ordered_json& data = *answer.data;
  data["Status"] = status_name(info->status);
  data["ImageId"] = info->image;
  data["AppInstanceId"] = info->id;
  data["IsDeleted"] = info->status == SessionStatus::ended ? 1 : 0;
  if (info->status == SessionStatus::ended) data["EndReason"] = name_of(info->end_reason);
  co_return answer;
}

Rpc::Reply Rpc::list(RpcRequest& r) {
  auto labels = labels_of(r.parameters);
  if (!labels) co_return std::unexpected(labels.error());
  auto wanted = r.parameters.number("MaxResults");
  if (!wanted) co_return std::unexpected(wanted.error());
  manager::SessionQuery query;
  query.owner = r.caller.owner;
  query.labels = std::move(*labels);
  query.limit = std::clamp(wanted->value_or(kDefaultPage), 1U, kMaxPage);  // the answer says which it was
  query.cursor = r.parameters.text("NextToken");
  const std::string& status = r.parameters.text("Status");
  Answer answer;
  answer.data = ordered_json::array();
  answer.page = Answer::Page{};
  answer.page->limit = query.limit;
  if (status == "RUNNING") query.status = SessionStatus::running;
  else if (status == "PAUSED") query.status = SessionStatus::paused;
  else if (status == "DELETING") query.status = SessionStatus::ending;
  else if (status == "PAUSING" || status == "RESUMING" || status == "DELETED" || status == "FINISH") co_return answer;  // none is, here
  else if (!status.empty())
    co_return client_error(ErrorCode::invalid_request, "Status must be RUNNING, PAUSING, PAUSED, RESUMING, DELETING or DELETED");
  auto page = co_await manager_.list(std::move(query));
  if (!page) co_return std::unexpected(page.error());
  for (const auto& session : page->sessions)
    answer.data->push_back({{"SessionId", session.id}, {"SessionStatus", status_name(session.status)}});
  answer.page->next = page->next_cursor;
  answer.page->total = page->total;
  co_return answer;
}

Rpc::Reply Rpc::remove(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto removed = co_await manager_.remove(r.caller.owner, std::move(*id));
  if (!removed) co_return std::unexpected(removed.error());
  co_return Answer{};
}

Rpc::Reply Rpc::pause(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto paused = co_await manager_.pause(r.caller.owner, std::move(*id));
  if (!paused) co_return std::unexpected(paused.error());
  co_return Answer{};
}

Rpc::Reply Rpc::resume(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto resumed = co_await manager_.resume(r.caller.owner, std::move(*id));
  if (!resumed) co_return std::unexpected(resumed.error());
  co_return Answer{};
}

Rpc::Reply Rpc::keep_alive(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  manager::SessionPatch nothing;  // a change of nothing is a use
  auto kept = co_await manager_.patch(r.caller.owner, std::move(*id), std::move(nothing));
  if (!kept) co_return std::unexpected(kept.error());
  co_return Answer{};
}

Rpc::Reply Rpc::set_labels(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  auto labels = labels_of(r.parameters);
  if (!labels) co_return std::unexpected(labels.error());
  manager::SessionPatch patch;
  patch.labels = std::move(*labels);
  auto patched = co_await manager_.patch(r.caller.owner, std::move(*id), std::move(patch));
  if (!patched) co_return std::unexpected(patched.error());
  co_return Answer{};
}

Rpc::Reply Rpc::get_labels(RpcRequest& r) {
  auto info = co_await live(r);
  if (!info) co_return std::unexpected(info.error());
  Answer answer;
  answer.data.emplace();
  (*answer.data)["Labels"] = dump(ordered_json(info->labels.empty() ? ordered_json::object() : ordered_json(info->labels)));
  co_return answer;
}

Rpc::Reply Rpc::resource(RpcRequest& r) {
  auto info = co_await live(r);
  if (!info) co_return std::unexpected(info.error());
  Answer answer;
  answer.data.emplace();
  ordered_json& data = *answer.data;
  data["SessionId"] = info->id;
  data["ResourceUrl"] = resource_url(r, info->id);
  data["DesktopInfo"] = {{"AppId", ""},      {"AuthCode", ""},     {"ConnectionProperties", ""},
                         {"ResourceId", info->id}, {"ResourceType", ""}, {"Ticket", ""}};
  co_return answer;
}

// --- tools ----------------------------------------------------------------------------------------

bool Rpc::is_plain(const std::string& session_id) {
  const std::lock_guard lock(plain_mutex_);
  return plain_.contains(session_id);
}

Rpc::Reply Rpc::call_tool(RpcRequest& r) {
  auto id = session_id_of(r.parameters);
  if (!id) co_return std::unexpected(id.error());
  const std::string name = r.parameters.text("Name");
  if (name.empty()) co_return client_error(ErrorCode::invalid_request, "Name is missing: the tool to call");
  const std::string& text = r.parameters.text("Args");
  auto args = ToolArgs::parse(text.empty() ? "{}" : text);
  if (!args) co_return std::unexpected(args.error());
  const bool plain = is_plain(*id);
  ToolCall call{manager_, changes_, r.caller.owner, std::move(*id), std::move(*args), r.caller.arrived, plain};
  auto result = co_await api::call_tool(name, std::move(call));
  if (result.refused) co_return std::unexpected(std::move(*result.refused));
  Answer answer;
  answer.data.emplace();
  ordered_json content = ordered_json::array();
  content.push_back({{"type", "text"}, {"text", std::move(result.text)}});
  (*answer.data)["content"] = std::move(content);
  (*answer.data)["isError"] = result.is_error;
  co_return answer;
}

boost::asio::awaitable<RpcReply> Rpc::call_link(Caller caller, std::string session_id, std::string body, std::string request_id) {
  ToolResult result;
  auto request = ToolArgs::parse(body);
  const std::string name = request ? request->required("tool") : "";
  Result<ToolArgs> args = std::unexpected(Error{});
  if (request) args = request->object("args");
  else args = std::unexpected(request.error());
  if (!args) {
    result = tool_failure(args.error());
  } else if (request->mistake()) {
    result = tool_failure(*request->mistake());
  } else {
    const bool plain = is_plain(session_id);
    ToolCall call{manager_, changes_, std::move(caller.owner), session_id, std::move(*args), caller.arrived, plain};
    result = co_await api::call_tool(name, std::move(call));
  }
  RpcReply reply;
  if (result.refused) {
    const RpcReply why = rpc_error(*result.refused, request_id);
    reply.code = why.code;
    reply.fault = why.fault;
    if (result.refused->code == ErrorCode::session_not_found || result.refused->code == ErrorCode::session_ended) result.text = gone(session_id).what;
    else if (why.fault) result.text = "this is the server's fault; its log has more under request id " + request_id;
  }
  ordered_json content = ordered_json::array();
  content.push_back({{"type", "text"}, {"text", std::move(result.text)}});
  ordered_json out;
  out["data"]["result"]["isError"] = result.is_error;
  out["data"]["result"]["content"] = std::move(content);
  reply.body = dump(out);
  co_return reply;
}

Rpc::Reply Rpc::list_tools(RpcRequest&) {
  Answer answer;
  answer.data = encode_tools();
  co_return answer;
}

// --- what a code sandbox does not have --------------------------------------------------------------

Rpc::Reply Rpc::list_contexts(RpcRequest& r) {
  auto wanted = r.parameters.number("MaxResults");
  if (!wanted) co_return std::unexpected(wanted.error());
  Answer answer;
  answer.data = ordered_json::array();
  answer.page = Answer::Page{};
  answer.page->limit = wanted->value_or(kDefaultPage);
  co_return answer;
}

Rpc::Reply Rpc::get_context(RpcRequest& r) {
  auto create = r.parameters.flag("AllowCreate");
  if (!create) co_return std::unexpected(create.error());
  if (create->value_or(false))
    co_return client_error(ErrorCode::not_found, "this server keeps no persistent contexts yet, so none can be created; use files in /workspace");
  co_return co_await no_context(r);
}

Rpc::Reply Rpc::no_context(RpcRequest&) {
  co_return client_error(ErrorCode::context_not_found, "context not found: this server keeps no persistent contexts yet");
}

Rpc::Reply Rpc::sync_context(RpcRequest& r) {
  auto info = co_await live(r);
  if (!info) co_return std::unexpected(info.error());
  if (!r.parameters.text("ContextId").empty()) co_return co_await no_context(r);
  co_return Answer{};  // there is nothing to bring in line
}

Rpc::Reply Rpc::context_info(RpcRequest& r) {
  auto info = co_await live(r);
  if (!info) co_return std::unexpected(info.error());
  Answer answer;
  answer.data.emplace();
  (*answer.data)["ContextStatus"] = "[]";
  co_return answer;
}

Rpc::Reply Rpc::unavailable(RpcRequest& r) {
  const std::string& action = r.parameters.text("Action");
  const std::string why = action == "GetLink" ? "a session of this server has no address of its own to link to"
                          : action == "GetAndLoadInternalContext"
                              ? "file transfer by presigned addresses is not offered; use the file system's read_file and write_file, which take files of any size"
                              : "a code sandbox has no browser, phone, desktop or network of that kind";
  co_return client_error(ErrorCode::not_found, action + " is not available: " + why);
}

}  // namespace codespace::api
