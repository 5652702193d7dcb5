// What this machine should offer and how it should be set, for `codespaced check-host` and
// /readyz. Reads files below `root` and changes nothing; needs no privilege.
#pragma once

#include <string>
#include <vector>

namespace codespace::server {

struct HostFact {
  enum class Verdict {
    ok,
    advised,   // works without, at a risk that `why` says
    required,  // nothing, or nothing safe, works without
  };
  std::string name;    // a setting or a feature: "kernel.kptr_restrict", "control groups"
  Verdict verdict = Verdict::ok;
  std::string found;
  std::string why;     // why it matters; empty if ok
  std::string mend;    // a command, or what to do; empty if ok
};

/// In the order to show them. `root` is "" but in tests.
std::vector<HostFact> check_host(const std::string& root = "");

}  // namespace codespace::server
