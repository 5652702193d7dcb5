// Making of the CA and the certificate with OpenSSL 3. ECDSA P-256; keys are 0600.
#include "server/tls.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>
#include <sstream>

namespace codespace::server {
namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Deleter<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Deleter<X509_free>>;
using Bio = std::unique_ptr<BIO, Deleter<BIO_free_all>>;

constexpr long kCaDays = 3650;
constexpr long kServerDays = 397;       // what browsers accept at most
constexpr int kRenewWithinDays = 30;

std::unexpected<Error> failed(const std::string& what) { return server_error(ErrorCode::internal, what, errno); }

std::string bio_text(BIO* bio) {
  char* data = nullptr;
  const long n = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(n)};
}

Result<void> write_file(const std::string& path, const std::string& text, mode_t mode) {
  const std::string fresh = path + ".new";
  const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
  if (fd < 0) return failed("create " + fresh);
  // The mode is meant whatever the umask: clients on this machine read the public files.
  const bool written = ::fchmod(fd, mode) == 0 && ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  ::close(fd);
  if (!written || ::rename(fresh.c_str(), path.c_str()) != 0) return failed("write " + path);
  return {};
}

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Result<void> write_key(const std::string& path, EVP_PKEY* key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) return failed("encode key");
  return write_file(path, bio_text(bio.get()), 0600);
}

std::string pem_of(X509* certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), certificate);
  return bio_text(bio.get());
}

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return false;
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

Result<Certificate> new_certificate(EVP_PKEY* key, const std::string& common_name, long days) {
  Certificate certificate(X509_new());
  X509_set_version(certificate.get(), X509_VERSION_3);
  std::uint64_t serial = 0;
  if (RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) != 1) return failed("random serial");
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), serial >> 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -300);  // clocks differ a little
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), days * 86'400);
  X509_set_pubkey(certificate.get(), key);
  X509_NAME* name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>("CodeSpace"), -1, -1, 0);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
  return certificate;
}

