"""Files over REST. All work happens inside the session as its user."""
import hashlib
import http.client
import json
import os
import time

import pytest

import host
from client import quote


def names(listing):
    return sorted(entry["path"] for entry in listing["entries"])


def test_put_and_get(session):
    """What is written is read back, byte for byte, and a program in the session sees it."""
    data = bytes(range(256)) * 100
    made = session.put("dir/file.bin", data).ok(201)
    assert made["bytes_written"] == len(data) and made["size"] == len(data)
    answer = session.read("dir/file.bin")
    assert answer.status == 200 and answer.body == data
    assert answer.headers["content-type"] == "application/octet-stream" and answer.headers["x-content-type-options"] == "nosniff"
    assert session.shell("sha256sum < /workspace/dir/file.bin").split()[0] == hashlib.sha256(data).hexdigest()
    assert session.shell("stat -c '%U %a' dir/file.bin") == "sandbox 644\n"


def test_absolute_paths(session):
    """A path that begins with `/`, plain or encoded, is absolute."""
    session.put("/tmp/a b.txt", b"1").ok(201)
    assert session.api.get(f"{session.path}/files/%2Ftmp%2Fa%20b.txt").body == b"1"
    assert session.shell("cat '/tmp/a b.txt'") == "1"


@pytest.mark.parametrize("name", ["ä€😀.txt", "with space", "%41", "a?b", "a#b", "-rf", "'quote\"", ".hidden", "x" * 255])
def test_names(session, name):
    """Any file name works."""
    url = f"{session.path}/files/" + "".join(f"%{byte:02X}" for byte in name.encode())
    assert session.api.request("PUT", url, body=b"x").status == 201
    assert session.api.get(url).body == b"x"
    assert names(session.api.get(f"{session.path}/files/?list=1").ok()) == [name]


def test_overwrite_append_exclusive(session):
    """PUT replaces, `append=1` adds, `exclusive=1` refuses what exists."""
    session.put("f", b"long old content").ok(201)
    session.put("f", b"new").ok(201)
    assert session.put("f", b"+", "append=1").ok(200)["size"] == 4
    assert session.read("f").body == b"new+"
    session.put("f", b"x", "exclusive=1").problem(409, "file_exists")
    session.put("g", b"x", "exclusive=1").ok(201)
    assert session.read("f").body == b"new+"


def test_empty_file(session):
    """An empty file is a file."""
    session.put("empty", b"").ok(201)
    answer = session.read("empty")
    assert answer.status == 200 and answer.body == b"" and session.stat("empty").ok()["size"] == 0


