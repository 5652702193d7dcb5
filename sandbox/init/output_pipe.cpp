// See output_pipe.h.
#include "sandbox/init/output_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sandbox/init/scratch.h"

namespace codespace::init {

void OutputPipe::open(sys::UniqueFd reader) {
  close();
  reader_ = std::move(reader);
  (void)::fcntl(reader_.get(), F_SETFL, O_NONBLOCK);
  loop_.add(reader_.get(), EPOLLIN, [this](std::uint32_t) { (void)read_once(); });
}

void OutputPipe::close() {
  if (!reader_) return;
  loop_.remove(reader_.get());
  reader_.reset();
}

std::size_t OutputPipe::read_once() {
  const ssize_t n = ::read(reader_.get(), scratch(), kScratchBytes);
  if (n > 0) {
    if (sink_) sink_({scratch(), static_cast<std::size_t>(n)});
    return static_cast<std::size_t>(n);
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
  close();
  if (on_end_) {
    const auto on_end = on_end_;  // may destroy this object
    on_end();
  }
  return 0;
}

void OutputPipe::drain() {
  // What is in the pipe at this moment, however large the tenant made it (F_SETPIPE_SZ).
  int left = 0;
  if (!reader_ || ::ioctl(reader_.get(), FIONREAD, &left) != 0) return;
  while (left > 0 && reader_) {
    const std::size_t n = read_once();
    if (n == 0) return;
    left -= static_cast<int>(n);
  }
}

}  // namespace codespace::init
