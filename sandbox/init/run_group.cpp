// Run groups on both versions of control groups. v1 keeps a directory in each of three
// hierarchies (memory, pids, cpuacct); v2 has them in one.
#include "sandbox/init/run_group.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "sandbox/sys/syscalls.h"
#include "sandbox/wire/setup_protocol.h"

namespace codespace::init {
namespace {

constexpr std::uint64_t kTcpQueueBytes = 64ULL << 20;

int base(CgroupBackend backend, int controller) {
  return wire::kInitCgroupFd + (backend == CgroupBackend::v2 ? 0 : controller);
}

}  // namespace

RunGroup::RunGroup(CgroupBackend backend, std::string name) : backend_(backend), name_(std::move(name)) {
  const int count = backend == CgroupBackend::v2 ? 1 : 3;
  for (int c = 0; c < count; ++c) {
    if (::mkdirat(base(backend, c), name_.c_str(), 0755) != 0) return;
    dirs_[static_cast<size_t>(c)].reset(
        ::openat(base(backend, c), name_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!dirs_[static_cast<size_t>(c)]) return;
  }
  // v1 counts what TCP has in its queues only in groups where this was written.
  if (backend == CgroupBackend::v1)
    (void)sys::write_file_at(dir(memory), "memory.kmem.tcp.limit_in_bytes", sys::Decimal(kTcpQueueBytes).view());
  ok_ = true;
}

RunGroup::~RunGroup() {
  const int count = backend_ == CgroupBackend::v2 ? 1 : 3;
  for (int c = 0; c < count; ++c) (void)::unlinkat(base(backend_, c), name_.c_str(), AT_REMOVEDIR);
}

int RunGroup::dir(Controller controller) const {
  return dirs_[backend_ == CgroupBackend::v2 ? 0 : static_cast<size_t>(controller)].get();
}

bool RunGroup::join_self() const {
  const int count = backend_ == CgroupBackend::v2 ? 1 : 3;
  // v1's `tasks` takes one thread, and for the calling thread itself (0) the kernel skips the
  // lock whose taking waits for an RCU grace period, some 10 ms (Linux 5.5). We have one thread.
  const char* file = backend_ == CgroupBackend::v2 ? "cgroup.procs" : "tasks";
  for (int c = 0; c < count; ++c) {
    if (!sys::write_file_at(dirs_[static_cast<size_t>(c)].get(), file, "0")) return false;
  }
  return true;
}

std::vector<pid_t> RunGroup::members() const {
  std::vector<pid_t> pids_found;
  const std::string text = sys::read_file_at(dir(pids), "cgroup.procs", 1 << 20);
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) break;
    const auto pid = static_cast<pid_t>(sys::parse_number(std::string_view(text).substr(at, end - at)));
    if (pid > 1) pids_found.push_back(pid);
    at = end + 1;
  }
  return pids_found;
}

bool RunGroup::kill_all_but(const std::vector<pid_t>& spare) {
  if (spare.empty() && backend_ == CgroupBackend::v2) {
    (void)sys::write_file_at(dir(pids), "cgroup.kill", "1");
  } else {
    (void)sys::write_file_at(dir(pids), "pids.max", "0");
  }
  bool left = false;
  for (const pid_t pid : members()) {
    if (std::find(spare.begin(), spare.end(), pid) != spare.end()) continue;
    left = true;
    (void)::kill(pid, SIGKILL);
  }
  return !left;
}

void RunGroup::allow_forks() { (void)sys::write_file_at(dir(pids), "pids.max", "max"); }

void RunGroup::signal_all(int signal) const {
  for (const pid_t pid : members()) (void)::kill(pid, signal);
}

std::string RunGroup::text(Kept& kept) const {
  if (!kept.fd) {
    const char* file = backend_ == CgroupBackend::v2 ? kept.v2 : kept.v1;
    // The peak is writable on v1, and on v2 from Linux 6.12.
    if (&kept == &memory_peak_) kept.fd.reset(::openat(dir(kept.controller), file, O_RDWR | O_CLOEXEC));
    if (!kept.fd) kept.fd.reset(::openat(dir(kept.controller), file, O_RDONLY | O_CLOEXEC));
  }
  __attribute__((uninitialized)) char buffer[4096];
  const ssize_t n = ::pread(kept.fd.get(), buffer, sizeof buffer, 0);
  return n <= 0 ? std::string() : std::string(buffer, static_cast<size_t>(n));
}

std::uint64_t RunGroup::cpu_ns() const {
  if (backend_ == CgroupBackend::v2) return sys::parse_keyed_number(text(cpu_), "usage_usec") * 1000;
  return sys::parse_number(text(cpu_));
}

std::uint64_t RunGroup::memory_bytes() const {
  return sys::parse_number(sys::read_file_at(dir(memory), backend_ == CgroupBackend::v2 ? "memory.current" : "memory.usage_in_bytes"));
}

std::uint64_t RunGroup::memory_peak_bytes() const { return sys::parse_number(text(memory_peak_)); }

std::uint32_t RunGroup::pids_now() const {
  return static_cast<std::uint32_t>(sys::parse_number(text(pids_now_)));
}

std::uint32_t RunGroup::pids_peak() const {
  const std::string peak = text(pids_peak_);  // Linux 6.1
  if (!peak.empty()) return static_cast<std::uint32_t>(sys::parse_number(peak));
  return pids_now();
}

std::uint64_t RunGroup::oom_kills() const { return sys::parse_keyed_number(text(oom_), "oom_kill"); }

void RunGroup::reset_memory_peak() {
  if (!memory_peak_.fd) (void)text(memory_peak_);
  // v2: fails before Linux 6.12; the peak is then the group's since its start.
  const std::string_view none = backend_ == CgroupBackend::v1 ? "0" : "reset";
  [[maybe_unused]] const ssize_t reset = ::pwrite(memory_peak_.fd.get(), none.data(), none.size(), 0);
}

}  // namespace codespace::init
