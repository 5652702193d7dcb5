// The setting-up of a sandbox from inside: what the freshly cloned child does until it
// becomes codespace-init. Runs in the child only.
#pragma once

#include <cstdint>

#include "sandbox/launcher/cgroup.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::launcher {

/// Everything the child needs, prepared by the launcher before the clone.
struct ChildPlan {
  const char* image_root;        // template mount of the image, in the launcher's own small root
  wire::SessionLimits limits;
  const sys::UniqueFd& go;       // read end; one byte = ids are mapped and the cgroup joined
  const sys::UniqueFd& status;   // SetupReport goes here
  const sys::UniqueFd& listener;
  const sys::UniqueFd& seccomp;
  const sys::UniqueFd& init_program;
  const DelegatedGroups& groups;
  const char* cgroup_backend;    // "v1" or "v2", init's argv[1]
};

/// Confines the calling process and executes init. On any failure reports {stage, errno}
/// and exits: a session never starts half-confined.
[[noreturn]] void become_session(const ChildPlan& plan);

/// Where the launcher keeps sources for bind mounts in its own root.
inline constexpr const char* kEmptyFile = "/masks/file";
inline constexpr const char* kEmptyDir = "/masks/dir";
inline constexpr const char* kNewRoot = "/newroot";

}  // namespace codespace::launcher
