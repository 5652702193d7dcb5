"""The package on a real Debian 12: systemd, control groups version 2, Debian's kernel. The tests build on each other, in this order."""
import json
import os
import re
import subprocess
import time

from conftest import NEXT_VERSION, ROOT
from machine import run
from sdk_environment import python_environment

SDK_TESTS = ROOT / "tests/sdk"
UNITS = ("codespaced.socket", "codespaced.service", "codespace-launcher.service", "codespace-egress.socket", "codespace-egress.service")
GATEWAY_EXPOSURE, LAUNCHER_EXPOSURE = 1.5, 4.3


def inside(machine, what, *arguments, timeout=300):
    """The JSON that inside.py prints last."""
    quoted = " ".join("'" + str(a).replace("'", "'\\''") + "'" for a in arguments)
    return json.loads(machine.sh(f"python3 -B /root/tests/vm/inside.py {what} {quoted}", timeout=timeout).splitlines()[-1])


def install(machine, package):
    machine.copy_in(package, to="/root/codespace.deb")
    return machine.sh("DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /root/codespace.deb 2>&1", timeout=600)


def ready(machine):
    machine.sh("for i in $(seq 300); do curl -sf -o /dev/null http://127.0.0.1:8642/readyz && exit 0; sleep 0.2; done; systemctl status 'codespace*'; exit 1", timeout=120)


# --- before the machine --------------------------------------------------------------------------


def test_lintian_finds_nothing(packages):
    done = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", packages[0]], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "E:" not in done.stdout and "W:" not in done.stdout, done.stdout + done.stderr


def test_units_are_hardened(offline):
    units = ROOT / "deploy/systemd"
    assert offline(units / "codespaced.service") <= GATEWAY_EXPOSURE
    assert offline(units / "codespace-egress.service") <= GATEWAY_EXPOSURE
    assert offline(units / "codespace-launcher.service") <= LAUNCHER_EXPOSURE


def test_alert_rules_are_valid():
    out = run(["promtool", "check", "rules", ROOT / "deploy/prometheus/codespace.rules.yml"])
    assert "SUCCESS" in out
    named = re.findall(r"- alert: (\w+)", (ROOT / "deploy/prometheus/codespace.rules.yml").read_text())
    operations = (ROOT / "docs/operations.md").read_text()
    assert named and all(f"`{name}`" in operations for name in named), "an alert has no entry in docs/operations.md"


