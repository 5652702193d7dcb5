// codespaced: the composition root. Reads like a table of contents: options, privileges,
// configuration, state, session manager, listeners, then the signals that end it.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <thread>

#include "api/handlers.h"
#include "sandbox/async/task_group.h"
#include "sandbox/manager/session_id.h"
#include "sandbox/manager/session_manager.h"
#include "sandbox/manager/store.h"
#include "sandbox/sys/clock.h"
#include "server/auth.h"
#include "server/config.h"
#include "server/listener.h"
#include "server/privileges.h"
#include "server/router.h"
#include "server/tls.h"

namespace codespace::server {
namespace {

namespace asio = boost::asio;
using manager::SessionManager;

constexpr int kExitRuntime = 1;
constexpr int kExitConfig = 78;  // EX_CONFIG of sysexits.h, so that a unit need not restart us

int fail(const Error& error, int status = kExitRuntime) {
  std::cerr << "codespaced: " << error.what;
  if (error.sys_errno != 0) std::cerr << ": " << std::strerror(error.sys_errno);
  std::cerr << '\n';
  return status;
}

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

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

Result<void> write_secret(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return sys_error(errno, "create " + path);
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  if (!written) return sys_error(errno, "write " + path);
  return {};
}

SessionManager::KeyRow new_key_row(const std::string& name, const std::string& key) {
  SessionManager::KeyRow row;
  row.id = manager::format_id(manager::kKeyPrefix, manager::random_id());
  row.name = name;
  row.sha256 = digest_of(key);
  return row;
}

/// The first start makes a key, kept for the operator in <state>/api-key; a key given as a
/// systemd credential is taken too. Only digests go into the database.
Result<void> ensure_keys(SessionManager& sessions, const Config& config, spdlog::logger& log) {
  auto keys = sessions.keys();
  if (!keys) return std::unexpected(keys.error());
  const auto known = [&](const std::string& key) {
    for (const auto& row : *keys) {
      if (row.sha256 == digest_of(key)) return true;
    }
    return false;
  };
  if (const char* directory = std::getenv("CREDENTIALS_DIRECTORY")) {
    const std::string key = read_line(std::string(directory) + "/api-key");
    if (!key.empty() && !known(key)) {
      if (auto added = sessions.add_key(new_key_row("credential", key)); !added) return added;
    }
  }
  const std::string path = config.state_dir + "/api-key";
  const std::string kept = read_line(path);
  if (!kept.empty()) {
    if (known(kept)) return {};
    return sessions.add_key(new_key_row("default", kept));  // the database is new, the file is not
  }
  if (!keys->empty()) return {};
  auto key = make_key();
  if (!key) return std::unexpected(key.error());
  if (auto written = write_secret(path, *key + "\n"); !written) return written;
  log.info("api key made file={}", path);
  return sessions.add_key(new_key_row("default", *key));
}

Result<void> load_keys(SessionManager& sessions, Auth& auth) {
  auto rows = sessions.keys();
  if (!rows) return std::unexpected(rows.error());
  std::vector<KeyDigest> keys;
  for (const auto& row : *rows) keys.push_back({row.id, row.sha256});
  auth.set_keys(std::move(keys));
  return {};
}

manager::ManagerConfig manager_config(const Config& c, std::shared_ptr<spdlog::logger> log) {
  manager::ManagerConfig m;
  m.runtime_dir = c.runtime_dir;
  m.state_dir = c.state_dir;
  m.image_store = c.image_dir;
  m.default_image = c.default_image;
  m.default_limits.memory_bytes = c.memory_bytes;
  m.default_limits.workspace_bytes = c.workspace_bytes;
  m.default_limits.scratch_bytes = c.scratch_bytes;
  m.default_limits.inodes = c.inodes;
  m.default_limits.cpu_milli = static_cast<std::uint32_t>(c.cpu_milli);
  m.default_limits.pids = static_cast<std::uint32_t>(c.pids);
  m.zygotes = c.zygotes != 0;
  m.pool.size = static_cast<std::uint32_t>(c.pool_size);
  m.pool.most = static_cast<std::uint32_t>(c.pool_most);
  m.pool.data = static_cast<std::uint32_t>(c.pool_data);
  m.pool.javascript = c.pool_javascript != 0;
  m.pool.memory_bytes = c.pool_memory_bytes;
  m.default_idle_timeout = std::chrono::seconds(c.idle_timeout_s);
  m.default_max_lifetime = std::chrono::seconds(c.max_lifetime_s);
  m.max_sessions = static_cast<std::uint32_t>(c.max_sessions);
  m.stream_cap_bytes = static_cast<std::uint32_t>(c.stream_cap_bytes);
  m.max_file_bytes = c.max_file_bytes;
  m.log = std::move(log);
  return m;
}

/// sd_notify(3): one datagram to the service manager, if there is one.
void notify(const char* state) {
  const char* path = std::getenv("NOTIFY_SOCKET");
  sockaddr_un address{};
  if (path == nullptr || std::strlen(path) >= sizeof address.sun_path) return;
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path);
  if (path[0] == '@') address.sun_path[0] = 0;
  const int fd = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return;
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  (void)::sendto(fd, state, std::strlen(state), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), size);
  ::close(fd);
}

