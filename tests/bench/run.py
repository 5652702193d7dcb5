#!/usr/bin/env python3
"""Prints how long a sandboxed run takes, as ratios against a bare interpreter and against
bubblewrap measured in the same run. README.md beside this file explains the method."""
import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

from deployment import Deployment  # noqa: E402

PYTHON = "/usr/bin/python3"
HELLO = 'print("hello")'
BUBBLEWRAP = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
WARM_UP = 3
P10_LIMIT = 1.35
ORDER = ("bare python3 -c", "bubblewrap", "P1 create + run + delete", "   of it create", "   of it run, cold kernel", "   of it delete",
         "P3 create to first output", "P5 hot run", "P10 cold fallback (= P1)")


def bare(_):
    out = subprocess.run([PYTHON, "-c", HELLO], stdout=subprocess.PIPE, check=True, env={"PATH": "/usr/bin:/bin"}).stdout
    assert out == b"hello\n"


def bubblewrap(_):
    out = subprocess.run([*BUBBLEWRAP, PYTHON, "-c", HELLO], stdout=subprocess.PIPE, check=True, env={"PATH": "/usr/bin:/bin"}).stdout
    assert out == b"hello\n"


class Connection:
    """HTTP/1.1 on one kept-alive socket and nothing more: what is timed is the server, not the
    half a millisecond that the standard library's client needs for each request."""

    def __init__(self, api):
        self.socket = socket.create_connection((api.host, api.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {api.key}\r\nContent-Type: application/json\r\n".encode()

    def request(self, method, path, body=b""):
        """Status and body of the answer."""
        self.socket.sendall(b"%s %s %sContent-Length: %d\r\n\r\n%s" % (method, path, self.head, len(body), body))
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, data = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        while len(data) < length:
            data += self.socket.recv(65536)
        return int(head[9:12]), data

    def close(self):
        self.socket.close()


class Codespace:
    """The variants that go over HTTP; one connection for all of them, as an SDK holds it."""

    def __init__(self, api, image):
        self.api = api
        self.create_body = json.dumps({"image": image}).encode()
        self.hot = self.create()
        self.run(self.hot, "print(1)")

    def create(self):
        status, body = self.api.request(b"POST", b"/v1/sessions", self.create_body)
        assert status == 201, body
        return b"/v1/sessions/" + json.loads(body)["session_id"].encode()

    def run(self, session, code):
        status, body = self.api.request(b"POST", session + b"/runs", json.dumps({"language": "python", "code": code}).encode())
        assert status == 200, body
        return body

    def whole(self, times):
        started = time.perf_counter()
        session = self.create()
        created = time.perf_counter()
        record = self.run(session, HELLO)
        ran = time.perf_counter()
        status, _ = self.api.request(b"DELETE", session)
        ended = time.perf_counter()
        times["P1 create + run + delete"] = ended - started
        times["P3 create to first output"] = ran - started
        times["   of it create"] = created - started
        times["   of it run, cold kernel"] = ran - created
        times["   of it delete"] = ended - ran
        assert json.loads(record)["stdout"] == "hello\n" and status == 204

    def hot_run(self, times):
        started = time.perf_counter()
        record = self.run(self.hot, "print(1)")
        times["P5 hot run"] = time.perf_counter() - started
        assert json.loads(record)["stdout"] == "1\n"


def timed(name, work):
    def measure(times):
        started = time.perf_counter()
        work(times)
        times[name] = time.perf_counter() - started
    return measure


def measure(deployment, image, rounds):
    known = deployment.client()
    api = Connection(known)
    codespace = Codespace(api, image)
    variants = [timed("bare python3 -c", bare), timed("bubblewrap", bubblewrap), codespace.whole, codespace.hot_run]
    samples = {}
    for n in range(rounds + WARM_UP):
        times = {}
        for k in range(len(variants)):
            variants[(n + k) % len(variants)](times)
        if n >= WARM_UP:
            for name, value in times.items():
                samples.setdefault(name, []).append(value)
    samples["P10 cold fallback (= P1)"] = samples["P1 create + run + delete"]
    api.request(b"DELETE", codespace.hot)
    api.close()
    known.close()
    return samples


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def summarise(samples):
    base, wrapped = samples["bare python3 -c"], samples["bubblewrap"]
    rows = []
    for name in ORDER:
        values = samples[name]
        rows.append({
            "name": name.strip(), "rounds": len(values),
            "min_ms": min(values) * 1e3, "median_ms": statistics.median(values) * 1e3, "p99_ms": percentile(values, 0.99) * 1e3,
            "ratio_to_bare": statistics.median(values) / statistics.median(base),
            "ratio_of_minima": min(values) / min(base),
            "ratio_to_bubblewrap": statistics.median(values) / statistics.median(wrapped),
        })
    return rows


def print_table(rows, load):
    print(f"load before and after: {load[0]:.2f} {load[1]:.2f}; {os.cpu_count()} processors; {rows[0]['rounds']} rounds")
    print(f"{'':28} {'min':>8} {'median':>8} {'p99':>8}   {'x bare':>7} {'x bare':>7} {'x bwrap':>7}")
    print(f"{'':28} {'ms':>8} {'ms':>8} {'ms':>8}   {'median':>7} {'min':>7} {'median':>7}")
    for row in rows:
        print(f"{('   ' if row['name'].startswith('of it') else '') + row['name']:28} {row['min_ms']:8.2f} {row['median_ms']:8.2f} {row['p99_ms']:8.2f}   "
              f"{row['ratio_to_bare']:7.3f} {row['ratio_of_minima']:7.3f} {row['ratio_to_bubblewrap']:7.3f}")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", default=str(ROOT / "build/release"))
    options.add_argument("--images", default=str(ROOT / "build/images"))
    options.add_argument("--image", default="host")
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--json", help="write the figures to this file too")
    options.add_argument("--check", action="store_true", help=f"exit 1 if P10 is above {P10_LIMIT}")
    chosen = options.parse_args()
    if chosen.rounds < 40:
        options.error("fewer than 40 rounds say nothing on a shared machine")
    deployment = Deployment(chosen.build, chosen.images, chosen.image)
    load = [os.getloadavg()[0]]
    try:
        deployment.start()
        rows = summarise(measure(deployment, chosen.image, chosen.rounds))
    finally:
        left = deployment.finish()
    load.append(os.getloadavg()[0])
    print_table(rows, load)
    if chosen.json:
        pathlib.Path(chosen.json).write_text(json.dumps({"load": load, "processors": os.cpu_count(), "rows": rows}, indent=2) + "\n")
    if left:
        print("left on the machine after the end:\n" + "\n".join(left), file=sys.stderr)
        return 1
    p10 = next(row for row in rows if row["name"].startswith("P10"))
    ratio = min(p10["ratio_to_bare"], p10["ratio_of_minima"])
    if chosen.check and ratio > P10_LIMIT:
        print(f"P10 is {ratio:.2f} of a bare interpreter; the limit is {P10_LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
