// The launcher's table of sessions and everything done to them: create, kill, freeze,
// count, and the tidying after an end; the pool of sessions made before they are asked for
// (pool.cpp), and the kernels made ready in a session (warm_up.cpp). Single-threaded; nothing
// here blocks for longer than a system call, waits are events of the loop in main.cpp.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sandbox/launcher/cgroup.h"
#include "sandbox/launcher/id_lease.h"
#include "sandbox/launcher/image_templates.h"
#include "sandbox/launcher/zygotes.h"
#include "sandbox/sys/affinity.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"
#include "sandbox/wire/setup_protocol.h"

namespace codespace::launcher {

/// preparing -> spare -> starting -> running -> ending
///                    -> warming -> pooled -> running
/// `starting` and `running` belong to a request; the states before them to none yet.
enum class SessionState { preparing, spare, warming, pooled, starting, running, ending };

/// Children kept ready in their namespaces and control groups, so that a creation waits for
/// neither a network namespace nor, on v2, the kernel's grace period of a cgroup move.
inline constexpr std::size_t kSpares = 2;

/// Sessions kept complete but for a kernel, of the usual image: a creation that no pool serves
/// finds its mounts and its init there and waits for nothing but its kernel.
inline constexpr std::uint32_t kBare = 2;

/// What a fork into a session usually takes, many times over.
inline constexpr std::uint64_t kUsualJoinNs = 50'000'000;

/// A kernel that is being made ready in a session: a conversation with the session's init.
struct WarmUp {
  sys::UniqueFd connection;              // open until init said that the kernel is there, or will not be
  std::array<sys::UniqueFd, 3> ends;     // the driver's: control, stdout, stderr; until they went to a zygote
  std::vector<sys::UniqueFd> entrances;  // of the kernel's control groups, likewise
  wire::Flavour flavour{};               // none: not known before the session is handed over
  bool asked = false;                    // a request of the gateway waits for it
  std::uint64_t unlimited_since_ns = 0;  // the zygote was asked, and init does not count the time yet
};

/// What of a session's limits is in its control groups.
/// What a session with this quota gets to see of the host's processors.
sys::Processors processors_for(std::uint32_t cpu_milli, std::uint32_t lease);

inline bool same_resources(const wire::SessionLimits& a, const wire::SessionLimits& b) {
  return a.memory_bytes == b.memory_bytes && a.cpu_milli == b.cpu_milli && a.pids == b.pids;
}

struct Session {
  wire::SessionKey key{};          // while a request owns it
  std::string name;                // of its socket: hex of the key, or the pool's own
  std::string group;               // name in Cgroups, by lease
  std::uint64_t image = 0;
  wire::SessionLimits limits;      // whose resources (same_resources) are in the control groups
  std::uint32_t lease = 0;
  SessionState state = SessionState::preparing;
  std::uint64_t template_generation = 0;
  bool limited = false;           // the control groups hold `limits`
  bool paused = false;
  bool frozen = false;            // paused, or a pause or resumption failed half way
  std::uint64_t posture_digest = 0;
  std::int64_t created_wall_ms = 0;
  std::uint64_t setup_deadline_ns = 0;
  pid_t pid = -1;                 // only to write its id maps; everything else goes by pidfd
  sys::UniqueFd pidfd;
  sys::UniqueFd channel;          // to the child, until init is ready
  WarmUp join;                    // a kernel from a zygote
  WarmUp ahead;                   // a kernel that init starts before anybody asks
  wire::Flavour flavour{};
  wire::Flavour next{};           // asked for while another kernel was on its way
  std::uint32_t wants_ahead = 0;  // wire::kAhead... bits
  bool bare = false;              // made by the launcher's own choice, for whatever flavour is asked for
  std::array<sys::UniqueFd, 4> disks;  // pooled: contexts to resize the writable file systems with
  bool reaped = false;
  wire::LauncherReply end;        // facts of the end, once reaped
};

class Sessions {
 public:
  /// `status_ok`, `ended`, `setup_failed`... for the one who asked and for the watchers.
  using Notify = std::function<void(const wire::SessionKey&, const wire::LauncherReply&)>;

  Sessions(Cgroups& cgroups, std::uint32_t id_count, sys::UniqueFd init_program, sys::UniqueFd seccomp,
           sys::UniqueFd zygote_library);

  /// Called when a creation finishes, one way or the other.
  Notify on_created;
  /// Called when nothing of a session is left.
  Notify on_gone;
  /// Called when a kernel that was asked for is being forked, or will not be.
  Notify on_kernel;

  /// Starts a creation; the outcome comes by on_created. A reply at once if it is refused.
  std::optional<wire::LauncherReply> create(const wire::LauncherRequest& request);
  /// Starts the end of a session; its outcome comes by on_gone.
  void kill(Session& session);
  [[nodiscard]] wire::LauncherReply freeze(Session& session, bool frozen);
  /// What a session is; describe() adds what it uses.
  [[nodiscard]] wire::LauncherReply identify(const Session& session) const;
  [[nodiscard]] wire::LauncherReply describe(const Session& session);
  /// The session with this key, from its assignment to its end.
  Session* find(const wire::SessionKey& key);
  /// True if a creation with this key waits for a prepared child; then it is cancelled.
  bool cancel_pending(const wire::SessionKey& key);
  using Table = std::map<std::uint32_t, std::unique_ptr<Session>>;  // by lease
  /// Those that something may happen to at any time: being made, pooled, or ending.
  [[nodiscard]] const Table& busy() const { return busy_; }
  /// Those that just run. Of them only the end is heard, through quiet_events().
  [[nodiscard]] const Table& quiet() const { return quiet_; }
  /// Readable when the init of a quiet session has ended; then call on_quiet_events().
  [[nodiscard]] int quiet_events() const { return quiet_events_.get(); }
  void on_quiet_events();
  /// Moves those that just run by now out of the way of every other step.
  void put_to_rest();
  [[nodiscard]] Session* at(std::uint32_t lease);

