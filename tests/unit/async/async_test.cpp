#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_future.hpp>
#include <catch2/catch.hpp>
#include <thread>

#include "sandbox/async/deadline_queue.h"
#include "sandbox/async/event.h"
#include "sandbox/async/task_group.h"

using namespace codespace::async;
using namespace std::chrono_literals;
namespace asio = boost::asio;

namespace {

TimePoint in(std::chrono::milliseconds delay) { return std::chrono::steady_clock::now() + delay; }

}  // namespace

TEST_CASE("deadlines fire in order and can be taken back", "[async]") {
  asio::io_context io;
  DeadlineQueue queue(io.get_executor());
  std::string order;
  const auto c = queue.add(in(6ms), [&] { order += 'c'; });
  const auto a = queue.add(in(2ms), [&] { order += 'a'; });
  auto b = queue.add(in(4ms), [&] { order += 'b'; });
  b.cancel();
  {
    const auto gone = queue.add(in(3ms), [&] { order += 'x'; });
  }
  io.run_for(100ms);
  CHECK(order == "ac");
}

TEST_CASE("an event wakes all who wait, and those who come later do not wait", "[async]") {
  asio::io_context io;
  Event event;
  int woken = 0;
  const auto waiter = [&]() -> asio::awaitable<void> {
    co_await event.wait();
    ++woken;
  };
  for (int i = 0; i < 3; ++i) asio::co_spawn(io, waiter(), asio::detached);
  asio::post(io, [&] { event.set(); });
  io.run();
  CHECK(woken == 3);
  io.restart();
  asio::co_spawn(io, waiter(), asio::detached);
  io.run();
  CHECK(woken == 4);
}

TEST_CASE("waiting for an event gives up at its deadline, or when cancelled", "[async]") {
  asio::io_context io;
  DeadlineQueue queue(io.get_executor());
  Event event;
  auto late = asio::co_spawn(io, event.wait_until(queue, in(2ms)), asio::use_future);
  asio::cancellation_signal signal;
  bool aborted = false;
  asio::co_spawn(io, event.wait(),
                 asio::bind_cancellation_slot(signal.slot(),
                                              [&](const std::exception_ptr& e) { aborted = e != nullptr; }));
  asio::post(io, [&] { signal.emit(asio::cancellation_type::terminal); });
  io.run_for(100ms);
  CHECK_FALSE(late.get());
  CHECK(aborted);
}

TEST_CASE("events between threads are not lost", "[async]") {
  asio::io_context io;
  auto work = asio::make_work_guard(io);
  DeadlineQueue queue(io.get_executor());
  std::thread one([&] { io.run(); });
  std::thread two([&] { io.run(); });
  for (int i = 0; i < 500; ++i) {
    Event event;
    auto waited = asio::co_spawn(io, event.wait_until(queue, in(20s)), asio::use_future);
    asio::post(io, [&] { event.set(); });
    REQUIRE(waited.get());
  }
  queue.stop();  // its last timer would keep the threads until it fires
  work.reset();
  one.join();
  two.join();
}

TEST_CASE("a task group cancels, reports escapes, and is empty afterwards", "[async]") {
  asio::io_context io;
  DeadlineQueue queue(io.get_executor());
  int escapes = 0;
  TaskGroup group([&](const std::exception_ptr&) { ++escapes; });
  Event never;
  const auto strand = asio::make_strand(io);
  const auto hang = [&]() -> asio::awaitable<void> { co_await never.wait(); };
  const auto fail = []() -> asio::awaitable<void> {
    throw std::runtime_error("bug");
    co_return;
  };
  CHECK(group.spawn(strand, hang()));
  CHECK(group.spawn(serial(io.get_executor()), fail()));
  io.run_for(5ms);
  CHECK(group.size() == 1);
  CHECK(escapes == 1);
  group.stop();
  CHECK_FALSE(group.spawn(strand, hang()));
  io.restart();
  auto empty = asio::co_spawn(io, group.wait_empty(queue, in(5s)), asio::use_future);
  io.run_for(200ms);
  REQUIRE(empty.wait_for(0s) == std::future_status::ready);
  CHECK(empty.get());
  CHECK(group.size() == 0);
}
