// Inside the session manager. One mutex guards the table of sessions and what is in them; it
// is never held over a wait. Work that must not stop when its caller hangs up (creating,
// ending, runs) is a task of `work_`; what runs as long as the daemon is one of `background_`.
#pragma once

#include <atomic>
#include <boost/asio/strand.hpp>
#include <boost/asio/this_coro.hpp>
#include <map>
#include <mutex>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/async/event.h"
#include "sandbox/async/task_group.h"
#include "sandbox/manager/images.h"
#include "sandbox/manager/init_client.h"
#include "sandbox/manager/egress_client.h"
#include "sandbox/manager/launcher_client.h"
#include "sandbox/manager/pool.h"
#include "sandbox/manager/refusals.h"
#include "sandbox/manager/run_cache.h"
#include "sandbox/manager/session.h"
#include "sandbox/manager/session_manager.h"
#include "sandbox/manager/store_queue.h"
#include "sandbox/metrics/metrics.h"

namespace codespace::manager {

/// A result that outlives the wish for it.
template <class T>
struct Promised {
  async::Event ready;
  std::optional<Result<T>> value;
};

/// A run on its way to init.
struct RunStart {
  wire::RunId id{};
  std::string_view prefix;    // of its public id
  std::string language;       // empty: a command
  std::string context;        // likewise
  std::vector<char> request;  // the whole frame
  RunTimes times;
  Asked asked;
  std::optional<Claim> claim;
};

class FileLink;  // files.cpp

class SessionManager::Impl {
 public:
  Impl(boost::asio::any_io_executor executor, ManagerConfig config, Store store);

  // session_manager.cpp
  Result<void> load();
  void start_background();
  Task<Readiness> readiness();
  boost::asio::awaitable<void> measure();
  boost::asio::awaitable<void> shutdown(std::chrono::milliseconds bound);

  // sessions.cpp
  void limit_keys(std::map<std::string, KeyLimits> limits);
  [[nodiscard]] KeyLimits limits_of(const std::string& owner);
  Task<SessionInfo> create(SessionSpec spec, std::string idempotency_key);
  Task<SessionInfo> find(std::string owner, std::string session_id);
  Task<SessionPage> list(SessionQuery query);
  Task<SessionInfo> patch(std::string owner, std::string session_id, SessionPatch patch);
  Task<void> remove(std::string owner, std::string session_id);
  Task<SessionInfo> pause(std::string owner, std::string session_id);
  Task<SessionInfo> resume(std::string owner, std::string session_id);

  // runs.cpp
  Task<RunRecord> run(std::string owner, std::string session_id, RunSpec spec, TimePoint arrived);
  Task<RunRecord> command(std::string owner, std::string session_id, CommandSpec spec, TimePoint arrived);
  Task<RunRecord> find_run(std::string owner, std::string session_id, std::string run_id);
  Task<void> cancel_run(std::string owner, std::string session_id, std::string run_id);
  Task<SessionMetrics> metrics(std::string owner, std::string session_id);

  // contexts.cpp
  Task<std::vector<RunSummary>> list_runs(std::string owner, std::string session_id, bool commands, std::uint32_t limit);
  Task<std::vector<ContextInfo>> list_contexts(std::string owner, std::string session_id);
  Task<void> delete_context(std::string owner, std::string session_id, std::string language, std::string context);

  // files.cpp
  Task<std::unique_ptr<FileReader>> read_file(std::string owner, std::string session_id, std::string path,
                                              FileRange range);
  Task<std::unique_ptr<FileWriter>> write_file(std::string owner, std::string session_id, std::string path,
                                               FileWriteOptions options);
  Task<FileEntry> stat(std::string owner, std::string session_id, std::string path);
  Task<FileListing> list_files(std::string owner, std::string session_id, std::string path,
                               std::uint32_t depth);
  Task<FileListing> search_files(std::string owner, std::string session_id, std::string path, std::string pattern,
                                 std::vector<std::string> excluded);
  /// A request of init that is answered by one closing frame: mkdir, move, remove.
  Task<void> simple_file_work(std::string owner, std::string session_id, std::vector<char> request,
                              std::string path);