void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

/// Waits for SIGTERM or SIGINT; SIGHUP reloads keys and certificate on the way.
asio::awaitable<void> wait_for_stop(asio::signal_set& signals, const std::function<void()>& reload) {
  for (;;) {
    auto [ec, number] = co_await signals.async_wait(asio::as_tuple(asio::use_awaitable));
    if (ec || number != SIGHUP) co_return;
    reload();
  }
}

int serve(const Config& config) {
  raise_descriptor_limit();
  auto log = std::make_shared<spdlog::logger>("codespaced", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  log->set_level(spdlog::level::from_str(config.log_level));
  log->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  if (::mkdir(config.state_dir.c_str(), 0750) != 0 && errno != EEXIST) return fail({ErrorCode::internal, Fault::server, errno, "make " + config.state_dir, {}});

  // A thread that is not needed costs every request a hand-over (docs/configuration.md).
  const unsigned by_cores = std::max(1U, std::thread::hardware_concurrency() / 2);
  const unsigned threads = config.threads != 0 ? static_cast<unsigned>(config.threads) : by_cores;
  asio::io_context io(static_cast<int>(threads));

  auto tls_made = make_tls(config.state_dir, config.tls_names);
  if (!tls_made) return fail(tls_made.error());
  auto tls = std::make_shared<asio::ssl::context>(std::move(*tls_made));
  std::mutex tls_mutex;

  const auto metrics = std::make_shared<metrics::Metrics>(CODESPACE_VERSION);
  manager::ManagerConfig managed = manager_config(config, log);
  managed.metrics = metrics;
  auto sessions = SessionManager::open(io.get_executor(), std::move(managed));
  if (!sessions) return fail(sessions.error());
  Auth auth;
  if (auto keys = ensure_keys(**sessions, config, *log); !keys) return fail(keys.error());
  if (auto keys = load_keys(**sessions, auth); !keys) return fail(keys.error());

  api::Handlers handlers(**sessions, std::chrono::seconds(config.idle_timeout_s), std::chrono::seconds(config.max_lifetime_s));
  Router router(handlers, *metrics);
  api::Rpc rpc(**sessions, std::chrono::seconds(config.idle_timeout_s), std::chrono::seconds(config.max_lifetime_s));
  std::atomic<std::uint64_t> form_bytes{0};
  const ConnectionContext context{router, rpc, auth, *log, config.max_file_bytes, form_bytes, config.direct_link != 0};
  async::TaskGroup connections([&](std::exception_ptr escaped) {
    try {
      std::rethrow_exception(escaped);
    } catch (const std::exception& e) {
      log->error("an exception left a connection, which is a bug what=\"{}\"", e.what());
    }
  });
  const auto current_tls = [&] {
    const std::lock_guard lock(tls_mutex);
    return tls;
  };
  const auto address = *parse_listen(config.listen);
  Listener listener(io.get_executor(), connections, context, current_tls, config.max_connections);
  if (auto opened = listener.open(address.host, address.port); !opened) return fail(opened.error());
  // A client that says "localhost" may mean ::1; where IPv6 is off this just does not open.
  Listener listener6(io.get_executor(), connections, context, current_tls, config.max_connections);
  const bool both = address.host == "127.0.0.1" && listener6.open("::1", listener.port()).has_value();

  asio::signal_set signals(io, SIGTERM, SIGINT, SIGHUP);
  const auto reload = [&] {
    auto fresh = make_tls(config.state_dir, config.tls_names);
    const auto keys = load_keys(**sessions, auth);
    if (fresh) {
      const std::lock_guard lock(tls_mutex);
      tls = std::make_shared<asio::ssl::context>(std::move(*fresh));
    }
    log->info("reloaded tls={} keys={}", fresh.has_value(), keys.has_value());
  };
  asio::co_spawn(io, listener.accept_loop(), asio::detached);
  if (both) asio::co_spawn(io, listener6.accept_loop(), asio::detached);
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        co_await wait_for_stop(signals, reload);
        notify("STOPPING=1");
        log->info("stopping, draining for at most {} s", config.drain_timeout_s);
        router.draining = true;
        listener.close();
        listener6.close();
        // A second signal ends it at once: the sessions and their runs live on anyway.
        signals.async_wait([&](boost::system::error_code ec, int) {
          if (!ec) std::_Exit(0);
        });
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(config.drain_timeout_s);
        asio::steady_timer pause(io);
        while (router.in_flight > 0 && std::chrono::steady_clock::now() < give_up) {
          pause.expires_after(std::chrono::milliseconds(20));
          co_await pause.async_wait(asio::as_tuple(asio::use_awaitable));
        }
        co_await (*sessions)->shutdown(std::chrono::seconds(2));
        connections.stop();
        signals.cancel();
        io.stop();
      },
      asio::detached);

  log->info("ready url=https://localhost:{} state={} version={}", listener.port(), config.state_dir, CODESPACE_VERSION);
  notify("READY=1");
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&io] { io.run(); });
  io.run();
  for (std::thread& worker : workers) worker.join();
  log->info("stopped");
  return 0;
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

