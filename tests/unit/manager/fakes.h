// A launcher and inits that speak the real wire protocol over real sockets in a temporary
// directory, without any privilege. What an init does with a run is told by the run's code.
#pragma once

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "sandbox/manager/session_manager.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/codec.h"
#include "sandbox/wire/init_protocol.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::test {

/// A directory that is gone afterwards.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  [[nodiscard]] std::string path() const { return path_; }

 private:
  std::string path_;
};

/// Listens on a unix socket and gives each connection a thread.
class SocketServer {
 public:
  using Handler = std::function<void(int fd)>;
  SocketServer(const std::string& path, int type, Handler handler);
  ~SocketServer();

 private:
  void accept_all();
  std::string path_;
  Handler handler_;
  sys::UniqueFd listener_;
  std::mutex mutex_;
  std::vector<int> open_;
  std::vector<std::thread> handlers_;
  std::atomic<bool> stopping_{false};
  std::thread acceptor_;
};

/// What a fake init remembers of a run: its frames, and whether it is done.
struct FakeRun {
  std::vector<char> log;
  bool finished = false;
  int starts = 0;
};

/// Behaviour by the code of a run, or the text of a command:
///   print X            accepted, stdout X, done
///   result             accepted, a result, an error, done
///   hang               accepted, stdout "so far", and no end
///   refuse N E         refused with Refusal N and errno E
///   raw oversize|truncated|wrongtype|garbage_done|silent|chatty   hostile answers
class FakeInit {
 public:
  explicit FakeInit(const std::string& socket_path);
  std::map<wire::RunId, FakeRun> runs();
  std::map<std::string, std::string> files();
  std::uint64_t last_deadline_ns = 0, last_kill_by_ns = 0;
  std::map<std::string, std::string> last_env;
  /// Ends the run that hangs, as an honest init does.
  void finish(const wire::RunId& id);
  std::atomic<bool> hostile_lists{false};  // values outside of their sets
  std::atomic<bool> keeps_connections{true};  // after a run; an older init does not
  std::atomic<int> connections{0};

 private:
  void serve(int fd);
  /// True: a run that was told to its end, so another request may follow.
  bool serve_one(int fd, std::uint32_t type, std::span<const char> payload);
  bool start(int fd, wire::Reader reader, bool command);
  void attach(int fd, wire::Reader reader);
  void list_runs(int fd, wire::Reader reader);
  void write_file(int fd, wire::Reader reader);
  void read_file(int fd, wire::Reader reader);
  bool act(int fd, const wire::RunId& id, const std::string& code, const std::string& language);

  std::mutex mutex_;
  std::map<wire::RunId, FakeRun> runs_;
  std::map<std::string, std::string> files_;
  std::unique_ptr<SocketServer> server_;
};

class FakeLauncher {
 public:
  explicit FakeLauncher(std::string runtime_dir);
  ~FakeLauncher();

  /// Away: the socket is gone, sessions go on.
  void go_away();
  void come_back();
  /// The init of the session ended by itself.
  void lose(const wire::SessionKey& key, int exit_signal, std::uint64_t oom_kills);
  /// As after a reboot: the session is gone and nobody says so.
  void forget(const wire::SessionKey& key);
  void add(const wire::SessionKey& key);
  bool has(const wire::SessionKey& key);
  std::shared_ptr<FakeInit> init_of(const wire::SessionKey& key);
  std::size_t count();

  std::atomic<wire::LauncherStatus> create_status{wire::LauncherStatus::ok};
  std::atomic<int> creates{0};
  std::atomic<int> watchers{0};
  std::atomic<int> connections{0};
  std::atomic<int> lists{0};  // asked for so far: a manager that took stock

 private:
  struct Live {
    wire::LauncherReply info;
    std::shared_ptr<FakeInit> init;
  };
  void serve(int fd);
  bool serve_one(int fd, const wire::LauncherRequest& request);
  wire::LauncherReply handle(const wire::LauncherRequest& request);

  const std::string runtime_dir_;
  std::mutex mutex_;
  std::map<wire::SessionKey, Live> live_;
  std::vector<int> watching_;
  std::unique_ptr<SocketServer> server_;
};

/// A running io_context and a manager on it, over fakes.
class World {
 public:
  World();
  ~World();

  /// A fresh manager over the same state directory, as after a restart of the daemon.
  void restart();
  void stop_manager();
  void start_manager();

  template <class T>
  T run(boost::asio::awaitable<T> task) {
    return boost::asio::co_spawn(io, std::move(task), boost::asio::use_future).get();
  }
  manager::SessionInfo create(manager::SessionSpec spec = {});
  Result<manager::RunRecord> python(const std::string& session, const std::string& code,
                                    std::string key = "");
  wire::SessionKey key_of(const std::string& session_id);
  std::shared_ptr<FakeInit> init_of(const std::string& session_id);
  /// Waits, with a generous bound, until `condition` holds.
  static bool eventually(const std::function<bool()>& condition);

  TempDir dir;
  manager::ManagerConfig config;
  boost::asio::io_context io;
  std::unique_ptr<FakeLauncher> launcher;
  std::unique_ptr<manager::SessionManager> manager;

 private:
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::vector<std::thread> threads_;
};

}  // namespace codespace::test
