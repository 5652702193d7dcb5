// Init's look at its own confinement, and the seccomp programs it puts on itself and, by
// inheritance, on everything it will ever start.
#pragma once

#include "sandbox/wire/setup_protocol.h"

namespace codespace::init {

/// Drops the inheritable set that carried the capabilities over exec. False with errno.
bool keep_own_capabilities();

/// Loads filters A and B from kInitSeccompFd and closes it. False with errno.
bool install_seccomp();

/// Reads capabilities, ids, securebits, mounts, descriptors... of this process.
wire::PostureFacts read_posture();

/// In a forked child about to execute a tenant's program: true if it is the tenant, without
/// any capability, under both filters and no_new_privs. Async-signal-safe.
bool tenant_posture_holds();

}  // namespace codespace::init
