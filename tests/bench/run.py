#!/usr/bin/env python3
"""Prints the targets P1 to P13 as ratios against a bare interpreter, bubblewrap and a minimal
HTTP server measured in the same run. docs/benchmarks.md explains the method."""
import argparse
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/support"))

import host  # noqa: E402
import subjects  # noqa: E402
from deployment import Deployment, free_port  # noqa: E402

WARM_UP = 3
PAUSE_S = 0.06  # a launcher replaces what was taken of its bare sessions after 20 ms without a request
REFILL_S = 0.3  # in which a pool makes up for one session; its Node.js alone takes 50 ms
P10_LIMIT = 1.35
# Servers side by side, so that what they are compared in is the same minute.
CONFIGURATIONS = {
    "ready": "[pool]\nsize = 6\ndata = 1\n",
    "javascript": "[pool]\nsize = 1\njavascript = 4\ndata = 0\n",  # as for one who runs JavaScript
    "zygote": "[pool]\nsize = 0\ndata = 0\n",
    "cold": "[pool]\nsize = 0\ndata = 0\n[kernels]\nzygotes = 0\n",
}
MIB = 1 << 20


def available_bytes():
    for line in open("/proc/meminfo", encoding="ascii"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no MemAvailable")


def median(values):
    return statistics.median(values)


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


# --- latency ----------------------------------------------------------------------------------

def latency(servers, minimal, rootfs, rounds):
    """Every variant once in each round, in an order that rotates."""
    samples = {}

    def keep(name, value):
        samples.setdefault(name, []).append(value)

    hot = servers["zygote"].create()
    servers["zygote"].run(hot, "print(1)")

    def whole(kind, name):
        create, run, delete = servers[kind].whole()
        keep(name, create + run + delete)
        keep(f"{name}: create", create)
        keep(f"{name}: run", run)
        keep(f"{name}: delete", delete)
        keep(f"{name}: first output", create + run)

    def loop(name, request, times=100):
        keep(name, subjects.seconds(lambda: [request() for _ in range(times)]) / times)

    variants = [
        lambda: keep("bare python", subjects.bare_python()),
        lambda: keep("bare node", subjects.bare_node()),
        lambda: keep("bubblewrap", subjects.bubblewrap()),
        lambda: whole("zygote", "no pool"),
        lambda: (whole("ready", "pool"), time.sleep(REFILL_S)),
        lambda: whole("cold", "cold"),
        lambda: keep("hot run", subjects.seconds(lambda: servers["zygote"].run(hot, "print(1)"))),
        lambda: loop("hot run, loop", lambda: servers["zygote"].run(hot, "print(1)")),
        lambda: loop("minimal server, loop", lambda: minimal.request(b"GET", b"/")),
        lambda: loop("health, loop", lambda: servers["zygote"].api.request(b"GET", b"/healthz")),
        lambda: (keep("first javascript", servers["javascript"].first("console.log('hello')", "javascript")), time.sleep(REFILL_S)),
    ]
    for n in range(rounds + WARM_UP):
        if n == WARM_UP:
            samples.clear()
        for k in range(len(variants)):
            variants[(n + k) % len(variants)]()
            time.sleep(PAUSE_S)
    # The slow ones less often: a cold import is half a second.
    if rootfs.joinpath("usr/lib/python3/dist-packages/pandas").exists():
        for _ in range(8):
            keep("cold import", subjects.cold_import(rootfs))
            keep("first cell with libraries", servers["zygote"].first(subjects.LIBRARIES))
    servers["zygote"].delete(hot)
    return samples


def output_sizes(server):
    session = server.create()
    server.run(session, "1")
    rows = {}
    for name, size in (("4 KB", 4_000), ("1 MB", 1_000_000), ("10 MB", 10_000_000)):
        times = [subjects.seconds(lambda: server.run(session, f"print('x' * {size})")) for _ in range(7)]
        rows[name] = median(times) * 1e3
    server.delete(session)
    return rows


# --- throughput -------------------------------------------------------------------------------

def bare_worker(until, counted):
    done = 0
    while time.monotonic() < until:
        subjects.bare_python()
        done += 1
    counted.put(done)


def session_worker(port, key, image, until, counted):
    server = subjects.Server(port, key, image)
    done = 0
    while time.monotonic() < until:
        server.whole()
        done += 1
    counted.put(done)


def rate(target, arguments, workers, lasting):
    counted = multiprocessing.Queue()
    until = time.monotonic() + lasting
    processes = [multiprocessing.Process(target=target, args=(*arguments, until, counted)) for _ in range(workers)]
    for process in processes:
        process.start()
    total = sum(counted.get() for _ in processes)
    for process in processes:
        process.join()
    return total / lasting


def throughput(deployment, image, lasting, clients):
    access = (deployment.port, deployment.key, image)
    cores = os.cpu_count()
    pairs = [(rate(bare_worker, (), cores, lasting), rate(session_worker, access, cores, lasting)) for _ in range(3)]
    more = {n: rate(session_worker, access, n, lasting) for n in clients}
    return pairs, more


# --- memory and what is left ------------------------------------------------------------------

def memory(server, counts):
    """Bytes of MemAvailable for each idle Python session, and how long a creation takes beside
    as many others."""
    rows, sessions = {}, []
    before = available_bytes()
    creations = {}
    for count in (10, *counts):
        while len(sessions) < count:
            session = server.create()
            server.run(session, "x = 1")
            sessions.append(session)
        time.sleep(1)
        if count in counts:
            rows[count] = (before - available_bytes()) / count
        for _ in range(30):
            started = time.perf_counter()
            session = server.create()
            creations.setdefault(count, []).append(time.perf_counter() - started)
            server.delete(session)
            time.sleep(PAUSE_S)  # as between the requests of one client
    for session in sessions:
        server.delete(session)
    return rows, creations


def left_over(deployment):
    def gone():
        return len(host.of_users(deployment.id_first, deployment.id_count)) <= 4  # the spares
    started = time.monotonic()
    host.wait_until(gone, 30, "an end of the sessions' processes")
    return time.monotonic() - started


# --- report -----------------------------------------------------------------------------------

def targets(samples, pairs, per_session, tail, left_s):
    bare, node = median(samples["bare python"]), median(samples["bare node"])
    whole = samples["no pool"]
    minimal = median(samples["minimal server, loop"])
    at_rest, crowd = min(500, max(per_session)), min(1000, max(tail))
    rows = [
        ("P1", "create + run + delete, no pool / bare python", median(whole) / bare, "<=", 0.35),
        ("P2", "the same from the pool / bare python", median(samples["pool"]) / bare, "<=", 0.12),
        ("P3", "create to first output, no pool / bare python", median(samples["no pool: first output"]) / bare, "<=", 0.22),
        ("P3b", "its 99th percentile / bare python", percentile(samples["no pool: first output"], 0.99) / bare, "<=", 1.0),
        ("P4", "sessions/s / bare python/s, as many workers as cores", median([ours / theirs for theirs, ours in pairs]), ">=", 2.5),
        ("P5", "hot run / bare python", median(samples["hot run, loop"]) / bare, "<=", 0.03),
        ("P5b", "hot run between other work, 99th percentile / bare python", percentile(samples["hot run"], 0.99) / bare, "<=", 0.15),
        ("P6", "hot run / request of a minimal server", median(samples["hot run, loop"]) / minimal, "<=", 8),
        ("P7", f"MiB for an idle Python session, beside {at_rest}", per_session[at_rest] / MIB, "<=", 1.6),
        ("P8", f"fastest creation beside {crowd} sessions / beside 10", min(tail[crowd]) / min(tail[10]), "<=", 1.6),
        ("P8b", "median creation, likewise", median(tail[crowd]) / median(tail[10]), "<=", 2.0),
        ("P9", "create + run + delete, no pool / bubblewrap", median(whole) / median(samples["bubblewrap"]), "<=", 0.3),
        ("P10", "create + run + delete, zygotes off / bare python", median(samples["cold"]) / bare, "<=", P10_LIMIT),
        ("P12", "health requests/s / minimal server's", minimal / median(samples["health, loop"]), ">=", 0.5),
        ("P13", "seconds until nothing is left of them all", left_s, "<=", 30),
        ("JS", "create + first JavaScript output, pool / bare node", median(samples["first javascript"]) / node, "<=", 0.1),
    ]
    if "cold import" in samples:
        rows.insert(-3, ("P11", "create + first cell with numpy, pandas, pyplot / cold import",
                         median(samples["first cell with libraries"]) / median(samples["cold import"]), "<=", 0.03))
    return [{"target": t, "what": w, "value": v, "limit": f"{op} {limit}",
             "met": v <= limit if op == "<=" else v >= limit} for t, w, v, op, limit in rows]


def print_report(report):
    print(f"load before and after: {report['load'][0]:.2f} {report['load'][1]:.2f}; {report['processors']} processors; {report['rounds']} rounds; image {report['image']}\n")
    print(f"| | ms: min | median | p99 |\n|---|---|---|---|")
    for name, row in report["latency"].items():
        print(f"| {name} | {row['min_ms']:.3f} | {row['median_ms']:.3f} | {row['p99_ms']:.3f} |")
    print("\n| target | what | measured | wanted | |\n|---|---|---|---|---|")
    for row in report["targets"]:
        print(f"| {row['target']} | {row['what']} | {row['value']:.3f} | {row['limit']} | {'met' if row['met'] else 'MISSED'} |")
    print("\ncreate + run + delete per second, clients: " + ", ".join(f"{n}: {v:.0f}" for n, v in report["clients"].items()))
    print("MiB of MemAvailable per idle session: " + ", ".join(f"{n}: {v / MIB:.2f}" for n, v in report["memory"].items()))
    print("hot run that prints, ms: " + ", ".join(f"{n}: {v:.2f}" for n, v in report["output"].items()))


def measure(chosen, deployments, minimal_port):
    servers = {kind: subjects.Server(d.port, d.key, chosen.image) for kind, d in deployments.items()}
    minimal = subjects.Connection(minimal_port)
    rootfs = pathlib.Path(chosen.images) / chosen.image / "rootfs"
    samples = latency(servers, minimal, rootfs.resolve(), chosen.rounds)
    output = output_sizes(servers["zygote"])
    pairs, clients = throughput(deployments["zygote"], chosen.image, 2 if chosen.quick else 6, (1, 2) if chosen.quick else (1, 2, 8, 32))
    zygote = deployments["zygote"]
    servers["memory"] = subjects.Server(zygote.port, zygote.key, chosen.image)  # the first one has idled away by now
    per_session, tail = memory(servers["memory"], (100,) if chosen.quick else (100, 500, 1000, 2000))
    left_s = left_over(deployments["zygote"])
    for connection in (*servers.values(), minimal):
        connection.close()
    return {
        "latency": {name: {"min_ms": min(v) * 1e3, "median_ms": median(v) * 1e3, "p99_ms": percentile(v, 0.99) * 1e3} for name, v in samples.items()},
        "targets": targets(samples, pairs, per_session, tail, left_s),
        "clients": clients, "memory": per_session, "output": output, "throughput_pairs": pairs,
    }


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--build", default=str(ROOT / "build/release"))
    options.add_argument("--images", default=str(ROOT / "build/images"))
    options.add_argument("--image", default="code_latest")
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--quick", action="store_true", help="fewer sessions and shorter loops")
    options.add_argument("--json", help="write the figures to this file too")
    options.add_argument("--check", action="store_true", help=f"exit 1 if P10 is above {P10_LIMIT}")
    chosen = options.parse_args()
    if chosen.rounds < 40:
        options.error("fewer than 40 rounds say nothing on a shared machine")
    deployments, left = {}, []
    port = free_port()
    minimal = subprocess.Popen([str(pathlib.Path(chosen.build) / "bin/bench-minimal-server"), str(port)])
    load = [os.getloadavg()[0]]
    try:
        for kind, config in CONFIGURATIONS.items():
            deployments[kind] = Deployment(chosen.build, chosen.images, chosen.image)
            deployments[kind].config = config + "[server]\nmax_sessions = 4000\n"
            deployments[kind].start()
        time.sleep(6)  # the zygotes import their libraries
        report = measure(chosen, deployments, port)
    finally:
        minimal.terminate()
        minimal.wait()
        for deployment in deployments.values():
            left += deployment.finish()
    report.update(load=[*load, os.getloadavg()[0]], processors=os.cpu_count(), rounds=chosen.rounds, image=chosen.image)
    print_report(report)
    if chosen.json:
        pathlib.Path(chosen.json).write_text(json.dumps(report, indent=2) + "\n")
    if left:
        print("left on the machine after the end:\n" + "\n".join(left), file=sys.stderr)
        return 1
    cold = report["latency"]["cold"]["min_ms"] / report["latency"]["bare python"]["min_ms"]
    p10 = min(cold, next(row["value"] for row in report["targets"] if row["target"] == "P10"))
    if chosen.check and p10 > P10_LIMIT:
        print(f"P10 is {p10:.2f} of a bare interpreter; the limit is {P10_LIMIT}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
