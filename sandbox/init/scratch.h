// One buffer for what is read and copied on at once. Not on the stack: the compiler writes to every page of a large
// array there, each time (-fstack-clash-protection, -ftrivial-auto-var-init), and each session would keep those pages.
#pragma once

#include <array>
#include <cstddef>

namespace codespace::init {

inline constexpr std::size_t kScratchBytes = std::size_t{64} * 1024;  // of a default pipe, pipe(7)

/// Init has one thread; nobody may keep what is in it over a call of anybody else's.
inline char* scratch() {
  static std::array<char, kScratchBytes> buffer;
  return buffer.data();
}

}  // namespace codespace::init
