// Uses and expiry of one session.
#include "sandbox/manager/session.h"

#include <algorithm>

#include "sandbox/sys/clock.h"

namespace codespace::manager {
namespace {

using async::TimePoint;

TimePoint last_used(const Session& session) {
  return TimePoint(
      std::chrono::duration_cast<TimePoint::duration>(std::chrono::nanoseconds(session.last_used_ns.load())));
}

/// A paused session was put aside on purpose, so only its lifetime counts.
bool may_idle(const Session& session) {
  return session.info.idle_timeout.count() > 0 && session.info.status != SessionStatus::paused;
}

}  // namespace

Session::Session(const wire::SessionKey& session_key, SessionInfo session_info)
    : key(session_key), info(std::move(session_info)) {
  // Rows of an earlier life carry wall time; their ages are carried over to the steady clock.
  const std::int64_t now_ms = sys::wall_ms();
  const auto steady = std::chrono::steady_clock::now();
  const auto ago = [&](std::int64_t at_ms) {
    return steady - std::chrono::milliseconds(std::max<std::int64_t>(0, now_ms - at_ms));
  };
  created = ago(info.created_at_ms);
  last_used_ms = info.last_used_at_ms;
  last_used_ns = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(ago(info.last_used_at_ms).time_since_epoch())
          .count());
}

void Session::touch() {
  last_used_ns = sys::monotonic_ns();
  last_used_ms = sys::wall_ms();
  unsaved_use = true;
}

Use::Use(std::shared_ptr<Session> session) : session_(std::move(session)) {
  ++session_->in_flight;
  session_->touch();
}

Use::~Use() {
  if (!session_) return;
  session_->touch();
  --session_->in_flight;
}

SessionInfo snapshot(const Session& session) {
  SessionInfo info = session.info;
  info.last_used_at_ms = session.last_used_ms;
  if (may_idle(session)) {
    const std::int64_t from = session.in_flight > 0 ? sys::wall_ms() : info.last_used_at_ms;
    info.expires_at_ms = from + std::chrono::milliseconds(info.idle_timeout).count();
  }
  if (info.max_lifetime.count() > 0) {
    const std::int64_t end = info.created_at_ms + std::chrono::milliseconds(info.max_lifetime).count();
    info.expires_at_ms = std::min(info.expires_at_ms.value_or(end), end);
  }
  return info;
}

std::optional<TimePoint> next_expiry(const Session& session, TimePoint now) {
  std::optional<TimePoint> at;
  if (may_idle(session)) at = (session.in_flight > 0 ? now : last_used(session)) + session.info.idle_timeout;
  if (session.info.max_lifetime.count() > 0) {
    const TimePoint end = session.created + session.info.max_lifetime;
    at = std::min(at.value_or(end), end);
  }
  return at;
}

EndReason expired(const Session& session, TimePoint now) {
  if (session.info.max_lifetime.count() > 0 && now >= session.created + session.info.max_lifetime)
    return EndReason::lifetime;
  if (may_idle(session) && session.in_flight == 0 && now >= last_used(session) + session.info.idle_timeout)
    return EndReason::idle;
  return EndReason::none;
}

}  // namespace codespace::manager
