// A copy of what the gateway must not lose, in one file, while it runs: the database as of one
// moment, and the files beside it that clients rely on (certificates) or operators do (the first key).
// The file is an SQLite database, so it can be looked into. Sessions' own files live in memory and are in no backup.
#pragma once

#include <string>

#include "sandbox/sys/result.h"

namespace codespace::manager {

/// Writes `file`, which must not exist, with mode 0600. Neither waits for the gateway nor makes it wait
/// (VACUUM INTO reads one snapshot of the write-ahead log).
Result<void> write_backup(const std::string& state_dir, const std::string& file);

/// Puts a backup's contents into `state_dir`, which must have no database; it is made if it is missing. The
/// gateway of that directory must not run. Sessions of the backup that are alive no more are marked as lost at the next start.
Result<void> restore_backup(const std::string& file, const std::string& state_dir);

}  // namespace codespace::manager
