// See reaper.h.
#include "sandbox/init/reaper.h"

#include <sys/wait.h>

#include <utility>

namespace codespace::init {

void Reaper::collect() {
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG | __WALL);
    if (pid <= 0) return;
    const auto found = expected_.find(pid);
    if (found == expected_.end()) continue;
    const OnExit on_exit = std::move(found->second);
    expected_.erase(found);
    ExitFacts facts;
    if (WIFEXITED(status)) facts.code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) facts.signal = WTERMSIG(status);
    on_exit(facts);
  }
}

}  // namespace codespace::init
