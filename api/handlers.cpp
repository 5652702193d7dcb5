// See handlers.h. GCC 12: what holds strings is named before it is moved into a co_await.
#include "api/handlers.h"

#include <cstdio>
#include <utility>

#include "api/file_work.h"
#include "api/json.h"

namespace codespace::api {
namespace {

template <class T>
Result<Answer> encoded(const Result<T>& result) {
  if (!result) return std::unexpected(result.error());
  Answer answer;
  answer.body = encode(*result);
  return answer;
}

Result<Answer> empty(const Result<void>& result) {
  if (!result) return std::unexpected(result.error());
  return Answer{};
}

std::string timing_of(const wire::RunDone& done) {
  char text[200];
  std::snprintf(text, sizeof text, "queue;dur=%.2f, spawn;dur=%.2f, run;dur=%.2f, collect;dur=%.2f",
                static_cast<double>(done.queue_ns) / 1e6, static_cast<double>(done.spawn_ns) / 1e6,
                static_cast<double>(done.run_ns) / 1e6, static_cast<double>(done.collect_ns) / 1e6);
  return text;
}

Result<Answer> finished(const Result<manager::RunRecord>& record) {
  if (!record) return std::unexpected(record.error());
  Answer answer;
  answer.body = encode(*record);
  answer.id = record->id;
  answer.timing = timing_of(record->done);
  return answer;
}

}  // namespace

Result<void> check_path(const std::string& path) {
  const auto refuse = [](const char* what) { return client_error(ErrorCode::invalid_request, what); };
  if (path.empty()) return refuse("the path is empty; name a file, relative to /workspace or absolute");
  if (path.size() > 4095) return refuse("the path is longer than 4095 bytes");
  if (path.find('\0') != std::string::npos) return refuse("the path contains NUL");
  std::size_t at = 0;
  while (at <= path.size()) {
    std::size_t slash = path.find('/', at);
    if (slash == std::string::npos) slash = path.size();
    if (path.compare(at, slash - at, "..") == 0) return refuse("the path contains `..`; give it resolved");
    at = slash + 1;
  }
  return {};
}

Handlers::Reply Handlers::create_session(Caller caller, std::string body) {
  auto spec = decode_session(body, idle_timeout_, max_lifetime_);
  if (!spec) co_return std::unexpected(spec.error());
  spec->owner = caller.owner;
  auto created = co_await manager_.create(std::move(*spec), std::move(caller.idempotency_key));
  auto answer = encoded(created);
  if (answer) answer->id = created->id;
  co_return answer;
}

Handlers::Reply Handlers::list_sessions(Caller caller, manager::SessionQuery query) {
  query.owner = std::move(caller.owner);
  auto page = co_await manager_.list(std::move(query));
  co_return encoded(page);
}

Handlers::Reply Handlers::get_session(Caller caller, std::string id) {
  auto found = co_await manager_.find(std::move(caller.owner), std::move(id));
  if (found && found->status == manager::SessionStatus::ended)
    co_return client_error(ErrorCode::session_ended, "this session has ended; create a new one with POST /v1/sessions");
  co_return encoded(found);
}

Handlers::Reply Handlers::patch_session(Caller caller, std::string id, std::string body) {
  auto patch = decode_patch(body);
  if (!patch) co_return std::unexpected(patch.error());
  auto patched = co_await manager_.patch(std::move(caller.owner), std::move(id), std::move(*patch));
  co_return encoded(patched);
}

Handlers::Reply Handlers::delete_session(Caller caller, std::string id) {
  auto removed = co_await manager_.remove(std::move(caller.owner), std::move(id));
  co_return empty(removed);
}

Handlers::Reply Handlers::pause(Caller caller, std::string id) {
  auto paused = co_await manager_.pause(std::move(caller.owner), std::move(id));
  co_return encoded(paused);
}

Handlers::Reply Handlers::resume(Caller caller, std::string id) {
  auto resumed = co_await manager_.resume(std::move(caller.owner), std::move(id));
  co_return encoded(resumed);
}

Handlers::Reply Handlers::metrics(Caller caller, std::string id) {
  auto metrics = co_await manager_.metrics(std::move(caller.owner), std::move(id));
  co_return encoded(metrics);
}

Handlers::Reply Handlers::run(Caller caller, std::string id, std::string body) {
  auto spec = decode_run(body);
  if (!spec) co_return std::unexpected(spec.error());
  spec->idempotency_key = std::move(caller.idempotency_key);
  auto record = co_await manager_.run(std::move(caller.owner), std::move(id), std::move(*spec), caller.arrived);
  co_return finished(record);
}

Handlers::Reply Handlers::command(Caller caller, std::string id, std::string body) {
  auto spec = decode_command(body);
  if (!spec) co_return std::unexpected(spec.error());
  spec->idempotency_key = std::move(caller.idempotency_key);
  spec->traceparent = std::move(caller.traceparent);
  auto record = co_await manager_.command(std::move(caller.owner), std::move(id), std::move(*spec), caller.arrived);
  co_return finished(record);
}

Handlers::Reply Handlers::find_run(Caller caller, std::string id, std::string run_id) {
  auto record = co_await manager_.find_run(std::move(caller.owner), std::move(id), std::move(run_id));
  co_return encoded(record);
}

Handlers::Reply Handlers::cancel_run(Caller caller, std::string id, std::string run_id) {
  auto cancelled = co_await manager_.cancel_run(std::move(caller.owner), std::move(id), std::move(run_id));
  co_return empty(cancelled);
}

Handlers::Reply Handlers::list_runs(Caller caller, std::string id, bool commands, std::uint32_t limit) {
  auto runs = co_await manager_.list_runs(std::move(caller.owner), std::move(id), commands, limit);
  if (!runs) co_return std::unexpected(runs.error());
  Answer answer;
  answer.body = encode_runs(*runs, commands);
  co_return answer;
}

Handlers::Reply Handlers::list_contexts(Caller caller, std::string id) {
  auto contexts = co_await manager_.list_contexts(std::move(caller.owner), std::move(id));
  co_return encoded(contexts);
}

Handlers::Reply Handlers::delete_context(Caller caller, std::string id, std::string language, std::string context) {
  // A language that is not known is looked for as it is: no session has a context of it.
  if (auto canonical = canonical_language(language)) language = std::move(*canonical);
  auto deleted = co_await manager_.delete_context(std::move(caller.owner), std::move(id), std::move(language), std::move(context));
  co_return empty(deleted);
}

boost::asio::awaitable<Result<manager::RunRecord>> Handlers::run_once(Caller caller, std::string session_id, manager::RunSpec run,
                                                                      std::map<std::string, std::string> files) {
  for (auto& [path, content] : files) {
    if (auto checked = check_path(path); !checked) co_return std::unexpected(checked.error());
    const manager::FileWriteOptions options;
    auto writer = co_await manager_.write_file(caller.owner, session_id, path, options);
    if (!writer) co_return std::unexpected(writer.error());
    constexpr std::size_t kPiece = 256U << 10;
    for (std::size_t at = 0; at < content.size(); at += kPiece) {
      auto written = co_await (*writer)->write(content.substr(at, kPiece));
      if (!written) co_return std::unexpected(written.error());
    }
    auto done = co_await (*writer)->finish();
    if (!done) co_return std::unexpected(done.error());
  }
  co_return co_await manager_.run(std::move(caller.owner), std::move(session_id), std::move(run), caller.arrived);
}

Handlers::Reply Handlers::one_shot(Caller caller, std::string body) {
  auto request = decode_one_shot(body);
  if (!request) co_return std::unexpected(request.error());
  request->session.owner = caller.owner;
  request->session.javascript = request->run.language == "javascript";
  std::string no_key;
  auto session = co_await manager_.create(std::move(request->session), std::move(no_key));
  if (!session) co_return std::unexpected(session.error());
  const std::string owner = caller.owner;
  const std::string id = session->id;
  auto record = co_await run_once(std::move(caller), id, std::move(request->run), std::move(request->files));
  // Gone before the answer, whatever the run did. If this fails its lifetime ends it.
  (void)co_await manager_.remove(owner, id);
  co_return finished(record);
}

Handlers::Reply Handlers::stat(Caller caller, std::string id, std::string path) {
  if (auto checked = check_path(path); !checked) co_return std::unexpected(checked.error());
  auto entry = co_await manager_.stat(std::move(caller.owner), std::move(id), path);
  if (!entry) co_return std::unexpected(entry.error());
  Answer answer;
  answer.body = encode(*entry, path);
  co_return answer;
}

Handlers::Reply Handlers::list_files(Caller caller, std::string id, std::string path, std::uint32_t depth) {
  if (auto checked = check_path(path); !checked) co_return std::unexpected(checked.error());
  auto listing = co_await manager_.list_files(std::move(caller.owner), std::move(id), path, depth);
  if (!listing) co_return std::unexpected(listing.error());
  Answer answer;
  answer.body = encode(*listing, path);
  co_return answer;
}

Handlers::Reply Handlers::make_directory(Caller caller, std::string id, std::string body) {
  auto request = decode_mkdir(body);
  if (!request) co_return std::unexpected(request.error());
  if (auto checked = check_path(request->path); !checked) co_return std::unexpected(checked.error());
  auto made = co_await manager_.make_directory(std::move(caller.owner), std::move(id), request->path, request->parents);
  co_return empty(made);
}

Handlers::Reply Handlers::move(Caller caller, std::string id, std::string body) {
  auto request = decode_move(body);
  if (!request) co_return std::unexpected(request.error());
  for (const std::string& path : {request->from, request->to}) {
    if (auto checked = check_path(path); !checked) co_return std::unexpected(checked.error());
  }
  auto moved = co_await manager_.move(std::move(caller.owner), std::move(id), request->from, request->to, request->overwrite);
  co_return empty(moved);
}

Handlers::Reply Handlers::edit(Caller caller, std::string id, std::string body) {
  auto request = decode_edit(body);
  if (!request) co_return std::unexpected(request.error());
  if (auto checked = check_path(request->path); !checked) co_return std::unexpected(checked.error());
  auto size = co_await edit_file(manager_, std::move(caller.owner), std::move(id), request->path, request->edits, request->dry_run);
  if (!size) co_return std::unexpected(size.error());
  Answer answer;
  answer.body = encode_edited(*request, *size);
  co_return answer;
}

Handlers::Reply Handlers::search(Caller caller, std::string id, std::string body) {
  auto request = decode_search(body);
  if (!request) co_return std::unexpected(request.error());
  if (auto checked = check_path(request->path); !checked) co_return std::unexpected(checked.error());
  auto found = co_await manager_.search_files(std::move(caller.owner), std::move(id), request->path, std::move(request->pattern), std::move(request->exclude));
  if (!found) co_return std::unexpected(found.error());
  Answer answer;
  answer.body = encode(*found, request->path);
  co_return answer;
}

Handlers::Reply Handlers::remove_file(Caller caller, std::string id, std::string path, bool recursive) {
  if (auto checked = check_path(path); !checked) co_return std::unexpected(checked.error());
  const auto scope = recursive ? manager::RemoveScope::tree : manager::RemoveScope::file_or_empty_directory;
  auto removed = co_await manager_.remove_file(std::move(caller.owner), std::move(id), std::move(path), scope);
  co_return empty(removed);
}

Handlers::Reply Handlers::images(Caller) {
  Answer answer;
  answer.body = encode(manager_.images());
  co_return answer;
}

}  // namespace codespace::api
