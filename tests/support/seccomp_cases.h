// What the table of the seccomp policy says, worked out without libseccomp and without BPF, and the calls to try it with.
#pragma once

#include <seccomp.h>

#include <map>
#include <string>
#include <vector>

#include "sandbox/launcher/seccomp_policy.h"

namespace codespace::test {

using Arguments = std::array<std::uint64_t, 6>;
using launcher::Architecture;
using launcher::Condition;
using launcher::Filter;
using launcher::SeccompRule;

/// One rule that names the call, in the order of the table.
using RulesOfCalls = std::multimap<int, const SeccompRule*>;

inline std::vector<std::string> words(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (end > 0) out.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

inline int number_of(const std::string& call, Architecture architecture) {
  return seccomp_syscall_resolve_name_arch(architecture == Architecture::aarch64 ? SCMP_ARCH_AARCH64 : SCMP_ARCH_X86_64, call.c_str());
}

inline RulesOfCalls rules_of_calls(Architecture architecture) {
  RulesOfCalls rules;
  for (const SeccompRule& rule : launcher::seccomp_table()) {
    for (const std::string& call : words(rule.calls)) {
      if (const int number = number_of(call, architecture); number >= 0) rules.emplace(number, &rule);
    }
  }
  return rules;
}

inline bool holds(const SeccompRule& rule, const Arguments& arguments) {
  for (const Condition& c : rule.when) {
    if (c.mask != 0 && (arguments[c.argument] & c.mask) != c.value) return false;
  }
  return true;
}

/// The errno a session gets; 0: the call is made.
inline int planned(const RulesOfCalls& rules, int number, const Arguments& arguments) {
  int in_a = launcher::kUnknownCallError, in_b = 0;
  for (auto [rule, end] = rules.equal_range(number); rule != end; ++rule) {
    if (holds(*rule->second, arguments)) (rule->second->filter == Filter::a ? in_a : in_b) = rule->second->error;
  }
  // Both refuse: the filter loaded last has the word.
  return in_b != 0 ? in_b : in_a;
}

/// Arguments that meet each rule's conditions, and those that miss them by one bit, any of the 64.
inline std::vector<Arguments> tries(const RulesOfCalls& rules, int number) {
  std::vector<Arguments> out{{}, {~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL}};
  for (auto [rule, end] = rules.equal_range(number); rule != end; ++rule) {
    Arguments met{};
    for (const Condition& c : rule->second->when) met[c.argument] |= c.value;
    out.push_back(met);
    for (const Condition& c : rule->second->when) {
      if (c.mask == 0) continue;
      for (unsigned bit = 0; bit < 64; ++bit) {
        Arguments near = met;
        near[c.argument] ^= 1ULL << bit;
        out.push_back(near);
      }
      Arguments far = met;
      far[c.argument] = ~c.value;
      out.push_back(far);
    }
  }
  return out;
}

}  // namespace codespace::test
