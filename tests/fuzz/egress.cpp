// What a session says to the egress proxy, and the gateway's packets to it.
#include <spdlog/sinks/null_sink.h>

#include "sandbox/egress/client_hello.h"
#include "sandbox/egress/control.h"
#include "sandbox/egress/rules.h"
#include "tests/fuzz/fuzz.h"

using namespace codespace;
using namespace codespace::fuzz;

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static boost::asio::io_context io(1);
  static spdlog::logger log("fuzz", std::make_shared<spdlog::sinks::null_sink_st>());
  static egress::Proxy proxy(io, {}, log);
  const std::string_view all = text(data, size);

  if (const auto target = egress::parse_target(all, 80)) {
    const auto again = egress::parse_target(egress::to_string(*target), std::nullopt);
    must_hold(again && again->host == target->host && again->port == target->port && again->is_address == target->is_address,
              "a target is read again as it was written");
    for (const char c : target->host)
      must_hold((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_' || c == ':', "a host has harmless characters only");
    must_hold(!target->host.ends_with('.'), "no final dot");
    const auto rule = egress::parse_rule(egress::to_string(*target));
    must_hold(rule && egress::permits(*rule, *target), "a target is permitted by the rule of its name");
  }
  if (const auto rule = egress::parse_rule(all)) must_hold(!rule->host.empty(), "a rule has a host");
  if (const auto network = egress::parse_network(all)) must_hold(egress::contains(*network, network->base), "a network contains its own address");

  const auto name = egress::server_name({data, size});
  if (name.found == egress::ServerName::Found::incomplete) must_hold(size < egress::kMaxClientHello, "it is decided in the end");
  bool keep = false;
  must_hold(egress::answer_request(proxy, {all.data(), all.size()}, {}, keep).size() >= 8, "every packet is answered");
  return 0;
}
