"""Named contexts: several interpreters of one language in a session, each with its own names,
queue and fate; and the list of runs, which finds a run whose answer was lost."""
import threading
import time

import pytest

import host

FIELDS = {"language", "context", "state", "queued", "execution_count", "created_at", "cpu_ms", "memory_bytes", "pids"}


def contexts(session):
    """The session's contexts by language/name."""
    listed = session.api.get(session.path + "/contexts").ok(200)["contexts"]
    return {f"{one['language']}/{one['context']}": one for one in listed}


def delete(session, name, language="python"):
    return session.api.request("DELETE", f"{session.path}/contexts/{language}/{name}")


class Background:
    """A run on a connection of its own, which the test goes on beside."""

    def __init__(self, session, code, language="python", **fields):
        own = session.via(session.api.another())
        self.answer = None

        def work():
            self.answer = own.try_run(code, language, **fields)
            own.api.close()

        self.thread = threading.Thread(target=work)
        self.thread.start()

    def result(self, timeout=30):
        self.thread.join(timeout)
        assert not self.thread.is_alive(), "the run did not end"
        return self.answer


def wait_for_state(session, key, state, **more):
    wanted = {"state": state, **more}
    host.wait_until(lambda: wanted.items() <= contexts(session).get(key, {}).items(), 15, f"{key} to be {wanted}")


@pytest.mark.parametrize("language, assign, look, unknown", [
    ("python", "x = {}", "print(globals().get('x'))", "None\n"),
    ("javascript", "globalThis.x = {}", "console.log(globalThis.x)", "undefined\n"),
])
def test_names_are_per_context(session, language, assign, look, unknown):
    """A context keeps its names from run to run, and has none of another's."""
    assert session.run(assign.format(1), language, context="a")["context"] == "a"
    assert session.run(assign.format(2), language, context="b")["execution_count"] == 1
    assert session.run(look, language, context="a")["stdout"] == "1\n"
    assert session.run(look, language, context="b")["stdout"] == "2\n"
    fresh = session.run(look, language)
    assert fresh["stdout"] == unknown and fresh["context"] == "default" and fresh["context_reset"] is False, fresh


def test_default_is_the_context_without_a_name(session):
    """A run without `context`, with null, or with `default` is in the same one."""
    session.run("x = 5")
    assert session.run("print(x)", context="default")["stdout"] == "5\n"
    assert session.run("print(x)", context=None)["execution_count"] == 3


def test_files_are_common(session):
    """Contexts share the workspace."""
    session.run("open('shared', 'w').write('both')", context="a")
    assert session.run("require('fs').readFileSync('shared', 'utf8')", "javascript", context="b")["results"][0]["data"]["text/plain"] == "'both'"


@pytest.mark.parametrize("name", ["a", "A-1_2.3", "x" * 64, "...", "default.", "-", "0"])
def test_allowed_names(session, name):
    """Every name the contract allows can be used, is listed, and can be deleted."""
    assert session.run("1", context=name)["context"] == name
    assert f"python/{name}" in contexts(session)
    delete(session, name).ok(204)
    assert contexts(session) == {}


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 65, "a b", "a/b", "ä", "a\n", "a\0", 5, ["a"], "a:b", "a%2Fb"])
def test_refused_names(session, name):
    """A name outside of the contract is an error that points to the field."""
    problem = session.try_run("1", context=name).problem(400, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/context", problem
    assert contexts(session) == {}


def test_list(session):
    """The list says of each context what it does and what it holds."""
    assert contexts(session) == {}
    session.run("x = bytearray(30 << 20)\nimport subprocess\np = subprocess.Popen(['sleep', '100'])", context="big")
    session.run("1", "javascript")
    listed = contexts(session)
    assert set(listed) == {"python/big", "javascript/default"}
    for one in listed.values():
        assert set(one) == FIELDS, one
        assert one["state"] == "idle" and one["queued"] == 0 and one["execution_count"] == 1, one
        assert one["cpu_ms"] > 0 and one["pids"] >= 1, one
    assert listed["python/big"]["memory_bytes"] > 30 << 20 and listed["python/big"]["pids"] == 2, listed
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(time.time() - 60))
    assert before < listed["python/big"]["created_at"] <= listed["javascript/default"]["created_at"]


def test_busy_and_queued_are_listed(session):
    """A context that runs is busy, and its waiting runs are counted."""
    session.run("1", context="a")
    runs = [Background(session, "import time; time.sleep(30)", context="a") for _ in range(3)]
    wait_for_state(session, "python/a", "busy", queued=2)
    delete(session, "a").ok(204)
    for run in runs:
        record = run.result().ok(200)
        assert record["outcome"] == "cancelled" and record["killed_by"] == "client", record


