// See server.h. Only the gateway can reach the listening socket, which lies outside the
// session; its frames are checked all the same, because it parses strangers' bytes.
#include "sandbox/init/server.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sandbox/init/file_ops.h"
#include "sandbox/init/scratch.h"
#include "sandbox/sys/clock.h"

namespace codespace::init {
namespace {

using wire::InitReply;
using wire::InitRequest;
using wire::Refusal;

constexpr std::size_t kMaxConnections = 512;
constexpr std::uint64_t kRequestTimeoutNs = 30 * sys::kNsPerSecond;
constexpr std::uint32_t kMaxEnv = 1024;
// A run that is over soon is told in one piece: each piece wakes the gateway, and waking is the
// dearest part of a short run. A longer one is told in pieces of this age or size.
constexpr std::uint64_t kTellAfterNs = 20'000'000;
constexpr std::size_t kTellBytes = 32 * 1024;

/// recv(2) that also takes the descriptors of a `prepare`; more than a request may have are closed.
ssize_t receive(int from, void* data, std::size_t size, std::vector<sys::UniqueFd>& descriptors) {
  constexpr std::size_t kMost = 3;
  iovec part{data, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMost)];
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t n = ::recvmsg(from, &message, MSG_CMSG_CLOEXEC);
  if (n < 0) return n;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
      sys::UniqueFd owned(fd);
      if (descriptors.size() < kMost) descriptors.push_back(std::move(owned));
    }
  }
  return n;
}

bool read_id(wire::Reader& r, wire::RunId& id) {
  for (auto& byte : id) byte = r.u8();
  return r.ok();
}

}  // namespace

Server::Server(EventLoop& loop, Session& session, sys::UniqueFd listener)
    : loop_(loop), session_(session), listener_(std::move(listener)), proxy_port_(loop) {
  loop_.add(listener_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

/// One at a time: there is mostly one, and the loop comes back for a next.
void Server::accept() {
  sys::UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!fd || connections_.size() >= kMaxConnections) return;  // closed at once; the gateway says overloaded
  Connection& c = connections_.emplace_back();
  c.fd = std::move(fd);
  c.number = ++next_number_;
  limit_request(c);
  loop_.add(c.fd.get(), EPOLLIN | EPOLLRDHUP, [this, &c](std::uint32_t events) { on_event(c, events); });
  // The request is normally there already: one wait less.
  read_request(c);
}

void Server::limit_request(Connection& c) {
  c.timer = loop_.at(sys::monotonic_ns() + kRequestTimeoutNs, [this, &c] { drop(c); });
}

void Server::drop(Connection& c) {
  if (c.fd) loop_.remove(c.fd.get());
  loop_.cancel(c.timer);
  if (c.run) std::erase(c.run->listeners, &c.on_log);
  connections_.remove_if([&c](const Connection& other) { return &other == &c; });
}

void Server::on_event(Connection& c, std::uint32_t events) {
  if (!c.requested) return read_request(c);
  if ((events & EPOLLOUT) != 0) return pump(c);
  char said = 0;
  if (c.prepares && ::recv(c.fd.get(), &said, 1, MSG_DONTWAIT) == 1 && said == wire::kForkUnderWay) return session_.limit_joins();
  // A client that hangs up stops following; its run goes on. So does one that says more than its
  // request: nobody would read that, and it would be heard again and again.
  if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP | EPOLLIN)) != 0) return drop(c);
}

void Server::read_request(Connection& c) {
  for (;;) {
    const ssize_t n = receive(c.fd.get(), scratch(), kScratchBytes, c.descriptors);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return drop(c);
    c.inbound.insert(c.inbound.end(), scratch(), scratch() + n);
    if (c.timer == 0) limit_request(c);  // a next request: the first one's time began with the connection
    if (c.inbound.size() < wire::kHeaderSize) continue;
    wire::FrameHeader header;
    std::memcpy(&header, c.inbound.data(), sizeof header);
    if (header.length > wire::kMaxFrame) return drop(c);
    const std::size_t whole = wire::kHeaderSize + header.length;
    if (c.inbound.size() < whole) continue;
    c.requested = true;
    loop_.cancel(std::exchange(c.timer, 0));
    const std::vector<char> bytes = std::move(c.inbound);
    c.inbound.clear();
    return handle(c, header.type, {bytes.data() + wire::kHeaderSize, header.length},
                  {bytes.data() + whole, bytes.size() - whole});
  }
}

