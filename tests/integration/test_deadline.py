"""The deadline is a law: whatever a run or a command does, with `timeout_s: 2` it is answered
in less than four seconds, says `timed_out`, carries the output so far, and nothing of it runs
on. What still runs is read from the host's process table."""
import time

import pytest

import host

TIMEOUT_S = 2
ANSWER_BOUND_S = 4

PYTHON = {
    "busy loop": "while True: pass",
    "long sleep": "import time\ntime.sleep(90)",
    "caught interrupt": "import time\nwhile True:\n    try:\n        time.sleep(90)\n    except BaseException:\n        pass",
    "double fork and setsid": ("import os, time\n"
                               "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
                               "        time.sleep(90)\n    os._exit(0)\ntime.sleep(90)"),
    "stopped by itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "ignores every signal": ("import signal, time\nfor s in range(1, 32):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n"
                             "    except OSError:\n        pass\nwhile True: time.sleep(1)"),
    "fork bomb": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "stopped children": ("import os, signal, time\nfor _ in range(5):\n    if os.fork() == 0:\n"
                         "        os.setsid()\n        os.kill(os.getpid(), signal.SIGSTOP)\n        os._exit(0)\ntime.sleep(90)"),
    "subprocess that holds the pipes": "import subprocess\nsubprocess.run('sleep 90 & sleep 90', shell=True)",
    "threads": "import threading, time\nfor _ in range(8):\n    threading.Thread(target=lambda: time.sleep(90)).start()\ntime.sleep(90)",
    "endless output": "while True: print('x' * 1000)",
    "regular expression": "import re\nre.match('(a+)+$', 'a' * 40 + 'b')",
}

JAVASCRIPT = {
    "busy loop": "while (true) {}",
    "promise that never settles": "await new Promise(() => setInterval(() => {}, 1000))",
    "blocked in a wait": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
    "child processes": "require('child_process').execSync('setsid sleep 90 & sleep 90')",
}

COMMANDS = {
    "sleep": "sleep 90",
    "ignores SIGTERM": "trap '' TERM INT HUP; while :; do sleep 1; done",
    "double fork and setsid": "(setsid sh -c 'sleep 90 & sleep 90' &) ; sleep 90",
    "stopped": "kill -STOP $$",
    "fork bomb": ":(){ :|:& };:; sleep 90",
    "background holds the pipes": "sleep 90 & sleep 90",
    "endless output": "yes",
    "reads from a FIFO": "mkfifo /tmp/f; cat /tmp/f",
}


@pytest.fixture
def watched(make_session):
    """A session of few processes, so that fork bombs fill it and not the test machine."""
    session = make_session(limits={"pids": 64})
    return session, host.SessionView(session)


def timed(call):
    started = time.monotonic()
    record = call()
    return record, time.monotonic() - started


def check_end(record, took):
    assert took < ANSWER_BOUND_S, f"answered after {took:.2f} s"
    assert took > TIMEOUT_S - 0.1, f"answered {took:.2f} s after the start, before the deadline"
    assert record["outcome"] == "timed_out" and record["killed_by"] == "deadline", record
    assert record["stdout"].startswith("before\n"), record


@pytest.mark.parametrize("case", PYTHON)
def test_python(case, watched):
    """A Python run that will not end is ended, its output is kept, and the next run works."""
    session, view = watched
    session.run("kept = 41")
    record, took = timed(lambda: session.run("print('before', flush=True)\n" + PYTHON[case], timeout_s=TIMEOUT_S))
    check_end(record, took)
    view.assert_nothing_runs()
    after = session.run("print(globals().get('kept', 'reset'))")
    assert after["outcome"] == "ok"
    # Either the context is there or the answer said that it is not: never a silent loss.
    expected = "reset\n" if after["context_reset"] else "41\n"
    assert after["stdout"] == expected, (record, after)


@pytest.mark.parametrize("case", ["busy loop", "long sleep", "endless output"])
def test_interrupt_keeps_the_context(case, watched):
    """Ordinary Python code gets KeyboardInterrupt at the deadline and its context is kept."""
    session, _ = watched
    session.run("kept = 41")
    record = session.run("print('before', flush=True)\n" + PYTHON[case], timeout_s=TIMEOUT_S)
    assert record["error"]["name"] == "KeyboardInterrupt", record
    after = session.run("print(kept)")
    assert after["stdout"] == "41\n" and not after["context_reset"], after


@pytest.mark.parametrize("case", JAVASCRIPT)
def test_javascript(case, watched):
    """A JavaScript run that will not end is ended, its output is kept, and the next run works."""
    session, view = watched
    session.run("var kept = 41", "javascript")
    record, took = timed(lambda: session.run("console.log('before');\n" + JAVASCRIPT[case], "javascript", timeout_s=TIMEOUT_S))
    check_end(record, took)
    view.assert_nothing_runs()
    after = session.run("console.log(typeof kept)", "javascript")
    assert after["outcome"] == "ok"
    assert after["stdout"] == ("undefined\n" if after["context_reset"] else "number\n"), (record, after)


@pytest.mark.parametrize("case", COMMANDS)
def test_command(case, watched):
    """A command that will not end is ended with all it started, and the next command works."""
    session, view = watched
    record, took = timed(lambda: session.command("echo before; " + COMMANDS[case], timeout_s=TIMEOUT_S))
    check_end(record, took)
    view.assert_nothing_runs()
    assert session.shell("echo after") == "after\n"


def test_deadline_counts_from_the_request(session):
    """A run that waits behind another one has only what is left of its time, or says that it never ran."""
    import threading

    second = session.api.another()
    answers = {}

    def wait_behind():
        answers["second"], answers["took"] = timed(lambda: session.via(second).try_run("print(2)", timeout_s=TIMEOUT_S))

    session.run("1")  # the kernel is warm, so the order is that of arrival
    first = threading.Thread(target=lambda: answers.update(first=session.run("import time\ntime.sleep(5)", timeout_s=20)))
    first.start()
    host.wait_until(lambda: session.via(second).api.get(session.path + "/metrics").json["runs_active"] >= 1, 5, "the first run active")
    behind = threading.Thread(target=wait_behind)
    behind.start()
    behind.join(30)
    first.join(30)
    second.close()
    answers["second"].problem(503, "queue_timeout")
    assert answers["took"] < ANSWER_BOUND_S, answers["took"]
    assert answers["first"]["outcome"] == "ok"


def test_one_shot(api, image):
    """A one-shot run has the same law, and its session is gone after."""
    answer, took = timed(lambda: api.post("/v1/runs", {"image": image, "language": "python", "timeout_s": TIMEOUT_S,
                                                       "code": "print('before', flush=True)\nwhile True: pass"}))
    record = answer.ok(200)
    check_end(record, took)
    api.get(f"/v1/sessions/{record['session_id']}").problem(410, "session_ended")


def test_other_sessions_go_on(watched, make_session):
    """While one session burns its deadline, another one is served."""
    import threading

    session, _ = watched
    other = make_session()
    burning = threading.Thread(target=lambda: session.run(PYTHON["fork bomb"], timeout_s=TIMEOUT_S))
    apart = other.api.another()
    neighbour = other.via(apart)
    neighbour.run("1")
    burning.start()
    _, took = timed(lambda: neighbour.run("print(2)"))
    burning.join(30)
    apart.close()
    assert took < ANSWER_BOUND_S
