// Sessions made before anybody asks: complete, confined, with their kernels waiting, and
// without an owner. What makes one a particular session, its name and its limits, is set
// when it is handed over. Nobody's code ever ran in a pooled session.
#include <errno.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "sandbox/launcher/sessions.h"
#include "sandbox/sys/clock.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::launcher {
namespace {

using wire::LauncherReply;
using wire::LauncherStatus;
using wire::Stage;

constexpr std::uint64_t kPauseAfterFailureNs = sys::kNsPerSecond;

long fsconfig(int fd, unsigned command, const char* key, const char* value) {
  return ::syscall(SYS_fsconfig, fd, command, key, value, 0);
}

/// Resizes a tmpfs through the context its child took of it (fspick(2)).
bool resize(const sys::UniqueFd& disk, std::uint64_t bytes, std::uint64_t inodes) {
  return fsconfig(disk.get(), FSCONFIG_SET_STRING, "size", sys::Decimal(bytes).c_str()) == 0 &&
         fsconfig(disk.get(), FSCONFIG_SET_STRING, "nr_inodes", sys::Decimal(inodes).c_str()) == 0 &&
         fsconfig(disk.get(), FSCONFIG_CMD_RECONFIGURE, nullptr, nullptr) == 0;
}

bool same_disks(const wire::SessionLimits& a, const wire::SessionLimits& b) {
  return a.workspace_bytes == b.workspace_bytes && a.scratch_bytes == b.scratch_bytes && a.inodes == b.inodes;
}

}  // namespace

LauncherReply Sessions::set_pool(const wire::LauncherRequest& request) {
  LauncherReply reply = reply_with(LauncherStatus::ok, request.session);
  const auto bad = [&] {
    reply.status = LauncherStatus::bad_request;
    return reply;
  };
  if (!limits_permitted(request.limits) || request.flavour > wire::Flavour::data || request.count > wire::kMaxPooled ||
      (request.ahead & ~wire::kAheadJavascript) != 0)
    return bad();
  Pool* pool = nullptr;
  for (Pool& other : pools_) {
    if (other.image == request.image && other.flavour == request.flavour && other.ahead == request.ahead) pool = &other;
  }
  if (pool == nullptr) {
    if (pools_.size() >= wire::kMaxPools) return bad();
    if (!templates_.ensure(request.image)) {
      reply.status = LauncherStatus::unknown_image;
      return reply;
    }
    pool = &pools_.emplace_back();
    pool->image = request.image;
    pool->flavour = request.flavour;
    pool->ahead = request.ahead;
  }
  const bool changed = !same_disks(pool->limits, request.limits) || !same_resources(pool->limits, request.limits);
  pool->limits = request.limits;
  pool->count = request.count;
  std::uint32_t kept = 0;
  for (auto& [lease, session] : busy_) {
    const bool ours = (session->state == SessionState::pooled || session->state == SessionState::warming) && !session->bare &&
                      session->image == pool->image && session->flavour == pool->flavour && session->wants_ahead == pool->ahead;
    if (ours && (changed || kept++ >= pool->count)) kill(*session);
  }
  reply.pool_ready = count_pooled(*pool, true);
  (void)zygotes_.ready(pool->image, pool->flavour);
  return reply;
}

std::uint32_t Sessions::count_pooled(const Pool& pool, bool ready_only) const {
  std::uint32_t n = 0;
  for (const auto& [lease, session] : busy_) {
    const bool counts = session->state == SessionState::pooled || (!ready_only && session->state == SessionState::warming);
    n += counts && session->bare == pool.bare && session->image == pool.image && session->flavour == pool.flavour &&
                 session->wants_ahead == pool.ahead
             ? 1
             : 0;
  }
  return n;
}

/// The next creation is mostly like those before: an image that was asked for twice in a row is
/// the usual one, of which bare sessions are kept.
void Sessions::learn(const wire::LauncherRequest& request) {
  if (last_image_ != std::exchange(last_image_, request.image)) return;
  const auto seen = [](const wire::SessionLimits& l) { return processors_for(l.cpu_milli, 0).count; };
  const bool changed = bare_.image != request.image || seen(bare_.limits) != seen(request.limits);
  bare_.image = request.image;
  bare_.limits = request.limits;
  bare_.count = kBare;
  bare_.bare = true;
  if (!changed) return;
  for (auto& [lease, session] : busy_) {
    if (session->bare && (session->state == SessionState::pooled || session->state == SessionState::warming)) kill(*session);
  }
}

