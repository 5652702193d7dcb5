// The control protocol under hostile packets: nothing but a whole, right request does anything.
#include <arpa/inet.h>
#include <spdlog/sinks/null_sink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <random>

#include "sandbox/egress/control.h"
#include "sandbox/wire/codec.h"

using namespace codespace;
using namespace codespace::egress;

namespace {

struct Fixture {
  boost::asio::io_context io{1};
  spdlog::logger log{"test", std::make_shared<spdlog::sinks::null_sink_st>()};
  Proxy proxy{io, {}, log};

  wire::EgressStatus ask(const std::vector<char>& packet, std::vector<sys::UniqueFd> fds = {}) {
    bool keep = false;
    const auto answer = answer_request(proxy, packet, std::move(fds), keep);
    wire::Reader r(answer);
    CHECK(r.u32() == wire::kEgressMagic);
    return static_cast<wire::EgressStatus>(r.u32());
  }
};

std::vector<char> open_packet(std::string_view id, std::uint32_t mode, const std::vector<std::string>& rules, std::uint32_t magic = wire::kEgressMagic) {
  wire::Writer w;
  w.u32(magic);
  w.u32(static_cast<std::uint32_t>(wire::EgressOp::open));
  w.raw(std::string(16, 'k'));
  w.bytes(id);
  w.u32(mode);
  w.u32(static_cast<std::uint32_t>(rules.size()));
  for (const auto& rule : rules) w.bytes(rule);
  return w.data();
}

/// A listening socket and a pipe, as init gives them.
std::vector<sys::UniqueFd> way_out(bool listening = true) {
  std::vector<sys::UniqueFd> fds;
  fds.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (listening) REQUIRE(::listen(fds[0].get(), 1) == 0);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  fds.emplace_back(ends[0]);
  ::close(ends[1]);
  return fds;
}

}  // namespace

TEST_CASE("a session is opened by a right request only", "[egress]") {
  Fixture f;
  const auto ok = wire::EgressStatus::ok, bad = wire::EgressStatus::bad_request;
  CHECK(f.ask(open_packet("session-a", 1, {"pypi.org"}), way_out()) == ok);
  CHECK(f.ask(open_packet("session-a", 2, {}), way_out()) == ok);  // again: takes the new rules
  CHECK(f.ask(open_packet("session-a", 1, {"pypi.org"})) == bad);  // without descriptors
  CHECK(f.ask(open_packet("session-a", 0, {}), way_out()) == bad);
  CHECK(f.ask(open_packet("session-a", 3, {}), way_out()) == bad);
  CHECK(f.ask(open_packet("session-a", 1, {"localhost"}), way_out()) == bad);
  CHECK(f.ask(open_packet("", 1, {"pypi.org"}), way_out()) == bad);
  CHECK(f.ask(open_packet("a\nforged line", 1, {"pypi.org"}), way_out()) == bad);
  CHECK(f.ask(open_packet(std::string(65, 'a'), 1, {"pypi.org"}), way_out()) == bad);
  CHECK(f.ask(open_packet("session-a", 1, {"pypi.org"}, 1), way_out()) == bad);
  CHECK(f.ask(open_packet("session-a", 1, std::vector<std::string>(wire::kMaxRules + 1, "pypi.org")), way_out()) == bad);
  auto longer = open_packet("session-a", 1, {"pypi.org"});
  longer.push_back(0);
  CHECK(f.ask(longer, way_out()) == bad);
}

TEST_CASE("only a listening socket is accepted from", "[egress]") {
  Fixture f;
  CHECK(f.ask(open_packet("session-a", 2, {}), way_out(false)) == wire::EgressStatus::no_capacity);
}

TEST_CASE("every cut of a request is refused", "[egress]") {
  Fixture f;
  const auto whole = open_packet("session-a", 1, {"pypi.org", "*.example.com:8443"});
  for (std::size_t n = 0; n < whole.size(); ++n)
    CHECK(f.ask({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(n)}, way_out()) == wire::EgressStatus::bad_request);
}

TEST_CASE("random packets are answered and change nothing", "[egress]") {
  Fixture f;
  std::mt19937 random(7);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<char> packet(random() % 200);
    for (char& c : packet) c = static_cast<char>(random());
    if (packet.size() >= 8 && random() % 2 == 0) {
      const std::uint32_t head[] = {wire::kEgressMagic, static_cast<std::uint32_t>(random() % 6)};
      std::memcpy(packet.data(), head, sizeof head);
    }
    (void)f.ask(packet);
  }
  CHECK(f.proxy.totals().connections == 0);
}
