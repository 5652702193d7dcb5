#!/usr/bin/env python3
"""The rules of who may include whom, and what the two confined programs may contain.

Usage: structure_test.py SOURCE_TREE LAUNCHER_BINARY INIT_BINARY
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1])
LAUNCHER, INIT = sys.argv[2], sys.argv[3]
failures = []

# folder -> (folders of ours it may include, patterns of outside headers it must not include)
HEAVY = r"boost/|nlohmann/|spdlog/|fmt/|toml|CLI/|openssl/|sqlite3"
RULES = {
    "sandbox/sys": ({"sandbox/sys"}, HEAVY + r"|<thread>|<mutex>"),
    "sandbox/wire": ({"sandbox/sys", "sandbox/wire"}, HEAVY + r"|<thread>|<mutex>|sys/socket"),
    "sandbox/async": ({"sandbox/sys", "sandbox/async"}, r"boost/beast|nlohmann/|CLI/|openssl/|sqlite3|seccomp"),
    "sandbox/metrics": ({"sandbox/metrics"}, r"boost/|nlohmann/|sqlite3|openssl/"),
    "sandbox/daemon": ({"sandbox/sys", "sandbox/daemon"}, r"boost/beast|nlohmann/|toml|CLI/|openssl/|sqlite3"),
    "sandbox/egress": ({"sandbox/sys", "sandbox/wire", "sandbox/daemon", "sandbox/egress"}, r"nlohmann/|sqlite3|openssl/|toml|<seccomp\.h>"),
    "sandbox/manager": ({"sandbox/sys", "sandbox/wire", "sandbox/async", "sandbox/metrics", "sandbox/manager"}, r"boost/beast|CLI/|toml|<seccomp\.h>|<sched\.h>"),
    "sandbox/launcher": ({"sandbox/sys", "sandbox/wire", "sandbox/launcher"}, HEAVY + r"|<thread>|<mutex>|<iostream>"),
    "sandbox/init": ({"sandbox/sys", "sandbox/wire", "sandbox/init"}, HEAVY + r"|<thread>|<mutex>|<iostream>|<seccomp\.h>"),
    "api": ({"api", "sandbox/manager", "sandbox/sys", "sandbox/async"}, r"boost/beast|boost/asio/ip|openssl/ssl|sqlite3|spdlog/"),
    "server": ({"server", "api", "sandbox/async", "sandbox/daemon", "sandbox/metrics", "sandbox/sys"}, r"sqlite3|<seccomp\.h>"),
}
# Exceptions, each with its reason.
ALLOWED = {
    ("sandbox/launcher/seccomp_policy.cpp", "seccomp.h"): "the one file that knows libseccomp",
    ("sandbox/manager/images.cpp", "nlohmann/json.hpp"): "image.json is read here and nowhere else",
    ("sandbox/manager/validation.cpp", "sandbox/egress/rules.h"): "a rule the proxy would not take is refused when it is asked for",
    ("server/config.cpp", "sandbox/egress/rules.h"): "likewise",
    ("server/config.cpp", "sandbox/wire/egress_protocol.h"): "the names of the modes",
    ("server/config.cpp", "sandbox/manager/limits.h"): "limits that could not be given are a mistake of the configuration",
    ("server/main.cpp", "sandbox/manager/"): "the composition root builds the session manager",
    ("server/commands.h", "sandbox/manager/"): "commands on the state of a server that need not run",
    ("server/commands.cpp", "sandbox/manager/"): "likewise",
}
JSON_ONLY_IN = {"api/json.cpp", "api/rpc.cpp", "api/tool_args.cpp", "api/tools.cpp", "api/run_tools.cpp", "api/file_tools.cpp", "server/audit.cpp", "server/config.cpp", "server/main.cpp", "sandbox/manager/images.cpp"}


def allowed(path, header):
    return any(path == file and header.startswith(prefix) for file, prefix in ALLOWED)


for folder, (ours, never) in RULES.items():
    for source in sorted((ROOT / folder).rglob("*")):
        if source.suffix not in (".h", ".cpp"):
            continue
        path = str(source.relative_to(ROOT))
        for line in source.read_text().splitlines():
            match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if not match or allowed(path, match[2]):
                continue
            quoted, header = match[1] == '"', match[2]
            if quoted:
                if not any(header.startswith(o + "/") for o in ours):
                    failures.append(f"{path} includes {header}: {folder} may use only {sorted(ours)}")
            elif re.search(never, f"<{header}>"):
                failures.append(f"{path} includes <{header}>, which {folder} must never use")

for folder in ("api", "server", "sandbox"):
    for source in (ROOT / folder).rglob("*.*"):
        path = str(source.relative_to(ROOT))
        if path not in JSON_ONLY_IN and source.suffix in (".h", ".cpp") and "<nlohmann/" in source.read_text():
            failures.append(f"{path} includes the JSON library: only {sorted(JSON_ONLY_IN)} may")

for source in (ROOT / "sandbox").rglob("*.cpp"):
    path = str(source.relative_to(ROOT))
    text = source.read_text()
    if path.startswith("sandbox/manager") or path.startswith("sandbox/async"):
        if re.search(r"::(fork|vfork|clone|system|popen)\s*\(", text):
            failures.append(f"{path}: the daemon never forks")


def needed(binary):
    out = subprocess.run(["readelf", "-d", binary], capture_output=True, text=True, check=True).stdout
    return re.findall(r"NEEDED.*\[(.+)\]", out)


if needed(INIT):
    failures.append(f"codespace-init must be static, needs {needed(INIT)}")
extra = {lib for lib in needed(LAUNCHER) if not re.match(r"(libseccomp|libc|libstdc\+\+|libgcc_s|libm|ld-linux.*)\.so", lib)}
if extra:
    failures.append(f"codespace-launcher links {sorted(extra)}: it may need only libc, libstdc++ and libseccomp")
size = pathlib.Path(INIT).stat().st_size
if size > 1_300_000:
    failures.append(f"codespace-init has {size} bytes, the budget is 1,300,000")

print("\n".join(failures) or "structure holds")
sys.exit(1 if failures else 0)
