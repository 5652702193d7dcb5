// The zygotes: for each image and flavour one preloaded interpreter, executed by the
// launcher inside the image's template, outside of every session, and forked from there
// into fresh ones. Their only power is what the launcher's user has over the namespaces it
// made: to enter them. They hold no capability, no network and no writable file that lasts.
// Part of the launcher's single-threaded loop.
#pragma once

#include <poll.h>
#include <sys/types.h>

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <vector>

#include "sandbox/sys/affinity.h"
#include "sandbox/sys/result.h"
#include "sandbox/sys/unique_fd.h"
#include "sandbox/wire/launcher_protocol.h"

namespace codespace::launcher {

/// The one language that has zygotes: an interpreter with threads, like node, cannot be forked.
inline constexpr const char* kZygoteLanguage = "python";

/// All children of a zygote have its address-space layout and hash seed; a new one is made
/// in the background after this many forks or this much time, and then takes over.
inline constexpr std::uint32_t kZygoteForks = 500;
inline constexpr std::uint64_t kZygoteAgeNs = 600ULL * 1'000'000'000;

class Zygotes {
 public:
  /// `library` is codespace-zygote.so in a sealed memfd; without it no flavour is available.
  Zygotes(sys::UniqueFd library, const sys::UniqueFd& seccomp) : library_(std::move(library)), seccomp_(seccomp) {}

  /// True if a kernel can be forked now. If not, a zygote is started for the next time, where
  /// the image has one and it did not fail a moment ago.
  bool ready(std::uint64_t image, wire::Flavour flavour);
  /// True if one is being made.
  [[nodiscard]] bool starting(std::uint64_t image, wire::Flavour flavour);
  /// Asks for a kernel: `descriptors` as in wire::ZygoteRequest, copied by the call. False if it
  /// could not be asked.
  bool fork(std::uint64_t image, wire::Flavour flavour, bool group_by_clone, sys::Processors processors, std::span<const int> descriptors);

  /// For the loop: what to poll, and what to do with it, in the same order.
  void add_polled(std::vector<pollfd>& polled) const;
  void on_polled(std::span<const pollfd> polled);
  /// Ends a zygote that does not answer: a child that was stopped on its way holds it up.
  void check_time();
  [[nodiscard]] bool waiting() const;
  /// Starts successors of zygotes that are due; called when nothing else is to be done.
  void renew();
  void kill_all();

 private:
  enum class State { starting, ready, failed };
  struct Zygote {
    std::uint64_t image = 0;
    wire::Flavour flavour{};
    State state = State::starting;
    bool successor = false;  // waits to take over from a ready one
    std::uint32_t forks = 0;
    std::uint64_t asked_ns = 0;   // the oldest fork it did not answer yet; 0: none
    std::uint32_t unanswered = 0;
    std::uint32_t failures = 0;   // forks that failed in a row
    std::uint64_t born_ns = 0;    // failed: when it failed
    std::uint32_t attempts = 0;   // failed: starts in a row that came to nothing
    sys::UniqueFd pidfd;
    sys::UniqueFd channel;
  };

  Zygote* find(std::uint64_t image, wire::Flavour flavour);
  void start(Zygote& zygote);
  void on_channel(Zygote& zygote);
  void fail(Zygote& zygote, const char* why, int sys_errno);
  [[nodiscard]] static bool offered(std::uint64_t image, wire::Flavour flavour);

  sys::UniqueFd library_;
  const sys::UniqueFd& seccomp_;
  std::list<Zygote> zygotes_;
};

}  // namespace codespace::launcher