def test_two_contexts_run_side_by_side(session):
    """Two contexts of one language meet each other at a barrier, which one after the other could not."""
    meet = ("import os, time\nopen('{0}', 'w').close()\nuntil = time.monotonic() + 20\n"
            "while not os.path.exists('{1}') and time.monotonic() < until: time.sleep(0.01)\nprint(os.path.exists('{1}'))")
    one = Background(session, meet.format("one", "two"), context="one")
    two = Background(session, meet.format("two", "one"), context="two")
    assert one.result().ok(200)["stdout"] == "True\n" and two.result().ok(200)["stdout"] == "True\n"


def test_queues_are_separate(session):
    """A full queue of one context does not keep another one waiting."""
    session.run("1", context="full")
    waiting = [Background(session, "import time; time.sleep(30)", context="full") for _ in range(33)]
    wait_for_state(session, "python/full", "busy", queued=32)
    refused = session.try_run("1", context="full").problem(503, "overloaded")
    assert "32" in refused["detail"], refused
    assert session.run("print('free')", context="other", timeout_s=10)["stdout"] == "free\n"
    delete(session, "full").ok(204)
    assert {run.result().ok(200)["outcome"] for run in waiting} == {"cancelled"}


def test_crash_touches_no_other(session):
    """A context whose interpreter dies is reset; the others keep names and run on."""
    session.run("x = 1", context="a")
    session.run("x = 2", context="b")
    steady = Background(session, "import time; time.sleep(1.5); print(x)", context="b")
    wait_for_state(session, "python/b", "busy")
    died = session.run("import os; os.kill(os.getpid(), 9)", context="a")
    assert died["outcome"] == "kernel_died" and died["signal"] == 9, died
    stopped = contexts(session)["python/a"]
    assert stopped["state"] == "stopped" and stopped["execution_count"] == 0 and stopped["memory_bytes"] == 0 and stopped["pids"] == 0, stopped
    assert steady.result().ok(200)["stdout"] == "2\n"
    again = session.run("print('x' in globals())", context="a")
    assert again["stdout"] == "False\n" and again["context_reset"] is True, again
    assert session.run("print(x)", context="b")["context_reset"] is False


def test_out_of_memory_touches_no_other(make_session):
    """A context that uses the session's memory up dies of it; the small ones beside it do not."""
    session = make_session(limits={"memory_bytes": 256 << 20})
    session.run("x = 1", context="a")
    session.run("let x = 2", "javascript", context="b")
    record = session.run("hoard = []\nwhile True: hoard.append(bytearray(1 << 20))", context="hog")
    assert record["outcome"] == "out_of_memory" and record["context"] == "hog", record
    assert session.run("print(x)", context="a")["stdout"] == "1\n"
    assert session.run("console.log(x)", "javascript", context="b")["stdout"] == "2\n"
    assert session.run("1", context="hog")["context_reset"] is True


def test_deadline_touches_no_other(session):
    """A run that is killed at its deadline takes only its own context along."""
    session.run("x = 1", context="a")
    stubborn = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
    assert session.run(stubborn, context="b", timeout_s=1)["outcome"] == "timed_out"
    assert session.run("print(x)", context="a")["stdout"] == "1\n"
    assert session.run("1", context="b")["context_reset"] is True


def test_delete_ends_everything_of_it(session):
    """After a deletion no process of the context is left, double-forked and stopped ones included, and no group."""
    view = host.SessionView(session)
    before = set(view.members())
    session.run("import os, signal, subprocess\n"
                "subprocess.Popen(['setsid', 'sh', '-c', '(trap \"\" TERM INT HUP; sleep 1000 & kill -STOP $$) & sleep 1000'])", context="a")
    session.run("x = 7", context="b")
    host.wait_until(lambda: contexts(session)["python/a"]["pids"] >= 3, 10, "the left-overs to be there")
    kept = before | set(view.members())
    delete(session, "a").ok(204)
    left = set(view.members())
    assert len(left) == len(before) + 1 and left < kept, (before, left)
    assert set(contexts(session)) == {"python/b"}
    assert session.run("print(x)", context="b")["stdout"] == "7\n"


