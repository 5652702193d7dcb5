// See output_pipe.h.
#include "sandbox/init/output_pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

namespace codespace::init {
namespace {

constexpr std::size_t kPipeCapacity = 64 * 1024;  // of a default pipe, pipe(7)

}  // namespace

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

bool OutputPipe::read_once() {
  static char buffer[kPipeCapacity];  // one thread, never across calls
  const ssize_t n = ::read(reader_.get(), buffer, sizeof buffer);
  if (n > 0) {
    if (sink_) sink_({buffer, static_cast<std::size_t>(n)});
    return true;
  }
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  close();
  if (on_end_) {
    const auto on_end = on_end_;  // may destroy this object
    on_end();
  }
  return false;
}

void OutputPipe::drain() {
  for (int i = 0; i < 4 && reader_; ++i) {
    if (!read_once()) return;
  }
}

}  // namespace codespace::init
