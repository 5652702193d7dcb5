// codespaced: the composition root. Reads like a table of contents: options, privileges,
// configuration, state, session manager, listeners, then the signals that end it.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <spdlog/spdlog.h>
#include <thread>

#include "api/handlers.h"
#include "sandbox/async/task_group.h"
#include "sandbox/daemon/log.h"
#include "sandbox/daemon/privileges.h"
#include "sandbox/daemon/watchdog.h"
#include "sandbox/manager/session_manager.h"
#include "sandbox/sys/clock.h"
#include "server/auth.h"
#include "server/commands.h"
#include "server/completion.h"
#include "server/config.h"
#include "server/host_check.h"
#include "server/listener.h"
#include "server/router.h"
#include "server/tls.h"

namespace codespace::server {
namespace {

namespace asio = boost::asio;
using manager::SessionManager;

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

Result<void> write_secret(const std::string& path, const std::string& text) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return sys_error(errno, "create " + path);
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(fd);
  if (!written) return sys_error(errno, "write " + path);
  return {};
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

Result<void> load_keys(SessionManager& sessions, Auth& auth, Quotas& quotas) {
  auto rows = sessions.keys();
  if (!rows) return std::unexpected(rows.error());
  std::vector<KeyDigest> keys;
  std::map<std::string, KeyTerms> terms;
  std::map<std::string, manager::KeyLimits> limits;
  for (const auto& row : *rows) {
    keys.push_back({row.id, row.sha256});
    terms[row.id] = {row.scopes, row.requests_per_minute};
    limits[row.id] = row.limits;
  }
  quotas.set(std::move(terms));
  sessions.limit_keys(std::move(limits));
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
  m.most_limits = *manager::parse_limits(c.limits_most);
  m.image_limits = *manager::parse_image_limits(c.limits_images);
  manager::clamp(m.default_limits, m.most_limits);
  m.egress_socket = c.egress_socket;
  m.default_network.mode = *wire::network_mode(c.network_mode);
  m.default_network.allow = split_names(c.network_allow);
  m.zygotes = c.zygotes != 0;
  m.pool.size = static_cast<std::uint32_t>(c.pool_size);
  m.pool.most = static_cast<std::uint32_t>(c.pool_most);
  m.pool.data = static_cast<std::uint32_t>(c.pool_data);
  m.pool.javascript = static_cast<std::uint32_t>(c.pool_javascript);
  m.pool.memory_bytes = c.pool_memory_bytes;
  m.default_idle_timeout = std::chrono::seconds(c.idle_timeout_s);
  m.default_max_lifetime = std::chrono::seconds(c.max_lifetime_s);
  m.max_sessions = static_cast<std::uint32_t>(c.max_sessions);
  m.stream_cap_bytes = static_cast<std::uint32_t>(c.stream_cap_bytes);
  m.max_file_bytes = c.max_file_bytes;
  m.log = std::move(log);
  return m;
}

void raise_descriptor_limit() {
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
}

using Listeners = std::vector<std::unique_ptr<Listener>>;

/// On the sockets of the service manager if it gave any, which are there while no gateway is;
/// otherwise on `server.listen`.
Result<Listeners> open_listeners(const Config& config, const std::function<std::unique_ptr<Listener>()>& make, spdlog::logger& log) {
  Listeners listeners;
  for (sys::UniqueFd& socket : sys::ServiceManager::take_sockets()) {
    listeners.push_back(make());
    if (auto adopted = listeners.back()->adopt(std::move(socket)); !adopted) return std::unexpected(adopted.error());
    log.info("listening address={} socket=\"of the service manager\"", listeners.back()->address());
  }
  if (!listeners.empty()) return listeners;
  const auto address = *parse_listen(config.listen);
  listeners.push_back(make());
  if (auto opened = listeners.back()->open(address.host, address.port); !opened) return std::unexpected(opened.error());
  // A client that says "localhost" may mean ::1; where IPv6 is off this just does not open.
  auto second = make();
  if (address.host == "127.0.0.1" && second->open("::1", listeners.front()->port())) listeners.push_back(std::move(second));
  return listeners;
}

Result<asio::ssl::context> tls_of(const Config& config) {
  if (!config.tls_certificate.empty()) return load_tls(config.tls_certificate, config.tls_key);
  return make_tls(config.state_dir, config.tls_names);
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
  const sys::ServiceManager service_manager;
  raise_descriptor_limit();
  const auto log = daemon::make_log("codespaced");
  log->set_level(spdlog::level::from_str(config.log_level));
  if (::mkdir(config.state_dir.c_str(), 0750) != 0 && errno != EEXIST) return fail({ErrorCode::internal, Fault::server, errno, "make " + config.state_dir, {}});

  // A thread that is not needed costs every request a hand-over (docs/configuration.md).
  const unsigned by_cores = std::max(1U, std::thread::hardware_concurrency() / 2);
  const unsigned threads = config.threads != 0 ? static_cast<unsigned>(config.threads) : by_cores;
  asio::io_context io(static_cast<int>(threads));
  if (threads == 1) async::promise_one_thread(io);

  auto tls_made = tls_of(config);
  if (!tls_made) return fail(tls_made.error());
  auto tls = std::make_shared<asio::ssl::context>(std::move(*tls_made));
  std::mutex tls_mutex;

  const auto metrics = std::make_shared<metrics::Metrics>(CODESPACE_VERSION);
  manager::ManagerConfig managed = manager_config(config, log);
  managed.metrics = metrics;
  auto sessions = SessionManager::open(io.get_executor(), std::move(managed));
  if (!sessions) return fail(sessions.error());
  Auth auth;
  Quotas quotas;
  if (auto keys = ensure_keys(**sessions, config, *log); !keys) return fail(keys.error());
  if (auto keys = load_keys(**sessions, auth, quotas); !keys) return fail(keys.error());

  api::Handlers handlers(**sessions, std::chrono::seconds(config.idle_timeout_s), std::chrono::seconds(config.max_lifetime_s));
  Router router(handlers, *metrics);
  for (const HostFact& fact : check_host()) {
    if (fact.verdict == HostFact::Verdict::ok) continue;
    router.host_lacks += (router.host_lacks.empty() ? "" : "; ") + fact.name + ": " + fact.why + "; mend: " + fact.mend;
    log->warn("the host lacks something name=\"{}\" found=\"{}\" required={} why=\"{}\" mend=\"{}\"", fact.name, fact.found,
              fact.verdict == HostFact::Verdict::required, fact.why, fact.mend);
  }
  api::Rpc rpc(**sessions, std::chrono::seconds(config.idle_timeout_s), std::chrono::seconds(config.max_lifetime_s));
  std::atomic<std::uint64_t> form_bytes{0};
  Audit audit(config.audit_file, config.audit_content != 0, *log);
  if (auto opened = audit.open(); !opened) return fail(opened.error());
  auto names = split_names(config.tls_names);
  char machine[256] = {};
  if (::gethostname(machine, sizeof machine - 1) == 0) names.emplace_back(machine);
  const ConnectionContext context{router, rpc, auth, quotas, *log, audit, config.max_file_bytes, form_bytes, names, config.direct_link != 0};
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
  const auto listeners = open_listeners(
      config, [&] { return std::make_unique<Listener>(io.get_executor(), connections, context, current_tls, config.max_connections); }, *log);
  if (!listeners) return fail(listeners.error());

  asio::signal_set signals(io, SIGTERM, SIGINT, SIGHUP);
  const auto reload = [&] {
    auto fresh = tls_of(config);
    const auto keys = load_keys(**sessions, auth, quotas);
    if (fresh) {
      const std::lock_guard lock(tls_mutex);
      tls = std::make_shared<asio::ssl::context>(std::move(*fresh));
    }
    const auto audited = audit.open();
    if (!fresh) log->error("the certificate was not reloaded, the old one stays what=\"{}\"", fresh.error().what);
    log->info("reloaded tls={} keys={} audit={}", fresh.has_value(), keys.has_value(), audited.has_value());
  };
  for (const auto& listener : *listeners) asio::co_spawn(io, listener->accept_loop(), asio::detached);
  asio::co_spawn(io, daemon::feed_watchdog(service_manager), asio::detached);
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        co_await wait_for_stop(signals, reload);
        service_manager.tell("STOPPING=1");
        log->info("stopping, draining for at most {} s", config.drain_timeout_s);
        router.draining = true;
        for (const auto& listener : *listeners) listener->close();
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

  log->info("ready url=https://localhost:{} state={} version={}", listeners->front()->port(), config.state_dir, CODESPACE_VERSION);
  service_manager.tell("READY=1");
  std::vector<std::thread> workers;
  for (unsigned i = 1; i < threads; ++i) workers.emplace_back([&io] { io.run(); });
  io.run();
  for (std::thread& worker : workers) worker.join();
  log->info("stopped");
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
  CLI::App* host_command = app.add_subcommand("check-host", "say what this machine lacks, why it matters and what mends it");
  CLI::App* config_command = app.add_subcommand("config", "show the configuration in force");
  bool origin = false;
  CLI::App* show_command = config_command->add_subcommand("show", "one `key = value` per line");
  common(show_command);
  show_command->add_flag("--origin", origin, "with where each value came from");
  CLI::App* key_command = app.add_subcommand("key", "API keys");
  CLI::App* key_create = key_command->add_subcommand("create", "make a key and print it once");
  std::string key_name = "unnamed";
  key_create->add_option("--name", key_name, "what the key is for");
  std::string key_scopes = "use,metrics";
  KeyTerms key_terms;
  manager::KeyLimits key_limits;
  std::string key_standard, key_most;
  key_create->add_option("--scopes", key_scopes, "read (look), use (look and change), metrics; with commas between")->capture_default_str();
  key_create->add_option("--requests-per-minute", key_terms.requests_per_minute, "0: any number")->capture_default_str();
  key_create->add_option("--max-sessions", key_limits.max_sessions, "alive at the same time; 0: any number")->capture_default_str();
  key_create->add_option("--limits", key_standard, "of its sessions that ask for nothing else, as in \"memory_bytes=2147483648 cpus=1.5\"");
  key_create->add_option("--most", key_most, "what its sessions get at most, whatever they ask for; the same way");
  common(key_create);
  CLI::App* key_list = key_command->add_subcommand("list", "id, scopes, requests a minute and sessions (0: any number), and name of each");
  common(key_list);
  std::string backup_file;
  CLI::App* backup_command = app.add_subcommand("backup", "write a consistent copy of database, certificates and first key, while the server runs");
  backup_command->add_option("FILE", backup_file, "where to; it must not exist")->required();
  common(backup_command);
  CLI::App* restore_command = app.add_subcommand("restore", "put a backup into an empty state directory");
  restore_command->add_option("FILE", backup_file, "a file that `backup` wrote")->required();
  common(restore_command);
  CLI::App* completion_command = app.add_subcommand("completion", "print the completions for a shell");
  std::string shell;
  completion_command->add_option("SHELL", shell)->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
  CLI::App* version_command = app.add_subcommand("version", "print the version");
  bool json = false;
  version_command->add_flag("--json", json, "for machines");
  CLI11_PARSE(app, argc, argv);

  if (version_command->parsed()) {
    if (json) std::cout << nlohmann::json{{"name", "codespaced"}, {"version", CODESPACE_VERSION}, {"compiler", __VERSION__}}.dump() << '\n';
    else std::cout << "codespaced " << CODESPACE_VERSION << '\n';
    return 0;
  }
  if (host_command->parsed()) return print_host();
  if (completion_command->parsed()) {
    std::cout << completion_script(app, shell);
    return 0;
  }
  const bool serving = serve_command->parsed() || app.get_subcommands().empty();
  if (serving) {
    if (auto dropped = daemon::drop_privileges(user); !dropped) return fail(dropped.error());
  }
  const auto loaded = load_config(file, flags);
  if (!loaded) {
    for (const std::string& mistake : loaded.error()) std::cerr << "codespaced: " << mistake << '\n';
    return kExitConfig;
  }
  if (env_command->parsed()) return print_env(loaded->config);
  if (check_command->parsed()) {
    std::cout << "the configuration is valid\n";
    return 0;
  }
  if (show_command->parsed()) return show_config(*loaded, origin);
  if (key_create->parsed()) {
    const auto scopes = parse_scopes(key_scopes);
    if (!scopes) return fail(scopes.error(), 2);
    key_terms.scopes = *scopes;
    for (const auto& [text, out] : {std::pair(&key_standard, &key_limits.standard), std::pair(&key_most, &key_limits.most)}) {
      const auto limits = manager::parse_limits(*text);
      if (!limits) return fail(limits.error(), kExitUsage);
      *out = *limits;
    }
    return create_key(loaded->config, key_name, key_terms, key_limits);
  }
  if (key_list->parsed()) return list_keys(loaded->config);
  if (backup_command->parsed()) return back_up(loaded->config, backup_file);
  if (restore_command->parsed()) return restore(loaded->config, backup_file);
  return serve(loaded->config);
}

}  // namespace codespace::server

int main(int argc, char** argv) { return codespace::server::run(argc, argv); }