int print_env(const std::string& state, const std::string& listen) {
  const auto address = parse_listen(listen);
  if (!address) return fail(address.error(), 2);
  const std::string key = read_own_line(state, "api-key");
  if (key.empty()) return fail({ErrorCode::internal, Fault::server, errno, "read " + state + "/api-key (has the server been started once, and may you read it?)", {}});
  // Whoever reads the output runs it in a shell, and this file is not theirs.
  if (key.size() > 256 || key.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.~+/=") != std::string::npos)
    return fail({ErrorCode::internal, Fault::server, 0, state + "/api-key holds no key of this server: letters, digits and _-.~+/= only", {}}, 2);
  const std::string host = address->host == "127.0.0.1" || address->host == "::1" || address->host == "0.0.0.0" || address->host == "::" ? "localhost" : address->host;
  const std::string endpoint = host + ":" + std::to_string(address->port);
  const std::pair<std::string_view, std::string> variables[] = {
      {"CODESPACE_URL", "https://" + endpoint},      {"CODESPACE_API_KEY", key},
      {"CODESPACE_CA", state + "/tls/ca.pem"},       {"AGENTBAY_ENDPOINT", endpoint},
      {"AGENTBAY_API_KEY", key},                     {"SSL_CERT_FILE", state + "/tls/bundle.pem"},
      {"REQUESTS_CA_BUNDLE", state + "/tls/bundle.pem"}, {"CURL_CA_BUNDLE", state + "/tls/bundle.pem"},
      {"NODE_EXTRA_CA_CERTS", state + "/tls/ca.pem"},
  };
  for (const auto& [name, value] : variables) std::cout << "export " << name << '=' << quoted(value) << '\n';
  return 0;
}

int create_key(const Config& config, const std::string& name) {
  auto store = manager::Store::open(config.state_dir + "/codespace.db");
  if (!store) return fail(store.error());
  auto key = make_key();
  if (!key) return fail(key.error());
  const auto row = new_key_row(name, *key);
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
  for (const auto& row : *rows) std::cout << row.id << '\t' << row.name << '\n';
  return 0;
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

}  // namespace

int run(int argc, char** argv) {
  CLI::App app{"codespaced: the CodeSpace gateway and session manager\n"
               "Examples:\n  codespaced serve --listen 127.0.0.1:8642 --state /var/lib/codespace\n"
               "  eval \"$(codespaced env --state /var/lib/codespace)\"\n"};
  app.require_subcommand(0, 1);
  std::string file;
  std::string user;
  std::map<std::string, std::string> flags;
  const auto option = [&](CLI::App* to, const char* name, const char* key, const char* text) {
    to->add_option_function<std::string>(name, [&flags, key](const std::string& value) { flags[key] = value; }, text);
  };
  const auto common = [&](CLI::App* to) {
    to->add_option("--config", file, "TOML file; docs/configuration.md lists the keys");
    option(to, "--state", "server.state_dir", "state directory: database, keys, certificates, images");
    option(to, "--listen", "server.listen", "ADDR:PORT");
  };
  CLI::App* serve_command = app.add_subcommand("serve", "serve the API (the default)");
  common(serve_command);
  option(serve_command, "--runtime", "server.runtime_dir", "directory of the launcher's sockets");
  option(serve_command, "--images", "server.image_dir", "image store; default <state>/images");
  serve_command->add_option("--user", user, "user to become when started as root");
  CLI::App* env_command = app.add_subcommand("env", "print the shell exports that clients need");
  common(env_command);
  CLI::App* check_command = app.add_subcommand("check-config", "report every mistake of the configuration");
  common(check_command);
  CLI::App* config_command = app.add_subcommand("config", "show the configuration in force");
  bool origin = false;
  CLI::App* show_command = config_command->add_subcommand("show", "one `key = value` per line");
  common(show_command);
  show_command->add_flag("--origin", origin, "with where each value came from");
  CLI::App* key_command = app.add_subcommand("key", "API keys");
  CLI::App* key_create = key_command->add_subcommand("create", "make a key and print it once");
  std::string key_name = "unnamed";
  key_create->add_option("--name", key_name, "what the key is for");
  common(key_create);
  CLI::App* key_list = key_command->add_subcommand("list", "ids and names");
  common(key_list);
  CLI::App* version_command = app.add_subcommand("version", "print the version");
  bool json = false;
  version_command->add_flag("--json", json, "for machines");
  CLI11_PARSE(app, argc, argv);

  if (version_command->parsed()) {
    if (json) std::cout << nlohmann::json{{"name", "codespaced"}, {"version", CODESPACE_VERSION}, {"compiler", __VERSION__}}.dump() << '\n';
    else std::cout << "codespaced " << CODESPACE_VERSION << '\n';
    return 0;
  }
  const bool serving = serve_command->parsed() || app.get_subcommands().empty();
  if (serving) {
    if (auto dropped = drop_privileges(user); !dropped) return fail(dropped.error());
  }
  const auto loaded = load_config(file, flags);
  if (!loaded) {
    for (const std::string& mistake : loaded.error()) std::cerr << "codespaced: " << mistake << '\n';
    return kExitConfig;
  }
  if (env_command->parsed()) return print_env(loaded->config.state_dir, loaded->config.listen);
  if (check_command->parsed()) {
    std::cout << "the configuration is valid\n";
    return 0;
  }
  if (show_command->parsed()) return show_config(*loaded, origin);
  if (key_create->parsed()) return create_key(loaded->config, key_name);
  if (key_list->parsed()) return list_keys(loaded->config);
  return serve(loaded->config);
}

}  // namespace codespace::server

int main(int argc, char** argv) { return codespace::server::run(argc, argv); }
