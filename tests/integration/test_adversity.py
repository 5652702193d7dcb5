"""What can go wrong on a server: a full or read-only disk, no descriptors, no memory, a locked database, a broken image. Each is said clearly, nothing
that was acknowledged is lost, sessions that are there work on, and when the cause is gone all is as before."""
import json
import resource
import shutil
import sqlite3
import subprocess
import threading
import time

import pytest

import host
from client import Session
from deployment import Deployment


def prlimit(pid, option):
    """As the gateway's own user, who may: root without CAP_SYS_RESOURCE may not."""
    subprocess.run(["setpriv", "--reuid=codespace", "--regid=codespace", "--clear-groups", "prlimit", "--pid", str(pid), option], check=True)


@pytest.fixture
def own(request, image):
    """With a state directory of four MiB."""
    made = Deployment(request.config.getoption("--build"), request.config.getoption("--images"), image)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "codespace-test-state", made.state], check=True)
    try:
        made.start()
        yield made
    finally:
        made.stop_gateway()
        subprocess.run(["umount", "-l", made.state], check=True)
        left = made.finish()
    assert not left, "\n".join(left)


@pytest.fixture
def api(own):
    client = own.client()
    yield client
    client.close()


def checks(api):
    answer = api.get("/readyz?verbose")
    return answer.status, {one["name"]: one for one in answer.json["checks"]}


def assert_as_before(api, session, image):
    assert session.run("print(x)")["stdout"] == "1\n"
    fresh = Session.create(api, image=image)
    assert fresh.run("print(2)")["stdout"] == "2\n" and fresh.delete().status == 204
    host.wait_until(lambda: checks(api)[0] == 200, 10, "ready again")


def fill(own):
    with open(own.state / "filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass


def test_a_full_disk(own, api, image):
    session = Session.create(api, image=image)
    session.run("x = 1")
    fill(own)
    refused = 0
    for n in range(40):
        answer = api.post("/v1/sessions", {"image": image, "labels": {"filling": "x" * 200, "n": str(n)}})
        if answer.status == 201:
            Session(api, answer.json).delete()
            continue
        refused += 1
        assert answer.status in (500, 503) and answer.json["request_id"], answer
    assert refused, "four MiB were not full"
    status, found = checks(api)
    assert status == 503 and not found["database"]["ok"] and "space" in found["database"]["detail"], found
    assert session.run("print(x)")["stdout"] == "1\n", "a session that was there does not work on"
    assert "request failed" in own.log("gateway") and "full" in own.log("gateway")
    (own.state / "filler").unlink()
    assert_as_before(api, session, image)
    with sqlite3.connect(f"file:{own.state}/codespace.db?mode=ro", uri=True) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    live = {one["session_id"] for one in api.get("/v1/sessions").ok()["sessions"]}
    assert live == {session.id}, "a refused creation left a session"


def test_a_locked_database(own, api, image):
    """Somebody holds the database for a while: what needs it waits, what does not goes on."""
    session = Session.create(api, image=image)
    session.run("x = 1")
    other = sqlite3.connect(own.state / "codespace.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(2, lambda: other.execute("ROLLBACK"))
    release.start()
    began = time.monotonic()
    assert session.run("print(x)")["stdout"] == "1\n" and time.monotonic() - began < 1.5, "a run waited for the database"
    made = Session.create(api, image=image)
    assert time.monotonic() - began > 1, "it was not locked"
    made.delete()
    release.join()
    # Longer than anybody waits: an error that says so, and no session.
    other.execute("BEGIN IMMEDIATE")
    answer = api.post("/v1/sessions", {"image": image})
    assert answer.status in (500, 503) and "request_id" in answer.json, answer
    other.execute("ROLLBACK")
    other.close()
    assert "locked" in own.log("gateway")
    assert_as_before(api, session, image)
    assert {one["session_id"] for one in api.get("/v1/sessions").ok()["sessions"]} == {session.id}


def test_no_descriptors_left(own, api, image):
    session = Session.create(api, image=image)
    session.run("x = 1")
    soft = next(line.split()[3] for line in host.read(f"/proc/{own.gateway.pid}/limits").splitlines() if line.startswith("Max open files"))
    prlimit(own.gateway.pid, f"--nofile={max(host.descriptors(own.gateway.pid)) + 1}:")
    refused = api.post(f"{session.path}/runs", {"language": "python", "code": "print(x)"})
    if refused.status != 200:  # the connection to init wants one
        assert refused.status in (500, 503), refused
    waiting = own.client()
    answers = []
    thread = threading.Thread(target=lambda: answers.append(waiting.get("/readyz").status))
    thread.start()
    thread.join(1)
    prlimit(own.gateway.pid, f"--nofile={soft}:")
    thread.join(10)
    assert answers == [200], "a connection that came meanwhile was lost"
    waiting.close()
    assert_as_before(api, session, image)


def test_no_memory_left(own, api, image):
    """The gateway's own: a large request is refused or its connection ends, and the gateway lives."""
    session = Session.create(api, image=image)
    session.run("x = 1")
    size = int(host.read(f"/proc/{own.gateway.pid}/statm").split()[0]) * resource.getpagesize()
    prlimit(own.gateway.pid, f"--as={size + (2 << 20)}:")
    large = json.dumps({"language": "python", "code": "#" * (3 << 20)}).encode()
    outcomes = []
    for _ in range(8):
        client = own.client()
        try:
            outcomes.append(client.request("POST", f"{session.path}/runs", body=large, headers={"Content-Type": "application/json"}).status)
        except Exception as broken:  # pylint: disable=broad-except
            outcomes.append(type(broken).__name__)
        client.close()
    assert own.gateway.poll() is None, f"the gateway died: {own.log('gateway')[-1000:]}"
    prlimit(own.gateway.pid, "--as=unlimited:")
    assert_as_before(api, session, image)
    assert 200 not in outcomes, outcomes


def test_a_read_only_state_directory(own, api, image):
    """As a disk is after an error: the start says so, and once it can be written everything is there."""
    session = Session.create(api, image=image)
    session.run("x = 1")
    own.stop_gateway()
    subprocess.run(["mount", "-o", "remount,ro", own.state], check=True)
    with pytest.raises(AssertionError, match="Read-only file system|readonly database"):
        own.start_gateway()
    subprocess.run(["mount", "-o", "remount,rw", own.state], check=True)
    own.start_gateway()
    api.close()
    assert_as_before(api, session, image)


@pytest.mark.parametrize("what", ["description", "kernel", "nothing"])
def test_a_broken_image(own, api, image, what, tmp_path):
    """An image whose files are not what they should be: said when it is asked for, and the others go on."""
    session = Session.create(api, image=image)
    session.run("x = 1")
    store = own.store
    directory = store / f"{0xbad << 48:016x}"
    directory.mkdir()
    link = store / "broken"
    link.symlink_to(directory.name)
    try:
        (directory / "rootfs").mkdir()
        if what == "description":
            (directory / "image.json").write_text("{ not json")
        elif what == "kernel":
            described = json.loads((store / image / "image.json").read_text())
            (directory / "image.json").write_text(json.dumps({**described, "name": "broken", "default": False, "aliases": []}))
        answer = api.post("/v1/sessions", {"image": "broken"})
        if what == "kernel":
            assert answer.status == 500 and answer.json["code"] == "sandbox_failed", answer
        else:
            assert answer.status in (400, 404, 422, 500), answer
        assert_as_before(api, session, image)
    finally:
        link.unlink()
        shutil.rmtree(directory)
