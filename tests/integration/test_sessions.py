"""Sessions over REST: creation, listing, change, pause, and every way of ending."""
import datetime
import time

import pytest

import host
from client import Session

FIELDS = {"session_id", "image", "status", "labels", "created_at", "last_used_at", "expires_at", "idle_timeout_s",
          "max_lifetime_s", "limits", "network"}


def parse_time(text):
    assert text.endswith("Z") and len(text) == len("2026-01-01T00:00:00.000Z"), text
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_create(api, make_session, image):
    """A new session is running, carries all fields of the contract, and has an id that cannot be guessed."""
    made = make_session(labels={"team": "a"}, idle_timeout_s=100, max_lifetime_s=1000,
                        limits={"memory_bytes": 256 << 20, "cpus": 0.5, "pids": 40, "workspace_bytes": 32 << 20},
                        network={"mode": "none"}).record
    assert set(made) == FIELDS, set(made) ^ FIELDS
    assert made["status"] == "running" and made["image"] == image and made["labels"] == {"team": "a"}
    assert made["limits"] == {"memory_bytes": 256 << 20, "cpus": 0.5, "pids": 40, "workspace_bytes": 32 << 20}
    assert made["idle_timeout_s"] == 100 and made["max_lifetime_s"] == 1000 and made["network"] == {"mode": "none"}
    prefix, _, rest = made["session_id"].partition("-")
    assert prefix == "session" and len(rest) == 26 and set(rest) <= set("abcdefghijklmnopqrstuvwxyz234567")
    assert abs(parse_time(made["created_at"]) - time.time()) < 10
    assert abs(parse_time(made["expires_at"]) - parse_time(made["created_at"]) - 100) < 1  # the earlier of the two


def test_create_answers_with_location(api, image):
    """201 names the new session in `Location`."""
    answer = api.post("/v1/sessions", {"image": image})
    made = Session(api, answer.ok(201))
    assert answer.headers["location"] == made.path
    assert made.delete().status == 204


def test_create_needs_no_field(api):
    """An empty object, and no body at all, give a session of the default image."""
    for body in ({}, None):
        made = Session(api, api.post("/v1/sessions", body).ok(201))
        assert made.record["image"] and made.record["limits"]["memory_bytes"] > 0
        made.delete()


def test_get(session):
    """GET shows the session as it was made, and its use."""
    before = session.get().ok()
    assert set(before) == FIELDS and before["session_id"] == session.id and before["status"] == "running"
    time.sleep(0.01)  # the resolution of the time stamps is a millisecond
    session.run("1")
    assert parse_time(session.get().ok()["last_used_at"]) > parse_time(before["last_used_at"])


def test_limits_hold_inside(make_session):
    """What the session sees of its memory, processes and disk is what was asked for."""
    session = make_session(limits={"pids": 40, "workspace_bytes": 8 << 20})
    assert session.shell("df -B1 --output=size /workspace | tail -1").strip() == str(8 << 20)
    record = session.command("head -c 20000000 /dev/zero > big; echo $?")
    assert record["stdout"] == "1\n" and "No space left" in record["stderr"]
    record = session.command("for i in $(seq 100); do sleep 5 & done; echo started; kill $(jobs -p)")
    # The kernel's high-water mark counts the one fork that the limit above the run refused.
    assert record["pids_peak"] <= 41 and "fork" in record["stderr"], record


def test_environment(make_session):
    """Variables of the session reach runs and commands of both languages."""
    session = make_session(env={"GREETING": "hello ä", "EMPTY": ""})
    assert session.shell('echo "$GREETING|$EMPTY|${MISSING-unset}"') == "hello ä||unset\n"
    assert session.run("import os\nprint(os.environ['GREETING'])")["stdout"] == "hello ä\n"
    assert session.run("console.log(process.env.GREETING)", "javascript")["stdout"] == "hello ä\n"


def test_pause_right_after_creation(api, make_session):
    """A session whose kernel is still on its way in is paused as soon as it has come, and wakes up whole."""
    for _ in range(12):
        session = make_session()
        assert api.post(session.path + "/pause").ok()["status"] == "paused"
        assert api.post(session.path + "/resume").ok()["status"] == "running"
        assert session.run("print(1)")["stdout"] == "1\n"


