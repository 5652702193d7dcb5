// See connection.h. HTTP/1.1 by Beast; the loop is in Session::run, one step per function.
#include "server/connection.h"

#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/core/detect_ssl.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <algorithm>
#include <chrono>
#include <limits>
#include <tuple>

#include "api/json.h"
#include "sandbox/sys/clock.h"
#include "server/error_response.h"
#include "server/origin.h"
#include "server/request_id.h"
#include "server/response_head.h"
#include "server/rpc_http.h"
#include "server/trace_context.h"

namespace codespace::server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
using asio::as_tuple;
using asio::awaitable;
using asio::use_awaitable;
using tcp = asio::ip::tcp;
using boost::system::error_code;
using namespace std::chrono_literals;

constexpr std::uint32_t kHeaderBytes = 32U << 10;
constexpr std::size_t kTargetBytes = 8U << 10;
constexpr std::size_t kMaxFields = 100;
constexpr std::uint64_t kJsonBytes = 4U << 20;
constexpr std::size_t kPiece = 128U << 10;      // of a streamed body
constexpr std::size_t kSmallBody = 16U << 10;   // copied behind its head: one buffer to send
constexpr auto kHandshakeTime = 10s;
constexpr auto kHeaderTime = 10s;
constexpr auto kIdleTime = 60s;
constexpr auto kJsonBodyTime = 30s;
constexpr auto kFormBodyTime = 60s;
constexpr auto kPieceTime = 30s;                // for each piece: a minimum rate of 4 KiB/s
constexpr auto kWriteTime = 30s;
constexpr auto kLingerTime = 5s;                // after a refusal, for what is still on its way
constexpr std::size_t kLingerBytes = 16U << 20;
/// A run may take its 60 s, and its answer some more to be collected.
constexpr auto kWorkTime = 90s;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

bool is_json(std::string_view content_type) {
  const std::string type = lower(content_type.substr(0, content_type.find(';')));
  return type == "application/json" || type.ends_with("+json") || type == "application/json ";
}

/// Everything known of one request while it is served.
struct Exchange {
  std::string request_id;
  std::string target;
  std::string route;
  std::string session_id;
  std::string owner;
  std::optional<TraceContext> trace;
  std::string content;          // of the body, for an audit log that takes it
  std::string_view code;        // of the problem, if one was answered
  http::verb method = http::verb::unknown;
  unsigned version = 11;
  manager::TimePoint arrived;
  bool keep_alive = true;
  bool head = false;
  bool rpc = false;             // errors speak the RPC's envelope
};

template <class Stream>
class Session {
 public:
  static constexpr bool kTls = !std::is_same_v<Stream, beast::tcp_stream>;

  Session(Stream& stream, beast::flat_buffer buffer, ConnectionContext& context)
      : stream_(stream), buffer_(std::move(buffer)), context_(context) {}

  awaitable<void> run() {
    bool first = true;
    for (;;) {
      parser_.emplace();
      parser_->header_limit(kHeaderBytes);
      parser_->body_limit(boost::none);  // checked against the route's own limit below
      lowest().expires_after(first ? kHeaderTime : kIdleTime);
      if (buffer_.size() == 0 && !co_await wait_for_first_byte()) co_return;
      Exchange x;
      x.arrived = std::chrono::steady_clock::now();
      lowest().expires_after(kHeaderTime);
      error_code ec = parse();
      if (!ec && !parser_->is_header_done())
        std::tie(ec, std::ignore) = co_await http::async_read_header(stream_, buffer_, *parser_, as_tuple(use_awaitable));
      if (ec == http::error::end_of_stream) co_return;
      if (ec) {
        co_await answer_broken_header(x, ec);
        co_return co_await linger();
      }
      context_.router.in_flight.fetch_add(1);
      const bool goes_on = co_await serve(x);
      context_.router.in_flight.fetch_sub(1);
      if (!goes_on) {
        if (!parser_->is_done()) co_await linger();
        co_return;
      }
      first = false;
      // Requests that came in one piece could all be served without a wait; others are to have a turn.
      if (buffer_.size() > 0) co_await asio::post(use_awaitable);
    }
  }

 private:
  beast::tcp_stream& lowest() { return beast::get_lowest_layer(stream_); }

  /// What the parser can do with what has been read: all of a small request, and nothing to wait for.
  error_code parse() {
    error_code ec;
    if (buffer_.size() > 0) buffer_.consume(parser_->put(buffer_.data(), ec));
    return ec == http::error::need_more ? error_code() : ec;
  }

