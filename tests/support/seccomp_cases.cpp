// Prints the cases of the seccomp policy for this machine, a line each: number, six arguments, and the errno that is planned (0: the call is made). tests/security makes
// them in a session. For calls without a condition the arguments are such that a call which is made does nothing.
#include <cstdio>

#include "tests/support/seccomp_cases.h"

int main() {
  namespace test = codespace::test;
  const auto rules = test::rules_of_calls(codespace::launcher::kNative);
  for (int number = 0; number < 512; ++number) {
    bool conditional = false;
    for (auto [rule, end] = rules.equal_range(number); rule != end; ++rule) {
      for (const auto& c : rule->second->when) conditional = conditional || c.mask != 0;
    }
    auto all = test::tries(rules, number);
    if (!conditional) all = {{~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL, ~0ULL}};
    for (const auto& arguments : all) {
      std::printf("%d", number);
      for (const auto argument : arguments) std::printf(" %llx", static_cast<unsigned long long>(argument));
      std::printf(" %d %d\n", test::planned(rules, number, arguments), conditional ? 1 : 0);
    }
  }
}