def test_list_pages(api, make_session):
    """Listing filters by label, pages with a cursor, and shows each session once, newest first."""
    tag = f"page-{time.time_ns()}"
    made = [make_session(labels={"tag": tag, "n": str(n)}).id for n in range(5)]
    seen, cursor, pages = [], "", 0
    while True:
        page = api.get(f"/v1/sessions?label=tag={tag}&limit=2" + (f"&cursor={cursor}" if cursor else "")).ok()
        assert page["total"] == 5
        seen += [entry["session_id"] for entry in page["sessions"]]
        pages += 1
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert seen == made[::-1] and pages == 3
    assert [e["session_id"] for e in api.get(f"/v1/sessions?label=tag={tag}&label=n=3").ok()["sessions"]] == [made[3]]
    assert api.get("/v1/sessions?label=tag=none-such").ok() == {"sessions": [], "next_cursor": None, "total": 0}


def test_list_by_status(api, make_session):
    """Ended sessions are listed only when asked for."""
    tag = f"status-{time.time_ns()}"
    live, ended = make_session(labels={"tag": tag}), make_session(labels={"tag": tag})
    ended.delete()
    assert [e["session_id"] for e in api.get(f"/v1/sessions?label=tag={tag}").ok()["sessions"]] == [live.id]
    entries = api.get(f"/v1/sessions?label=tag={tag}&status=ended").ok()["sessions"]
    assert [e["session_id"] for e in entries] == [ended.id] and entries[0]["end_reason"] == "deleted"


def test_patch(session):
    """PATCH changes labels and timeouts, and only what it names."""
    changed = session.api.request("PATCH", session.path, json_body={"labels": {"a": "b"}, "idle_timeout_s": 500}).ok()
    assert changed["labels"] == {"a": "b"} and changed["idle_timeout_s"] == 500
    assert changed["max_lifetime_s"] == session.record["max_lifetime_s"]
    changed = session.api.request("PATCH", session.path, json_body={"max_lifetime_s": 400}).ok()
    assert changed["labels"] == {"a": "b"} and changed["max_lifetime_s"] == 400
    assert session.get().ok() | {"last_used_at": 0, "expires_at": 0} == changed | {"last_used_at": 0, "expires_at": 0}


def test_delete_twice(session):
    """Deleting is final and may be repeated; afterwards every call says when and why the session ended."""
    assert session.delete().status == 204
    assert session.delete().status == 204
    for answer in (session.get(), session.try_run("1"), session.try_command("true"), session.read("a"), session.put("a", b"x"),
                   session.stat("a"), session.api.post(session.path + "/pause"),
                   session.api.request("PATCH", session.path, json_body={"labels": {}})):
        problem = answer.problem(410, "session_ended")
        assert problem["end_reason"] == "deleted" and abs(parse_time(problem["ended_at"]) - time.time()) < 60


def test_delete_while_running(session):
    """Deleting during a run ends the run: its caller hears `cancelled` or that the session ended."""
    import threading

    answers = []
    caller = session.api.another()
    running = threading.Thread(target=lambda: answers.append(session.via(caller).try_run("import time\nprint('on', flush=True)\ntime.sleep(50)")))
    running.start()
    host.wait_until(lambda: session.api.get(session.path + "/metrics").json.get("runs_active") == 1, 10, "the run active")
    started = time.monotonic()
    assert session.delete().status == 204
    running.join(10)
    assert not running.is_alive() and time.monotonic() - started < 5
    answer = answers[0]
    if answer.status == 200:
        assert answer.json["outcome"] == "cancelled" and answer.json["killed_by"] == "client", answer
    else:
        answer.problem(410, "session_ended")
    caller.close()


def test_delete_leaves_nothing(deployment, make_session):
    """After the answer to DELETE no process, control group or socket of the session is left on the host."""
    session = make_session()
    session.command("sleep 100 & setsid sleep 100 & echo x")
    session.run("1")
    view = host.SessionView(session)
    own_socket = deployment.socket_of(session)
    groups = {line.split(":", 2)[2] for line in host.read(f"/proc/{view.init}/cgroup").splitlines()}
    own = [g for g in groups if host.base_group(deployment.runtime) in g]
    assert len(view.members()) >= 4 and own_socket.exists() and own, (groups, own_socket)
    assert session.delete().status == 204
    assert view.members() == []
    assert not own_socket.exists()
    assert not [root / g.lstrip("/") for root in host.cgroup_roots() for g in own if (root / g.lstrip("/")).exists()]


@pytest.mark.parametrize("call", ["get", "patch", "delete", "pause", "run", "command", "read", "put", "stat", "metrics"])
def test_foreign_session(call, session, stranger):
    """A session of another key does not exist, on every route; the same answer as for an id never given out."""
    for path in (session.path, "/v1/sessions/session-" + "a" * 26):
        other = Session(stranger, session.record)
        other.path = path
        answer = {
            "get": other.get, "delete": other.delete, "run": lambda: other.try_run("1"),
            "patch": lambda: stranger.request("PATCH", path, json_body={"labels": {"x": "y"}}),
            "pause": lambda: stranger.post(path + "/pause"), "command": lambda: other.try_command("true"),
            "read": lambda: other.read("/etc/passwd"), "put": lambda: other.put("x", b"x"), "stat": lambda: other.stat("x"),
            "metrics": lambda: stranger.get(path + "/metrics"),
        }[call]()
        answer.problem(404, "session_not_found")
    assert session.run("print(1)")["stdout"] == "1\n"


