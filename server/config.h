// Configuration of the daemon: one struct with its defaults, one table that names every key.
// Precedence: flag, environment (CODESPACE_<KEY with _>), file, default. Read once, checked
// whole, then immutable. docs/configuration.md is compared with the table by a unit test.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "sandbox/sys/result.h"

namespace codespace::server {

struct Config {
  std::string listen = "127.0.0.1:8642";  // ADDR:PORT; 127.0.0.1 also serves ::1
  std::string state_dir = "/var/lib/codespace";
  std::string runtime_dir = "/run/codespace";
  std::string image_dir;                  // empty: <state_dir>/images
  std::string default_image = "code_latest";
  std::uint64_t threads = 0;              // 0: one for every two cores, at least one
  std::uint64_t max_connections = 1024;
  std::uint64_t max_sessions = 1000;
  std::uint64_t max_file_bytes = 1ULL << 30;
  std::uint64_t stream_cap_bytes = 1U << 20;
  std::uint64_t idle_timeout_s = 1800;
  std::uint64_t max_lifetime_s = 86'400;
  std::uint64_t drain_timeout_s = 10;
  std::uint64_t direct_link = 0;          // 1: SDKs may call tools by a link of the session
  std::uint64_t memory_bytes = 1ULL << 30;
  std::uint64_t workspace_bytes = 512ULL << 20;
  std::uint64_t scratch_bytes = 256ULL << 20;
  std::uint64_t inodes = 100'000;
  std::uint64_t cpu_milli = 2000;
  std::uint64_t pids = 256;
  std::string limits_most;                // what no session gets more of; empty: what the launcher takes
  std::string limits_images;              // by image, of sessions that ask for nothing else
  std::uint64_t zygotes = 1;              // 0: every kernel is started cold
  std::uint64_t pool_size = 4;
  std::uint64_t pool_most = 32;
  std::uint64_t pool_data = 1;
  std::uint64_t pool_javascript = 1;
  std::uint64_t pool_memory_bytes = 1ULL << 30;
  std::string egress_socket = "/run/codespace-egress/egress.sock";
  std::string network_mode = "none";      // of sessions that name none
  std::string network_allow;              // its hosts, comma-separated
  std::string audit_file;                 // empty: no audit log
  std::uint64_t audit_content = 0;        // 1: with the bodies of requests and answers
  std::string tls_certificate;            // PEM chain of the operator's; empty: our own is made
  std::string tls_key;                    // PEM of its key
  std::string tls_names;                  // comma-separated extra names of the certificate
  std::string log_level = "info";
};

/// One key of the table: how it is written in the file, and where it is kept.
struct ConfigKey {
  const char* name;                       // "limits.memory_bytes": table and key
  std::string Config::*text = nullptr;    // exactly one of text and number is set
  std::uint64_t Config::*number = nullptr;
  std::uint64_t low = 0, high = 0;
  const char* unit = "";
};
const std::vector<ConfigKey>& config_keys();

/// Where each value came from: "default", "file:LINE", "env:NAME", "flag".
using Origins = std::map<std::string, std::string>;

struct Loaded {
  Config config;
  Origins origins;
};

/// All mistakes at once, one per line, each with its key and line. `flags` are key -> text.
std::expected<Loaded, std::vector<std::string>> load_config(const std::string& file,
                                                            const std::map<std::string, std::string>& flags);

struct ListenAddress {
  std::string host;
  std::uint16_t port = 0;
};
/// The names in a comma-separated list, without the blanks around them.
std::vector<std::string> split_names(std::string_view list);
Result<ListenAddress> parse_listen(std::string_view text);

}  // namespace codespace::server
