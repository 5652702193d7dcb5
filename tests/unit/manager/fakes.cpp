// The fakes' side of the wire. Blocking and threaded, so that it shares nothing with the code under test.
#include "tests/unit/manager/fakes.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <sstream>
#include <stdexcept>

#include "sandbox/manager/session_id.h"
#include "sandbox/sys/clock.h"

namespace codespace::test {

namespace fs = std::filesystem;
using wire::InitReply;
using wire::InitRequest;
using wire::LauncherReply;
using wire::LauncherStatus;
using wire::Writer;

namespace {

bool send_all(int fd, const std::vector<char>& bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    const ssize_t n = ::send(fd, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

bool read_all(int fd, char* to, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::recv(fd, to, size, 0);
    if (n <= 0) return false;
    to += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

struct Request {
  std::uint32_t type = 0;
  std::vector<char> payload;
};

std::optional<Request> read_request(int fd) {
  wire::FrameHeader header;
  if (!read_all(fd, reinterpret_cast<char*>(&header), sizeof header)) return std::nullopt;
  Request request{header.type, std::vector<char>(header.length)};
  if (!read_all(fd, request.payload.data(), request.payload.size())) return std::nullopt;
  return request;
}

std::vector<char> frame(InitReply type, const Writer& writer = {}) {
  return writer.frame(static_cast<std::uint32_t>(type));
}

wire::RunId read_id(wire::Reader& reader) {
  wire::RunId id{};
  for (auto& byte : id) byte = reader.u8();
  return id;
}

std::vector<char> accepted(const std::string& language) {
  Writer writer;
  writer.u32(0);
  writer.bytes(language);
  return frame(InitReply::accepted, writer);
}

std::vector<char> output(std::uint8_t stream, std::string_view text) {
  Writer writer;
  writer.u8(stream);
  writer.raw(text);
  return frame(InitReply::output, writer);
}

std::vector<char> done(wire::Outcome outcome, std::uint64_t stdout_bytes) {
  Writer writer;
  writer.u8(static_cast<std::uint8_t>(outcome));
  writer.u8(0);
  writer.u8(0);
  writer.u32(0);
  writer.u32(0);
  writer.u64(stdout_bytes);
  writer.u64(0);
  writer.u32(7);
  for (int i = 0; i < 5; ++i) writer.u64(1000U + static_cast<std::uint64_t>(i));
  writer.u64(4096);
  writer.u32(3);
  writer.i64(1);
  writer.u8(0);
  return frame(InitReply::done, writer);
}

std::vector<char> refused(wire::Refusal why, int sys_errno) {
  Writer writer;
  writer.u32(static_cast<std::uint32_t>(why));
  writer.u32(static_cast<std::uint32_t>(sys_errno));
  writer.u32(0);
  writer.bytes("detail");
  return frame(InitReply::refused, writer);
}

void wait_for_hangup(int fd) {
  char byte = 0;
  while (::recv(fd, &byte, 1, 0) > 0) {
  }
}

}  // namespace

TempDir::TempDir() {
  std::string name = (fs::temp_directory_path() / "cs-manager-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
  path_ = name;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

// --- SocketServer ---------------------------------------------------------------------------------

SocketServer::SocketServer(const std::string& path, int type, Handler handler)
    : path_(path), handler_(std::move(handler)), listener_(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0)) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_.get(), 64) != 0)
    throw std::runtime_error("bind " + path);
  acceptor_ = std::thread([this] { accept_all(); });
}

SocketServer::~SocketServer() {
  stopping_ = true;
  ::shutdown(listener_.get(), SHUT_RDWR);
  acceptor_.join();
  ::unlink(path_.c_str());
  {
    const std::lock_guard lock(mutex_);
    for (const int fd : open_) ::shutdown(fd, SHUT_RDWR);
  }
  for (auto& thread : handlers_) thread.join();
}

void SocketServer::accept_all() {
  while (!stopping_) {
    const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) return;
    const std::lock_guard lock(mutex_);
    open_.push_back(fd);
    handlers_.emplace_back([this, fd] {
      handler_(fd);
      const std::lock_guard inner(mutex_);
      std::erase(open_, fd);
      ::close(fd);
    });
  }
}

// --- FakeInit -------------------------------------------------------------------------------------

FakeInit::FakeInit(const std::string& socket_path) {
  server_ = std::make_unique<SocketServer>(socket_path, SOCK_STREAM, [this](int fd) { serve(fd); });
}

std::map<wire::RunId, FakeRun> FakeInit::runs() {
  const std::lock_guard lock(mutex_);
  return runs_;
}

std::map<std::string, std::string> FakeInit::files() {
  const std::lock_guard lock(mutex_);
  return files_;
}

void FakeInit::finish(const wire::RunId& id) {
  const std::lock_guard lock(mutex_);
  FakeRun& run = runs_[id];
  const auto end = done(wire::Outcome::ok, 6);
  run.log.insert(run.log.end(), end.begin(), end.end());
  run.finished = true;
}

void FakeInit::serve(int fd) {
  ++connections;
  while (auto request = read_request(fd)) {
    if (!serve_one(fd, request->type, request->payload) || !keeps_connections) return;
  }
}

bool FakeInit::serve_one(int fd, std::uint32_t type, std::span<const char> payload) {
  wire::Reader reader(payload);
  switch (static_cast<InitRequest>(type)) {
    case InitRequest::run:
      return start(fd, reader, false);
    case InitRequest::command:
      return start(fd, reader, true);
    case InitRequest::attach:
      attach(fd, reader);
      return false;
    case InitRequest::file_write:
      write_file(fd, reader);
      return false;
    case InitRequest::file_read:
      read_file(fd, reader);
      return false;
    case InitRequest::cancel: {
      const auto id = read_id(reader);
      const bool known = runs().contains(id);
      send_all(fd, known ? frame(InitReply::ok) : refused(wire::Refusal::run_not_found, 0));
      return false;
    }
    case InitRequest::list_contexts: {
      Writer writer;
      writer.bytes("python");
      writer.bytes("analysis");
      writer.u8(hostile_lists ? 9 : static_cast<std::uint8_t>(wire::ContextState::busy));
      writer.u32(2);
      writer.u32(7);
      writer.i64(1'000);
      writer.u64(3'000'000);
      writer.u64(4096);
      writer.u32(5);
      auto reply = frame(InitReply::context, writer);
      const auto end = frame(InitReply::ok);
      reply.insert(reply.end(), end.begin(), end.end());
      send_all(fd, reply);
      return false;
    }
    case InitRequest::list_runs:
      list_runs(fd, reader);
      return false;
    case InitRequest::delete_context: {
      const auto language = reader.bytes();
      const auto context = reader.bytes();
      send_all(fd, language == "python" && context == "analysis" ? frame(InitReply::ok) : refused(wire::Refusal::context_not_found, 0));
      return false;
    }
    case InitRequest::stats: {
      Writer writer;
      writer.u32(2);
      writer.u32(1);
      writer.u32(1);
      writer.bytes("/workspace");
      for (std::uint64_t n = 1; n <= 4; ++n) writer.u64(n);
      writer.u64(0);
      send_all(fd, frame(InitReply::stats, writer));
      return false;
    }
    case InitRequest::file_mkdir:
    case InitRequest::file_move:
    case InitRequest::file_remove: {
      send_all(fd, refused(wire::Refusal::file_error, ENOENT));
      return false;
    }
    default:
      send_all(fd, refused(wire::Refusal::bad_request, 0));
      return false;
  }
}

void FakeInit::list_runs(int fd, wire::Reader reader) {
  const bool commands = reader.u8() != 0;
  std::uint32_t left = reader.u32();
  std::vector<char> reply;
  for (const auto& [id, run] : runs()) {
    if (left-- == 0) break;
    Writer writer;
    for (const auto byte : id) writer.u8(byte);
    writer.bytes(commands ? "" : "python");
    writer.bytes(commands ? "" : hostile_lists ? "../x" : "analysis");
    writer.u8(static_cast<std::uint8_t>(run.finished ? wire::RunPhase::finished : wire::RunPhase::running));
    writer.u8(run.finished ? static_cast<std::uint8_t>(wire::Outcome::ok) : 0);
    writer.u8(0);
    writer.i64(1'000);
    writer.u64(2'000'000);
    writer.u64(3'000'000);
    const auto one = frame(InitReply::run_summary, writer);
    reply.insert(reply.end(), one.begin(), one.end());
  }
  const auto end = frame(InitReply::ok);
  reply.insert(reply.end(), end.begin(), end.end());
  send_all(fd, reply);
}

bool FakeInit::start(int fd, wire::Reader reader, bool command) {
  const auto id = read_id(reader);
  std::string language;
  std::string code;
  if (command) {
    code = reader.bytes();
    (void)reader.bytes();
    (void)reader.bytes();
  } else {
    language = reader.bytes();
    (void)reader.bytes();
    code = reader.bytes();
  }
  bool known = false;
  {
    const std::lock_guard lock(mutex_);
    last_deadline_ns = reader.u64();
    last_kill_by_ns = reader.u64();
    (void)reader.u32();
    last_env.clear();
    for (std::uint32_t left = reader.u32(); left > 0 && reader.ok(); --left) {
      std::string name(reader.bytes());
      last_env[name] = reader.bytes();
    }
    known = runs_.contains(id);
    if (!known) ++runs_[id].starts;
  }
  if (!reader.done()) {
    send_all(fd, refused(wire::Refusal::bad_request, 0));
    return false;
  }
  if (known) {
    const auto log = runs()[id].log;
    send_all(fd, log);
    return false;
  }
  return act(fd, id, code, language);
}

bool FakeInit::act(int fd, const wire::RunId& id, const std::string& code, const std::string& language) {
  std::istringstream words(code);
  std::string verb;
  words >> verb;
  const auto say = [&](const std::vector<char>& bytes) {
    {
      const std::lock_guard lock(mutex_);
      auto& log = runs_[id].log;
      log.insert(log.end(), bytes.begin(), bytes.end());
    }
    send_all(fd, bytes);
  };
  if (verb == "refuse") {
    std::uint32_t why = 0;
    int sys_errno = 0;
    words >> why >> sys_errno;
    send_all(fd, refused(static_cast<wire::Refusal>(why), sys_errno));
    return false;
  }
  if (verb == "raw") {
    std::string kind;
    words >> kind;
    const wire::FrameHeader big{static_cast<std::uint32_t>(InitReply::output), 5U << 20};
    const char* header = reinterpret_cast<const char*>(&big);
    if (kind == "oversize") send_all(fd, {header, header + sizeof big});
    if (kind == "oversize") wait_for_hangup(fd);
    if (kind == "truncated") {
      auto half = output(1, "hello");
      half.resize(half.size() - 2);
      send_all(fd, half);
    }
    if (kind == "wrongtype") send_all(fd, frame(InitReply::entry));
    if (kind == "unknowntype") send_all(fd, Writer().frame(4711));
    if (kind == "garbage_done") send_all(fd, frame(InitReply::done));
    if (kind == "badstream") send_all(fd, output(9, "x"));
    if (kind == "chatty") {
      const std::string piece(wire::kMaxChunk, 'x');
      for (int i = 0; i < 12; ++i) send_all(fd, output(1, piece));
      send_all(fd, done(wire::Outcome::ok, 12 * wire::kMaxChunk));
    }
    return false;
  }
  say(accepted(language));
  if (verb == "hang") {
    say(output(1, "so far"));
    wait_for_hangup(fd);
    return false;
  }
  if (verb == "result") {
    Writer result;
    result.u8(1);
    result.u32(1);
    result.bytes("text/plain");
    result.bytes("42");
    say(frame(InitReply::result, result));
    Writer error;
    error.bytes("ValueError");
    error.bytes("no");
    error.u32(1);
    error.bytes("line 1");
    say(frame(InitReply::error, error));
    {
      const std::lock_guard lock(mutex_);
      runs_[id].finished = true;
    }
    say(done(wire::Outcome::error, 0));
    return true;
  }
  std::string text;
  std::getline(words >> std::ws, text);
  say(output(1, text));
  {
    const std::lock_guard lock(mutex_);
    runs_[id].finished = true;
  }
  say(done(wire::Outcome::ok, text.size()));
  return true;
}

void FakeInit::attach(int fd, wire::Reader reader) {
  const auto id = read_id(reader);
  const bool follow = reader.u8() != 0;
  const auto all = runs();
  const auto found = all.find(id);
  if (found == all.end()) {
    send_all(fd, refused(wire::Refusal::run_not_found, 0));
    return;
  }
  send_all(fd, found->second.log);
  if (found->second.finished) return;
  if (!follow)
    send_all(fd, frame(InitReply::ok));
  else
    wait_for_hangup(fd);
}

void FakeInit::write_file(int fd, wire::Reader reader) {
  const std::string path(reader.bytes());
  if (path == "full") {  // refuses and closes before it has read what comes
    send_all(fd, refused(wire::Refusal::file_error, ENOSPC));
    return;
  }
  std::string content;
  for (;;) {
    const auto request = read_request(fd);
    if (!request) return;
    if (request->type == wire::kInEndOfData) break;
    content.append(request->payload.begin(), request->payload.end());
  }
  {
    const std::lock_guard lock(mutex_);
    files_[path] = content;
  }
  Writer writer;
  writer.u64(content.size());
  writer.u64(content.size());
  writer.i64(5);
  writer.u8(0);
  send_all(fd, frame(InitReply::file_done, writer));
}

void FakeInit::read_file(int fd, wire::Reader reader) {
  const std::string path(reader.bytes());
  const auto all = files();
  const auto found = all.find(path);
  if (found == all.end()) {
    send_all(fd, refused(wire::Refusal::file_error, ENOENT));
    return;
  }
  Writer entry;
  entry.bytes(path);
  entry.u8(1);
  entry.u64(found->second.size());
  entry.u32(0644);
  entry.u32(1000);
  entry.u32(1000);
  entry.i64(5);
  entry.i64(6);
  entry.i64(7);
  entry.i64(4);
  entry.u64(11);
  entry.bytes("");
  send_all(fd, frame(InitReply::entry, entry));
  for (std::size_t at = 0; at < found->second.size(); at += wire::kMaxChunk) {
    Writer data;
    data.raw(std::string_view(found->second).substr(at, wire::kMaxChunk));
    if (!send_all(fd, frame(InitReply::data, data))) return;
  }
  if (path == "breaks off") return;
  Writer end;
  end.u64(found->second.size());
  end.u64(found->second.size());
  end.i64(5);
  end.u8(0);
  send_all(fd, frame(InitReply::file_done, end));
}

// --- FakeLauncher ---------------------------------------------------------------------------------

FakeLauncher::FakeLauncher(std::string runtime_dir) : runtime_dir_(std::move(runtime_dir)) { come_back(); }
FakeLauncher::~FakeLauncher() { go_away(); }

void FakeLauncher::go_away() { server_.reset(); }
void FakeLauncher::come_back() {
  server_ = std::make_unique<SocketServer>(runtime_dir_ + "/launcher.sock", SOCK_SEQPACKET,
                                           [this](int fd) { serve(fd); });
}

void FakeLauncher::add(const wire::SessionKey& key) {
  Live live;
  live.info.session = key;
  live.info.memory_bytes = 123;
  live.init = std::make_shared<FakeInit>(runtime_dir_ + "/sessions/" + manager::hex(key) + ".sock");
  const std::lock_guard lock(mutex_);
  live_.emplace(key, std::move(live));
}

void FakeLauncher::forget(const wire::SessionKey& key) {
  std::shared_ptr<FakeInit> dropped;
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(key);
  if (found == live_.end()) return;
  dropped = std::move(found->second.init);
  live_.erase(found);
}

void FakeLauncher::lose(const wire::SessionKey& key, int exit_signal, std::uint64_t oom_kills) {
  forget(key);
  LauncherReply end;
  end.status = LauncherStatus::ended;
  end.session = key;
  end.exit_signal = exit_signal;
  end.oom_kills = oom_kills;
  const std::lock_guard lock(mutex_);
  for (const int fd : watching_) (void)::send(fd, &end, sizeof end, MSG_NOSIGNAL);
}

bool FakeLauncher::has(const wire::SessionKey& key) {
  const std::lock_guard lock(mutex_);
  return live_.contains(key);
}

std::shared_ptr<FakeInit> FakeLauncher::init_of(const wire::SessionKey& key) {
  const std::lock_guard lock(mutex_);
  const auto found = live_.find(key);
  return found == live_.end() ? nullptr : found->second.init;
}

std::size_t FakeLauncher::count() {
  const std::lock_guard lock(mutex_);
  return live_.size();
}

void FakeLauncher::serve(int fd) {
  ++connections;
  wire::LauncherRequest request;
  while (::recv(fd, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request)) {
    if (!serve_one(fd, request)) return;
  }
}

bool FakeLauncher::serve_one(int fd, const wire::LauncherRequest& request) {
  if (request.op == wire::LauncherOp::watch) {
    {
      const std::lock_guard lock(mutex_);
      watching_.push_back(fd);
    }
    ++watchers;
    wait_for_hangup(fd);
    --watchers;
    const std::lock_guard lock(mutex_);
    std::erase(watching_, fd);
    return false;
  }
  if (request.op == wire::LauncherOp::list) {
    ++lists;
    std::vector<LauncherReply> all;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [key, live] : live_) all.push_back(live.info);
    }
    LauncherReply end;
    end.status = LauncherStatus::end_of_list;
    all.push_back(end);
    for (const auto& reply : all) (void)::send(fd, &reply, sizeof reply, MSG_NOSIGNAL);
    return true;
  }
  const LauncherReply reply = handle(request);
  return ::send(fd, &reply, sizeof reply, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof reply);
}

LauncherReply FakeLauncher::handle(const wire::LauncherRequest& request) {
  LauncherReply reply;
  reply.session = request.session;
  if (request.op == wire::LauncherOp::create) {
    ++creates;
    reply.status = create_status;
    reply.stage = wire::Stage::mount_root;
    if (reply.status == LauncherStatus::ok) add(request.session);
    return reply;
  }
  if (!has(request.session)) {
    reply.status = LauncherStatus::unknown_session;
    return reply;
  }
  if (request.op == wire::LauncherOp::kill) {
    lose(request.session, SIGKILL, 0);
    return reply;
  }
  const std::lock_guard lock(mutex_);
  auto& info = live_[request.session].info;
  if (request.op == wire::LauncherOp::pause) info.paused = 1;
  if (request.op == wire::LauncherOp::resume) info.paused = 0;
  return info;
}

// --- World ----------------------------------------------------------------------------------------

World::World() : work_(boost::asio::make_work_guard(io)) {
  const std::string root = dir.path();
  for (const char* name : {"/run", "/run/sessions", "/state", "/images", "/images/00000000000000aa"})
    fs::create_directory(root + name);
  std::ofstream(root + "/images/00000000000000aa/image.json")
      << R"({"name":"host","languages":["python","javascript"],"versions":{"python":"3.11.2"},"aliases":["linux_latest"]})";
  fs::create_symlink("00000000000000aa", root + "/images/host");
  config.runtime_dir = root + "/run";
  config.state_dir = root + "/state";
  config.image_store = root + "/images";
  launcher = std::make_unique<FakeLauncher>(config.runtime_dir);
  for (int i = 0; i < 2; ++i) threads_.emplace_back([this] { io.run(); });
  start_manager();
}

World::~World() {
  stop_manager();
  work_.reset();
  for (auto& thread : threads_) thread.join();
}

void World::start_manager() {
  auto opened = manager::SessionManager::open(io.get_executor(), config);
  if (!opened) throw std::runtime_error(opened.error().what);
  manager = std::move(*opened);
}

void World::stop_manager() {
  if (!manager) return;
  boost::asio::co_spawn(io, manager->shutdown(std::chrono::milliseconds(50)), boost::asio::use_future).get();
  manager.reset();
}

void World::restart() {
  stop_manager();
  start_manager();
}

manager::SessionInfo World::create(manager::SessionSpec spec) {
  if (spec.owner.empty()) spec.owner = "alice";
  auto made = run(manager->create(std::move(spec), ""));
  if (!made) throw std::runtime_error(made.error().what);
  return *made;
}

Result<manager::RunRecord> World::python(const std::string& session, const std::string& code,
                                         std::string key) {
  manager::RunSpec spec;
  spec.language = "python";
  spec.code = code;
  spec.idempotency_key = std::move(key);
  return run(manager->run("alice", session, std::move(spec), std::chrono::steady_clock::now()));
}

wire::SessionKey World::key_of(const std::string& session_id) {
  return manager::parse_id(manager::kSessionPrefix, session_id).value();
}

std::shared_ptr<FakeInit> World::init_of(const std::string& session_id) {
  return launcher->init_of(key_of(session_id));
}

bool World::eventually(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // other threads have no event to offer
  }
  return true;
}

}  // namespace codespace::test
