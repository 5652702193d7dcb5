// Starting a tenant's program: fork, run group, limits, the tenant's user without any
// capability, a last look at its own posture, exec. The only place where init executes.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "sandbox/init/run.h"
#include "sandbox/init/run_group.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::init {

struct SpawnSpec {
  std::vector<std::string> argv;
  std::string cwd;                 // absolute, or relative to /workspace; empty = /workspace
  Env env;                         // over the fixed base environment
  const RunGroup* group = nullptr;
  int stdin_fd = -1;               // -1: /dev/null
  int stdout_fd = -1;
  int stderr_fd = -1;
  int control_fd = -1;             // becomes 3 if given
};

struct SpawnError {
  wire::Stage stage = wire::Stage::none;
  int sys_errno = 0;
};

struct Spawned {
  pid_t pid = -1;
  sys::UniqueFd error_pipe;  // a SpawnError if the program was never executed, else end-of-file
};

/// Forks and returns at once. Nothing if fork itself failed, with errno.
std::optional<Spawned> spawn(const SpawnSpec& spec);

/// After the process is known to have ended or executed: why it never executed, if so.
std::optional<SpawnError> spawn_error(const Spawned& spawned);

/// A pipe of which the first end is non-blocking for init; both are close-on-exec.
bool make_pipe(sys::UniqueFd& reader, sys::UniqueFd& writer);

/// Becomes the tenant for file access only: its file-system ids, no capabilities, and still
/// init's user to signals and tracing. For file helpers. False with errno.
bool become_file_tenant();

}  // namespace codespace::init