  awaitable<bool> wait_for_first_byte() {
    auto [ec, n] = co_await stream_.async_read_some(buffer_.prepare(4096), as_tuple(use_awaitable));
    if (ec) co_return false;
    buffer_.commit(n);
    co_return true;
  }

  /// A client that still sends when we close gets a reset and may never see the answer, so what
  /// it sends is taken and dropped for a while.
  awaitable<void> linger() {
    error_code ignored;
    lowest().socket().shutdown(tcp::socket::shutdown_send, ignored);
    lowest().expires_after(kLingerTime);
    std::vector<char> sink(64U << 10);
    for (std::size_t taken = 0; taken < kLingerBytes;) {
      auto [ec, n] = co_await lowest().async_read_some(asio::buffer(sink), as_tuple(use_awaitable));
      if (ec) co_return;
      taken += n;
    }
  }

  awaitable<void> answer_broken_header(Exchange& x, error_code ec) {
    x.request_id = mint_request_id();
    x.keep_alive = false;
    if (ec == http::error::header_limit)
      co_await send_problem(x, 431, "header_too_large", "The header is too large", "the header is larger than 32 KiB");
    else if (ec == beast::error::timeout)
      co_return;  // half-sent: closed after its time limit
    else if (ec.category() == make_error_code(http::error::bad_method).category())
      co_await send_problem(x, 400, "bad_request", "The request is not valid HTTP", "the request is not valid HTTP/1.1: " + ec.message());
  }

  /// Serves the request whose header was read. False: close the connection.
  awaitable<bool> serve(Exchange& x) {
    const auto& header = parser_->get().base();
    x.method = header.method();
    x.head = x.method == http::verb::head;
    x.version = header.version();
    x.keep_alive = parser_->get().keep_alive();
    x.target = std::string(header.target());
    x.request_id = accept_request_id(header["X-Request-Id"]);
    x.trace = take_trace_context(header["traceparent"]);
    if (x.target.size() > kTargetBytes)
      co_return co_await refuse(x, 414, "target_too_long", "The address is too long", "the request target is longer than 8 KiB");
    x.rpc = is_rpc(x.method, x.target);
    if (static_cast<std::size_t>(std::distance(header.begin(), header.end())) > kMaxFields)
      co_return co_await refuse(x, 431, "header_too_large", "The header is too large", "the request has more than 100 header fields");
    const auto hosts = header.count(http::field::host);
    const auto host = header[http::field::host];
    if (hosts > 1 || (hosts == 0 && x.version >= 11))
      co_return co_await refuse(x, 400, "bad_request", "The request is not valid HTTP", "a request has one Host header (RFC 9112 section 3.2)");
    // Over TLS the certificate has the same say.
    if (!kTls && hosts == 1 && !is_own_host(host, context_.names))
      co_return co_await refuse(x, 421, "misdirected_request", "This server has another name",
                                "the Host header names none of this server's names; add yours to server.tls_names, or let the proxy in front say Host: localhost");
    if (is_cross_origin(header[http::field::origin], header["Sec-Fetch-Site"], host))
      co_return co_await refuse(x, 403, "cross_origin", "Not from another site's page", "this API answers no web page of another origin");
    if (x.rpc) co_return co_await serve_rpc(x);
    if (context_.direct_link) {
      if (auto session = link_session(x.method, x.target)) co_return co_await serve_link(x, std::move(*session));
    }
    auto target = parse_target(x.target);
    if (!target) co_return co_await refuse(x, target.error());

    RoutedRequest request;
    request.match = match_route(x.method, target->path);
    if (request.match.entry == nullptr) {
      const bool wrong_method = !request.match.allowed.empty();
      Error error;
      error.code = wrong_method ? ErrorCode::method_not_allowed : ErrorCode::not_found;
      error.fault = Fault::client;
      error.what = wrong_method ? "this address takes " + request.match.allowed : "GET /openapi.json lists the addresses";
      if (wrong_method) allow_ = request.match.allowed;
      co_return co_await refuse(x, error);
    }
    const RouteEntry& entry = *request.match.entry;
    x.route = std::string(entry.pattern);
    if (entry.pattern.starts_with("/v1/sessions/")) x.session_id = request.match.parameters[0];
    if (entry.needs_key) {
      auto owner = context_.auth.check(header[http::field::authorization], header["X-API-Key"]);
      if (!owner)
        co_return co_await refuse_with(x, ErrorCode::unauthorized, "send the key as `Authorization: Bearer KEY`; the server wrote one to <state>/api-key on its first start");
      x.owner = *owner;
      const bool looks = x.method == http::verb::get || x.method == http::verb::head;
      if (!admitted(x, entry.route == Route::metrics ? scope_metrics : looks ? scope_read : scope_use)) co_return co_await refuse(x, denied_);
    }
    request.target = std::move(*target);
    request.caller.owner = x.owner;
    request.caller.arrived = x.arrived;
    request.caller.idempotency_key = std::string(header["Idempotency-Key"]);
    if (request.caller.idempotency_key.size() > 255)
      co_return co_await refuse_with(x, ErrorCode::invalid_request, "the Idempotency-Key is longer than 255 bytes");
    if (entry.route == Route::file_put) co_return co_await serve_upload(x, std::move(request));
    if (x.trace) request.caller.traceparent = x.trace->text();
    if (!co_await take_body(x, entry, request.body)) co_return false;
    if (context_.audit.with_content()) x.content = request.body.substr(0, kAuditBodyBytes);
    const bool bytes_of_file = entry.route == Route::file_get && !request.target.query.contains("stat") && !request.target.query.contains("list");
    if (bytes_of_file) co_return co_await serve_download(x, std::move(request));
    lowest().expires_after(kWorkTime);
    auto response = co_await context_.router.serve(std::move(request));
    if (!response) co_return co_await refuse(x, response.error());
    co_return co_await send(x, std::move(*response));
  }

