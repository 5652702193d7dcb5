// fork and exec of tenant programs. Between fork and exec only system calls; failures
// travel as {stage, errno} over a close-on-exec pipe, never as text on the tenant's stderr.
#include "sandbox/init/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "sandbox/init/posture.h"
#include "sandbox/sys/syscalls.h"

namespace codespace::init {
namespace {

using wire::Stage;

bool drop_all_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  return ::syscall(SYS_capset, &header, data) == 0;
}

[[noreturn]] void child_fail(int pipe, Stage stage) {
  const SpawnError error{stage, errno};
  [[maybe_unused]] const ssize_t written = ::write(pipe, &error, sizeof error);
  ::_exit(127);
}

/// Moves a descriptor to its final number; 0 if it is -1 and may be.
bool place(int from, int to) {
  if (from == to) return ::fcntl(from, F_SETFD, 0) == 0;
  return ::dup2(from, to) == to;
}

[[noreturn]] void run_child(const SpawnSpec& spec, int error_pipe, char* const* argv, char* const* envp) {
  constexpr int kErrorFd = 9;
  ::setsid();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);

  // Everything moves above the fixed numbers first, so that no placement overwrites a source.
  const int error_high = ::fcntl(error_pipe, F_DUPFD_CLOEXEC, 64);
  if (error_high < 0) ::_exit(127);
  int sources[4] = {spec.stdin_fd, spec.stdout_fd, spec.stderr_fd, spec.control_fd};
  if (sources[0] < 0) sources[0] = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  for (int& source : sources) {
    if (source >= 0) source = ::fcntl(source, F_DUPFD_CLOEXEC, 64);
  }
  // The group's files are init's: join before the user changes.
  if (spec.group != nullptr && !spec.group->join_self()) child_fail(error_high, Stage::spawn_cgroup);
  for (int fd = 0; fd < 3; ++fd) {
    if (!place(sources[fd], fd)) child_fail(error_high, Stage::spawn_pipe);
  }
  if (sources[3] >= 0 && !place(sources[3], 3)) child_fail(error_high, Stage::spawn_pipe);
  if (::dup3(error_high, kErrorFd, O_CLOEXEC) < 0) child_fail(error_high, Stage::spawn_pipe);
  if (sources[3] < 0) ::close(3);
  if (sys::close_range(4, kErrorFd - 1) != 0 || sys::close_range(kErrorFd + 1, ~0U) != 0)
    child_fail(kErrorFd, Stage::spawn_pipe);

  // With SECBIT_NO_SETUID_FIXUP the kernel drops nothing by itself: say it.
  if (::setresgid(wire::kTenantUid, wire::kTenantUid, wire::kTenantUid) != 0 ||
      ::setresuid(wire::kTenantUid, wire::kTenantUid, wire::kTenantUid) != 0 || !drop_all_capabilities())
    child_fail(kErrorFd, Stage::spawn_identity);
  if (::chdir("/workspace") != 0 || (!spec.cwd.empty() && ::chdir(spec.cwd.c_str()) != 0))
    child_fail(kErrorFd, Stage::spawn_cwd);
  if (!tenant_posture_holds()) {
    errno = EPERM;
    child_fail(kErrorFd, Stage::spawn_posture);
  }
  ::execve(argv[0], argv, envp);
  child_fail(kErrorFd, Stage::spawn_exec);
}

/// The fixed environment, overridden and extended by the request's.
std::vector<std::string> build_environment(const Env& extra) {
  std::vector<std::string> lines(std::begin(wire::kBaseEnvironment), std::end(wire::kBaseEnvironment));
  for (const auto& [name, value] : extra) {
    std::string line = name + "=" + value;
    const auto same = std::find_if(lines.begin(), lines.end(), [&](const std::string& other) {
      return other.size() > name.size() && other.starts_with(name) && other[name.size()] == '=';
    });
    if (same != lines.end()) {
      *same = std::move(line);
    } else {
      lines.push_back(std::move(line));
    }
  }
  return lines;
}

}  // namespace

bool make_pipe(sys::UniqueFd& reader, sys::UniqueFd& writer) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return false;
  reader.reset(ends[0]);
  writer.reset(ends[1]);
  // It is init's, and a program may open /dev/stdout or /dev/stdin anew, by its /proc entry.
  return ::fchmod(ends[0], 0666) == 0;
}

std::optional<Spawned> spawn(const SpawnSpec& spec) {
  Spawned spawned;
  sys::UniqueFd writer;
  if (!make_pipe(spawned.error_pipe, writer)) return std::nullopt;
  // All memory is taken before the fork: the child only makes system calls.
  const std::vector<std::string> environment = build_environment(spec.env);
  std::vector<char*> argv;
  std::vector<char*> envp;
  for (const std::string& a : spec.argv) argv.push_back(const_cast<char*>(a.c_str()));
  for (const std::string& e : environment) envp.push_back(const_cast<char*>(e.c_str()));
  argv.push_back(nullptr);
  envp.push_back(nullptr);
  spawned.pid = ::fork();
  if (spawned.pid < 0) return std::nullopt;
  if (spawned.pid == 0) run_child(spec, writer.get(), argv.data(), envp.data());
  return spawned;
}

std::optional<SpawnError> spawn_error(const Spawned& spawned) {
  if (!spawned.error_pipe) return std::nullopt;
  (void)::fcntl(spawned.error_pipe.get(), F_SETFL, O_NONBLOCK);
  SpawnError error;
  if (::read(spawned.error_pipe.get(), &error, sizeof error) != static_cast<ssize_t>(sizeof error)) return std::nullopt;
  return error;
}

bool become_file_tenant() {
  // The tenant may neither signal nor trace this process, because to those checks it stays
  // init's user; to the file system it is the tenant.
  (void)::setfsgid(wire::kTenantUid);
  (void)::setfsuid(wire::kTenantUid);
  if (::setfsuid(~0U) != static_cast<int>(wire::kTenantUid) || ::setfsgid(~0U) != static_cast<int>(wire::kTenantUid)) {
    errno = EPERM;
    return false;
  }
  return ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 && drop_all_capabilities();
}

}  // namespace codespace::init