def test_delete_cancels_the_current_run(session):
    """The run under way ends as cancelled with its output so far, although it ignores interrupts."""
    session.run("1", context="a")
    run = Background(session, "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('so far', flush=True)\nopen('up', 'w').close()\n"
                              "while True: time.sleep(1)", context="a")
    host.wait_until(lambda: session.stat("up").status == 200, 10, "the run to be under way")
    started = time.monotonic()
    delete(session, "a").ok(204)
    assert time.monotonic() - started < 5
    record = run.result().ok(200)
    assert record["outcome"] == "cancelled" and record["killed_by"] == "client" and record["stdout"] == "so far\n", record
    assert session.api.get(f"{session.path}/runs/{record['run_id']}").ok(200) == record


def test_delete_while_it_starts(session):
    """A context can be deleted in every moment of its start."""
    for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
        run = Background(session, "import time; time.sleep(20)", context="a")
        host.wait_until(lambda: "python/a" in contexts(session), 10, "the context")
        time.sleep(delay)  # another moment of its start each time
        delete(session, "a").ok(204)
        assert run.result().ok(200)["outcome"] == "cancelled"
    assert contexts(session) == {}


def test_a_deleted_name_begins_anew(session):
    """The next run of a deleted name is the first of a new context: no reset, since nothing was lost."""
    session.run("x = 1\n", context="a")
    delete(session, "a").ok(204)
    record = session.run("print('x' in globals())", context="a")
    assert record["stdout"] == "False\n" and record["execution_count"] == 1 and record["context_reset"] is False, record


def test_the_default_context_can_be_deleted(session):
    """`default` is a context as every other, and aliases name its language."""
    session.run("let x = 1", "js")
    delete(session, "default", "NodeJS").ok(204)
    assert session.run("typeof x", "js")["results"][0]["data"]["text/plain"] == "'undefined'"


def test_delete_is_idempotent(session):
    """Deleting again is fine; what never was is 404."""
    session.run("1", context="a")
    for _ in range(3):
        delete(session, "a").ok(204)
    delete(session, "never").problem(404, "context_not_found")
    delete(session, "a", "javascript").problem(404, "context_not_found")
    delete(session, "default").problem(404, "context_not_found")
    delete(session, "a", "cobol").problem(404, "context_not_found")
    delete(session, "no%20such").problem(404, "context_not_found")


def test_deletions_at_once(session):
    """Several deletions of one context at a time all succeed, each after its end."""
    session.run("import subprocess\nfor n in range(20): subprocess.Popen(['sleep', '1000'])", context="a")
    answers = []

    def work():
        own = session.via(session.api.another())
        answer = delete(own, "a")
        answers.append((answer.status, contexts(own)))
        own.api.close()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(204, {})] * 6, answers


def test_limit_of_contexts(session):
    """The seventeenth context is refused with the way out, nothing is evicted, and a deletion makes room."""
    for n in range(16):
        assert session.run(f"x = {n}", context=f"c{n}")["outcome"] == "ok"
    problem = session.try_run("1", context="c16").problem(429, "quota_exceeded")
    assert "16 contexts" in problem["detail"] and "DELETE" in problem["detail"], problem
    session.try_run("1", "javascript").problem(429, "quota_exceeded")
    assert len(contexts(session)) == 16
    assert session.run("print(x)", context="c3")["stdout"] == "3\n"
    delete(session, "c3").ok(204)
    assert session.run("print('x' in globals())", context="c16")["stdout"] == "False\n"
    session.try_run("1", context="c3").problem(429, "quota_exceeded")


def test_an_interpreter_that_cannot_start_takes_no_place(session):
    """A context is there once its interpreter came up; one that did not is no context."""
    session.run("x = 1", context="a")
    session.command("chmod 0 /workspace")
    for n in range(20):
        session.try_run("1", context=f"c{n}").problem(500, "kernel_unavailable")
    assert set(contexts(session)) == {"python/a"}
    delete(session, "c0").problem(404, "context_not_found")
    session.run("import os; os.chmod('/workspace', 0o755)", context="a")
    assert session.run("1", context="c0")["context_reset"] is False
    assert session.run("print(x)", context="a")["stdout"] == "1\n"


def test_a_reset_is_told_even_after_a_failed_start(session):
    """If the start after a crash fails, the run after that still says `context_reset`."""
    session.run("x = 1", context="a")
    session.run("import os; os.kill(os.getpid(), 9)", context="a")
    session.run("import os; os.chmod('/workspace', 0)", context="b")
    session.try_run("1", context="a").problem(500, "kernel_unavailable")
    assert contexts(session)["python/a"]["state"] == "stopped"
    session.run("os.chmod('/workspace', 0o755)", context="b")
    assert session.run("1", context="a")["context_reset"] is True