  /// Sets how many sessions of a kind are kept ready.
  [[nodiscard]] wire::LauncherReply set_pool(const wire::LauncherRequest& request);
  /// Starts to fork a kernel into a session where nothing of the tenant ran yet; the outcome
  /// comes by on_kernel. False: refused at once.
  bool fork_kernel(Session& session, wire::Flavour flavour);
  [[nodiscard]] Zygotes& zygotes() { return zygotes_; }

  /// Events of the loop: a child's report, init about a kernel, the end of an init, time passing.
  void on_channel(Session& session);
  void on_warm_up(Session& session, WarmUp& warm_up);
  void on_exit(Session& session);
  void on_tick();
  /// Prepares children until kSpares are on the way, and refills the pools by one session;
  /// called when no request is waiting. True if there is more to do.
  bool replenish();
  /// Ends everything; the launcher stops.
  void kill_all();
  /// True while something waits for time to pass (a set-up deadline, a group that is not yet empty).
  [[nodiscard]] bool needs_tick() const;
  /// True while a kernel is on its way into a bare session; limit_joins() is to be called in a moment.
  [[nodiscard]] bool has_unlimited_joins() const;

 private:
  struct Pool {
    std::uint64_t image = 0;
    wire::Flavour flavour{};
    std::uint32_t ahead = 0;
    wire::SessionLimits limits;
    std::uint32_t count = 0;
    bool bare = false;                // the launcher's own, not one of the gateway's
    std::uint64_t not_before_ns = 0;  // after a session for it could not be made
  };

  Result<void> prepare(wire::Stage& stage);
  void back_off();
  void on_joined(Session& session);
  void assign_pending();
  Result<void> assign(Session& session, const wire::LauncherRequest& request, bool pooled, wire::Stage& stage);
  void learn(const wire::LauncherRequest& request);
  bool fill_pools();
  bool fill(Pool& pool);
  std::uint32_t count_pooled(const Pool& pool, bool ready_only) const;
  bool take_pooled(const wire::LauncherRequest& request);
  bool take_pooled(const wire::LauncherRequest& request, std::uint32_t ahead, bool bare);
  Result<void> hand_over(Session& session, const wire::LauncherRequest& request);
  void warm_up(Session& session);
  bool begin_join(Session& session, wire::Flavour flavour);
  bool begin_ahead(Session& session, std::string_view language);
  bool open_entrances(Session& session, std::string_view group);
  bool forward(Session& session);
  void settle_warm_up(Session& session, WarmUp& warm_up, bool there);
  Result<sys::UniqueFd> listen(const Session& session, wire::Stage& stage);
  void limit_joins(std::uint64_t now);
  void close_ways_in() const;
  Result<void> clone_child(Session& session, wire::Stage& stage);
  void refuse(const wire::LauncherRequest& request, wire::Stage stage, const Error& error);
  void fail_pending(wire::Stage stage, int sys_errno);
  void finish_creation(Session& session, wire::LauncherReply reply);
  void tell_end(const Session& session);
  bool try_remove(Session& session);

  Cgroups& cgroups_;
  unsigned prepare_failures_ = 0;  // since a session last came to life
  std::uint64_t prepare_not_before_ns_ = 0;
  IdLeases leases_;
  ImageTemplates templates_;
  sys::UniqueFd init_program_;
  sys::UniqueFd seccomp_;
  Zygotes zygotes_;
  std::vector<Pool> pools_;
  Pool bare_;                                // count 0 until an image is the usual one
  std::optional<std::uint64_t> last_image_;  // of the last creation
  void rouse(Session& session);

  Table busy_;
  Table quiet_;
  sys::UniqueFd quiet_events_;  // epoll(7) over the pidfds of quiet sessions
  std::map<wire::SessionKey, Session*> by_key_;
  std::deque<wire::LauncherRequest> pending_;                // creations that wait for a child
  std::optional<wire::SessionLimits> usual_;                 // of the last creation: the next is mostly like it
};

/// Where the init of the session of this name listens.
std::string socket_of(const std::string& name);

/// Lower-case hex of a session key: the name of its socket.
std::string hex_of(const wire::SessionKey& key);

/// A reply about a session.
wire::LauncherReply reply_with(wire::LauncherStatus status, const wire::SessionKey& key);

/// True if every value is within wire::kMinLimits and kMaxLimits. Checked here again although
/// the gateway checked it: it may be taken over.
bool limits_permitted(const wire::SessionLimits& limits);

/// Closes the descriptors of a message nobody wanted, or hands them over: as many as fit.
std::size_t take_descriptors(const msghdr& message, std::span<sys::UniqueFd> into);

}  // namespace codespace::launcher
