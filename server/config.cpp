// See config.h.
#include "server/config.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <toml++/toml.h>

#include "sandbox/egress/rules.h"
#include "sandbox/manager/limits.h"
#include "sandbox/wire/egress_protocol.h"

namespace codespace::server {
namespace {

using Key = ConfigKey;

std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

std::string suggestion(std::string_view name) {
  const Key* best = nullptr;
  std::size_t least = 4;  // farther away than three edits is no typing mistake
  for (const Key& key : config_keys()) {
    const std::size_t d = distance(name, key.name);
    if (d < least) {
      least = d;
      best = &key;
    }
  }
  return best == nullptr ? "" : std::string("; did you mean `") + best->name + "`?";
}

const Key* find_key(std::string_view name) {
  for (const Key& key : config_keys()) {
    if (name == key.name) return &key;
  }
  return nullptr;
}

/// Puts a value given as text in its place; the mistake if it does not fit.
std::string set_text(Config& config, const Key& key, std::string_view value) {
  if (key.text != nullptr) {
    config.*key.text = std::string(value);
    return {};
  }
  std::uint64_t number = 0;
  const auto end = std::from_chars(value.data(), value.data() + value.size(), number);
  if (end.ec != std::errc{} || end.ptr != value.data() + value.size()) return "must be a whole number, not `" + std::string(value) + "`";
  if (number < key.low || number > key.high)
    return "must be between " + std::to_string(key.low) + " and " + std::to_string(key.high) + ", not " + std::to_string(number);
  config.*key.number = number;
  return {};
}

std::string environment_name(std::string_view key) {
  std::string name = "CODESPACE_";
  for (const char c : key) name += c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

void read_table(const toml::table& table, const std::string& prefix, const std::string& file, Loaded& out,
                std::vector<std::string>& mistakes) {
  for (const auto& [name, node] : table) {
    const std::string key_name = prefix + std::string(name.str());
    const auto line = node.source().begin.line;
    const std::string where = file + ":" + std::to_string(line) + ": `" + key_name + "` ";
    if (const toml::table* nested = node.as_table(); nested != nullptr && prefix.empty()) {
      read_table(*nested, key_name + ".", file, out, mistakes);
      continue;
    }
    const Key* key = find_key(key_name);
    if (key == nullptr) {
      mistakes.push_back(where + "is not a known key" + suggestion(key_name));
      continue;
    }
    std::string mistake;
    if (key->text != nullptr) {
      const auto text = node.value_exact<std::string>();
      mistake = text ? set_text(out.config, *key, *text) : "must be a string";
    } else {
      const auto number = node.value_exact<std::int64_t>();
      mistake = number && *number >= 0 ? set_text(out.config, *key, std::to_string(*number)) : "must be a whole number of at least 0";
    }
    if (!mistake.empty()) mistakes.push_back(where + mistake);
    out.origins[key_name] = "file:" + std::to_string(line);
  }
}

void check_network(const Config& config, std::vector<std::string>& mistakes) {
  const auto mode = wire::network_mode(config.network_mode);
  const auto hosts = split_names(config.network_allow);
  if (!mode) mistakes.push_back("`network.mode` must be none, allowlist or full, not `" + config.network_mode + "`");
  if (mode && (*mode == wire::NetworkMode::allowlist) == hosts.empty())
    mistakes.push_back("`network.allow` names the hosts of the mode `allowlist`, and only of that");
  if (hosts.size() > wire::kMaxRules) mistakes.push_back("`network.allow` may have at most " + std::to_string(wire::kMaxRules) + " hosts");
  for (const std::string& host : hosts) {
    if (const auto rule = egress::parse_rule(host); !rule) mistakes.push_back("`network.allow`: `" + host + "` is no host pattern: " + rule.error());
  }
}

}  // namespace

std::vector<std::string> split_names(std::string_view list) {
  std::vector<std::string> names;
  while (!list.empty()) {
    const std::size_t comma = list.find(',');
    std::string_view name = list.substr(0, comma);
    while (name.starts_with(' ')) name.remove_prefix(1);
    while (name.ends_with(' ')) name.remove_suffix(1);
    if (!name.empty()) names.emplace_back(name);
    if (comma == std::string_view::npos) break;
    list.remove_prefix(comma + 1);
  }
  return names;
}

const std::vector<ConfigKey>& config_keys() {
  static const std::vector<Key> keys = {
      {"server.listen", &Config::listen, nullptr, 0, 0, "ADDR:PORT"},
      {"server.state_dir", &Config::state_dir, nullptr, 0, 0, "path"},
      {"server.runtime_dir", &Config::runtime_dir, nullptr, 0, 0, "path"},
      {"server.image_dir", &Config::image_dir, nullptr, 0, 0, "path"},
      {"server.default_image", &Config::default_image, nullptr, 0, 0, "name"},
      {"server.threads", nullptr, &Config::threads, 0, 256, "threads"},
      {"server.max_connections", nullptr, &Config::max_connections, 1, 100'000, "connections"},
      {"server.max_sessions", nullptr, &Config::max_sessions, 1, 65'536, "sessions"},
      {"server.max_file_bytes", nullptr, &Config::max_file_bytes, 1024, 1ULL << 40, "bytes"},
      {"server.stream_cap_bytes", nullptr, &Config::stream_cap_bytes, 1024, 4U << 20, "bytes"},
      {"server.drain_timeout_s", nullptr, &Config::drain_timeout_s, 0, 600, "seconds"},
      {"server.direct_link", nullptr, &Config::direct_link, 0, 1, "0 or 1"},
      {"server.tls_certificate", &Config::tls_certificate, nullptr, 0, 0, "path"},
      {"server.tls_key", &Config::tls_key, nullptr, 0, 0, "path"},
      {"server.tls_names", &Config::tls_names, nullptr, 0, 0, "names"},
      {"server.log_level", &Config::log_level, nullptr, 0, 0, "debug|info|warn|error"},
      {"session.idle_timeout_s", nullptr, &Config::idle_timeout_s, 0, 30ULL * 86'400, "seconds"},
      {"session.max_lifetime_s", nullptr, &Config::max_lifetime_s, 0, 30ULL * 86'400, "seconds"},
      {"limits.memory_bytes", nullptr, &Config::memory_bytes, 32ULL << 20, 64ULL << 30, "bytes"},
      {"limits.workspace_bytes", nullptr, &Config::workspace_bytes, 1ULL << 20, 64ULL << 30, "bytes"},
      {"limits.scratch_bytes", nullptr, &Config::scratch_bytes, 1ULL << 20, 16ULL << 30, "bytes"},
      {"limits.inodes", nullptr, &Config::inodes, 64, 4'000'000, "files"},
      {"limits.cpu_milli", nullptr, &Config::cpu_milli, 50, 64'000, "thousandths of a core"},
      {"limits.pids", nullptr, &Config::pids, 16, 32'768, "processes and threads"},
      {"limits.most", &Config::limits_most, nullptr, 0, 0, "limits"},
      {"limits.images", &Config::limits_images, nullptr, 0, 0, "images and limits"},
      {"network.mode", &Config::network_mode, nullptr, 0, 0, "none|allowlist|full"},
      {"network.allow", &Config::network_allow, nullptr, 0, 0, "hosts"},
      {"audit.file", &Config::audit_file, nullptr, 0, 0, "path"},
      {"audit.content", nullptr, &Config::audit_content, 0, 1, "0 or 1"},
      {"network.egress_socket", &Config::egress_socket, nullptr, 0, 0, "path"},
      {"kernels.zygotes", nullptr, &Config::zygotes, 0, 1, "0 or 1"},
      {"pool.size", nullptr, &Config::pool_size, 0, 256, "sessions"},
      {"pool.most", nullptr, &Config::pool_most, 0, 256, "sessions"},
      {"pool.data", nullptr, &Config::pool_data, 0, 256, "sessions"},
      {"pool.javascript", nullptr, &Config::pool_javascript, 0, 256, "sessions"},
      {"pool.memory_bytes", nullptr, &Config::pool_memory_bytes, 0, 1ULL << 40, "bytes"},
  };
  return keys;
}

std::expected<Loaded, std::vector<std::string>> load_config(const std::string& file,
                                                            const std::map<std::string, std::string>& flags) {
  Loaded out;
  std::vector<std::string> mistakes;
  for (const Key& key : config_keys()) out.origins[key.name] = "default";
  if (!file.empty()) {
    try {
      read_table(toml::parse_file(file), "", file, out, mistakes);
    } catch (const toml::parse_error& error) {
      mistakes.push_back(file + ":" + std::to_string(error.source().begin.line) + ": " + std::string(error.description()));
    }
  }
  for (const Key& key : config_keys()) {
    const std::string name = environment_name(key.name);
    if (const char* value = std::getenv(name.c_str())) {
      if (const std::string mistake = set_text(out.config, key, value); !mistake.empty()) mistakes.push_back("environment " + name + " " + mistake);
      out.origins[key.name] = "env:" + name;
    }
  }
  for (const auto& [name, value] : flags) {
    const Key* key = find_key(name);
    if (const std::string mistake = set_text(out.config, *key, value); !mistake.empty()) mistakes.push_back("option for `" + name + "` " + mistake);
    out.origins[name] = "flag";
  }
  if (auto listen = parse_listen(out.config.listen); !listen) mistakes.push_back("`server.listen` " + listen.error().what);
  check_network(out.config, mistakes);
  if (const auto most = manager::parse_limits(out.config.limits_most); !most) mistakes.push_back("`limits.most` " + most.error().what);
  if (const auto images = manager::parse_image_limits(out.config.limits_images); !images) mistakes.push_back("`limits.images` " + images.error().what);
  if (out.config.tls_certificate.empty() != out.config.tls_key.empty()) mistakes.push_back("`server.tls_certificate` and `server.tls_key` go together");
  const std::vector<std::string> levels = {"debug", "info", "warn", "error"};
  if (std::find(levels.begin(), levels.end(), out.config.log_level) == levels.end())
    mistakes.push_back("`server.log_level` must be debug, info, warn or error, not `" + out.config.log_level + "`");
  if (!mistakes.empty()) return std::unexpected(std::move(mistakes));
  if (out.config.image_dir.empty()) out.config.image_dir = out.config.state_dir + "/images";
  return out;
}

Result<ListenAddress> parse_listen(std::string_view text) {
  const auto wrong = [&] {
    return client_error(ErrorCode::invalid_request, "must be ADDR:PORT, such as 127.0.0.1:8642 or [::1]:8642, not `" + std::string(text) + "`");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong();
  ListenAddress address;
  std::string_view host = text.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  address.host = std::string(host);
  const std::string_view port = text.substr(colon + 1);
  const auto end = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (end.ec != std::errc{} || end.ptr != port.data() + port.size()) return wrong();
  return address;
}

}  // namespace codespace::server
