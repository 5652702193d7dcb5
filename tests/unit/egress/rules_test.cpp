// What a host may look like, which rule permits it, and which addresses are public.
#include <arpa/inet.h>

#include <catch2/catch.hpp>

#include "sandbox/egress/address_policy.h"
#include "sandbox/egress/rules.h"

using namespace codespace::egress;

namespace {

Address address(const char* text) {
  const auto network = parse_network(text);
  REQUIRE(network);
  return network->base;
}

bool allowed(const char* rule, const char* target) {
  const auto r = parse_rule(rule);
  const auto t = parse_target(target, std::nullopt);
  INFO(rule << " " << target);
  REQUIRE(r);
  REQUIRE(t);
  return permits(*r, *t);
}

}  // namespace

TEST_CASE("a target has one spelling", "[egress]") {
  const auto name = parse_target("PyPI.org:443", std::nullopt);
  REQUIRE(name);
  CHECK(name->host == "pypi.org");
  CHECK(name->port == 443);
  CHECK_FALSE(name->is_address);
  CHECK(parse_target("pypi.org", 80)->port == 80);
  CHECK(parse_target("8.8.8.8:53", std::nullopt)->is_address);
  const auto v6 = parse_target("[2606:4700::1111]:443", std::nullopt);
  REQUIRE(v6);
  CHECK(v6->host == "2606:4700::1111");
  CHECK(to_string(*v6) == "[2606:4700::1111]:443");
  CHECK(parse_target("xn--bcher-kva.example:80", std::nullopt));
  CHECK(parse_target("under_score.example:80", std::nullopt));
}

TEST_CASE("odd spellings of hosts are refused, not normalised", "[egress]") {
  for (const char* text : {
           "", ":80", "a", "localhost:80", "pypi.org", "pypi.org:", "pypi.org:0", "pypi.org:080", "pypi.org:65536", "pypi.org:80x", "pypi.org:+80", "pypi.org:80:80",
           "pypi.org.:443", ".pypi.org:443", "pypi..org:443", "-a.example:443", "a-.example:443", "user@pypi.org:443", "user:pw@pypi.org:443", "pypi.org%2f:443",
           "pypi%2eorg:443", "pypi.org/:443", "pypi.org\\:443", "pypi.org :443", " pypi.org:443", "p\xc3\xbdpi.org:443", "pypi.org#:443", "pypi.org?:443",
           // addresses in the ways inet_aton(3), browsers and old programs read them
           "127.1:80", "2130706433:80", "0x7f000001:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.0.0.01:80", "127.0.0.1.:80", "017700000001:80", "10.0x1:80", "1.2.3:80",
           "1.2.3.4.5:80", "256.1.1.1:80", "\xef\xbc\x91.2.3.4:80",
           "[::1:443", "::1:443", "[::1]443", "[::ffff:7f00:1]:80", "[::ffff:127.0.0.01]:80", "[0:0:0:0:0:0:0:1]:80", "[fe80::1%25eth0]:80", "[fe80::1%eth0]:80", "[v1.x]:80", "[2606:4700::0001]:80",
           "[2606:4700::AAAA]:80", "[]:80"}) {
    INFO(text);
    CHECK_FALSE(parse_target(text, std::nullopt));
  }
  CHECK_FALSE(parse_target(std::string_view("pypi.org\0.evil.example:443", 26), std::nullopt));
  CHECK_FALSE(parse_target(std::string(64, 'a') + ".example:80", std::nullopt));
  std::string endless;
  while (endless.size() < 254) endless += "a.";
  CHECK_FALSE(parse_target(endless + "example:80", std::nullopt));
}

TEST_CASE("a rule permits its host on its ports", "[egress]") {
  CHECK(allowed("pypi.org", "pypi.org:443"));
  CHECK(allowed("pypi.org", "PYPI.ORG:80"));
  CHECK_FALSE(allowed("pypi.org", "pypi.org:8443"));
  CHECK(allowed("pypi.org:8443", "pypi.org:8443"));
  CHECK_FALSE(allowed("pypi.org:8443", "pypi.org:443"));
  CHECK_FALSE(allowed("pypi.org", "evilpypi.org:443"));
  CHECK_FALSE(allowed("pypi.org", "pypi.org.evil.example:443"));
  CHECK_FALSE(allowed("pypi.org", "files.pypi.org:443"));
  CHECK(allowed("*.pypi.org", "files.pypi.org:443"));
  CHECK(allowed("*.pypi.org", "a.b.pypi.org:443"));
  CHECK_FALSE(allowed("*.pypi.org", "pypi.org:443"));
  CHECK_FALSE(allowed("*.pypi.org", "evilpypi.org:443"));
  CHECK(allowed("*.org", "pypi.org:443"));
  CHECK(allowed("8.8.4.4:53", "8.8.4.4:53"));
}

TEST_CASE("what is no rule is refused with a sentence", "[egress]") {
  for (const char* text : {"", "*", "*.", "https://pypi.org", "pypi.org/simple", "*.*.org", "a*.org", "py pi.org", "localhost", "*.1.2.3.4", "pypi.org:", "pypi.org:http", "[::1", "pypi.org:0"}) {
    INFO(text);
    const auto rule = parse_rule(text);
    REQUIRE_FALSE(rule);
    CHECK(rule.error().size() > 10);
  }
}

TEST_CASE("addresses that are not public are told", "[egress]") {
  for (const char* text : {"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1",
                           "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255",
                           "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:1::1",
                           "2001:db8::1", "2002:7f00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "ff02::1", "5f00::1"}) {
    INFO(text);
    CHECK_FALSE(special_purpose(address(text)).empty());
  }
  for (const char* text : {"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1",
                           "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00::1", "::ffff:8.8.8.8"}) {
    INFO(text);
    CHECK(special_purpose(address(text)).empty());
  }
}

TEST_CASE("networks are read with their bits", "[egress]") {
  const auto odd = parse_network("203.0.113.128/25");
  REQUIRE(odd);
  CHECK(contains(*odd, address("203.0.113.200")));
  CHECK_FALSE(contains(*odd, address("203.0.113.127")));
  CHECK(contains(*parse_network("2001:db8::/33"), address("2001:db8:7fff::1")));
  CHECK_FALSE(contains(*parse_network("2001:db8::/33"), address("2001:db8:8000::1")));
  CHECK(contains(*parse_network("0.0.0.0/0"), address("8.8.8.8")));
  CHECK_FALSE(contains(*parse_network("0.0.0.0/0"), address("2606::1")));
  for (const char* text : {"", "x", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/x", "1.2.3.4/-1"}) {
    INFO(text);
    CHECK_FALSE(parse_network(text));
  }
  const auto own = own_addresses();
  CHECK(std::find(own.begin(), own.end(), address("127.0.0.1")) != own.end());
}
