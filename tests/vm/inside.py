"""Runs inside the machine: `inside.py WHAT ARGUMENTS` does one thing through the API of the installed server and prints JSON."""
import json
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "support"))
from client import Client, Session  # noqa: E402
from counting import Callers  # noqa: E402

KEPT = pathlib.Path("/var/tmp/kept-sessions.json")
PORT = 8642


def key():
    return pathlib.Path("/var/lib/codespace/data/api-key").read_text().strip()


def client():
    return Client("127.0.0.1", PORT, key())


def limits():
    """Every limit of a session, reached once, each in a session of its own: who fills memory with files cannot even run `rm`."""
    api = client()
    out = {}

    def fresh():
        session = Session.create(api, limits={"memory_bytes": 128 << 20, "pids": 40, "cpus": 0.2, "workspace_bytes": 16 << 20})
        made.append(session)
        return session

    made = []
    session = fresh()
    session.run("x = 41")
    out["oom"] = session.try_run("b = bytearray(300 << 20)").json["outcome"]
    out["after_oom"] = session.run("print(1)")["stdout"]
    out["tmpfs"] = fresh().try_command("head -c 300000000 /dev/zero > /dev/shm/f; echo rc=$?").json["stdout"]
    out["forks"] = fresh().run("""
import os, time
children = 0
try:
    while children < 100:
        if os.fork() == 0:
            time.sleep(30); os._exit(0)
        children += 1
except OSError as e:
    print(children < 40, e.errno)
""")["stdout"]
    session = fresh()
    out["deadline"] = session.try_run("while True: pass", timeout_s=2).json["outcome"]
    busy = session.try_run("import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\nprint(time.process_time())").json
    out["cpu_ms"] = busy["cpu_ms"]
    peak = session.run("b = bytearray(50 << 20); del b")
    out["peak_over_50_mib"] = peak["memory_peak_bytes"] > 50 << 20
    out["disk"] = fresh().try_command("head -c 20000000 /dev/zero 2>&1 > /workspace/f; stat -c %s /workspace/f").json["stdout"]
    for session in made:
        session.delete()
    return out


def look():
    """What a session's processes look like from the host: filters, control groups, privileges."""
    api = client()
    session = Session.create(api)
    session.run("import time")
    session.command("sleep 60 >/dev/null 2>&1 & until pgrep sleep; do :; done")
    seen = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            uid = int(fields["Uid"].split()[0])
            # A child made ahead that no image was put into yet is the launcher's program still, and runs nothing of anybody's.
            if 1900000000 <= uid < 1900000000 + 1048576 and not fields["Name"].startswith("codespace-launc"):
                group = (status.parent / "cgroup").read_text().strip()
                seen.append({"name": fields["Name"], "filters": int(fields["Seccomp_filters"]), "caps": fields["CapEff"], "nnp": fields["NoNewPrivs"], "group": group})
        except (OSError, KeyError):
            pass
    session.delete()
    return seen


def pip():
    """A session with a network, on a machine that has none: the decision is the proxy's."""
    api = client()
    session = Session.create(api, network={"mode": "allowlist", "allow": ["pypi.org"]})
    out = session.shell("curl -s -o /dev/null -w '%{http_connect}' https://example.com/ || true")
    session.delete()
    return {"connect": out}


def keep():
    """Sessions with a variable, a file and a process each, to be found again."""
    api = client()
    made = []
    for n in range(5):
        session = Session.create(api, labels={"n": str(n)})
        session.run(f"kept = {n * 111}")
        session.put("file", str(n).encode() * 10)
        made.append(session.id)
    KEPT.write_text(json.dumps(made))
    subprocess.run(["sync"], check=True)
    return made


def find():
    """What has become of them."""
    api = client()
    out = []
    for name in json.loads(KEPT.read_text()):
        answer = api.get(f"/v1/sessions/{name}")
        if answer.status != 200:
            out.append([answer.status, answer.json.get("end_reason")])
            continue
        session = Session(api, answer.json)
        out.append([session.run("print(kept)")["stdout"], session.read("file").body.decode()])
    return out


def load(script, clients="4", sessions="8", seconds="0"):
    """Clients that count, while `script` runs in the shell (at least `seconds`)."""
    callers = Callers(client, "code_latest", int(clients), int(sessions)).start()
    time.sleep(1)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    time.sleep(max(1, float(seconds)))
    callers.stop()
    callers.check_all()
    callers.delete_all()
    return {"script": [done.returncode, done.stdout[-500:] + done.stderr[-500:]], "runs": callers.runs, "retries": callers.retries, "refused": callers.refused,
            "mistakes": callers.mistakes[:5]}


def work():
    """Creates and uses sessions until the machine stops."""
    api = client()
    n = 0
    while True:
        session = Session.create(api, labels={"work": str(n)})
        session.run("print(1)")
        if n % 3:
            session.delete()
        n += 1
        print(n, flush=True)


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*sys.argv[2:])))