def test_ranges(session):
    """`Range` gives 206 and the bytes asked for, 416 outside the file."""
    session.put("f", bytes(range(100))).ok(201)
    for header, first, last in (("bytes=0-9", 0, 9), ("bytes=90-", 90, 99), ("bytes=-5", 95, 99), ("bytes=50-500", 50, 99)):
        answer = session.read("f", headers={"Range": header})
        assert answer.status == 206 and answer.body == bytes(range(first, last + 1)), header
        assert answer.headers["content-range"] == f"bytes {first}-{last}/100"
    answer = session.read("f", headers={"Range": "bytes=100-"})
    answer.problem(416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */100"
    assert session.read("f", headers={"Range": "lines=1-2"}).status == 200


def test_head(session):
    """HEAD gives the size without the bytes."""
    session.put("f", b"12345").ok(201)
    answer = session.api.request("HEAD", session.file("f"))
    assert answer.status == 200 and answer.headers["content-length"] == "5" and answer.body == b""
    assert session.api.request("HEAD", session.file("none")).status == 404


def test_stat(session):
    """`stat=1` describes files, directories and links."""
    session.shell("echo 123 > f; mkdir d; ln -s f l; chmod 600 f")
    entry = session.stat("f").ok()
    assert entry["type"] == "file" and entry["size"] == 4 and entry["mode"] == "0600" and entry["path"] == "f"
    assert abs(time.time() - time.mktime(time.strptime(entry["modified_at"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone) < 100
    assert session.stat("d").ok()["type"] == "directory"
    assert session.stat("none").problem(404, "file_not_found")


def test_list(session):
    """`list=1` lists a directory, deeper with `depth`."""
    session.shell("mkdir -p a/b/c; touch a/1 a/b/2 a/b/c/3; ln -s /etc l")
    assert names(session.api.get(session.file("a", "list=1")).ok()) == ["1", "b"]
    assert names(session.api.get(session.file("a", "list=1&depth=2")).ok()) == ["1", "b", "b/2", "b/c"]
    assert names(session.api.get(session.file("/workspace", "list=1&depth=9")).ok()) == ["a", "a/1", "a/b", "a/b/2", "a/b/c", "a/b/c/3", "l"]
    listing = session.api.get(session.file("/workspace", "list=1")).ok()
    kinds = {entry["path"]: entry for entry in listing["entries"]}
    assert kinds["l"]["type"] == "symlink" and kinds["l"]["link_target"] == "/etc" and listing["truncated"] is False
    session.api.get(session.file("a/1", "list=1")).problem(409, "not_a_directory")


def test_mkdir(session):
    """Directories are made with their parents, or without."""
    post = session.api.post
    assert post(session.path + "/files:mkdir", {"path": "x/y/z"}).status == 204
    assert post(session.path + "/files:mkdir", {"path": "x/y/z"}).status == 204  # as mkdir -p
    post(session.path + "/files:mkdir", {"path": "x/y", "parents": False}).problem(409, "file_exists")
    post(session.path + "/files:mkdir", {"path": "p/q", "parents": False}).problem(404, "file_not_found")
    session.put("plain", b"").ok(201)
    post(session.path + "/files:mkdir", {"path": "plain/sub"}).problem(409, "not_a_directory")
    assert session.shell("stat -c %F x/y/z") == "directory\n"


def test_move(session):
    """Files and directories move; an existing target is replaced only when asked."""
    post = session.api.post
    session.put("a", b"1").ok(201)
    session.put("b", b"2").ok(201)
    assert post(session.path + "/files:move", {"from": "a", "to": "c"}).status == 204
    post(session.path + "/files:move", {"from": "c", "to": "b"}).problem(409, "file_exists")
    assert post(session.path + "/files:move", {"from": "c", "to": "b", "overwrite": True}).status == 204
    assert session.read("b").body == b"1" and session.read("c").status == 404
    post(session.path + "/files:move", {"from": "none", "to": "x"}).problem(404, "file_not_found")
    session.shell("mkdir -p d/e")
    assert post(session.path + "/files:move", {"from": "d", "to": "moved"}).status == 204
    assert session.stat("moved/e").ok()["type"] == "directory"


def test_edit(session):
    """Edits apply one after the other to the first occurrence each; one that does not fit changes nothing."""
    edit = session.path + "/files:edit"
    session.put("f.txt", b"one two one \xff")
    done = session.api.post(edit, {"path": "f.txt", "edits": [{"old_text": "one", "new_text": "1"}, {"old_text": "1 two", "new_text": "three"}]}).ok()
    assert done == {"path": "f.txt", "edits_applied": 2, "dry_run": False, "size": len(b"three one \xff")}
    assert session.read("f.txt").body == b"three one \xff"
    assert session.api.post(edit, {"path": "f.txt", "dry_run": True, "edits": [{"old_text": "three", "new_text": "x"}]}).ok()["dry_run"]
    body = session.api.post(edit, {"path": "f.txt", "edits": [{"old_text": "three", "new_text": "x"}, {"old_text": "absent", "new_text": ""}]}).problem(409, "conflict")
    assert "absent" in body["detail"] and session.read("f.txt").body == b"three one \xff"
    session.api.post(edit, {"path": "none", "edits": [{"old_text": "a", "new_text": "b"}]}).problem(404, "file_not_found")
    session.api.post(edit, {"path": ".", "edits": [{"old_text": "a", "new_text": "b"}]}).problem(409, "is_a_directory")
    for edits in ([], [{"old_text": "a"}], [5], "x", [{"old_text": "", "new_text": "b"}]):
        assert session.api.post(edit, {"path": "f.txt", "edits": edits}).status in (400, 409)
    session.command("chmod 750 f.txt")
    session.api.post(edit, {"path": "f.txt", "edits": [{"old_text": "three", "new_text": "3"}]}).ok()
    assert session.stat("f.txt").ok()["mode"] == "0750"


def test_search(session):
    """Names are found at any depth, links are not followed, what is left out is left out with all in it."""
    session.command("mkdir -p s/a/b s/skip; touch s/x.py s/a/y.py s/a/b/z.PY s/skip/w.py 's/a/[q].py'; ln -s / s/root; ln -s . s/a/self")

    def search(**more):
        listing = session.api.post(session.path + "/files:search", {"path": "s", **more}).ok()
        assert listing["truncated"] is False
        return sorted(e["path"] for e in listing["entries"])

    assert search(pattern="*.py") == ["a/[q].py", "a/y.py", "skip/w.py", "x.py"]
    assert search(pattern="*.py", exclude=["skip", "x*"]) == ["a/[q].py", "a/y.py"]
    assert search(pattern="?.py", exclude=["a/*"]) == ["skip/w.py", "x.py"]
    assert search(pattern="[q].py") == ["a/[q].py"] and search(pattern="") == [] and search(pattern="b") == ["a/b"]
    session.api.post(session.path + "/files:search", {"path": "none", "pattern": "*"}).problem(404, "file_not_found")
    session.api.post(session.path + "/files:search", {"path": "s/x.py", "pattern": "*"}).problem(409, "not_a_directory")
    session.api.post(session.path + "/files:search", {"path": "s"}).problem(400, "invalid_request")
    session.api.post(session.path + "/files:search", {"path": "s", "pattern": "*", "exclude": ["x"] * 65}).problem(400, "invalid_request")


def test_search_is_bounded(session):
    """A directory of many files, a tree deeper than descriptors last, and /proc all come to an end."""
    session.command("mkdir many && cd many && seq 12000 | xargs touch")
    listing = session.api.post(session.path + "/files:search", {"path": "many", "pattern": "*"}).ok()
    assert listing["truncated"] is True and len(listing["entries"]) == 10_000
    session.command("python3 -c \"import os\nfor _ in range(400):\n os.mkdir('d'); os.chdir('d')\"", cwd="/tmp")
    listing = session.api.post(session.path + "/files:search", {"path": "/tmp", "pattern": "d"}).ok()
    assert listing["truncated"] is True and len(listing["entries"]) == 200
    assert session.api.post(session.path + "/files:search", {"path": "/proc", "pattern": "status"}).ok()["entries"] == []


def test_move_between_file_systems(session):
    """A move from /workspace to /tmp works or says plainly what to do; nothing is lost."""
    session.put("/workspace/a", b"1").ok(201)
    answer = session.api.post(session.path + "/files:move", {"from": "/workspace/a", "to": "/tmp/a"})
    if answer.status == 204:
        assert session.read("/tmp/a").body == b"1"
    else:
        assert "copy" in answer.problem(409, "conflict")["detail"]
        assert session.read("/workspace/a").body == b"1"


def test_delete(session):
    """Files go at once, directories only with `recursive=1`, links without their target."""
    session.shell("echo 1 > f; mkdir -p d/e; touch d/e/f; mkdir t; echo keep > t/k; ln -s t l")
    delete = lambda path, query="": session.api.request("DELETE", session.file(path, query))  # noqa: E731
    assert delete("f").status == 204
    delete("f").problem(404, "file_not_found")
    delete("d").problem(409, "conflict")
    assert delete("d", "recursive=1").status == 204
    assert delete("l", "recursive=1").status == 204
    assert session.shell("ls; cat t/k").split() == ["t", "keep"]


def test_deep_tree_is_deleted(session):
    """A tree deeper than any path can be named is deleted within the bound."""
    session.shell("python3 -c \"import os\nfor _ in range(3000):\n    os.mkdir('d'); os.chdir('d')\"", timeout_s=30)
    assert session.api.request("DELETE", session.file("d", "recursive=1")).status == 204
    assert session.shell("ls -A | wc -l") == "0\n"


@pytest.mark.parametrize("path, status, code", [
    ("/workspace", 409, "is_a_directory"), ("/tmp/fifo", 409, "not_a_file"), ("/dev/null", 409, "not_a_file"), ("/dev/zero", 409, "not_a_file"),
    ("/dev/tty", 409, "not_a_file"), ("/tmp/socket", 409, "not_a_file"), ("/tmp/loop", 400, "invalid_request"),
    ("/none/such", 404, "file_not_found"), ("/etc/hosts/x", 409, "not_a_directory"),
])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_irregular_files(session, path, status, code, method):
    """A directory, FIFO, device, socket or loop of links gives an error at once, for reading and writing."""
    session.shell("mkfifo /tmp/fifo; ln -s loop /tmp/loop; "
                  "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('/tmp/socket')\"")
    started = time.monotonic()
    answer = session.api.request(method, session.file(path), body=b"x" if method == "PUT" else None)
    assert time.monotonic() - started < 3
    if method == "PUT" and path == "/tmp/loop":
        assert answer.status == 201 and session.stat(path).ok()["type"] == "file"  # a write replaces a link
        return
    assert 400 <= answer.status < 500, answer
    body = answer.problem(answer.status, answer.json["code"])
    if method == "GET":
        assert (answer.status, body["code"]) == (status, code), answer


def test_writing_outside(session):
    """The read-only part of the session is refused, whatever the modes there say."""
    for path in ("/etc/passwd", "/usr/bin/x", "/x", "/proc/1/mem", "/sys/x"):
        answer = session.put(path, b"x")
        assert answer.status in (403, 404, 409), answer
    session.put("/etc/passwd", b"x").problem(403, "permission_denied")


def test_link_to_passwd_is_the_sessions_own(session):
    """A link in the workspace leads into the session's files, never into the host's."""
    session.shell("ln -s /etc/passwd p; ln -s ../../../../../../etc/hostname h; ln -s /proc/1/root/etc/shadow s")
    own = session.shell("cat /etc/passwd").encode()
    assert session.read("p").body == own and b"sandbox:x:1000" in own
    with open("/etc/passwd", "rb") as theirs:
        assert own != theirs.read()
    assert session.read("h").body == b"sandbox\n"
    assert session.read("s").status in (403, 404)


def test_writing_through_a_link(session):
    """A write replaces the link itself and leaves what it led to as it was."""
    session.shell("echo keep > /tmp/target; ln -s /tmp/target l")
    session.put("l", b"new").ok(201)
    assert session.shell("cat /tmp/target l") == "keep\nnew" and session.stat("l").ok()["type"] == "file"


@pytest.mark.parametrize("path", ["..", "../etc/passwd", "a/../../etc/passwd", "a/..", "/workspace/../etc/passwd", "%2e%2e/etc/passwd",
                                  "a%00b", "%00", "a%0ab", "", "%ff%zz", "x" * 5000])
def test_refused_paths(session, path):
    """`..`, NUL, control characters, broken escapes and paths that are too long are refused."""
    for method, body in (("GET", None), ("PUT", b"x"), ("DELETE", None)):
        answer = session.api.request(method, f"{session.path}/files/{path}", body=body)
        assert answer.status in (400, 404, 414), (method, path, answer)
        answer.problem(answer.status, answer.json["code"])
    if "%" not in path:
        for route, fields in (("mkdir", {"path": path}), ("move", {"from": path, "to": "x"}), ("move", {"from": "x", "to": path})):
            session.api.post(f"{session.path}/files:{route}", fields).problem(400, "invalid_request")


def test_nul_in_json_path(session):
    """NUL in a path of a JSON body is refused."""
    session.api.post(session.path + "/files:mkdir", {"path": "a\0b"}).problem(400, "invalid_request")


def test_swapped_directory(session):
    """While a program swaps a directory for a link to /etc, reads give the session's own files and nothing else."""
    session.shell("mkdir -p d; printf mine > d/passwd; ln -s /etc e")
    swap = ("import ctypes, os, time\nlibc = ctypes.CDLL(None)\nend = time.time() + 4\n"
            "while time.time() < end:\n    libc.syscall(316, -100, b'/workspace/d', -100, b'/workspace/e', 2)\n")
    session.command("python3 -c \"$S\" & echo", env={"S": swap})
    own = session.shell("cat /etc/passwd").encode()
    seen = {session.read("d/passwd").body for _ in range(300)}
    assert seen <= {b"mine", own}, seen


def test_no_space(make_session):
    """A full file system is told as such, and the old file is still there."""
    session = make_session(limits={"workspace_bytes": 4 << 20})
    session.put("f", b"old").ok(201)
    session.put("f", b"x" * (8 << 20)).problem(507, "no_space")
    assert session.read("f").body == b"old"


def test_big_file_streams(session, deployment):
    """50 MB go in and out unharmed while the gateway's memory stays flat."""
    block = os.urandom(1 << 20)
    size = 50
    digest = hashlib.sha256(block * size).hexdigest()
    session.put("warm-up", block).ok(201)
    session.read("warm-up")
    before = host.memory_kib(deployment.gateway.pid)
    peak = [before]

    def blocks():
        for n in range(size):
            if n % 5 == 0:
                peak[0] = max(peak[0], host.memory_kib(deployment.gateway.pid))
            yield block

    connection = http.client.HTTPConnection(session.api.host, session.api.port, timeout=120)
    headers = {"Authorization": f"Bearer {session.api.key}", "Content-Length": str(size << 20)}
    connection.request("PUT", session.file("big"), body=blocks(), headers=headers)
    response = connection.getresponse()
    assert response.status == 201 and json.loads(response.read())["size"] == size << 20
    connection.request("GET", session.file("big"), headers=headers | {"Content-Length": "0"})
    response = connection.getresponse()
    assert response.status == 200
    check = hashlib.sha256()
    while chunk := response.read(1 << 20):
        check.update(chunk)
        if len(chunk) == 1 << 20:
            peak[0] = max(peak[0], host.memory_kib(deployment.gateway.pid))
    connection.close()
    assert check.hexdigest() == digest
    assert peak[0] - before < 8 << 10, f"the gateway grew from {before} to {peak[0]} KiB"


def test_chunked_upload(session):
    """A body of unknown length is taken as it comes."""
    def pieces():
        for n in range(10):
            yield f"piece {n}\n".encode()

    assert session.api.request("PUT", session.file("chunked"), body=pieces()).status == 201
    assert session.read("chunked").body.count(b"piece") == 10


def test_upload_that_breaks_off(session):
    """An upload whose client goes away leaves the old file as it was."""
    import socket

    session.put("f", b"old").ok(201)
    head = (f"PUT {session.file('f')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.api.key}\r\nContent-Length: 1000000\r\n\r\n").encode()
    with socket.create_connection((session.api.host, session.api.port)) as s:
        s.sendall(head + b"x" * 300_000)
    host.wait_until(lambda: session.shell("ls -A").split() == ["f"], 10, "an end of the temporary file")
    assert session.read("f").body == b"old"


def test_expect_continue(session):
    """`Expect: 100-continue`, as curl sends it with large bodies, is answered before the body is sent."""
    import socket

    head = (f"PUT {session.file('e')} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.api.key}\r\n"
            "Expect: 100-continue\r\nContent-Length: 3\r\nConnection: close\r\n\r\n").encode()
    with socket.create_connection((session.api.host, session.api.port), timeout=10) as s:
        s.sendall(head)
        assert s.recv(100).startswith(b"HTTP/1.1 100 ")
        s.sendall(b"abc")
        assert s.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert session.read("e").body == b"abc"


def test_quote_is_what_users_do():
    """The helper of these tests encodes like every HTTP library does."""
    assert quote("/tmp/a b%.txt") == "/tmp/a%20b%25.txt"