/// Begins one session of the first pool that lacks one. True if it did, or waits to.
bool Sessions::fill_pools() {
  for (Pool& pool : pools_) {
    if (fill(pool)) return true;
  }
  return fill(bare_);
}

bool Sessions::fill(Pool& pool) {
  if (count_pooled(pool, false) >= pool.count) return false;
  if (pool.bare && leases_.leased() > leases_.capacity() / 2) return false;  // the ids are for those who ask
  const std::uint64_t now = sys::monotonic_ns();
  // Worth waiting for: a session made now would have no kernel.
  if (!pool.bare && !zygotes_.ready(pool.image, pool.flavour) && zygotes_.starting(pool.image, pool.flavour)) return true;
  if (now < pool.not_before_ns) return true;
  for (auto& [lease, session] : busy_) {
    if (session->state != SessionState::spare) continue;
    if (session->template_generation < templates_.made_at(pool.image)) {
      kill(*session);  // it was cloned before the image's template existed; the next one was not
      continue;
    }
    wire::LauncherRequest request;
    request.image = pool.image;
    request.flavour = pool.flavour;
    request.ahead = pool.ahead;
    request.limits = pool.limits;
    session->bare = pool.bare;
    Stage stage = Stage::none;
    if (auto assigned = assign(*session, request, true, stage); !assigned) {
      ::fprintf(stderr, "<4>no session could be made for the pool stage=%u errno=%d what=\"%s\"\n",
                static_cast<unsigned>(stage), assigned.error().sys_errno, assigned.error().what.c_str());
      pool.not_before_ns = now + kPauseAfterFailureNs;
      kill(*session);
    }
    return true;
  }
  return true;  // a spare is on its way, or the ids are used up
}

/// Gives a ready session to a request: one of its pool, or else one with other interpreters ahead, or a bare one.
/// False: there is none that fits.
bool Sessions::take_pooled(const wire::LauncherRequest& request) {
  return take_pooled(request, request.ahead, false) || take_pooled(request, request.ahead ^ wire::kAheadJavascript, false) ||
         take_pooled(request, 0, true);
}

bool Sessions::take_pooled(const wire::LauncherRequest& request, std::uint32_t ahead, bool bare) {
  for (auto& [lease, owned] : busy_) {
    Session& session = *owned;
    if (session.state != SessionState::pooled || session.bare != bare || session.wants_ahead != ahead || session.image != request.image)
      continue;
    if (!bare && session.flavour != request.flavour) continue;
    if (processors_for(session.limits.cpu_milli, 0).count != processors_for(request.limits.cpu_milli, 0).count) continue;  // its kernels have counted
    if (auto handed = hand_over(session, request); !handed) {
      ::fprintf(stderr, "<4>a pooled session could not be handed over errno=%d what=\"%s\"\n", handed.error().sys_errno,
                handed.error().what.c_str());
      kill(session);
      continue;
    }
    LauncherReply reply = identify(session);
    reply.origin = wire::Origin::pool;
    if (bare) {
      session.flavour = request.flavour;
      warm_up(session);
      reply.origin = session.join.connection ? wire::Origin::zygote : wire::Origin::cold;
    }
    for (const Pool& pool : pools_) {
      if (pool.image == request.image && pool.flavour == request.flavour && pool.ahead == ahead) reply.pool_ready = count_pooled(pool, true);
    }
    on_created(session.key, reply);
    return true;
  }
  return false;
}

Result<void> Sessions::hand_over(Session& session, const wire::LauncherRequest& request) {
  const wire::SessionLimits& l = request.limits;
  if (!same_resources(session.limits, l)) {
    if (auto limited = cgroups_.limit(session.group, l); !limited) return limited;
  }
  if (!same_disks(session.limits, l)) {
    const std::uint64_t sizes[] = {l.workspace_bytes, l.scratch_bytes, l.scratch_bytes, l.scratch_bytes};
    for (std::size_t i = 0; i < session.disks.size(); ++i) {
      if (!resize(session.disks[i], sizes[i], l.inodes)) return sys_error(errno, "resize a pooled session's disk");
    }
  }
  const std::string before = socket_of(session.name);
  const std::string hex = hex_of(request.session);
  if (::rename(before.c_str(), socket_of(hex).c_str()) != 0) return sys_error(errno, "rename " + before);
  session.name = hex;
  for (sys::UniqueFd& disk : session.disks) disk.reset();
  session.key = request.session;
  session.limits = l;
  session.created_wall_ms = sys::wall_ms();
  session.state = SessionState::running;
  by_key_.emplace(session.key, &session);
  return {};
}

}  // namespace codespace::launcher
