// How the launcher gives up the host: from root, or from a service user with CAP_SETUID and
// CAP_SETGID, to a process that has no capability in the initial user namespace and sees
// nothing of the host's file system but what sessions are made of.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::launcher {

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;  // shared with the gateway: members may connect to the sockets
};

struct IdRange {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};

/// Drops to `identity` with only CAP_SETUID and CAP_SETGID, no supplementary groups and
/// no_new_privs. Works from root and from a service that already has that identity.
Result<void> drop_to_service_user(const Identity& identity);

/// Creates the outer user namespace: 0 -> identity, 1.. -> the range. Afterwards the
/// process has every capability in it and none outside (user_namespaces(7)).
Result<void> enter_outer_namespace(const Identity& identity, const IdRange& range);

/// Replaces the root by a small tmpfs: /run (runtime directory), /images, /usr (for images
/// that use the host's), /proc, /devices (six bind sources), /masks, /templates, /newroot, /stage.
Result<void> enter_small_root(const std::string& runtime_dir, const std::string& images_dir);

}  // namespace codespace::launcher
