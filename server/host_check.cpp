// See host_check.h. The reasons are in docs/threat-model.md and docs/operations.md.
#include "server/host_check.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

namespace codespace::server {
namespace {

using Verdict = HostFact::Verdict;

std::optional<std::string> read(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::stringstream text;
  text << in.rdbuf();
  std::string out = text.str();
  while (!out.empty() && (out.back() == '\n' || out.back() == ' ')) out.pop_back();
  return out;
}

std::optional<long long> number(const std::string& path) {
  const auto text = read(path);
  if (!text) return std::nullopt;
  long long value = 0;
  return std::sscanf(text->c_str(), "%lld", &value) == 1 ? std::optional(value) : std::nullopt;
}

/// A kernel setting that should lie within bounds. One that this kernel does not have is no matter.
struct Setting {
  const char* name;
  long long least, most, wanted;
  Verdict verdict;
  const char* why;
};
constexpr long long kAny = 1LL << 60;
constexpr Setting kSettings[] = {
    {"user.max_user_namespaces", 1, kAny, 65536, Verdict::required, "sessions are made of user namespaces"},
    {"kernel.unprivileged_userns_clone", 1, kAny, 1, Verdict::required, "the launcher makes user namespaces without privilege"},
    {"kernel.apparmor_restrict_unprivileged_userns", 0, 0, 0, Verdict::required,
     "AppArmor keeps the launcher from making user namespaces; switch that off, or give the launcher a profile with `userns,`"},
    {"kernel.unprivileged_bpf_disabled", 1, 2, 1, Verdict::advised, "anybody may load BPF programs; sessions may not, but another service that falls could"},
    {"kernel.kptr_restrict", 1, 2, 1, Verdict::advised, "addresses of the kernel are shown, which exploits need"},
    {"kernel.dmesg_restrict", 1, 1, 1, Verdict::advised, "the kernel's log is shown to everybody, with addresses in it"},
    {"kernel.perf_event_paranoid", 2, kAny, 2, Verdict::advised, "anybody may watch the kernel by perf events"},
    {"kernel.io_uring_disabled", 1, 2, 2, Verdict::advised, "io_uring has had many holes; sessions cannot use it, and nothing else here may need it"},
    {"vm.unprivileged_userfaultfd", 0, 0, 0, Verdict::advised, "user fault handling makes races of the kernel easy to win"},
    {"fs.protected_symlinks", 1, 1, 1, Verdict::advised, "links in shared directories can lead services astray"},
    {"fs.protected_hardlinks", 1, 1, 1, Verdict::advised, "links to others' files can lead services astray"},
    {"fs.protected_fifos", 1, 2, 1, Verdict::advised, "FIFOs in shared directories can lead services astray"},
    {"fs.protected_regular", 1, 2, 1, Verdict::advised, "files in shared directories can lead services astray"},
    {"fs.suid_dumpable", 0, 0, 0, Verdict::advised, "memory of set-user-id programs can reach the disk"},
    {"dev.tty.legacy_tiocsti", 0, 0, 0, Verdict::advised, "input can be pushed into terminals; sessions have none of the host's, other services may"},
    {"vm.nr_hugepages", 0, 0, 0, Verdict::advised, "huge pages are counted by no memory limit; sessions cannot ask for them, so they only cost memory here"},
    {"fs.inotify.max_user_instances", 1024, kAny, 4096, Verdict::advised,
     "all sessions draw their inotify instances, up to 16 each, from one allowance of the launcher's user"},
    {"kernel.pid_max", 131072, kAny, 4194304, Verdict::advised, "few process ids for many sessions with up to some hundred processes each"},
    {"kernel.yama.ptrace_scope", 1, 3, 1, Verdict::advised, "a service that falls can trace others of its user"},
};

void add_settings(const std::string& root, std::vector<HostFact>& facts) {
  for (const Setting& s : kSettings) {
    std::string path = s.name;
    std::ranges::replace(path, '.', '/');
    const auto value = number(root + "/proc/sys/" + path);
    if (!value) continue;
    HostFact fact{s.name, Verdict::ok, std::to_string(*value), "", ""};
    if (*value < s.least || *value > s.most) {
      fact.verdict = s.verdict;
      fact.why = s.why;
      fact.mend = "sysctl -w " + std::string(s.name) + "=" + std::to_string(s.wanted);
    }
    facts.push_back(std::move(fact));
  }
}

HostFact kernel(const std::string& root) {
  HostFact fact{"kernel", Verdict::ok, read(root + "/proc/sys/kernel/osrelease").value_or("unknown"), "", ""};
  int major = 0, minor = 0;
  (void)std::sscanf(fact.found.c_str(), "%d.%d", &major, &minor);
  if (major > 5 || (major == 5 && minor >= 15)) return fact;
  fact.verdict = Verdict::required;
  fact.why = "sessions need calls of Linux 5.15";
  fact.mend = "install a newer kernel, such as Debian 12's";
  return fact;
}

HostFact control_groups(const std::string& root) {
  HostFact fact{"control groups", Verdict::ok, "", "", ""};
  const std::string v2 = " " + read(root + "/sys/fs/cgroup/cgroup.controllers").value_or("") + " ";
  const auto in_v2 = [&](const char* name) { return v2.find(" " + std::string(name) + " ") != std::string::npos; };
  if (in_v2("memory") && in_v2("pids") && in_v2("cpu")) {
    fact.found = "version 2";
    return fact;
  }
  const std::string all = read(root + "/proc/self/mountinfo").value_or("");
  std::string missing;
  for (const char* name : {"memory", "pids", "cpu", "cpuacct", "freezer"}) {
    bool mounted = false;
    std::istringstream lines(all);
    for (std::string line; std::getline(lines, line);) {
      const std::size_t dash = line.find(" - cgroup ");
      if (dash != std::string::npos && ("," + line.substr(line.rfind(' ') + 1) + ",").find("," + std::string(name) + ",") != std::string::npos) mounted = true;
    }
    if (!mounted) missing += (missing.empty() ? "" : ", ") + std::string(name);
  }
  fact.found = missing.empty() ? "version 1" : "version 2 lacks a controller, version 1 lacks " + missing;
  fact.verdict = missing.empty() ? Verdict::advised : Verdict::required;
  fact.why = missing.empty() ? "version 1 counts neither record locks nor the queues of UDP sockets" : "no limit of a session could hold";
  fact.mend = "boot with systemd.unified_cgroup_hierarchy=1";
  return fact;
}

HostFact system_call_filters(const std::string& root) {
  const std::string actions = " " + read(root + "/proc/sys/kernel/seccomp/actions_avail").value_or("") + " ";
  HostFact fact{"system call filters", Verdict::ok, "there", "", ""};
  if (actions.find(" errno ") != std::string::npos && actions.find(" kill_process ") != std::string::npos) return fact;
  return {"system call filters", Verdict::required, "missing", "a session's calls could not be filtered", "use a kernel with CONFIG_SECCOMP_FILTER"};
}

HostFact core_dumps(const std::string& root) {
  HostFact fact{"kernel.core_pattern", Verdict::ok, read(root + "/proc/sys/kernel/core_pattern").value_or("core"), "", ""};
  if (!fact.found.starts_with('|')) return fact;
  // RLIMIT_CORE 1 keeps sessions from it (core(5)); the helper is still root's, fed with a crashed program's memory.
  fact.verdict = Verdict::advised;
  fact.why = "crashes are handed to a program that runs as root; those of sessions are not, by their resource limit";
  fact.mend = "sysctl -w kernel.core_pattern=core";
  return fact;
}

HostFact processors(const std::string& root) {
  HostFact fact{"processor flaws", Verdict::ok, "none that is open", "", ""};
  std::string open;
  for (const char* flaw : {"meltdown", "spectre_v1", "spectre_v2", "l1tf", "mds", "tsx_async_abort", "mmio_stale_data", "retbleed", "gather_data_sampling",
                           "reg_file_data_sampling", "srso", "spec_store_bypass", "indirect_target_selection"}) {
    const auto state = read(root + "/sys/devices/system/cpu/vulnerabilities/" + flaw);
    if (state && state->starts_with("Vulnerable")) open += (open.empty() ? "" : ", ") + std::string(flaw);
  }
  if (open.empty()) return fact;
  return {"processor flaws", Verdict::advised, open, "a session could read memory that is not its own", "install the processor's microcode, and boot without mitigations=off"};
}

HostFact threads_of_a_core(const std::string& root) {
  const auto active = number(root + "/sys/devices/system/cpu/smt/active");
  HostFact fact{"simultaneous multithreading", Verdict::ok, active == 1 ? "on" : "off", "", ""};
  if (active != 1) return fact;
  fact.verdict = Verdict::advised;
  fact.why = "two sessions on one core can watch each other through what they share of it; this matters between hostile tenants only";
  fact.mend = "echo off > /sys/devices/system/cpu/smt/control";
  return fact;
}

}  // namespace

std::vector<HostFact> check_host(const std::string& root) {
  std::vector<HostFact> facts{kernel(root), control_groups(root), system_call_filters(root)};
  add_settings(root, facts);
  facts.push_back(core_dumps(root));
  facts.push_back(processors(root));
  facts.push_back(threads_of_a_core(root));
  return facts;
}

}  // namespace codespace::server
