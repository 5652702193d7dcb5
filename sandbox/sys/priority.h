// How threads of one program come after each other.
#pragma once

#include <pthread.h>
#include <sched.h>

namespace codespace::sys {

/// The calling thread, once woken, no longer takes the processor from whoever woke it, who has a request to go on
/// with (SCHED_BATCH, sched(7)). Where that is not permitted everything is slower and nothing worse.
inline void let_wakers_go_on() {
  const sched_param normal{};
  (void)::pthread_setschedparam(::pthread_self(), SCHED_BATCH, &normal);
}

}  // namespace codespace::sys