  ImageCatalog& images() { return images_; }
  StoreQueue& store() { return store_; }
  async::DeadlineQueue& deadlines() { return deadlines_; }

  /// Why a connection to this session's init failed, after asking the launcher whether the
  /// session still exists. Marks it ended if it does not.
  boost::asio::awaitable<Error> explain_loss(std::shared_ptr<Session> session, LinkFault fault,
                                             const char* what, bool heard);
  /// A connection to a session's init that has been sent `request`.
  Task<std::unique_ptr<InitConnection>> connect(std::shared_ptr<Session> session, std::vector<char> request,
                                                TimePoint until, const char* what);

 private:
  using SessionPtr = std::shared_ptr<Session>;

  /// Runs `work` to its end even if the caller is cancelled meanwhile.
  template <class T>
  Task<T> finish_anyway(Task<T> work) {
    auto promised = std::make_shared<Promised<T>>();  // second owner: the task
    auto executor = async::serial(co_await boost::asio::this_coro::executor);
    if (!work_.spawn(std::move(executor), deliver<T>(std::move(work), promised)))
      co_return server_error(ErrorCode::overloaded,
                             "the server is stopping; send the request again in a moment");
    co_await promised->ready.wait();
    if (!promised->value)
      co_return server_error(ErrorCode::internal, "the server stopped while this was under way; ask again");
    co_return std::move(*promised->value);
  }
  template <class T>
  static boost::asio::awaitable<void> deliver(Task<T> work, std::shared_ptr<Promised<T>> promised) {
    struct Announce {
      Promised<T>& to;
      ~Announce() { to.ready.set(); }
    };
    const Announce announce{*promised};
    promised->value.emplace(co_await std::move(work));
  }

  // session_manager.cpp
  void adopt(SessionRow row, const std::map<wire::SessionKey, wire::LauncherReply>* listed);
  void schedule_housekeeping();
  void schedule_purge();
  void save_uses();
  [[nodiscard]] boost::asio::any_io_executor new_strand() { return boost::asio::make_strand(executor_); }
  /// Writes later, in order; a failure is logged, because by then nobody waits for it.
  template <class Work>
  void write_later(Work work, const char* what) {
    store_.post([this, work = std::move(work), what](Store& store) mutable {
      if (const Result<void> done = work(store); !done) log_failure(what, done.error());
    });
  }
  void log_failure(const char* what, const Error& error);

  // sessions.cpp
  Task<SessionInfo> create_now(SessionRow row, wire::Flavour flavour, bool javascript, std::optional<Claim> claim);
  Task<SessionInfo> settled_info(wire::SessionKey key);
  /// Pauses (`to` is paused) or resumes (`to` is running).
  Task<SessionInfo> switch_to(SessionPtr session, SessionStatus to);
  Result<bool> begin_switch(const SessionPtr& session, SessionStatus to);
  void drop_reservation(const SessionPtr& session);
  Task<ImageInfo> find_image(std::string name);
  /// Now, but later than the creation before it, so that a list is in the order of creation.
  std::int64_t next_creation_ms();
  Result<SessionPtr> reserve(const SessionRow& row);
  /// In memory and of this owner; null otherwise.
  SessionPtr find_live(const std::string& owner, const wire::SessionKey& key);
  /// The error for a session that is not live: ended, or never seen by this owner.
  boost::asio::awaitable<Error> explain_absence(std::string owner, std::string session_id);
  Task<SessionPtr> get_live(std::string owner, std::string session_id);
  /// A session that can be talked to now, kept from idling away while the Use lives.
  Task<Use> use(std::string owner, std::string session_id);
  Result<SessionPage> list_live(const SessionQuery& query);

