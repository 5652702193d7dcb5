"""Bombs: every kind of memory, processes, files and descriptors stays inside the session's
limits, ends with a true outcome, and leaves the session usable."""
import pytest

import host

MEMORY = 64 << 20

PYTHON_BOMBS = {
    "heap": "x = []\nwhile True: x.append(bytearray(1 << 20))",
    "one huge allocation": "x = bytearray(1 << 32)",
    "anonymous map": "import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 22)\n    m.write(b'x' * (1 << 22))\n    x.append(m)",
    "memory file": "import os\nfd = os.memfd_create('x')\nwhile True: os.write(fd, b'x' * (1 << 20))",
    "shared memory": "f = open('/dev/shm/x', 'wb', 0)\nwhile True: f.write(b'x' * (1 << 20))",
    "tmpfs": "f = open('/tmp/x', 'wb', 0)\nwhile True: f.write(b'x' * (1 << 20))",
    "workspace": "f = open('/workspace/x', 'wb', 0)\nwhile True: f.write(b'x' * (1 << 20))",
    "SysV segment": ("import ctypes\nlibc = ctypes.CDLL(None)\nlibc.shmat.restype = ctypes.c_void_p\nwhile True:\n"
                     "    n = libc.shmget(0, 1 << 22, 0o1600)\n    assert n >= 0\n    ctypes.memset(libc.shmat(n, None, 0), 1, 1 << 22)"),
    "many threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
    "pipes": ("import fcntl, os\nends = []\nwhile True:\n    r, w = os.pipe()\n    ends.append((r, w))\n    os.set_blocking(w, False)\n"
              "    try:\n        fcntl.fcntl(w, 1031, 1 << 20)\n    except OSError:\n        pass\n"
              "    try:\n        while True: os.write(w, b'x' * 65536)\n    except BlockingIOError:\n        pass"),
    "socket buffers": ("import socket\npairs = []\nwhile True:\n    a, b = socket.socketpair()\n    a.setblocking(False)\n"
                       "    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)\n    pairs.append((a, b))\n"
                       "    try:\n        while True: a.send(b'x' * 65536)\n    except BlockingIOError:\n        pass"),
    "page tables": ("import mmap\nx = []\nwhile True:\n    m = mmap.mmap(-1, 1 << 32, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)\n"
                    "    x.append(m)\n    for n in range(0, 1 << 32, 1 << 21): m[n] = 1"),
    "children": "import os\nwhile True:\n    if os.fork() == 0:\n        x = bytearray(8 << 20)\n        while True: pass",
    "inodes": "import itertools, os\nos.mkdir('/tmp/many')\nfor n in itertools.count(): open(f'/tmp/many/{n}', 'w').close()",
    "descriptors": "import os\nx = [os.open('/dev/null', os.O_RDONLY) for _ in range(10**7)]",
}


@pytest.mark.parametrize("bomb", PYTHON_BOMBS)
def test_bomb(bomb, make_session, deployment):
    """The bomb ends by an error, the memory limit or the deadline; the limit held; the next run works."""
    session = make_session(limits={"memory_bytes": MEMORY, "workspace_bytes": 32 << 20, "pids": 40})
    view = host.SessionView(session)
    record = session.run("print('before', flush=True)\n" + PYTHON_BOMBS[bomb], timeout_s=8)
    assert record["outcome"] in ("error", "out_of_memory", "timed_out", "kernel_died"), record["outcome"]
    assert record["stdout"].startswith("before\n"), record
    assert record["memory_peak_bytes"] <= MEMORY, record["memory_peak_bytes"]
    assert record["pids_peak"] <= 41  # with the one fork that was refused
    if bomb in ("heap", "anonymous map", "memory file"):
        assert record["outcome"] == "out_of_memory" and record["killed_by"] == "memory", record
    # What a file system holds is the session's until it is deleted. Where not even `rm` finds
    # memory to run in, the file API does: its helpers are not the tenant's.
    for path in ("/tmp/many", "/tmp/x", "/dev/shm/x", "/workspace/x"):
        assert session.api.request("DELETE", session.file(path, "recursive=1")).status in (204, 404)
    if bomb == "SysV segment":
        session.command("ipcrm -a")
    after = session.run("print('alive')")
    assert after["outcome"] == "ok" and after["stdout"] == "alive\n", (record, after)
    assert view.init in view.members(), "init died"
    assert deployment.gateway.poll() is None and deployment.launcher.poll() is None


def test_zombies_are_reaped(session):
    """Orphans and zombies of a tenant do not fill the process limit."""
    view = host.SessionView(session)
    for _ in range(5):
        session.command("for i in $(seq 60); do (sleep 0 &) ; done; true")
    host.wait_until(lambda: not [pid for pid in view.members() if host.state(pid) == "Z"], 5, "an end of the zombies")
    assert session.shell("echo fine") == "fine\n"


def test_neighbour_keeps_its_share(make_session):
    """While one session burns all processors it may, another one is still served promptly."""
    import time

    burner, neighbour = make_session(), make_session()
    burner.command("for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; echo")
    neighbour.run("1")
    times = []
    for _ in range(20):
        started = time.monotonic()
        neighbour.run("sum(range(100000))")
        times.append(time.monotonic() - started)
    assert sorted(times)[len(times) // 2] < 1, times


def test_processor_quota(make_session):
    """Half a processor is half a processor."""
    session = make_session(limits={"cpus": 0.5})
    record = session.command("timeout 2 sh -c 'while :; do :; done'; true", timeout_s=20)
    assert record["cpu_ms"] < 1500, record["cpu_ms"]