def test_strangers_and_ended_sessions(session, stranger):
    """Another caller's session does not exist, an ended one is gone, a paused one says so."""
    session.run("1")
    theirs = session.via(stranger)
    for call in (lambda s: s.api.get(s.path + "/contexts"), lambda s: s.api.get(s.path + "/runs"), lambda s: s.api.get(s.path + "/commands"),
                 lambda s: delete(s, "default")):
        call(theirs).problem(404, "session_not_found")
        session.api.post(session.path + "/pause").ok(200)
        call(session).problem(409, "session_paused")
        session.api.post(session.path + "/resume").ok(200)
    assert set(contexts(session)) == {"python/default"}
    session.delete().ok(204)
    session.api.get(session.path + "/contexts").problem(410, "session_ended")
    delete(session, "default").problem(410, "session_ended")
    session.api.get(session.path + "/runs").problem(410, "session_ended")


def test_idempotency_key_knows_the_context(session):
    """The same key with another context is another request."""
    key = {"Idempotency-Key": "one-key"}
    first = session.try_run("1", context="a", headers=key).ok(200)
    assert session.try_run("1", context="a", headers=key).ok(200)["run_id"] == first["run_id"]
    session.try_run("1", context="b", headers=key).problem(422, "idempotency_mismatch")


def test_one_shot_runs_take_no_context(api, image):
    """A session of one run has no use for a name."""
    problem = api.post("/v1/runs", {"language": "python", "code": "1", "image": image, "context": "a"}).problem(400, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/context"
    assert api.post("/v1/runs", {"language": "python", "code": "1", "image": image}).ok(200)["context"] == "default"


def test_list_of_runs(session):
    """Runs are listed newest first, with what is known of them; commands have a list of their own."""
    ok = session.run("1", context="a")
    failed = session.run("1/0")
    command = session.command("exit 3")
    js = session.run("1", "javascript")
    listed = session.api.get(session.path + "/runs").ok(200)["runs"]
    assert [run["run_id"] for run in listed] == [js["run_id"], failed["run_id"], ok["run_id"]]
    assert [run["outcome"] for run in listed] == ["ok", "error", "ok"]
    assert [(run["language"], run["context"]) for run in listed] == [("javascript", "default"), ("python", "default"), ("python", "a")]
    for run, record in zip(listed, (js, failed, ok)):
        assert run["status"] == "finished" and "killed_by" not in run
        assert run["duration_ms"] == pytest.approx(record["duration_ms"], abs=0.011) and run["created_at"] <= record["started_at"], (run, record)
    commands = session.api.get(session.path + "/commands").ok(200)["commands"]
    assert [(one["command_id"], one["outcome"]) for one in commands] == [(command["command_id"], "error")]
    assert [run["run_id"] for run in session.api.get(session.path + "/runs?limit=1").ok(200)["runs"]] == [js["run_id"]]
    for bad in ("0", "1001", "x", "-1", ""):
        session.api.get(session.path + "/runs?limit=" + bad).problem(400, "invalid_request")


def test_a_lost_answer_is_found(session):
    """A client that hung up before the answer finds its run in the list, and its result by the id."""
    session.run("1", context="a")
    body = b'{"language":"python","context":"a","code":"import time; print(1, flush=True); time.sleep(1.5); print(2)"}'
    head = (f"POST {session.path}/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.api.key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    import socket
    with socket.create_connection((session.api.host, session.api.port)) as s:
        s.sendall(head + body)
        wait_for_state(session, "python/a", "busy")
    queued = Background(session, "3", context="a")
    wait_for_state(session, "python/a", "busy", queued=1)
    listed = session.api.get(session.path + "/runs").ok(200)["runs"]
    assert [run["status"] for run in listed] == ["queued", "running", "finished"], listed
    assert listed[1]["duration_ms"] > 0 and "outcome" not in listed[1], listed
    assert listed[0]["duration_ms"] == 0 and listed[0]["queue_ms"] > 0, listed
    queued.result().ok(200)
    record = session.api.get(f"{session.path}/runs/{listed[1]['run_id']}").ok(200)
    assert record["outcome"] == "ok" and record["stdout"] == "1\n2\n" and record["context"] == "a", record


def test_refused_runs_are_not_listed(session):
    """A run that was never started is no run."""
    session.run("1")
    session.try_run("1", "cobol").problem(400, "unknown_language")
    session.run("import time", context="a")
    long = Background(session, "time.sleep(3)", context="a")
    wait_for_state(session, "python/a", "busy")
    session.try_run("1", context="a", timeout_s=1).problem(503, "queue_timeout")
    long.result().ok(200)
    assert len(session.api.get(session.path + "/runs").ok(200)["runs"]) == 3