  // endings.cpp
  Task<void> end_session(SessionPtr session, EndReason reason);
  /// The last step of every session's life. Any thread; the first caller's reason counts,
  /// but for one already `ending`, whose reason is fixed.
  void mark_ended(const SessionPtr& session, EndReason reason);
  void schedule_expiry(const SessionPtr& session);  // with the mutex held
  void on_expiry(const SessionPtr& session);
  void end_in_background(const SessionPtr& session, EndReason reason);

  // watch.cpp
  boost::asio::awaitable<void> watch_launcher();
  boost::asio::awaitable<void> reconcile();
  void on_ended(const wire::LauncherReply& reply);
  /// The launcher's answer about one session, with a short patience.
  Task<wire::LauncherReply> ask_launcher(wire::LauncherOp op, wire::SessionKey key,
                                         std::chrono::seconds patience);

  // network.cpp
  /// Lets the egress proxy serve the session, whose init must be there.
  Task<void> open_way_out(wire::SessionKey key, std::string session_id, Network network);
  boost::asio::awaitable<void> open_all_ways_out();
  boost::asio::awaitable<void> watch_egress();

  // watch.cpp
  boost::asio::awaitable<void> keep_pools();

  // runs.cpp
  /// Before the first run of a session: if its code will want the big libraries, has a kernel
  /// forked that has them. Does nothing, and costs nothing, for any other run.
  boost::asio::awaitable<void> choose_kernel(SessionPtr session, const RunSpec& spec);
  [[nodiscard]] std::string socket_path(const wire::SessionKey& key) const;
  Task<RunRecord> start_run(std::shared_ptr<const Use> use, RunStart start);
  void count_run(RunState& state);
  boost::asio::awaitable<void> drive_run(std::shared_ptr<const Use> use, std::shared_ptr<RunState> state,
                                         RunStart start, bool attach);
  boost::asio::awaitable<std::optional<Error>> collect_run(SessionPtr session, RunState& state,
                                                           RunStart& start, bool attach);
  bool end_as_cancelled(const SessionPtr& session, RunState& state, TimePoint began);

  // contexts.cpp
  template <class T, class Decode>
  Task<std::vector<T>> ask_list(SessionPtr session, std::vector<char> request, wire::InitReply item, std::size_t most,
                                const char* what, Decode decode);

  // files.cpp
  Task<FileLink> open_file_link(std::string owner, std::string session_id, std::vector<char> request,
                                Asked asked, const char* what);

  const boost::asio::any_io_executor executor_;
  const ManagerConfig config_;
  ImageCatalog images_;
  RunCache runs_;
  IdleLinks idle_links_;

  mutable std::mutex mutex_;
  std::map<wire::SessionKey, SessionPtr> sessions_;  // every one that has not ended
  std::map<std::string, KeyLimits> key_limits_;  // of owners that have some
  std::int64_t last_creation_ms_ = 0;

  std::atomic<bool> launcher_up_{false};
  async::DeadlineQueue deadlines_;
  LauncherClient launcher_;
  EgressClient egress_;
  std::atomic<bool> egress_up_{false};
  PoolPolicy pool_policy_;
  async::TaskGroup work_;
  async::TaskGroup background_;
  async::Deadline housekeeping_;
  async::Deadline purge_;
  StoreQueue store_;  // last: joined first, while what its jobs use is still there
};

// Killing waits for the kernel to tear down namespaces, which is slow when many die at once.
inline constexpr std::chrono::seconds kKillPatience{30};

/// Fires the event when the coroutine that holds this leaves, whichever way.
struct Over {
  std::shared_ptr<async::Event> event;
  ~Over() { event->set(); }
};

/// Of Session::attempt and Session::switching.
inline bool under_way(const std::shared_ptr<async::Event>& event) { return event && !event->is_set(); }

/// One row of the launcher's list as a status of ours.
inline SessionStatus status_of(const wire::LauncherReply& reply) {
  return reply.paused != 0 ? SessionStatus::paused : SessionStatus::running;
}

}  // namespace codespace::manager
