// The setting-up of a sandbox from inside: what the freshly cloned child does until it
// becomes codespace-init. Runs in the child only.
#pragma once

#include <cstdint>
#include <string>

#include "sandbox/launcher/cgroup.h"
#include "sandbox/sys/affinity.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::launcher {

/// What the child has from birth.
struct ChildPlan {
  Cgroups& cgroups;
  const std::string& group;          // its session's name there
  const sys::UniqueFd& launcher;     // SEQPACKET: SetupReports up, kIdsMapped and an Assignment down
  const sys::UniqueFd& seccomp;
  const sys::UniqueFd& init_program;
  const DelegatedGroups& groups;
};

/// What makes a prepared child a particular session; sent when a session is asked for, with
/// the listening socket as its one descriptor.
struct Assignment {
  std::uint64_t image = 0;
  wire::SessionLimits limits;
  sys::Processors processors;
  bool pooled = false;  // its limits may change at hand-over: report contexts of its disks
};

/// One byte: the launcher has written the id maps.
inline constexpr char kIdsMapped = 'm';

/// Confines the calling process and executes init. On any failure reports {stage, errno}
/// and exits: a session never starts half-confined.
[[noreturn]] void become_session(const ChildPlan& plan);

/// Where the launcher keeps sources for bind mounts in its own root.
inline constexpr const char* kEmptyFile = "/masks/file";
inline constexpr const char* kEmptyDir = "/masks/dir";
/// What a session sees of `n` processors: /proc/stat and /proc/cpuinfo without the others, and
/// without what those of the host have done.
std::string processor_file(const char* name, std::uint32_t n);
/// A session that may use more of them sees the host's.
inline constexpr std::uint32_t kMaxProcessorFiles = 64;
inline constexpr const char* kNewRoot = "/newroot";
/// Where a prepared child has its /proc, masked, until there is a root to move it to.
inline constexpr const char* kStage = "/stage";

}  // namespace codespace::launcher