  /// Whether the key may do this now; denied_ says why not.
  bool admitted(const Exchange& x, Scope wanted) {
    auto refusal = context_.quotas.admit(x.owner, wanted, x.arrived);
    if (!refusal) return true;
    denied_ = std::move(refusal->error);
    retry_after_s_ = refusal->retry_after_s;
    return false;
  }

  awaitable<void> continue_if_expected() {
    if (beast::iequals(parser_->get()[http::field::expect], "100-continue")) {
      static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
      co_await asio::async_write(stream_, asio::buffer(kContinue), as_tuple(use_awaitable));
    }
  }

  /// Reads the next piece of the body; empty at its end, nothing on failure.
  awaitable<std::optional<std::string>> next_piece() {
    // Not more than is to come: the memory is written before it is used.
    std::string piece(static_cast<std::size_t>(std::clamp<std::uint64_t>(parser_->content_length_remaining().value_or(kPiece), 1, kPiece)), '\0');
    auto& body = parser_->get().body();
    body.data = piece.data();
    body.size = piece.size();
    body.more = true;
    while (!parser_->is_done() && body.size == piece.size()) {
      error_code ec = parse();
      if (!ec && !parser_->is_done() && body.size == piece.size())
        std::tie(ec, std::ignore) = co_await http::async_read_some(stream_, buffer_, *parser_, as_tuple(use_awaitable));
      if (ec == http::error::need_buffer || ec == http::error::end_of_chunk) ec = {};
      if (ec) {
        body_error_ = ec;
        co_return std::nullopt;
      }
    }
    piece.resize(piece.size() - body.size);
    co_return piece;
  }

  /// The whole body of a JSON route. False: answered and to be closed.
  awaitable<bool> take_body(Exchange& x, const RouteEntry& entry, std::string& body) {
    const std::uint64_t limit = entry.body == BodyKind::json ? kJsonBytes : 64U << 10;
    const auto length = parser_->content_length();
    if (length && *length > limit) {
      x.keep_alive = false;
      co_await refuse_with(x, ErrorCode::payload_too_large, "the body has " + std::to_string(*length) + " bytes, the limit here is " + std::to_string(limit));
      co_return false;
    }
    if (parser_->is_done()) co_return true;
    if (entry.body == BodyKind::json && !is_json(parser_->get()[http::field::content_type])) {
      x.keep_alive = false;
      co_await refuse_with(x, ErrorCode::unsupported_media_type, "send JSON with `Content-Type: application/json`");
      co_return false;
    }
    co_await continue_if_expected();
    lowest().expires_after(kJsonBodyTime);
    const auto too_large = [&](std::size_t) -> std::optional<Error> {
      if (body.size() <= limit) return std::nullopt;
      return Error{ErrorCode::payload_too_large, Fault::client, 0, "the body has more than " + std::to_string(limit) + " bytes", {}};
    };
    co_return co_await take_rest(x, body, too_large);
  }

