// The log of a run: framing, caps and the closing facts.
#include "sandbox/init/run.h"

#include <algorithm>

namespace codespace::init {

void Run::append(wire::InitReply type, const wire::Writer& payload) {
  const std::vector<char> frame = payload.frame(static_cast<std::uint32_t>(type));
  log_.insert(log_.end(), frame.begin(), frame.end());
  changed();
}

void Run::changed() {
  // A listener may detach, and destroy its own function, while it is told: work on copies.
  const auto current = listeners;
  for (const auto* listener : current) {
    const auto call = *listener;
    call();
  }
}

void Run::accept(std::uint32_t queue_position) {
  wire::Writer w;
  w.u32(queue_position);
  w.bytes(request_.language);
  w.bytes(request_.context);
  append(wire::InitReply::accepted, w);
}

void Run::add_output(std::uint8_t stream, std::string_view bytes) {
  if (finished_ || bytes.empty()) return;
  (stream == 1 ? done.stdout_bytes : done.stderr_bytes) += bytes.size();
  const std::uint64_t room = request_.stream_cap - std::min<std::uint64_t>(kept_[stream], request_.stream_cap);
  if (bytes.size() > room) {
    done.flags |= stream == 1 ? wire::kStdoutTruncated : wire::kStderrTruncated;
    bytes = bytes.substr(0, room);
  }
  if (bytes.empty()) return;
  kept_[stream] += bytes.size();
  wire::Writer w;
  w.u8(stream);
  w.raw(bytes);
  append(wire::InitReply::output, w);
}

void Run::add_result(std::string_view payload) {
  if (finished_) return;
  // Strict schema: what does not parse is the tenant's forgery and is dropped.
  wire::Reader r({payload.data(), payload.size()});
  (void)r.u8();
  const std::uint32_t count = r.u32();
  if (count == 0 || count > 64) return;
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) {
    (void)r.bytes();
    (void)r.bytes();
  }
  if (!r.done()) return;
  if (results_ >= kMaxResults || result_bytes_ + payload.size() > kMaxResultBytes) {
    done.flags |= wire::kResultsTruncated;
    return;
  }
  ++results_;
  result_bytes_ += payload.size();
  wire::Writer w;
  w.raw(payload);
  append(wire::InitReply::result, w);
}

void Run::add_error(std::string_view payload) {
  if (finished_ || errored) return;
  wire::Reader r({payload.data(), payload.size()});
  (void)r.bytes();
  (void)r.bytes();
  const std::uint32_t count = r.u32();
  if (count > 4096) return;
  for (std::uint32_t i = 0; i < count && r.ok(); ++i) (void)r.bytes();
  if (!r.done() || payload.size() > (1U << 20)) return;
  errored = true;
  wire::Writer w;
  w.raw(payload);
  append(wire::InitReply::error, w);
}

void Run::finish() {
  if (finished_) return;
  wire::Writer w;
  w.u8(static_cast<std::uint8_t>(done.outcome));
  w.u8(static_cast<std::uint8_t>(done.killed_by));
  w.u8(done.flags);
  w.u32(static_cast<std::uint32_t>(done.exit_code + 1));
  w.u32(done.signal);
  w.u64(done.stdout_bytes);
  w.u64(done.stderr_bytes);
  w.u32(done.execution_count);
  w.u64(done.queue_ns);
  w.u64(done.spawn_ns);
  w.u64(done.run_ns);
  w.u64(done.collect_ns);
  w.u64(done.cpu_ns);
  w.u64(done.memory_peak_bytes);
  w.u32(done.pids_peak);
  w.i64(done.started_wall_ms);
  w.u8(static_cast<std::uint8_t>(done.kernel_origin));
  finished_ = true;
  if (on_finished) on_finished(*this);
  append(wire::InitReply::done, w);
}

void Run::refuse(wire::Refusal why, int sys_errno, wire::Stage stage, std::string_view detail) {
  if (finished_) return;
  wire::Writer w;
  w.u32(static_cast<std::uint32_t>(why));
  w.u32(static_cast<std::uint32_t>(sys_errno));
  w.u32(static_cast<std::uint32_t>(stage));
  w.bytes(detail);
  finished_ = true;
  refused_ = true;
  append(wire::InitReply::refused, w);
}

}  // namespace codespace::init
