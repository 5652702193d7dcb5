// A session's contexts and the list of its runs: asked of its init each time, because init's
// word is the only one that survives a restart of this daemon. Any thread.
#include "sandbox/manager/impl.h"

namespace codespace::manager {

using namespace std::chrono_literals;

namespace {

using wire::InitReply;
using wire::InitRequest;
using wire::Reader;
using wire::Writer;

// Above what an honest init has: kMaxKernels, and its kept and waiting runs.
constexpr std::size_t kMaxContexts = 64;
constexpr std::size_t kMaxRuns = 2048;
// Init answers lists from memory.
constexpr auto kListPatience = 5s;

std::vector<char> frame(const Writer& writer, InitRequest type) { return writer.frame(static_cast<std::uint32_t>(type)); }

template <class E>
bool within(E value, E first, E last) {
  return value >= first && value <= last;
}

std::optional<ContextInfo> decode_context(Reader reader) {
  ContextInfo info;
  info.language = reader.bytes();
  info.context = reader.bytes();
  info.state = static_cast<wire::ContextState>(reader.u8());
  info.queued = reader.u32();
  info.execution_count = reader.u32();
  info.created_at_ms = reader.i64();
  info.cpu_ns = reader.u64();
  info.memory_bytes = reader.u64();
  info.pids = reader.u32();
  if (!reader.done() || info.language.size() > 32 || !wire::is_context_name(info.context) ||
      !within(info.state, wire::ContextState::starting, wire::ContextState::stopped))
    return std::nullopt;
  return info;
}

std::optional<RunSummary> decode_summary(Reader reader, bool command) {
  wire::RunId id{};
  for (auto& byte : id) byte = reader.u8();
  RunSummary run;
  run.id = format_id(command ? kCommandPrefix : kRunPrefix, id);
  run.language = reader.bytes();
  run.context = reader.bytes();
  run.phase = static_cast<wire::RunPhase>(reader.u8());
  run.outcome = static_cast<wire::Outcome>(reader.u8());
  run.killed_by = static_cast<wire::KilledBy>(reader.u8());
  run.created_at_ms = reader.i64();
  run.queue_ns = reader.u64();
  run.duration_ns = reader.u64();
  if (!reader.done() || run.language.size() > 32 || run.language.empty() != command ||
      wire::is_context_name(run.context) == command ||
      !within(run.phase, wire::RunPhase::queued, wire::RunPhase::finished))
    return std::nullopt;
  if (run.phase == wire::RunPhase::finished &&
      (!within(run.outcome, wire::Outcome::ok, wire::Outcome::cancelled) || run.killed_by > wire::KilledBy::signal))
    return std::nullopt;
  return run;
}

}  // namespace

/// Sends one request and takes items until `ok`. `decode` gives none for a frame that is not an item.
template <class T, class Decode>
Task<std::vector<T>> SessionManager::Impl::ask_list(SessionPtr session, std::vector<char> request, InitReply item,
                                                    std::size_t most, const char* what, Decode decode) {
  const auto until = std::chrono::steady_clock::now() + kListPatience;
  auto link = co_await connect(session, std::move(request), until, what);
  if (!link) co_return std::unexpected(link.error());
  std::vector<T> items;
  LinkFault fault = LinkFault::none;
  while (fault == LinkFault::none) {
    const auto frame = co_await (*link)->next();
    if (!frame) {
      fault = frame.error();
    } else if (frame->type == InitReply::ok) {
      co_return items;
    } else {
      auto one = frame->type == item && items.size() < most ? decode(Reader(frame->payload)) : std::nullopt;
      if (one) items.push_back(std::move(*one));
      else fault = LinkFault::malformed;
    }
  }
  co_return std::unexpected(co_await explain_loss(session, fault, what, (*link)->heard()));
}

Task<std::vector<RunSummary>> SessionManager::Impl::list_runs(std::string owner, std::string session_id, bool commands,
                                                              std::uint32_t limit) {
  const auto use = co_await this->use(std::move(owner), std::move(session_id));
  if (!use) co_return std::unexpected(use.error());
  Writer writer;
  writer.u8(commands ? 1 : 0);
  writer.u32(limit);
  auto request = frame(writer, InitRequest::list_runs);
  const auto decode = [commands](Reader reader) { return decode_summary(reader, commands); };
  co_return co_await ask_list<RunSummary>(use->session(), std::move(request), InitReply::run_summary, kMaxRuns,
                                          "list runs", decode);
}

Task<std::vector<ContextInfo>> SessionManager::Impl::list_contexts(std::string owner, std::string session_id) {
  const auto use = co_await this->use(std::move(owner), std::move(session_id));
  if (!use) co_return std::unexpected(use.error());
  auto request = frame(Writer(), InitRequest::list_contexts);
  co_return co_await ask_list<ContextInfo>(use->session(), std::move(request), InitReply::context, kMaxContexts,
                                           "list contexts", decode_context);
}

Task<void> SessionManager::Impl::delete_context(std::string owner, std::string session_id, std::string language,
                                                std::string context) {
  const auto use = co_await this->use(std::move(owner), std::move(session_id));
  if (!use) co_return std::unexpected(use.error());
  Asked asked;
  asked.language = std::move(language);
  asked.context = std::move(context);
  Writer writer;
  writer.bytes(asked.language);
  writer.bytes(asked.context);
  const SessionPtr session = use->session();
  const auto until = std::chrono::steady_clock::now() + kKillPatience;
  auto request = frame(writer, InitRequest::delete_context);
  auto link = co_await connect(session, std::move(request), until, "delete context");
  if (!link) co_return std::unexpected(link.error());
  const auto reply = co_await (*link)->next();
  if (reply && reply->type == InitReply::ok) co_return Result<void>{};
  if (reply && reply->type == InitReply::refused) {
    const auto refused = decode_refused(reply->payload);
    if (refused) co_return std::unexpected(explain_refusal(*refused, asked));
  }
  const LinkFault fault = reply ? LinkFault::malformed : reply.error();
  co_return std::unexpected(co_await explain_loss(session, fault, "delete context", (*link)->heard()));
}

}  // namespace codespace::manager