  /// What is still to come of a body. `refused`, asked after each piece with its size, may say why it is not taken.
  template <class Refused>
  awaitable<bool> take_rest(Exchange& x, std::string& body, const Refused& refused) {
    while (!parser_->is_done()) {
      auto piece = co_await next_piece();
      if (!piece) {
        if (body_error_.category() == make_error_code(http::error::bad_chunk).category())
          co_await refuse_body_with(x, ErrorCode::invalid_request, "the body is not valid: " + body_error_.message());
        co_return false;
      }
      body += *piece;
      if (const std::optional<Error> why = refused(piece->size())) {
        x.keep_alive = false;
        co_await refuse_with(x, why->code, why->what);
        co_return false;
      }
    }
    co_return true;
  }

  // --- the RPC --------------------------------------------------------------------------------

  awaitable<bool> serve_rpc(Exchange& x) {
    x.route = "/";
    FormShare share(context_.form_bytes);
    std::string body;
    if (!co_await take_form(x, share, "application/x-www-form-urlencoded", body)) co_return false;
    api::RpcRequest request;
    // What is in both counts as the body has it.
    const std::size_t question = x.target.find('?');
    auto parsed = request.parameters.add(question == std::string::npos ? std::string_view() : std::string_view(x.target).substr(question + 1));
    if (parsed) parsed = request.parameters.add(body);
    if (!parsed) co_return co_await refuse(x, parsed.error());
    body = {};
    const std::string action = request.parameters.text("Action");
    if (api::Rpc::knows(action)) x.route = "/?Action=" + action;
    x.session_id = request.parameters.text("SessionId");
    const auto owner = context_.auth.check_key(request.parameters.key());
    if (!owner)
      co_return co_await refuse_with(x, ErrorCode::unauthorized,
                                     "not logged in: the API key is missing or not one of this server; set AGENTBAY_API_KEY to the key that `codespaced env` prints");
    x.owner = *owner;
    if (!admitted(x, scope_use)) co_return co_await refuse(x, denied_);
    request.caller.owner = x.owner;
    request.caller.arrived = x.arrived;
    request.request_id = x.request_id;
    request.user_agent = std::string(parser_->get()[http::field::user_agent].substr(0, 512));
    request.endpoint = endpoint_of(parser_->get()[http::field::host], kTls);
    if (context_.direct_link) request.link_token = [this, &x](const std::string& session_id) { return context_.auth.link_token(x.owner, session_id); };
    if (context_.audit.with_content()) x.content = request.parameters.text("Args").substr(0, kAuditBodyBytes);
    lowest().expires_after(kWorkTime);
    auto reply = co_await context_.rpc.call(std::move(request));
    co_return co_await send_rpc(x, std::move(reply));
  }

  /// A tool call by the direct link. What the tool or the session says is an answer of 200, because
  /// clients show no other.
  awaitable<bool> serve_link(Exchange& x, std::string session_id) {
    x.route = "/link/{id}/callTool";
    x.session_id = session_id;
    const auto owner = context_.auth.check_link(parser_->get()["X-Access-Token"], session_id);
    if (!owner)
      co_return co_await refuse_with(x, ErrorCode::unauthorized, "the X-Access-Token is not that of this session; create the session anew to get one");
    x.owner = *owner;
    if (!admitted(x, scope_use)) co_return co_await refuse(x, denied_);
    FormShare share(context_.form_bytes);
    std::string body;
    if (!co_await take_form(x, share, "application/json", body)) co_return false;
    if (context_.audit.with_content()) x.content = body.substr(0, kAuditBodyBytes);
    api::Caller caller;
    caller.owner = x.owner;
    caller.arrived = x.arrived;
    lowest().expires_after(kWorkTime);
    auto reply = co_await context_.rpc.call_link(std::move(caller), std::move(session_id), std::move(body), x.request_id);
    co_return co_await send_rpc(x, std::move(reply));
  }

