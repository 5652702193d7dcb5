// Machines made of files: a good one, and ones that lack one thing each.
#include "server/host_check.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <map>

#include "../manager/fakes.h"

using namespace codespace;
using server::HostFact;
using Verdict = HostFact::Verdict;

namespace {

class Machine {
 public:
  Machine() {
    set("/proc/sys/kernel/osrelease", "6.1.0-28-amd64");
    set("/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids");
    set("/proc/self/mountinfo", "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
    set("/proc/sys/kernel/seccomp/actions_avail", "kill_process kill_thread trap errno user_notif trace log allow");
    set("/proc/sys/user/max_user_namespaces", "127000");
    set("/proc/sys/kernel/kptr_restrict", "1");
    set("/proc/sys/kernel/core_pattern", "core");
    set("/sys/devices/system/cpu/vulnerabilities/mds", "Not affected");
    set("/sys/devices/system/cpu/smt/active", "0");
  }
  void set(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << '\n';
  }
  [[nodiscard]] std::map<std::string, HostFact> facts() const {
    std::map<std::string, HostFact> out;
    for (HostFact& fact : server::check_host(root_.path())) out[fact.name] = fact;
    return out;
  }

 private:
  test::TempDir root_;
};

}  // namespace

TEST_CASE("a machine that has everything lacks nothing", "[server]") {
  for (const auto& [name, fact] : Machine().facts()) {
    INFO(name);
    CHECK(fact.verdict == Verdict::ok);
    CHECK(fact.mend.empty());
  }
}

TEST_CASE("each thing that is lacking is told with its reason and what mends it", "[server]") {
  struct Lack {
    const char *path, *text, *name;
    Verdict verdict;
    const char* mend;
  };
  for (const Lack& lack : {
           Lack{"/proc/sys/kernel/osrelease", "5.10.0-33-amd64", "kernel", Verdict::required, "newer kernel"},
           Lack{"/sys/fs/cgroup/cgroup.controllers", "cpuset io", "control groups", Verdict::required, "unified_cgroup_hierarchy"},
           Lack{"/proc/sys/kernel/seccomp/actions_avail", "", "system call filters", Verdict::required, "SECCOMP"},
           Lack{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces", Verdict::required, "sysctl -w user.max_user_namespaces=65536"},
           Lack{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns", Verdict::required, "=0"},
           Lack{"/proc/sys/kernel/kptr_restrict", "0", "kernel.kptr_restrict", Verdict::advised, "sysctl -w kernel.kptr_restrict=1"},
           Lack{"/proc/sys/kernel/perf_event_paranoid", "-1", "kernel.perf_event_paranoid", Verdict::advised, "=2"},
           Lack{"/proc/sys/kernel/core_pattern", "|/usr/share/apport/apport %p", "kernel.core_pattern", Verdict::advised, "core_pattern=core"},
           Lack{"/sys/devices/system/cpu/vulnerabilities/mds", "Vulnerable: Clear CPU buffers attempted, no microcode", "processor flaws", Verdict::advised, "microcode"},
           Lack{"/sys/devices/system/cpu/smt/active", "1", "simultaneous multithreading", Verdict::advised, "smt/control"},
       }) {
    Machine machine;
    machine.set(lack.path, lack.text);
    const HostFact fact = machine.facts().at(lack.name);
    INFO(lack.name);
    CHECK(fact.verdict == lack.verdict);
    CHECK_FALSE(fact.why.empty());
    CHECK(fact.mend.find(lack.mend) != std::string::npos);
  }
}

TEST_CASE("control groups of version 1 will do, and it is said what they lack", "[server]") {
  Machine machine;
  machine.set("/sys/fs/cgroup/cgroup.controllers", "");
  machine.set("/proc/self/mountinfo",
              "1 0 0:1 / /a rw - cgroup cgroup rw,memory\n2 0 0:2 / /b rw - cgroup cgroup rw,pids\n3 0 0:3 / /c rw - cgroup cgroup rw,cpu,cpuacct\n"
              "4 0 0:4 / /d rw - cgroup cgroup rw,freezer");
  CHECK(machine.facts().at("control groups").found == "version 1");
  CHECK(machine.facts().at("control groups").verdict == Verdict::advised);
  machine.set("/proc/self/mountinfo", "1 0 0:1 / /a rw - cgroup cgroup rw,memory");
  CHECK(machine.facts().at("control groups").verdict == Verdict::required);
  CHECK(machine.facts().at("control groups").found.find("pids, cpu, cpuacct, freezer") != std::string::npos);
}
