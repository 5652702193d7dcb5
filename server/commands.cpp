// See commands.h.
#include "server/commands.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <iostream>

#include "sandbox/manager/backup.h"
#include "sandbox/manager/session_id.h"
#include "sandbox/manager/store.h"
#include "sandbox/sys/clock.h"
#include "server/host_check.h"

namespace codespace::server {

int fail(const Error& error, int status) {
  std::cerr << "codespaced: " << error.what;
  if (error.sys_errno != 0) std::cerr << ": " << std::strerror(error.sys_errno);
  std::cerr << '\n';
  return status;
}

manager::SessionManager::KeyRow new_key_row(const std::string& name, const std::string& key) {
  manager::SessionManager::KeyRow row;
  row.id = manager::format_id(manager::kKeyPrefix, manager::random_id());
  row.name = name;
  row.sha256 = digest_of(key);
  return row;
}

namespace {

/// First line of a regular file that belongs to the owner of its directory; empty otherwise. Root
/// asks for this in a directory of the gateway's, and a gateway taken over must not lend it root's eyes.
std::string read_own_line(const std::string& directory, const char* name) {
  const int dir = ::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  const int fd = ::openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat above {}, file {};
  char text[512];
  ssize_t got = 0;
  if (fd >= 0 && ::fstat(dir, &above) == 0 && ::fstat(fd, &file) == 0 && S_ISREG(file.st_mode) && file.st_uid == above.st_uid)
    got = ::read(fd, text, sizeof text);
  for (const int open : {dir, fd}) {
    if (open >= 0) ::close(open);
  }
  const std::string_view line(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  return std::string(line.substr(0, line.find('\n')));
}

/// In single quotes for a POSIX shell.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'') out += "'\\''";
    else out += c;
  }
  return out + "'";
}

}  // namespace

int print_env(const Config& config) {
  const std::string& state = config.state_dir;
  const auto address = parse_listen(config.listen);
  if (!address) return fail(address.error(), 2);
  const std::string key = read_own_line(state, "api-key");
  if (key.empty()) return fail({ErrorCode::internal, Fault::server, errno, "read " + state + "/api-key (has the server been started once, and may you read it?)", {}});
  // Whoever reads the output runs it in a shell, and this file is not theirs.
  if (key.size() > 256 || key.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~+/=") != std::string::npos)
    return fail({ErrorCode::internal, Fault::server, 0, state + "/api-key holds no key of this server: letters, digits and _-.~+/= only", {}}, 2);
  const std::string host = address->host == "127.0.0.1" || address->host == "::1" || address->host == "0.0.0.0" || address->host == "::" ? "localhost" : address->host;
  const std::string endpoint = host + ":" + std::to_string(address->port);
  std::vector<std::pair<std::string_view, std::string>> variables = {
      {"CODESPACE_URL", "https://" + endpoint}, {"CODESPACE_API_KEY", key}, {"AGENTBAY_ENDPOINT", endpoint}, {"AGENTBAY_API_KEY", key}};
  // A certificate of the operator's own is somebody's whom clients trust already.
  if (config.tls_certificate.empty()) {
    variables.emplace_back("CODESPACE_CA", state + "/tls/ca.pem");
    for (const char* name : {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"}) variables.emplace_back(name, state + "/tls/bundle.pem");
    variables.emplace_back("NODE_EXTRA_CA_CERTS", state + "/tls/ca.pem");
  }
  for (const auto& [name, value] : variables) std::cout << "export " << name << '=' << quoted(value) << '\n';
  return 0;
}

int create_key(const Config& config, const std::string& name, const KeyTerms& terms, const manager::KeyLimits& limits) {
  auto store = manager::Store::open(config.state_dir + "/codespace.db");
  if (!store) return fail(store.error());
  auto key = make_key();
  if (!key) return fail(key.error());
  auto row = new_key_row(name, *key);
  row.scopes = terms.scopes;
  row.requests_per_minute = terms.requests_per_minute;
  row.limits = limits;
  if (auto added = store->add_key(row, sys::wall_ms()); !added) return fail(added.error());
  std::cout << *key << '\n';
  std::cerr << "key " << row.id << " made; it is shown once. A running server takes it after SIGHUP.\n";
  return 0;
}

int list_keys(const Config& config) {
  auto store = manager::Store::open(config.state_dir + "/codespace.db");
  if (!store) return fail(store.error());
  auto rows = store->keys();
  if (!rows) return fail(rows.error());
  for (const auto& row : *rows)
    std::cout << row.id << '\t' << scope_names(row.scopes) << '\t' << row.requests_per_minute << '\t' << row.limits.max_sessions << '\t' << row.name << '\t' << manager::limits_text(row.limits.standard) << '\t' << manager::limits_text(row.limits.most) << '\n';
  return 0;
}

int print_host() {
  bool fit = true;
  for (const HostFact& fact : check_host()) {
    const bool ok = fact.verdict == HostFact::Verdict::ok, required = fact.verdict == HostFact::Verdict::required;
    std::cout << (ok ? "ok       " : required ? "LACKS    " : "advised  ") << fact.name << ": " << fact.found << '\n';
    if (!ok) std::cout << "         why:  " << fact.why << "\n         mend: " << fact.mend << '\n';
    fit = fit && !required;
  }
  return fit ? 0 : kExitRuntime;
}

int show_config(const Loaded& loaded, bool origin) {
  for (const ConfigKey& key : config_keys()) {
    std::cout << key.name << " = ";
    if (key.text != nullptr) std::cout << '"' << loaded.config.*key.text << '"';
    else std::cout << loaded.config.*key.number;
    if (origin) std::cout << "  # " << loaded.origins.at(key.name);
    std::cout << '\n';
  }
  return 0;
}

int back_up(const Config& config, const std::string& file) {
  if (auto written = manager::write_backup(config.state_dir, file); !written) return fail(written.error());
  std::cerr << "backup of " << config.state_dir << " written to " << file << "; it holds secrets: keep it where only you can read it\n";
  return 0;
}

int restore(const Config& config, const std::string& file) {
  if (auto restored = manager::restore_backup(file, config.state_dir); !restored) return fail(restored.error());
  std::cerr << file << " restored to " << config.state_dir << "; start the server\n";
  return 0;
}

}  // namespace codespace::server