  /// The whole body of a kind. False: answered and to be closed.
  awaitable<bool> take_form(Exchange& x, FormShare& share, std::string_view kind, std::string& body) {
    const auto length = parser_->content_length();
    if (length && *length > kFormBytes) {
      x.keep_alive = false;
      co_await refuse_with(x, ErrorCode::payload_too_large, "the body has " + std::to_string(*length) + " bytes, the limit is " + std::to_string(kFormBytes) + "; send a large file in pieces");
      co_return false;
    }
    if (parser_->is_done()) co_return true;
    const std::string type = lower(parser_->get()[http::field::content_type]);
    if (!type.empty() && !type.starts_with(kind)) {
      x.keep_alive = false;
      co_await refuse_with(x, ErrorCode::unsupported_media_type, "send the body with `Content-Type: " + std::string(kind) + "`");
      co_return false;
    }
    co_await continue_if_expected();
    lowest().expires_after(kFormBodyTime);
    const auto refused = [&](std::size_t more) -> std::optional<Error> {
      if (body.size() > kFormBytes)
        return Error{ErrorCode::payload_too_large, Fault::client, 0,
                     "the body has more than " + std::to_string(kFormBytes) + " bytes; send a large file in pieces", {}};
      if (!share.take(more)) return Error{ErrorCode::overloaded, Fault::server, 0, "too many large requests at once; send it again in a moment", {}};
      return std::nullopt;
    };
    co_return co_await take_rest(x, body, refused);
  }

  awaitable<bool> send_rpc(Exchange& x, api::RpcReply reply) {
    if (reply.fault)
      context_.log.error("request failed request_id={} session_id={} code={} errno={} what=\"{}\"", x.request_id, printable(x.session_id), reply.code,
                         reply.fault->sys_errno, reply.fault->what);
    x.code = reply.code;
    if (!reply.session_id.empty()) x.session_id = std::move(reply.session_id);
    Response response;
    response.status = reply.status;
    response.body = std::move(reply.body);
    if (response.status == 429 || response.status == 503) response.headers.emplace_back("Retry-After", std::to_string(std::max(1U, std::exchange(retry_after_s_, 0U))));
    co_return co_await send(x, std::move(response));
  }

  awaitable<bool> serve_upload(Exchange& x, RoutedRequest request) {
    x.keep_alive = x.keep_alive && !parser_->get().need_eof();
    manager::FileWriteOptions options;
    for (const auto& [name, value] : request.target.query) {
      const bool on = value.empty() || value == "1" || value == "true";
      if (name == "append") options.append = on;
      else if (name == "exclusive") options.exclusive = on;
      else co_return co_await refuse_body_with(x, ErrorCode::invalid_request, "query parameter `" + name + "` is not known; known: append, exclusive");
    }
    const std::string path = request.match.parameters[1];
    if (auto checked = api::check_path(path); !checked) co_return co_await refuse_body(x, checked.error());
    const auto length = parser_->content_length();
    if (length && *length > context_.max_file_bytes)
      co_return co_await refuse_body_with(x, ErrorCode::file_too_large, "the file has " + std::to_string(*length) + " bytes, the limit is " + std::to_string(context_.max_file_bytes));
    auto writer = co_await context_.router.handlers().manager().write_file(x.owner, request.match.parameters[0], path, options);
    if (!writer) co_return co_await refuse_body(x, writer.error());
    co_await continue_if_expected();
    while (!parser_->is_done()) {
      lowest().expires_after(kPieceTime);
      auto piece = co_await next_piece();
      if (!piece) co_return false;  // the writer is dropped and the old file stays
      if (piece->empty()) continue;
      lowest().expires_after(kWorkTime);
      auto written = co_await (*writer)->write(std::move(*piece));
      if (!written) co_return co_await refuse_body(x, written.error());
    }
    lowest().expires_after(kWorkTime);
    auto done = co_await (*writer)->finish();
    if (!done) co_return co_await refuse(x, done.error());
    Response response;
    response.status = options.append ? 200 : 201;
    response.body = api::encode(*done, path);
    co_return co_await send(x, std::move(response));
  }

