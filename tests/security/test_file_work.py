"""File work on hostile trees: random ones, ones that change while they are looked at, deep ones, and a million entries. What the API says is what the
session's own programs see, never anything of the host, in bounded time and memory."""
import hashlib
import json
import pathlib
import random
import threading
import time

import pytest

import host
from client import Client, Session
from deployment import own_deployment

TREES, ENTRIES = 12, 60
RACE_S, ANSWER_BOUND_S = 6, 10

# Runs in the session: makes a tree of the seed, then prints what is there and what opening each path gives.
MAKE_TREE = r'''
import hashlib, json, os, random, socket, stat, sys
choice = random.Random(int(sys.argv[1]))
count = int(sys.argv[2])
os.makedirs("/workspace/tree"); os.chdir("/workspace/tree")
dirs, files = ["."], []
def name():
    kind = choice.randrange(8)
    if kind == 0: return "sp ace" + str(choice.randrange(99))
    if kind == 1: return "ünï-😀" + str(choice.randrange(99))
    if kind == 2: return "-rf" + str(choice.randrange(99))
    if kind == 3: return "%2e%2e" + str(choice.randrange(99))
    if kind == 4: return "x" * choice.randrange(200, 255)
    return "n" + str(choice.randrange(10**6))
for _ in range(count):
    path = choice.choice(dirs) + "/" + name()
    if os.path.lexists(path): continue
    kind = choice.randrange(12)
    try:
        if kind < 3: os.mkdir(path); dirs.append(path)
        elif kind < 6:
            with open(path, "wb") as f: f.write(choice.randbytes(choice.randrange(5000)))
            os.chmod(path, choice.choice([0o644, 0o600, 0o000, 0o777]))
        elif kind == 6:
            with open(path, "wb") as f: f.truncate(choice.choice([1, 10**6]))
        elif kind == 7: os.symlink(choice.choice(["/etc/passwd", "../../../../../../etc/hostname", "/proc/1/root/etc/passwd", "/proc/self/fd/0", "/dev/zero", "/workspace"]), path)
        elif kind == 8: os.symlink(choice.choice([".", "..", os.path.basename(path), "none", "n1/../.."]), path)
        elif kind == 9 and files: os.symlink(os.path.relpath(choice.choice(files), os.path.dirname(path)), path)
        elif kind == 10: os.mkfifo(path)
        elif kind == 11 and len(path) < 90:
            s = socket.socket(socket.AF_UNIX); s.bind(path); s.close()
    except OSError: continue
    if kind in (3, 4, 5): files.append(path)
seen = {}
for base, below, plain in os.walk("."):
    for entry in below + plain:
        path = os.path.join(base, entry)[2:]
        s = os.lstat(path)
        kind = "directory" if stat.S_ISDIR(s.st_mode) else "symlink" if stat.S_ISLNK(s.st_mode) else "file" if stat.S_ISREG(s.st_mode) else "other"
        content = None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            if stat.S_ISREG(os.fstat(fd).st_mode) and not os.path.realpath(path).startswith("/proc"):
                with open(fd, "rb") as f: content = hashlib.sha256(f.read()).hexdigest()
            else: os.close(fd)
        except OSError: pass
        seen[path] = [kind, s.st_size if kind == "file" else None, os.readlink(path) if kind == "symlink" else None, content]
print(json.dumps(seen))
'''


@pytest.mark.parametrize("number", range(TREES))
def test_random_trees(session, number):
    seed = random.randrange(2**32)
    session.put("/tmp/make.py", MAKE_TREE.encode()).ok(201)
    truth = json.loads(session.shell(f"python3 /tmp/make.py {seed} {ENTRIES}"))
    assert len(truth) > ENTRIES / 3, seed
    listing = session.api.get(session.file("/workspace/tree", "list=1&depth=64")).ok()
    assert listing["truncated"] is False
    shown = {entry["path"]: [entry["type"], entry["size"] if entry["type"] == "file" else None, entry.get("link_target") if entry["type"] == "symlink" else None]
             for entry in listing["entries"]}
    assert shown == {path: facts[:3] for path, facts in truth.items()}, f"seed {seed}"
    found = session.api.post(session.path + "/files:search", {"path": "/workspace/tree", "pattern": "*"}).ok()
    assert {entry["path"] for entry in found["entries"]} == set(truth), f"seed {seed}"
    for path, (kind, _, target, content) in truth.items():
        answer = session.read(f"/workspace/tree/{path}")
        if content is not None:
            assert answer.status == 200 and hashlib.sha256(answer.body).hexdigest() == content, (seed, number, path, answer)
        elif target is None or "/proc" not in target:
            assert 400 <= answer.status < 500, (seed, path, kind, answer)
        else:  # links into /proc lead where the asking process looks from; the kernel's own are not followed
            assert 400 <= answer.status < 500 or not host_secret(answer.body), (seed, path, answer)
    assert session.api.request("DELETE", session.file("/workspace/tree", "recursive=1")).status == 204
    assert session.shell("ls /workspace") == ""