def test_foreign_sessions_are_not_listed(session, stranger):
    """A listing shows only the caller's own sessions."""
    assert session.id not in [entry["session_id"] for entry in stranger.get("/v1/sessions?limit=1000").ok()["sessions"]]


def ended(session, bound_s):
    host.wait_until(lambda: session.get().status == 410, bound_s, "an end of the session")
    return session.get().problem(410, "session_ended")


def test_idle_timeout(make_session):
    """A session that is not used ends as `idle`; looking at it is no use."""
    assert ended(make_session(idle_timeout_s=1), 10)["end_reason"] == "idle"


def test_use_keeps_alive(make_session):
    """Runs count as use: a session outlives its idle timeout while it works."""
    session = make_session(idle_timeout_s=2)
    assert session.run("import time\ntime.sleep(4)\nprint('on')")["stdout"] == "on\n"
    assert session.get().status == 200


def test_lifetime(make_session):
    """A session ends at its lifetime, used or not."""
    session = make_session(max_lifetime_s=2)
    caller = session.api.another()
    record = session.via(caller).try_run("import time\ntime.sleep(30)")
    assert record.status in (200, 410), record
    caller.close()
    assert ended(session, 10)["end_reason"] == "lifetime"


def test_pause_and_resume(session):
    """A paused session uses no processor, refuses work with the way out, and goes on with its memory."""
    session.run("x = 7\nimport threading, time\nn = 0\ndef count():\n    global n\n    while True:\n        n += 1\n        time.sleep(0.001)\n"
                "threading.Thread(target=count, daemon=True).start()")
    assert session.api.post(session.path + "/pause").ok()["status"] == "paused"
    assert session.get().ok()["status"] == "paused"
    view_cpu = session.api.get(session.path + "/metrics").ok()["cpu_ms"]
    for answer in (session.try_run("1"), session.try_command("true"), session.read("x"), session.put("x", b"1")):
        problem = answer.problem(409, "session_paused")
        assert "resume" in problem["detail"], problem
    time.sleep(0.5)  # a running counter would use processor time meanwhile
    assert session.api.get(session.path + "/metrics").ok()["cpu_ms"] - view_cpu < 50
    assert session.api.post(session.path + "/resume").ok()["status"] == "running"
    assert session.run("print(x)")["stdout"] == "7\n"


def test_delete_paused(session):
    """A paused session can be deleted."""
    session.api.post(session.path + "/pause").ok()
    assert session.delete().status == 204
    assert session.get().problem(410, "session_ended")["end_reason"] == "deleted"


def test_metrics(session):
    """Metrics show use of memory, processor, processes and disks."""
    session.run("x = bytearray(50 << 20)")
    session.put("/workspace/f", b"x" * 100000)
    metrics = session.api.get(session.path + "/metrics").ok()
    assert metrics["memory_bytes"] > 50 << 20 and metrics["memory_peak_bytes"] >= metrics["memory_bytes"]
    assert metrics["cpu_ms"] > 0 and metrics["pids"] >= 1 and metrics["kernels"] == 1 and metrics["oom_kills"] == 0
    disks = {disk["mount"]: disk for disk in metrics["disks"]}
    assert disks["/workspace"]["used_bytes"] >= 100000 and disks["/workspace"]["size_bytes"] == session.record["limits"]["workspace_bytes"]


def test_create_is_idempotent(api, image):
    """The same key and body give the same session, another body is refused."""
    key = {"Idempotency-Key": f"create-{time.time_ns()}"}
    first = api.post("/v1/sessions", {"image": image}, headers=key).ok(201)
    again = api.post("/v1/sessions", {"image": image}, headers=key)
    assert again.status in (200, 201) and again.json["session_id"] == first["session_id"]
    api.post("/v1/sessions", {"image": image, "labels": {"a": "b"}}, headers=key).problem(422, "idempotency_mismatch")
    Session(api, first).delete()


def test_unknown_image(api, image):
    """An unknown image is refused with the names of the known ones."""
    problem = api.post("/v1/sessions", {"image": "no_such_image"}).problem(400, "unknown_image")
    assert image in problem["detail"] and "no_such_image" in problem["detail"]