  awaitable<bool> serve_download(Exchange& x, RoutedRequest request) {
    const std::string& session = request.match.parameters[0];
    const std::string& path = request.match.parameters[1];
    if (auto checked = api::check_path(path); !checked) co_return co_await refuse(x, checked.error());
    auto& manager = context_.router.handlers().manager();
    manager::FileRange range;
    bool partial = false;
    const std::string range_header(parser_->get()[http::field::range]);
    if (!range_header.empty() || x.head) {
      auto entry = co_await manager.stat(x.owner, session, path);
      if (!entry) co_return co_await refuse(x, entry.error());
      if (!range_header.empty()) {
        if (auto wanted = parse_range(range_header, entry->size)) {
          if (!*wanted) {
            content_range_ = "bytes */" + std::to_string(entry->size);
            co_return co_await refuse(x, wanted->error());
          }
          range = **wanted;
          partial = true;
        }
      }
    }
    auto reader = co_await manager.read_file(x.owner, session, path, range);
    if (!reader) co_return co_await refuse(x, reader.error());
    const std::uint64_t size = (*reader)->entry().size;
    const std::uint64_t length = std::min(range.length, size > range.offset ? size - range.offset : 0);
    http::response<http::buffer_body> response;
    start(response, x, partial ? 206 : 200);
    response.set(http::field::content_type, "application/octet-stream");
    response.set(http::field::accept_ranges, "bytes");
    response.set("Content-Disposition", "attachment");
    if (partial)
      response.set(http::field::content_range, "bytes " + std::to_string(range.offset) + "-" + std::to_string(range.offset + length - 1) + "/" + std::to_string(size));
    response.content_length(length);
    response.body().data = nullptr;
    response.body().more = true;
    http::response_serializer<http::buffer_body> serializer(response);
    audit(x, partial ? 206 : 200, {});
    lowest().expires_after(kWriteTime);
    auto [ec, n] = co_await http::async_write_header(stream_, serializer, as_tuple(use_awaitable));
    if (ec) co_return false;
    std::uint64_t sent = 0;
    while (!x.head && sent < length) {
      lowest().expires_after(kWorkTime);
      auto piece = co_await (*reader)->next();
      if (!piece || piece->empty()) co_return false;  // shorter than promised: the closed connection says so
      sent += piece->size();
      lowest().expires_after(kWriteTime);
      auto [wec, wn] = co_await asio::async_write(stream_, asio::buffer(*piece), as_tuple(use_awaitable));
      if (wec) co_return false;
    }
    log(x, partial ? 206 : 200, sent);
    co_return x.keep_alive;
  }

  // --- answers ----------------------------------------------------------------------------------

  template <class Message>
  void start(Message& response, const Exchange& x, unsigned status) {
    response.version(x.version);
    response.result(status);
    response.keep_alive(x.keep_alive);
    set_usual(response, x);
  }

  /// What every answer says.
  template <class Message>
  void set_usual(Message& response, const Exchange& x) {
    response.set("Server", "codespaced");
    response.set("X-Request-Id", x.request_id);
    // Level 2 of Trace Context: the answer names the span it came from.
    if (x.trace) response.set("traceresponse", x.trace->text());
    response.set("X-Content-Type-Options", "nosniff");
    response.set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; sandbox");
    response.set("Cache-Control", "no-store");
  }

  awaitable<bool> send(Exchange& x, Response answer) {
    const bool has_content = answer.status != 204;
    ResponseHead head(x.version, answer.status);
    set_usual(head, x);
    if (has_content) head.set("Content-Type", answer.content_type);
    for (const auto& [name, value] : answer.headers) {
      if (name == "Location") x.session_id = value.substr(value.rfind('/') + 1);
      if (name == "Server-Timing") {
        char total[48];
        std::snprintf(total, sizeof total, ", total;dur=%.2f", elapsed_ms(x));
        head.set(name, value + total);
      } else {
        head.set(name, value);
      }
    }
    const std::size_t size = answer.body.size();
    audit(x, answer.status, answer.body);
    std::string message = std::move(head).finish(has_content ? std::optional(size) : std::nullopt, x.keep_alive);
    if (x.head) answer.body.clear();  // the length stays that of the GET
    if (answer.body.size() <= kSmallBody) message += std::exchange(answer.body, {});
    const bool sent = co_await write(message) && (answer.body.empty() || co_await write(answer.body));
    log(x, answer.status, size);
    co_return sent && x.keep_alive;
  }

