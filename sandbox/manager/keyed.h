// Digests of requests for idempotency keys: the same request always gives the same bytes,
// whatever order its labels or environment were written in. Pure functions.
#pragma once

#include "sandbox/manager/records.h"
#include "sandbox/manager/store.h"

namespace codespace::manager {

Digest digest_create(const SessionSpec& spec);
Digest digest_run(const std::string& session_id, const RunSpec& spec);
Digest digest_command(const std::string& session_id, const CommandSpec& spec);

}  // namespace codespace::manager