void Server::handle(Connection& c, std::uint32_t type, std::string_view payload, std::string_view early) {
  if (is_file_request(type)) {
    if (!session_.takes_file_request(payload.size() + early.size()))
      return refuse(c, Refusal::overloaded, "16 file operations of this session are under way, and others wait");
    loop_.remove(c.fd.get());
    session_.serve_file(std::move(c.fd), type, payload, early);
    return drop(c);  // the helper has it now
  }
  wire::Reader r({payload.data(), payload.size()});
  switch (static_cast<InitRequest>(type)) {
    case InitRequest::run: return handle_run(c, false, r);
    case InitRequest::command: return handle_run(c, true, r);
    case InitRequest::attach: return handle_attach(c, r);
    case InitRequest::prepare: return handle_prepare(c, r);
    case InitRequest::open_network: return handle_open_network(c, r);
    case InitRequest::cancel: {
      wire::RunId id{};
      if (!read_id(r, id) || !r.done()) return refuse(c, Refusal::bad_request, "cancel");
      if (!session_.cancel(id)) return refuse(c, Refusal::run_not_found, "");
      return answer(c, InitReply::ok, {});
    }
    case InitRequest::ping: return answer(c, InitReply::ok, {});
    case InitRequest::list_contexts: {
      if (!r.done()) return refuse(c, Refusal::bad_request, "list contexts");
      c.reply = session_.list_contexts();
      return pump(c);
    }
    case InitRequest::list_runs: return handle_list_runs(c, r);
    case InitRequest::delete_context: return handle_delete_context(c, r);
    case InitRequest::stats: {
      wire::Writer w;
      w.u32(session_.kernels_alive());
      w.u32(session_.runs_active());
      static constexpr const char* kMounts[] = {"/workspace", "/tmp", "/home/sandbox", "/dev/shm"};
      w.u32(std::size(kMounts));
      for (const char* mount : kMounts) {
        struct statvfs s {};
        (void)::statvfs(mount, &s);
        w.bytes(mount);
        w.u64((s.f_blocks - s.f_bfree) * s.f_frsize);
        w.u64(s.f_blocks * s.f_frsize);
        w.u64(s.f_files - s.f_ffree);
        w.u64(s.f_files);
      }
      w.u64(session_.out_of_memory_ends());
      return answer(c, InitReply::stats, w);
    }
    default: return refuse(c, Refusal::bad_request, "unknown request");
  }
}

void Server::handle_run(Connection& c, bool command, wire::Reader& r) {
  RunRequest request;
  request.is_command = command;
  read_id(r, request.id);
  if (command) {
    request.code = r.bytes();
    request.cwd = r.bytes();
    request.stdin_data = r.bytes();
  } else {
    request.language = r.bytes();
    request.context = r.bytes();
    request.code = r.bytes();
  }
  request.deadline_ns = r.u64();
  request.kill_by_ns = r.u64();
  request.stream_cap = r.u32();
  const std::uint32_t count = r.u32();
  for (std::uint32_t i = 0; i < count && i < kMaxEnv && r.ok(); ++i) {
    std::string name(r.bytes());
    request.env.emplace_back(std::move(name), std::string(r.bytes()));
  }
  const auto has_nul = [](const std::string& s) { return s.find('\0') != std::string::npos; };
  bool strings_fine = !has_nul(request.cwd) && (command ? !has_nul(request.code) : wire::is_context_name(request.context));
  for (const auto& [name, value] : request.env) strings_fine = strings_fine && !name.empty() && !has_nul(name) && !has_nul(value);
  // The last line of defence of the 60 s promise: no deadline further away than that.
  const std::uint64_t furthest = sys::monotonic_ns() + 61 * sys::kNsPerSecond;
  if (!r.done() || count > kMaxEnv || request.stream_cap > kMaxStreamCap || !strings_fine ||
      request.deadline_ns > furthest || request.kill_by_ns > furthest || request.kill_by_ns < request.deadline_ns)
    return refuse(c, Refusal::bad_request, command ? "command" : "run");
  follow(c, session_.start(std::move(request)));
}

void Server::handle_prepare(Connection& c, wire::Reader& r) {
  const std::string language(r.bytes());
  const std::uint32_t how = r.u32();
  const bool joins = how != 0;
  if (!r.done() || how > 2 || c.descriptors.size() != (joins ? 3 : 0)) return refuse(c, Refusal::bad_request, "prepare");
  const auto settled = [this, &c, life = std::weak_ptr<int>(c.life)](bool there) {
    if (life.expired()) return;
    // Later: this may be called before the first answer went out.
    loop_.at(0, [this, &c, life, there] {
      if (life.expired()) return;
      if (there) return answer(c, InitReply::ok, {});
      refuse(c, Refusal::kernel_failed, "");
    });
  };
  std::optional<Kernel::JoinerEnds> ends;
  if (joins) ends.emplace(Kernel::JoinerEnds{std::move(c.descriptors[0]), std::move(c.descriptors[1]), std::move(c.descriptors[2])});
  std::string group;
  if (!session_.prepare_kernel(language, std::move(ends), how == 2, settled, group)) return refuse(c, Refusal::kernel_failed, "the session is in use");
  if (!joins) return;
  c.prepares = how == 2;
  wire::Writer w;
  w.raw(group);
  const std::vector<char> frame = w.frame(static_cast<std::uint32_t>(InitReply::ok));
  // The first words on this connection: they fit into its buffer.
  if (::send(c.fd.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) != static_cast<ssize_t>(frame.size())) drop(c);
}