  awaitable<bool> write(std::string_view bytes) {
    if constexpr (!kTls) {
      // Nearly always there is room, and then there is nothing to wait for.
      const ssize_t n = ::send(lowest().socket().native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      bytes.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
      if (bytes.empty()) co_return true;
    }
    lowest().expires_after(kWriteTime);
    auto [ec, n] = co_await asio::async_write(stream_, asio::buffer(bytes), as_tuple(use_awaitable));
    co_return !ec;
  }

  awaitable<bool> send_problem(Exchange& x, unsigned status, std::string_view code, std::string_view title, std::string detail) {
    api::Problem problem;
    problem.status = static_cast<int>(status);
    problem.code = code;
    problem.title = title;
    problem.detail = std::move(detail);
    co_return co_await send_problem(x, std::move(problem));
  }

  awaitable<bool> send_problem(Exchange& x, api::Problem problem) {
    if (x.rpc) {
      Error error;
      error.code = problem.status == 414 || problem.status == 431 ? ErrorCode::payload_too_large : ErrorCode::invalid_request;
      error.fault = Fault::client;
      error.what = std::move(problem.detail);
      auto reply = api::rpc_error(error, x.request_id);
      co_return co_await send_rpc(x, std::move(reply));
    }
    problem.request_id = x.request_id;
    problem.instance = x.target.substr(0, 256);
    x.code = problem.code;
    Response response;
    response.status = static_cast<unsigned>(problem.status);
    response.content_type = "application/problem+json";
    response.body = api::encode(problem);
    if (!allow_.empty()) response.headers.emplace_back("Allow", std::exchange(allow_, {}));
    if (!content_range_.empty()) response.headers.emplace_back("Content-Range", std::exchange(content_range_, {}));
    if (problem.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
    if (problem.status == 429 || problem.status == 503) response.headers.emplace_back("Retry-After", std::to_string(std::max(1U, std::exchange(retry_after_s_, 0U))));
    const std::string kept = problem.code;  // x.code views into it while the line is logged
    x.code = kept;
    co_return co_await send(x, std::move(response));
  }

  /// A refusal before the body was read: what the client still sends is not a next request.
  awaitable<bool> refuse(Exchange& x, unsigned status, std::string_view code, std::string_view title, std::string detail) {
    if (!parser_->is_done()) x.keep_alive = false;
    co_return co_await send_problem(x, status, code, title, std::move(detail));
  }

  // GCC 12 destroys an aggregate written inside a co_await expression twice, so an Error is
  // always made here, by name.
  awaitable<bool> refuse_with(Exchange& x, ErrorCode code, std::string what) {
    Error error;
    error.code = code;
    error.fault = Fault::client;
    error.what = std::move(what);
    co_return co_await refuse(x, std::move(error));
  }

  awaitable<bool> refuse_body_with(Exchange& x, ErrorCode code, std::string what) {
    x.keep_alive = false;
    co_return co_await refuse_with(x, code, std::move(what));
  }

  awaitable<bool> refuse_body(Exchange& x, Error error) {
    x.keep_alive = false;
    co_return co_await refuse(x, std::move(error));
  }

  awaitable<bool> refuse(Exchange& x, Error error) {
    if (!parser_->is_done()) x.keep_alive = false;
    if (x.rpc) {
      auto reply = api::rpc_error(error, x.request_id);
      co_return co_await send_rpc(x, std::move(reply));
    }
    const PublicError shown = public_error(error.code);
    api::Problem problem;
    problem.status = static_cast<int>(shown.status);
    problem.code = shown.code;
    problem.title = shown.title;
    problem.pointer = error.pointer;
    // What a system call said is for our log; the client hears what it can act on.
    const bool ours = error.fault == Fault::server;
    problem.detail = ours ? "this is the server's fault; its log has more under request_id " + x.request_id : error.what;
    if (ours) {
      context_.log.error("request failed request_id={} session_id={} code={} errno={} what=\"{}\"", x.request_id, x.session_id,
                         shown.code, error.sys_errno, error.what);
      if (error.code != ErrorCode::internal && error.code != ErrorCode::sandbox_failed) problem.detail = error.what;
    }
    if (error.code == ErrorCode::session_ended) {
      auto info = co_await context_.router.handlers().manager().find(x.owner, x.session_id);
      if (info) problem.ended = std::move(*info);
    }
    co_return co_await send_problem(x, std::move(problem));
  }

  static double elapsed_ms(const Exchange& x) {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - x.arrived).count();
  }

  /// Before the answer is sent: what a client knows of is in the audit log.
  void audit(const Exchange& x, unsigned status, std::string_view answer) {
    if (!context_.audit.on() || (x.owner.empty() && status != 401)) return;
    error_code unknown;
    const std::string peer = lowest().socket().remote_endpoint(unknown).address().to_string();
    AuditRecord record;
    record.request_id = x.request_id;
    if (x.trace) record.trace_id = x.trace->trace_id;
    record.key_id = x.owner;
    record.session_id = x.session_id;
    record.method = std::string_view(http::to_string(x.method));
    record.route = x.route;
    record.peer = unknown ? std::string_view() : std::string_view(peer);
    record.status = status;
    record.code = x.code;
    record.duration_ms = elapsed_ms(x);
    record.request = x.content;
    record.answer = answer;
    context_.audit.record(record);
  }

  void log(const Exchange& x, unsigned status, std::uint64_t bytes) {
    context_.router.metrics().request_served(x.route.empty() ? "none" : x.route, status, elapsed_ms(x) / 1000);
    context_.log.info("request request_id={} method={} route={} status={} ms={:.2f} bytes={} session_id={} key_id={} code={} trace_id={}", x.request_id,
                      std::string_view(http::to_string(x.method)), x.route.empty() ? "-" : x.route, status, elapsed_ms(x), bytes,
                      printable(x.session_id), x.owner.empty() ? "-" : x.owner, x.code.empty() ? "-" : x.code, x.trace ? x.trace->trace_id : "-");
  }

  Stream& stream_;
  beast::flat_buffer buffer_;
  ConnectionContext& context_;
  std::optional<http::request_parser<http::buffer_body>> parser_;
  error_code body_error_;      // why next_piece() gave nothing
  Error denied_;                 // why the key may not
  unsigned retry_after_s_ = 0;   // of the next 429
  std::string allow_;
  std::string content_range_;
};

bool plain_permitted(const tcp::socket& socket) {
  error_code ec;
  const auto peer = socket.remote_endpoint(ec).address();
  const auto own = socket.local_endpoint(ec).address();
  return !ec && peer.is_loopback() && own.is_loopback();
}

}  // namespace