def host_secret(body):
    """What only the host's own files have in them."""
    return pathlib.Path("/etc/machine-id").exists() and pathlib.Path("/etc/machine-id").read_bytes().strip() in body or b"codespace-launcher" in body


# Runs in the session, until it is killed: everything in the tree becomes something else all the time.
CHURN = r'''
import os, random
os.chdir("/workspace/race")
names = ["a", "b", "c", "d"]
choice = random.Random()
while True:
    x, y = choice.choice(names), choice.choice(names)
    try:
        match choice.randrange(9):
            case 0: os.rename(x, y)
            case 1: os.symlink(choice.choice(["/etc", "/", "..", y, "/proc/1/root", "/etc/passwd"]), x)
            case 2: os.mkdir(x)
            case 3: os.unlink(x)
            case 4: os.rmdir(x)
            case 5: open(x, "w").write("mine")
            case 6: os.rename(x + "/" + y, y)
            case 7: os.mkfifo(x)
            case 8: open(x + "/passwd", "w").write("mine")
    except OSError: pass
'''


def test_a_tree_that_changes_all_the_time(session):
    """Eight writers churn in the session while four clients read, list, search, write, move and delete in the same place."""
    before = {path: pathlib.Path(path).stat().st_mtime_ns for path in ("/etc/passwd", "/etc/hosts", "/etc", "/")}
    own = {session.shell(f"cat /etc/{name}").encode() for name in ("passwd", "hosts", "group")}
    session.put("/tmp/churn.py", CHURN.encode()).ok(201)
    session.shell("mkdir race; for i in 1 2 3 4 5 6 7 8; do python3 /tmp/churn.py >/dev/null 2>&1 & done; echo")
    end, wrong, counts = time.monotonic() + RACE_S, [], {}

    def worker(seed):
        choice, api = random.Random(seed), session.api.another()
        mine = session.via(api)
        while time.monotonic() < end and not wrong:
            a, b = ("/workspace/race/" + "/".join(choice.choices("abcd", k=choice.randrange(1, 3))) + choice.choice(["", "/passwd"]) for _ in range(2))
            act = choice.randrange(7)
            began = time.monotonic()
            if act == 0:
                answer = mine.read(a)
                if answer.status == 200 and answer.body not in own | {b"mine", b"", b"written"}:
                    wrong.append(f"read {a}: {answer.body[:200]!r}")
            elif act == 1:
                answer = mine.put(a, b"written")
            elif act == 2:
                answer = api.get(mine.file("/workspace/race", "list=1&depth=9"))
            elif act == 3:
                answer = api.post(mine.path + "/files:search", {"path": "/workspace/race", "pattern": "*"})
            elif act == 4:
                answer = api.post(mine.path + "/files:move", {"from": a, "to": b, "overwrite": True})
            elif act == 5:
                answer = api.request("DELETE", mine.file(a, "recursive=1"))
            else:
                answer = mine.stat(a)
            took = time.monotonic() - began
            counts[answer.status] = counts.get(answer.status, 0) + 1
            if answer.status >= 500 or took > ANSWER_BOUND_S:
                wrong.append(f"{act} {a} {b}: {answer.json.get('detail')} after {took:.1f} s")
        api.close()

    threads = [threading.Thread(target=worker, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(RACE_S + 60)
    assert not wrong, wrong[:5]
    assert sum(counts.values()) > 100, counts
    assert {path: pathlib.Path(path).stat().st_mtime_ns for path in before} == before, "the host's own files were touched"
    assert session.run("print(1)")["stdout"] == "1\n"


def test_sparse_growing_and_shrinking_files(session, deployment):
    memory = host.memory_kib(deployment.gateway.pid)
    session.shell("truncate -s 1T sparse; echo end >> sparse; printf start | dd of=sparse conv=notrunc status=none")
    size = session.stat("sparse").ok()["size"]
    assert size == (1 << 40) + 4
    answer = session.read("sparse", headers={"Range": f"bytes={size - 4}-"})
    assert answer.status == 206 and answer.body == b"end\n"
    # Nobody waits for a tebibyte: what was read by then was bounded, and the gateway holds none of it.
    raw = Client(session.api.host, session.api.port, session.api.key, timeout=10)
    with pytest.raises(AssertionError, match="enough"):
        stream = raw_download(raw, session.file("sparse"))
        for piece in stream:
            assert piece < 64 << 20, "enough"
    raw.close()
    # A file that grows as fast as it can is read to the size it had.
    session.command("touch grow; (while :; do head -c 100000 /dev/zero; done) > grow 2>/dev/null & sleep 0.2")
    answer = session.read("grow")
    assert answer.status == 200 and len(answer.body) == int(answer.headers["content-length"])
    # One that shrinks while it is read ends early, and the connection says so.
    session.command("head -c 50000000 /dev/zero > shrink; (while :; do truncate -s 0 shrink; truncate -s 50000000 shrink; done) >/dev/null 2>&1 & echo")
    for _ in range(5):
        try:
            answer = session.read("shrink")
            assert answer.status in (200, 404, 409) and (answer.status != 200 or len(answer.body) == int(answer.headers["content-length"]))
        except Exception as broken:  # pylint: disable=broad-except
            assert "Incomplete" in type(broken).__name__ or isinstance(broken, OSError), broken
            session.api.close()
    assert host.memory_kib(deployment.gateway.pid) - memory < 32 << 10


def raw_download(client, path):
    """Bytes got so far, piece by piece."""
    import http.client
    connection = http.client.HTTPConnection(client.host, client.port, timeout=10)
    connection.request("GET", path, headers={"Authorization": f"Bearer {client.key}"})
    answer = connection.getresponse()
    assert answer.status == 200
    got = 0
    try:
        while piece := answer.read(1 << 20):
            got += len(piece)
            yield got
    finally:
        connection.close()


def test_four_thousand_deep(session):
    session.command("python3 -c \"import os\nfor _ in range(4000):\n os.mkdir('d'); os.chdir('d')\nopen('bottom', 'w')\"", timeout_s=30)
    for ask in (lambda: session.api.get(session.file("/workspace", "list=1&depth=64")),
                lambda: session.api.post(session.path + "/files:search", {"path": "/workspace", "pattern": "bottom"}),
                lambda: session.stat("/".join("d" * 1000)),
                lambda: session.api.request("DELETE", session.file("d", "recursive=1"))):
        began = time.monotonic()
        answer = ask()
        assert answer.status < 500 and time.monotonic() - began < ANSWER_BOUND_S, answer
    assert session.shell("ls -A | wc -l") == "0\n"


@pytest.fixture
def roomy(request, image):
    """Where a session may have more than a million files."""
    with own_deployment(request, image, config="[limits]\ninodes = 1200000\nmemory_bytes = 4294967296\n[pool]\nsize = 0\nmost = 0\ndata = 0\n") as made:
        yield made


def test_a_million_entries(roomy, image):
    api = roomy.client()
    session = Session.create(api, image=image)
    made = session.try_command("mkdir many && cd many && python3 -c \"import os\nfor n in range(1000000): os.mknod(str(n))\" && echo made").json
    assert made["stdout"] == "made\n", made
    memory = host.memory_kib(roomy.gateway.pid)
    for ask in (lambda: api.get(session.file("many", "list=1")),
                lambda: api.get(session.file("/workspace", "list=1&depth=9")),
                lambda: api.post(session.path + "/files:search", {"path": "many", "pattern": "*"}),
                lambda: api.post(session.path + "/files:search", {"path": "/workspace", "pattern": "999999"})):
        began = time.monotonic()
        answer = ask().ok()
        assert time.monotonic() - began < 30
        assert answer["truncated"] is True or [entry["path"] for entry in answer["entries"]] == ["many/999999"], len(answer["entries"])
    assert host.memory_kib(roomy.gateway.pid) - memory < 96 << 10, "the gateway held the million"
    began = time.monotonic()
    answer = api.request("DELETE", session.file("many", "recursive=1"))
    assert answer.status == 204 or answer.status == 504, answer
    assert time.monotonic() - began < 75
    assert session.run("print(1)")["stdout"] == "1\n"
    began = time.monotonic()
    assert session.delete().status == 204 and time.monotonic() - began < 60
    api.close()