def test_manual_pages_are_clean(packages, tmp_path):
    run(["dpkg-deb", "-x", packages[0], tmp_path])
    pages = sorted(tmp_path.glob("usr/share/man/man*/*.gz"))
    assert [p.name for p in pages] == ["codespaced.toml.5.gz", "codespace-image.8.gz", "codespaced.8.gz"]
    for page in pages:
        done = subprocess.run(["mandoc", "-Tlint", "-W", "error", page], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


# --- installation --------------------------------------------------------------------------------


def test_installs_and_starts(machine, packages):
    machine.sh("mkdir -p /root/tests")
    machine.copy_in(ROOT / "tests/support", ROOT / "tests/vm", to="/root/tests/")
    out = install(machine, packages[0])
    assert "Setting up codespace" in out
    ready(machine)
    assert machine.sh(f"systemctl is-active {' '.join(UNITS)}").split() == ["active"] * len(UNITS), out
    assert machine.sh(f"systemctl is-enabled {' '.join(UNITS)}").split() == ["enabled"] * len(UNITS)
    assert machine.sh("systemctl --failed --no-legend").strip() == ""
    assert "ready cgroup=v2" in machine.sh("journalctl -b --no-pager -u codespace-launcher")


def test_installed_files_are_root_s(machine):
    assert machine.sh("dpkg -V codespace | grep -v /usr/share/doc/ || true").strip() == ""
    assert machine.sh("systemd-analyze verify --man=no /lib/systemd/system/codespace*.* 2>&1").strip() == ""
    assert machine.sh("stat -c '%U %a' /var/lib/codespace /var/lib/codespace/images /etc/codespace/codespaced.toml").split("\n")[:3] == ["root 755", "root 755", "root 644"]
    assert machine.sh("stat -c '%U %a' /var/lib/codespace/data /var/lib/codespace/data/codespace.db").split("\n")[:2] == ["codespace 711", "codespace 600"]


def test_daemons_hold_nothing(machine):
    for unit, user in (("codespaced", "codespace"), ("codespace-egress", "codespace-egress")):
        pid = machine.sh(f"systemctl show -P MainPID {unit}").strip()
        status = machine.sh(f"cat /proc/{pid}/status; stat -c 'User=%U' /proc/{pid}/status; ls /proc/{pid}/task | wc -l")
        assert f"User={user}" in status and re.search(r"CapEff:\s+0+\n", status) and re.search(r"CapBnd:\s+0+\n", status)
        assert re.search(r"NoNewPrivs:\s+1", status) and re.search(r"Seccomp:\s+2", status)
    pid = machine.sh("systemctl show -P MainPID codespace-launcher").strip()
    # Its capabilities are those of its own user namespace; of the machine's it has none.
    assert machine.sh(f"readlink /proc/{pid}/ns/user") != machine.sh("readlink /proc/1/ns/user")


def test_a_session_lies_in_its_slice_with_no_privilege(machine):
    seen = inside(machine, "look")
    names = {one["name"].split(":")[0] for one in seen}
    assert {"memfd", "python3", "sleep"} <= names, f"init is a program in a memfd: {names}"
    for one in seen:
        assert one["group"].startswith("0::/codespace.slice/codespace-launcher.service/codespace-"), one
        # Init may signal and change ids, in the session's own user namespace.
        assert int(one["caps"], 16) == (0xe0 if one["name"].startswith("memfd") else 0) and one["nnp"] == "1", one
    # The unit's own filters, and two more in every process.
    launcher = int(machine.sh("grep -oP 'Seccomp_filters:\\s+\\K.*' /proc/$(systemctl show -P MainPID codespace-launcher)/status"))
    assert {one["filters"] for one in seen} == {launcher + 2}, seen


def test_the_guide_as_a_remote_client(machine, tmp_path):
    """As docs/operations.md says: the socket on every address, and the SDK on another machine, with the key and the certificate."""
    machine.sh("mkdir -p /etc/systemd/system/codespaced.socket.d && printf '[Socket]\\nListenStream=\\nListenStream=0.0.0.0:8642\\n' > /etc/systemd/system/codespaced.socket.d/address.conf"
               " && systemctl daemon-reload && systemctl stop codespaced.service && systemctl restart codespaced.socket && systemctl start codespaced.service")
    ready(machine)
    (tmp_path / "bundle.pem").write_text(machine.sh("cat /var/lib/codespace/data/tls/bundle.pem"))
    key = machine.sh("cat /var/lib/codespace/data/api-key").strip()
    variables = {"AGENTBAY_ENDPOINT": f"localhost:{machine.gateway_port}", "AGENTBAY_API_KEY": key, "SSL_CERT_FILE": str(tmp_path / "bundle.pem"),
                 "REQUESTS_CA_BUNDLE": str(tmp_path / "bundle.pem"), "CODESPACE_URL": f"https://localhost:{machine.gateway_port}", "CODESPACE_API_KEY": key,
                 "CODESPACE_CA": str(tmp_path / "bundle.pem"), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", "AGENTBAY_LOG_LEVEL": "ERROR"}
    done = subprocess.run([python_environment() / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", SDK_TESTS / "python",
                           "--confcutdir", SDK_TESTS / "python", "--tb=short", SDK_TESTS / "python/test_guide.py"],
                          env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and re.search(r"^\d+ passed", done.stdout, re.M), done.stdout[-6000:] + done.stderr[-2000:]
    plain = subprocess.run(["curl", "-s", "-i", f"http://127.0.0.1:{machine.gateway_port}/readyz"], capture_output=True, text=True, check=False).stdout
    assert "tls_required" in plain, "plain HTTP from another machine was answered"


def test_every_limit_holds_on_version_2(machine):
    seen = inside(machine, "limits")
    assert seen["oom"] == "out_of_memory" and seen["deadline"] == "timed_out", seen
    assert seen["after_oom"] == "1\n" and seen["forks"] == "True 11\n", seen
    assert "rc=0" not in seen["tmpfs"] and "No space left" in seen["disk"] and seen["disk"].endswith(f"{16 << 20}\n"), seen
    assert 100 < seen["cpu_ms"] < 900 and seen["peak_over_50_mib"], f"a fifth of a processor for two seconds: {seen}"


def test_suites_on_version_2(machine):
    """The tests of limits and deadlines that version 1 passes, and what the host sees of a session, from the installed programs."""
    machine.copy_in(ROOT / "tests/integration", ROOT / "tests/security", ROOT / "tests/conftest.py", ROOT / "tests/pytest.ini", to="/root/tests/")
    machine.sh("mkdir -p /root/build/bin && ln -sf /usr/libexec/codespace/* /usr/sbin/codespaced /root/build/bin/ && systemctl stop codespaced.socket codespaced.service codespace-launcher.service")
    chosen = " ".join(("integration/test_deadline.py", "security/test_resources.py", "security/test_posture.py"))
    chosen += " --deselect security/test_resources.py::test_everything_at_once"  # compares times, of which an emulated processor tells nothing
    code, out = machine.status(f"cd /root/tests && python3 -B -m pytest -q -p no:cacheprovider -rfEs {chosen} --build /root/build --images /var/lib/codespace/images 2>&1", timeout=900)
    machine.sh("systemctl start codespace-launcher.service codespaced.socket codespaced.service")
    ready(machine)
    assert code == 0, out[-12000:]


# --- operation -----------------------------------------------------------------------------------


def test_restart_under_load_refuses_nobody(machine, capsys_off):
    seen = inside(machine, "load", "for i in 1 2 3; do systemctl restart codespaced; sleep 2; done")
    capsys_off(f"three restarts under load: {seen}")
    assert seen["script"][0] == 0 and not seen["mistakes"] and seen["refused"] == 0 and seen["runs"] > 50, seen


def test_a_killed_gateway_comes_back(machine):
    seen = inside(machine, "load", "for i in 1 2 3; do systemctl kill -s KILL codespaced; sleep 4; done")
    assert not seen["mistakes"] and seen["refused"] == 0 and seen["runs"] > 20, seen


def test_watchdogs_end_what_hangs(machine):
    """A process that is stopped gives no sign of life; a new one takes its place."""
    machine.sh("for u in codespaced codespace-egress; do mkdir -p /run/systemd/system/$u.service.d; printf '[Service]\\nWatchdogSec=3\\n' > /run/systemd/system/$u.service.d/w.conf; done"
               "; systemctl daemon-reload; systemctl restart codespaced codespace-egress")
    ready(machine)
    for unit in ("codespaced", "codespace-egress"):
        before = machine.sh(f"systemctl show -P MainPID {unit}").strip()
        machine.sh(f"sleep 5; test $(systemctl show -P MainPID {unit}) = {before}")  # a sound one is left alone
        machine.sh(f"kill -STOP {before}; for i in $(seq 60); do p=$(systemctl show -P MainPID {unit}); test $p != {before} && test $p != 0 && exit 0; sleep 0.5; done; exit 1", timeout=90)
    machine.sh("rm -r /run/systemd/system/codespaced.service.d /run/systemd/system/codespace-egress.service.d; systemctl daemon-reload; systemctl restart codespaced codespace-egress")
    ready(machine)


def test_the_journal_has_priorities_and_requests(machine):
    lines = [json.loads(line) for line in machine.sh("journalctl -b -u codespaced -o json --no-pager -n 400").splitlines()]
    requests = [one for one in lines if str(one["MESSAGE"]).startswith("request request_id=")]
    assert requests and all(one["PRIORITY"] == "6" for one in requests)
    assert not any(re.match(r"<\d>", str(one["MESSAGE"])) for one in lines)


def test_the_audit_log_is_there_and_turned_over(machine):
    lines = [json.loads(line) for line in machine.sh("cat /var/log/codespace/audit.jsonl").splitlines()]
    assert {"POST /v1/sessions", "DELETE /v1/sessions/{id}"} <= {f"{one['method']} {one['route']}" for one in lines}
    assert machine.sh("stat -c '%U %a' /var/log/codespace /var/log/codespace/audit.jsonl").split("\n")[:2] == ["codespace 750", "codespace 600"]
    machine.sh("logrotate --force /etc/logrotate.d/codespace && test -f /var/log/codespace/audit.jsonl.1 && for i in $(seq 50); do test -f /var/log/codespace/audit.jsonl && exit 0; sleep 0.2; done; exit 1")


def test_clock_jumps(machine):
    """A day forward, and back again: no session ends of it, and runs keep their deadlines."""
    inside(machine, "keep")
    machine.sh("date -s '+26 hours' && sleep 3")
    assert inside(machine, "find") == [[f"{n * 111}\n", str(n) * 10] for n in range(5)]
    machine.sh("date -s '-26 hours' && sleep 3")
    assert inside(machine, "find") == [[f"{n * 111}\n", str(n) * 10] for n in range(5)]
    seen = inside(machine, "limits")
    assert seen["deadline"] == "timed_out", seen


def test_a_credential_is_a_key(machine):
    machine.sh("mkdir -p /etc/credstore && umask 077 && echo csk_operators_own_key_0123456789 > /etc/credstore/codespace.api-key && systemctl restart codespaced")
    ready(machine)
    assert machine.sh("curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer csk_operators_own_key_0123456789' http://127.0.0.1:8642/v1/sessions") == "200"


def test_backup_and_restore(machine):
    """A backup of the running server, put into an empty directory, has its keys and its certificates."""
    machine.sh("install -d -o codespace -g codespace -m 700 /var/backups/codespace && runuser -u codespace -- codespaced backup /var/backups/codespace/now --config /etc/codespace/codespaced.toml")
    assert machine.sh("stat -c %a /var/backups/codespace/now").strip() == "600"
    before = machine.sh("sha256sum < /var/lib/codespace/data/tls/ca.pem; cat /var/lib/codespace/data/api-key")
    code, out = machine.status("runuser -u codespace -- codespaced backup /var/backups/codespace/now --config /etc/codespace/codespaced.toml")
    assert code == 1 and "exists" in out
    machine.sh("systemctl stop codespaced.socket codespaced.service && mv /var/lib/codespace/data /var/lib/codespace/data.lost"
               " && install -d -o codespace -g codespace -m 711 /var/lib/codespace/data"
               " && runuser -u codespace -- codespaced restore /var/backups/codespace/now --config /etc/codespace/codespaced.toml && systemctl start codespaced.socket codespaced.service")
    ready(machine)
    assert machine.sh("sha256sum < /var/lib/codespace/data/tls/ca.pem; cat /var/lib/codespace/data/api-key") == before
    assert inside(machine, "look"), "no session could be made after the restore"
    code, out = machine.status("runuser -u codespace -- codespaced restore /var/backups/codespace/now --config /etc/codespace/codespaced.toml")
    assert code == 1 and "move it away first" in out


def test_upgrade_keeps_sessions(machine, packages):
    inside(machine, "keep")
    launcher = machine.sh("systemctl show -P MainPID codespace-launcher")
    gateway = machine.sh("systemctl show -P MainPID codespaced")
    out = install(machine, packages[1])
    assert "sessions go on" in out
    ready(machine)
    assert NEXT_VERSION in machine.sh("dpkg-query -W -f '${Version}' codespace")
    assert machine.sh("systemctl show -P MainPID codespace-launcher") == launcher and machine.sh("systemctl show -P MainPID codespaced") != gateway
    assert inside(machine, "find") == [[f"{n * 111}\n", str(n) * 10] for n in range(5)]


def test_power_cut(machine, capsys_off):
    """In the middle of work. After it the database is sound, sessions are told as lost, and everything starts by itself."""
    key = machine.sh("cat /var/lib/codespace/data/api-key")
    worker = subprocess.Popen(["ssh", *machine._ssh, "-p", str(machine.ssh_port), "root@127.0.0.1", "python3 -B /root/tests/vm/inside.py work"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for _ in range(10):
        assert worker.stdout.readline().strip().isdigit()
    machine.power_cut()
    worker.wait(30)
    capsys_off(f"booted again in {machine.boot():.0f} s")
    ready(machine)
    assert machine.sh("sqlite3 /var/lib/codespace/data/codespace.db 'PRAGMA integrity_check'").strip() == "ok"
    assert machine.sh("cat /var/lib/codespace/data/api-key") == key
    assert inside(machine, "find") == [[410, "lost_at_reboot"]] * 5
    assert inside(machine, "look")
    assert machine.sh("systemctl --failed --no-legend").strip() == ""


# --- the end -------------------------------------------------------------------------------------


def test_stop_ends_everything(machine):
    inside(machine, "keep")
    began = time.monotonic()
    machine.sh("systemctl stop codespaced.socket codespaced.service codespace-egress.socket codespace-egress.service codespace-launcher.service")
    assert time.monotonic() - began < 60
    assert machine.sh("ls -d /proc/[0-9]* | while read p; do u=$(stat -c %u $p 2>/dev/null) || continue; [ $u -ge 1900000000 ] && [ $u -lt 1901048576 ] && cat $p/status; done; true").strip() == ""
    assert machine.sh("find /sys/fs/cgroup -name 'codespace-*' -not -path '*/system.slice/*'").strip() == ""
    assert machine.sh("ls /run/codespace 2>/dev/null || true").strip() == ""
    assert machine.sh("systemctl --failed --no-legend").strip() == ""


def test_remove_and_purge_leave_nothing(machine):
    machine.sh("systemctl start codespaced.socket codespace-launcher.service codespaced.service")
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get remove -y codespace 2>&1", timeout=300)
    assert machine.sh("systemctl list-units --no-legend 'codespace*'").strip() == ""
    assert machine.sh("test -f /var/lib/codespace/data/codespace.db && test -f /etc/codespace/codespaced.toml && echo kept").strip() == "kept"
    machine.sh("umount /var/lib/codespace/images && rm -rf /etc/systemd/system/codespaced.socket.d")
    machine.sh("DEBIAN_FRONTEND=noninteractive apt-get purge -y codespace 2>&1", timeout=300)
    elsewhere = ("/proc", "/sys", "/root", "/tmp", "/var/log/journal", "/var/log/apt", "/var/log/dpkg.log", "/var/backups", "/var/lib/apt", "/var/cache", "/etc/credstore")
    left = machine.sh(f"find / -xdev \\( {' -o '.join(f'-path {path}' for path in elsewhere)} \\) -prune -o -name '*codespace*' -print").split()
    assert left == [], left