awaitable<void> refuse_connection(tcp::socket socket) {
  static constexpr std::string_view kFull =
      "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 131\r\n\r\n"
      "{\"status\":503,\"code\":\"overloaded\",\"title\":\"Busy\",\"detail\":\"this server has as many connections as it takes; try again in a moment\"}";
  static_assert(kFull.size() - kFull.find('{') == 131);
  constexpr unsigned char kTlsHandshake = 22;  // RFC 8446 section 5.1
  constexpr auto kPatience = 1s;
  beast::tcp_stream stream(std::move(socket));
  stream.expires_after(kPatience);
  unsigned char first[4096];
  auto [ec, n] = co_await stream.async_read_some(asio::buffer(first), as_tuple(use_awaitable));
  if (ec || n == 0 || first[0] == kTlsHandshake) co_return;
  auto [failed, written] = co_await asio::async_write(stream, asio::buffer(kFull), as_tuple(use_awaitable));
  if (failed) co_return;
  error_code ignored;
  stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
  // What it still sends is taken for a moment: a reset could overtake the answer.
  for (std::size_t taken = 0; taken < (64U << 10);) {
    auto [end, more] = co_await stream.async_read_some(asio::buffer(first), as_tuple(use_awaitable));
    if (end) co_return;
    taken += more;
  }
}

awaitable<void> serve_connection(tcp::socket socket, std::shared_ptr<asio::ssl::context> tls, ConnectionContext context) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const bool plain = plain_permitted(socket);
  beast::tcp_stream stream(std::move(socket));
  beast::flat_buffer buffer(64U << 10);
  stream.expires_after(kHandshakeTime);
  auto [detect_error, is_tls] = co_await beast::async_detect_ssl(stream, buffer, as_tuple(use_awaitable));
  if (detect_error) co_return;
  if (is_tls) {
    beast::ssl_stream<beast::tcp_stream> secure(std::move(stream), *tls);
    beast::get_lowest_layer(secure).expires_after(kHandshakeTime);
    auto [handshake_error, used] = co_await secure.async_handshake(asio::ssl::stream_base::server, buffer.data(), as_tuple(use_awaitable));
    if (handshake_error) co_return;
    buffer.consume(used);
    Session session(secure, std::move(buffer), context);
    co_await session.run();
    beast::get_lowest_layer(secure).expires_after(1s);
    co_await secure.async_shutdown(as_tuple(use_awaitable));
    co_return;
  }
  if (!plain) {
    static constexpr std::string_view kTlsOnly =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\nContent-Length: 107\r\n\r\n"
        "{\"status\":400,\"code\":\"tls_required\",\"detail\":\"plain HTTP is served on loopback only; use https:// here\"}   ";
    co_await asio::async_write(stream, asio::buffer(kTlsOnly), as_tuple(use_awaitable));
    co_return;
  }
  Session session(stream, std::move(buffer), context);
  co_await session.run();
  stream.socket().shutdown(tcp::socket::shutdown_send, ignored);
}

}  // namespace codespace::server
