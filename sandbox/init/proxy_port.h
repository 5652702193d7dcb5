// The session's end of its way out: a socket that listens at 127.0.0.1:3128. It is given to the
// egress proxy if the session may go out; until then whoever connects is told, in one line, that
// there is no network and how to get one. Bytes of the tenant are never read here for their meaning.
#pragma once

#include <list>

#include "sandbox/init/event_loop.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::init {

class ProxyPort {
 public:
  explicit ProxyPort(EventLoop& loop);

  /// From now on somebody else accepts. The descriptors stay init's; send copies. Not valid (-1) if
  /// the socket could not be made. May be asked for again, when the proxy was started anew.
  struct Ends {
    int listener = -1;
    int life = -1;  // reading end of a pipe to which nobody ever writes
  };
  Ends hand_over();

 private:
  struct Guest {
    sys::UniqueFd fd;
    EventLoop::TimerId timer = 0;
    bool answered = false;
  };
  void accept();
  void on_event(Guest& guest);
  void drop(Guest& guest);

  EventLoop& loop_;
  sys::UniqueFd listener_;
  sys::UniqueFd life_reader_, life_writer_;
  bool handed_over_ = false;
  std::list<Guest> guests_;
};

}  // namespace codespace::init