Result<void> make_ca(const std::string& dir) {
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return failed("generate CA key");
  auto certificate = new_certificate(key.get(), "CodeSpace local CA", kCaDays);
  if (!certificate) return std::unexpected(certificate.error());
  X509* c = certificate->get();
  X509_set_issuer_name(c, X509_get_subject_name(c));
  if (!add_extension(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !add_extension(c, c, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(c, c, NID_subject_key_identifier, "hash") || X509_sign(c, key.get(), EVP_sha256()) == 0)
    return failed("sign CA");
  if (auto written = write_key(dir + "/ca-key.pem", key.get()); !written) return written;
  return write_file(dir + "/ca.pem", pem_of(c), 0644);
}

std::string alternative_names(const std::string& extra) {
  std::string names = "DNS:localhost,IP:127.0.0.1,IP:0:0:0:0:0:0:0:1";
  char host[256] = {};
  if (::gethostname(host, sizeof host - 1) == 0 && host[0] != 0 && std::string(host) != "localhost") names += ",DNS:" + std::string(host);
  std::stringstream list(extra);
  std::string name;
  while (std::getline(list, name, ',')) {
    while (!name.empty() && name.front() == ' ') name.erase(0, 1);
    while (!name.empty() && name.back() == ' ') name.pop_back();
    if (name.empty()) continue;
    unsigned char address[16];
    const bool is_ip = ::inet_pton(AF_INET, name.c_str(), address) == 1 || ::inet_pton(AF_INET6, name.c_str(), address) == 1;
    names += (is_ip ? ",IP:" : ",DNS:") + name;
  }
  return names;
}

Key load_key(const std::string& path) {
  const std::string text = read_file(path);
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  return Key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
}

Certificate load_certificate(const std::string& path) {
  const std::string text = read_file(path);
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  return Certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
}

Result<void> make_server_certificate(const std::string& dir, const std::string& names) {
  const Key ca_key = load_key(dir + "/ca-key.pem");
  const Certificate ca = load_certificate(dir + "/ca.pem");
  if (!ca_key || !ca) return failed("read the CA in " + dir + " (remove the directory to make a new one; clients must then trust it anew)");
  const Key key(EVP_EC_gen("P-256"));
  if (!key) return failed("generate server key");
  auto certificate = new_certificate(key.get(), "localhost", kServerDays);
  if (!certificate) return std::unexpected(certificate.error());
  X509* c = certificate->get();
  X509_set_issuer_name(c, X509_get_subject_name(ca.get()));
  if (!add_extension(c, ca.get(), NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(c, ca.get(), NID_key_usage, "critical,digitalSignature") ||
      !add_extension(c, ca.get(), NID_ext_key_usage, "serverAuth") ||
      !add_extension(c, ca.get(), NID_subject_key_identifier, "hash") ||
      !add_extension(c, ca.get(), NID_authority_key_identifier, "keyid") ||
      !add_extension(c, ca.get(), NID_subject_alt_name, names) || X509_sign(c, ca_key.get(), EVP_sha256()) == 0)
    return server_error(ErrorCode::internal, "sign the server certificate; are the names in server.tls_names valid? (" + names + ")");
  if (auto written = write_key(dir + "/server-key.pem", key.get()); !written) return written;
  if (auto written = write_file(dir + "/names", names, 0644); !written) return written;
  return write_file(dir + "/server.pem", pem_of(c) + pem_of(ca.get()), 0644);
}

bool still_good(const std::string& dir, const std::string& names) {
  const Certificate certificate = load_certificate(dir + "/server.pem");
  if (!certificate || read_file(dir + "/names") != names) return false;
  int days = 0;
  int seconds = 0;
  return ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) == 1 && days >= kRenewWithinDays;
}

/// System roots and our CA in one file, for SSL_CERT_FILE: our CA alone would break every
/// other https call of the process that uses it.
Result<void> write_bundle(const std::string& dir) {
  const std::string bundle = read_file("/etc/ssl/certs/ca-certificates.crt") + "\n# CodeSpace local CA\n" + read_file(dir + "/ca.pem");
  if (read_file(dir + "/bundle.pem") == bundle) return {};
  return write_file(dir + "/bundle.pem", bundle, 0644);
}

}  // namespace

Result<boost::asio::ssl::context> make_tls(const std::string& state_dir, const std::string& extra_names) {
  const std::string dir = state_dir + "/tls";
  if (::mkdir(dir.c_str(), 0755) == 0) {
    if (::chmod(dir.c_str(), 0755) != 0) return failed("chmod " + dir);  // whatever the umask
  } else if (errno != EEXIST) {
    return failed("mkdir " + dir);
  }
  if (::access((dir + "/ca.pem").c_str(), R_OK) != 0) {
    if (auto made = make_ca(dir); !made) return std::unexpected(made.error());
  }
  const std::string names = alternative_names(extra_names);
  if (!still_good(dir, names)) {
    if (auto made = make_server_certificate(dir, names); !made) return std::unexpected(made.error());
  }
  if (auto written = write_bundle(dir); !written) return std::unexpected(written.error());

  return load_tls(dir + "/server.pem", dir + "/server-key.pem");
}

Result<boost::asio::ssl::context> load_tls(const std::string& certificate, const std::string& key) {
  namespace ssl = boost::asio::ssl;
  ssl::context context(ssl::context::tls_server);
  boost::system::error_code ec;
  context.set_options(ssl::context::default_workarounds | ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1, ec);
  if (!ec) context.use_certificate_chain_file(certificate, ec);
  if (!ec) context.use_private_key_file(key, ssl::context::pem, ec);
  if (ec) return server_error(ErrorCode::internal, "load the certificate " + certificate + " with the key " + key + ": " + ec.message());
  return context;
}

}  // namespace codespace::server