void Server::handle_open_network(Connection& c, wire::Reader& r) {
  if (!r.done()) return refuse(c, Refusal::bad_request, "open network");
  const ProxyPort::Ends ends = proxy_port_.hand_over();
  if (ends.listener < 0) return refuse(c, Refusal::spawn_failed, "the socket at the proxy's port could not be made");
  const std::vector<char> frame = wire::Writer().frame(static_cast<std::uint32_t>(InitReply::ok));
  const int descriptors[] = {ends.listener, ends.life};
  iovec part{const_cast<char*>(frame.data()), frame.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof descriptors)]{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof descriptors);
  std::memcpy(CMSG_DATA(header), descriptors, sizeof descriptors);
  // The first words on this connection: they fit into its buffer.
  (void)::sendmsg(c.fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  drop(c);
}

void Server::handle_list_runs(Connection& c, wire::Reader& r) {
  const bool commands = r.u8() != 0;
  const std::uint32_t limit = r.u32();
  if (!r.done()) return refuse(c, Refusal::bad_request, "list runs");
  c.reply = session_.list_runs(commands, limit);
  pump(c);
}

void Server::handle_delete_context(Connection& c, wire::Reader& r) {
  const std::string language(r.bytes());
  const std::string context(r.bytes());
  if (!r.done()) return refuse(c, Refusal::bad_request, "delete context");
  // The client may hang up before it is over; the end goes on without it.
  const auto gone = [this, number = c.number] {
    const auto asker = std::ranges::find(connections_, number, &Connection::number);
    if (asker != connections_.end()) answer(*asker, InitReply::ok, {});
  };
  if (!session_.end_context(language, context, gone)) refuse(c, Refusal::context_not_found, "");
}

void Server::handle_attach(Connection& c, wire::Reader& r) {
  wire::RunId id{};
  read_id(r, id);
  c.follow = r.u8() != 0;
  if (!r.done()) return refuse(c, Refusal::bad_request, "attach");
  auto run = session_.find(id);
  if (!run) return refuse(c, Refusal::run_not_found, "");
  follow(c, std::move(run));
}

void Server::answer(Connection& c, InitReply type, const wire::Writer& w) {
  c.reply = w.frame(static_cast<std::uint32_t>(type));
  pump(c);
}

void Server::refuse(Connection& c, Refusal why, std::string_view detail) {
  wire::Writer w;
  w.u32(static_cast<std::uint32_t>(why));
  w.u32(0);
  w.u32(0);
  w.bytes(detail);
  answer(c, InitReply::refused, w);
}

void Server::follow(Connection& c, std::shared_ptr<Run> run) {
  c.run = std::move(run);
  if (!c.follow && !c.run->finished()) {
    c.reply = c.run->log();
    const std::vector<char> ok = wire::Writer().frame(static_cast<std::uint32_t>(InitReply::ok));
    c.reply.insert(c.reply.end(), ok.begin(), ok.end());
    c.run.reset();
    return pump(c);
  }
  c.on_log = [this, &c] { on_log(c); };
  c.run->listeners.push_back(&c.on_log);
  on_log(c);
}

void Server::on_log(Connection& c) {
  if (c.blocked) return;
  if (c.run->finished() || c.run->log().size() - c.sent >= kTellBytes) return pump(c);
  if (c.timer != 0 || c.sent == c.run->log().size()) return;
  c.timer = loop_.at(sys::monotonic_ns() + kTellAfterNs, [this, &c] {
    c.timer = 0;
    pump(c);
  });
}

void Server::pump(Connection& c) {
  const std::vector<char>& source = c.run ? c.run->log() : c.reply;
  const bool complete = !c.run || c.run->finished();
  while (c.sent < source.size()) {
    const ssize_t n = ::send(c.fd.get(), source.data() + c.sent, source.size() - c.sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      c.blocked = true;
      return loop_.modify(c.fd.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    }
    if (n < 0) return drop(c);
    c.sent += static_cast<std::size_t>(n);
  }
  if (complete && !c.run) return drop(c);
  if (std::exchange(c.blocked, false)) loop_.modify(c.fd.get(), EPOLLIN | EPOLLRDHUP);
  if (complete) renew(c);
}

/// A session's next run mostly follows soon. No time limit before its first byte: the gateway closes what it
/// has no use for.
void Server::renew(Connection& c) {
  loop_.cancel(std::exchange(c.timer, 0));
  std::erase(c.run->listeners, &c.on_log);
  c.run.reset();
  c.follow = true;
  c.descriptors.clear();
  c.sent = 0;
  c.requested = false;
}

}  // namespace codespace::init
