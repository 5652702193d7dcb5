// What a client may see and end of a session's contexts, and the list of its runs. Part of
// Session, on init's one thread.
#include <algorithm>

#include "sandbox/init/session.h"
#include "sandbox/sys/clock.h"

namespace codespace::init {
namespace {

void append(std::vector<char>& frames, wire::InitReply type, const wire::Writer& payload) {
  const std::vector<char> frame = payload.frame(static_cast<std::uint32_t>(type));
  frames.insert(frames.end(), frame.begin(), frame.end());
}

void put_summary(wire::Writer& w, const Run& run, std::uint64_t now) {
  const wire::RunDone& done = run.done;
  wire::RunPhase phase = run.started_ns == 0 ? wire::RunPhase::queued : wire::RunPhase::running;
  std::uint64_t queue_ns = (run.started_ns == 0 ? now : run.started_ns) - run.created_ns;
  std::uint64_t duration_ns = run.started_ns == 0 ? 0 : now - run.started_ns;
  if (run.finished()) {
    phase = wire::RunPhase::finished;
    queue_ns = done.queue_ns;
    duration_ns = done.spawn_ns + done.run_ns + done.collect_ns;
  }
  for (const std::uint8_t byte : run.request().id) w.u8(byte);
  w.bytes(run.request().language);
  w.bytes(run.request().context);
  w.u8(static_cast<std::uint8_t>(phase));
  w.u8(run.finished() ? static_cast<std::uint8_t>(done.outcome) : 0);
  w.u8(run.finished() ? static_cast<std::uint8_t>(done.killed_by) : 0);
  w.i64(run.created_wall_ms);
  w.u64(queue_ns);
  w.u64(duration_ns);
}

}  // namespace

void Session::drop_unused_kernels() {
  std::erase_if(kernels_, [](const auto& entry) { return entry.second->unused(); });
}

std::vector<char> Session::list_contexts() {
  drop_unused_kernels();
  std::vector<char> frames;
  for (const auto& [key, kernel] : kernels_) {
    if (!kernel->used()) continue;
    wire::Writer w;
    w.bytes(kernel->language());
    w.bytes(std::string_view(key).substr(kernel->language().size() + 1));
    kernel->describe(w);
    append(frames, wire::InitReply::context, w);
  }
  append(frames, wire::InitReply::ok, {});
  return frames;
}

std::vector<char> Session::list_runs(bool commands, std::uint32_t limit) const {
  const std::uint64_t now = sys::monotonic_ns();
  std::vector<char> frames;
  for (auto id = order_.rbegin(); id != order_.rend() && limit > 0; ++id) {
    const auto run = find(*id);
    // A refused one has never run; who asked for it was told so.
    if (!run || run->refused() || run->request().is_command != commands) continue;
    wire::Writer w;
    put_summary(w, *run, now);
    append(frames, wire::InitReply::run_summary, w);
    --limit;
  }
  append(frames, wire::InitReply::ok, {});
  return frames;
}

bool Session::end_context(std::string_view language, std::string_view context, std::function<void()> gone) {
  drop_unused_kernels();
  const std::string key = std::string(language) + "/" + std::string(context);
  const auto found = kernels_.find(key);
  if (found == kernels_.end() || !found->second->used()) {
    // A retry of a deletion under way waits for the same end.
    const auto under_way = std::ranges::find(ending_, key, &Ending::key);
    if (under_way != ending_.end()) {
      under_way->waiting.push_back(std::move(gone));
      return true;
    }
    if (std::ranges::find(deleted_names_, key) == deleted_names_.end()) return false;
    gone();
    return true;
  }
  // Off the table first: a run that comes meanwhile makes a new context, and never meets this one.
  Ending& ending = ending_.emplace_back(key, std::move(found->second));
  kernels_.erase(found);
  ending.waiting.push_back(std::move(gone));
  std::erase(deleted_names_, key);
  deleted_names_.push_back(key);
  if (deleted_names_.size() > kMaxDeletedNames) deleted_names_.pop_front();
  ending.kernel->end([this, &ending] {
    // Later: the kernel is still on the stack.
    loop_.at(0, [this, &ending] {
      const auto waiting = std::move(ending.waiting);
      ending_.remove_if([&ending](const Ending& other) { return &other == &ending; });
      for (const auto& tell : waiting) tell();
    });
  });
  return true;
}

}  // namespace codespace::init
