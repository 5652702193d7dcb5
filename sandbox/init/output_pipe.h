// The read end of a tenant's stdout or stderr. Always drained, so a chatty program never
// blocks on us; where the bytes go changes with the run, and between runs they are dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "sandbox/init/event_loop.h"
#include "sandbox/sys/unique_fd.h"

namespace codespace::init {

class OutputPipe {
 public:
  using Sink = std::function<void(std::string_view)>;

  explicit OutputPipe(EventLoop& loop) : loop_(loop) {}
  OutputPipe(const OutputPipe&) = delete;
  OutputPipe& operator=(const OutputPipe&) = delete;
  ~OutputPipe() { close(); }

  void open(sys::UniqueFd reader);
  void close();
  [[nodiscard]] bool is_open() const { return static_cast<bool>(reader_); }
  void set_sink(Sink sink) { sink_ = std::move(sink); }
  /// Called at end-of-file, after the last bytes.
  void set_on_end(std::function<void()> on_end) { on_end_ = std::move(on_end); }
  /// Reads what is in the pipe now, at most one pipe's worth, without waiting for more: a
  /// grandchild that goes on writing cannot hold a finished run open.
  void drain();

 private:
  /// Bytes taken; 0 when there is nothing more for now.
  std::size_t read_once();

  EventLoop& loop_;
  sys::UniqueFd reader_;
  Sink sink_;
  std::function<void()> on_end_;
};

}  // namespace codespace::init
