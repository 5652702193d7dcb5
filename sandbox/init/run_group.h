// Control groups as init sees them: one child group per kernel and per command, below the
// directory the launcher delegated. It is how init knows what belongs to a run, counts it,
// and kills it whatever it did to hide (double fork, setsid, stopped, ignoring signals).
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sys/unique_fd.h"

namespace codespace::init {

enum class CgroupBackend { v1, v2 };

class RunGroup {
 public:
  /// Makes the group `name`; ok() is false if that failed.
  RunGroup(CgroupBackend backend, std::string name);
  RunGroup(const RunGroup&) = delete;
  RunGroup& operator=(const RunGroup&) = delete;
  /// Removes the group if it is empty by now.
  ~RunGroup();

  [[nodiscard]] bool ok() const { return ok_; }
  /// In a forked child, before it changes its user: moves the caller in. False with errno.
  [[nodiscard]] bool join_self() const;

  [[nodiscard]] const std::string& name() const { return name_; }

  /// Pids of all members, as seen in this session.
  [[nodiscard]] std::vector<pid_t> members() const;
  [[nodiscard]] bool empty() const { return members().empty(); }
  /// SIGKILLs every member not in `spare`. True once none is left. Forking is forbidden to
  /// the group until allow_forks(), so a fork bomb cannot outrun this.
  bool kill_all_but(const std::vector<pid_t>& spare);
  void allow_forks();
  void signal_all(int signal) const;

  [[nodiscard]] std::uint64_t cpu_ns() const;
  [[nodiscard]] std::uint64_t memory_bytes() const;
  [[nodiscard]] std::uint64_t memory_peak_bytes() const;
  [[nodiscard]] std::uint32_t pids_now() const;
  [[nodiscard]] std::uint32_t pids_peak() const;
  [[nodiscard]] std::uint64_t oom_kills() const;
  /// Starts a new measure of the memory peak where the kernel can (v1; v2 from Linux 6.12).
  void reset_memory_peak();

 private:
  enum Controller { memory, pids, cpuacct };
  /// A file that is read in every run, kept open: one call in place of four.
  struct Kept {
    Controller controller;
    const char* v1;
    const char* v2;
    sys::UniqueFd fd;
  };
  [[nodiscard]] std::string text(Kept& kept) const;
  [[nodiscard]] int dir(Controller controller) const;

  CgroupBackend backend_;
  std::string name_;
  bool ok_ = false;
  std::array<sys::UniqueFd, 3> dirs_;
  mutable Kept cpu_{cpuacct, "cpuacct.usage", "cpu.stat", {}};
  mutable Kept oom_{memory, "memory.oom_control", "memory.events", {}};
  // Writable, because on v2 a reset holds for the descriptor that wrote it.
  mutable Kept memory_peak_{memory, "memory.max_usage_in_bytes", "memory.peak", {}};
  mutable Kept pids_now_{pids, "pids.current", "pids.current", {}};
  mutable Kept pids_peak_{pids, "pids.peak", "pids.peak", {}};
};

}  // namespace codespace::init
