// Broken invariants abort. Never used on input: input is answered with an Error.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CODESPACE_ASSERT(cond, why)                                                        \
  do {                                                                                     \
    if (!(cond)) [[unlikely]] {                                                            \
      std::fprintf(stderr, "<2>%s:%d: broken invariant: %s (%s)\n", __FILE__, __LINE__,    \
                   #cond, why);                                                            \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)
