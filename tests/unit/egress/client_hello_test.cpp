// The server name is read from real handshakes, whole, cut anywhere, and damaged.
#include <openssl/ssl.h>

#include <catch2/catch.hpp>
#include <memory>
#include <random>
#include <vector>

#include "sandbox/egress/client_hello.h"

using codespace::egress::server_name;
using codespace::egress::ServerName;
using Found = ServerName::Found;
using Bytes = std::vector<std::uint8_t>;

namespace {

/// What OpenSSL sends first when it connects to `name`; without a name for an empty one.
Bytes hello(const char* name, int most = 0) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (most != 0) SSL_CTX_set_max_proto_version(context.get(), most);
  const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), SSL_free);
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  if (*name != 0) SSL_set_tlsext_host_name(ssl.get(), name);
  (void)SSL_connect(ssl.get());
  Bytes bytes(static_cast<std::size_t>(BIO_pending(out)));
  BIO_read(out, bytes.data(), static_cast<int>(bytes.size()));
  return bytes;
}

/// The same message in records of at most `size` bytes (RFC 8446 section 5.1 allows that).
Bytes in_records(const Bytes& bytes, std::size_t size) {
  Bytes out;
  for (std::size_t at = 5; at < bytes.size(); at += size) {
    const std::size_t n = std::min(size, bytes.size() - at);
    for (const std::size_t b : {std::size_t{22}, std::size_t{3}, std::size_t{1}, n >> 8U, n & 0xFFU}) out.push_back(static_cast<std::uint8_t>(b));
    out.insert(out.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at), bytes.begin() + static_cast<std::ptrdiff_t>(at + n));
  }
  return out;
}

}  // namespace

TEST_CASE("the name of a real handshake is found", "[egress]") {
  for (const int most : {0, TLS1_2_VERSION}) {
    const Bytes whole = hello("Files.PythonHosted.org", most);
    const ServerName name = server_name(whole);
    CHECK(name.found == Found::name);
    CHECK(name.name == "files.pythonhosted.org");
    CHECK(server_name(hello("", most)).found == Found::none);
  }
}

TEST_CASE("a handshake cut anywhere is incomplete, and in small records the same", "[egress]") {
  const Bytes whole = hello("pypi.org");
  for (std::size_t n = 0; n < whole.size(); ++n) CHECK(server_name(std::span(whole).first(n)).found == Found::incomplete);
  for (const std::size_t size : {1, 3, 50, 200}) CHECK(server_name(in_records(whole, size)).name == "pypi.org");
}

TEST_CASE("what is no handshake is told at once", "[egress]") {
  const std::string http = "GET / HTTP/1.1\r\n";
  CHECK(server_name(Bytes(http.begin(), http.end())).found == Found::not_tls);
  CHECK(server_name(Bytes{23, 3, 1, 0, 1, 0}).found == Found::not_tls);
  CHECK(server_name(Bytes{22, 2, 1, 0, 1, 0}).found == Found::not_tls);
  CHECK(server_name(Bytes{22, 3, 1, 0, 0}).found == Found::not_tls);
  CHECK(server_name(Bytes{22, 3, 1, 0, 4, 2, 0, 0, 1}).found == Found::not_tls);       // a ServerHello
  CHECK(server_name(Bytes{22, 3, 1, 0, 4, 1, 1, 0, 0}).found == Found::not_tls);       // one of 64 KiB
  CHECK(server_name(Bytes(17'000, 22)).found == Found::not_tls);
}

TEST_CASE("two names, or a list of two, are none", "[egress]") {
  Bytes whole = hello("ab.example");
  // The extension once more, in place of the first other one that is long enough.
  const Bytes name{0, 0, 0, 15, 0, 13, 0, 0, 10, 'a', 'b', '.', 'e', 'x', 'a', 'm', 'p', 'l', 'e'};
  const auto at = std::search(whole.begin(), whole.end(), name.begin(), name.end());
  REQUIRE(at != whole.end());
  const std::size_t added = name.size();
  whole.insert(at, name.begin(), name.end());
  const auto grow = [&](std::size_t offset, int size) {
    for (std::size_t i = 0, carry = added; i < static_cast<std::size_t>(size); ++i) {
      auto& byte = whole[offset + static_cast<std::size_t>(size) - 1 - i];
      carry += byte;
      byte = static_cast<std::uint8_t>(carry & 0xFFU);
      carry >>= 8U;
    }
  };
  grow(3, 2);
  grow(6, 3);
  const std::size_t session = 5 + 4 + 34;
  const std::size_t ciphers = session + 1 + whole[session];
  const std::size_t compression = ciphers + 2 + (static_cast<std::size_t>(whole[ciphers]) << 8U | whole[ciphers + 1]);
  grow(compression + 1 + whole[compression], 2);
  CHECK(server_name(whole).found == Found::not_tls);
}

TEST_CASE("a damaged handshake is never read past its end", "[egress]") {
  const Bytes whole = hello("pypi.org");
  std::mt19937 random(20261123);
  for (int round = 0; round < 20'000; ++round) {
    Bytes damaged = whole;
    for (int i = 0; i < 1 + static_cast<int>(random() % 4); ++i) damaged[random() % damaged.size()] = static_cast<std::uint8_t>(random());
    if (random() % 3 == 0) damaged.resize(random() % damaged.size());
    (void)server_name(damaged);  // AddressSanitizer watches in the preset dev
  }
  SUCCEED();
}
