"""Runs over REST: contexts that persist, results, errors, and a record that tells the truth."""
import base64
import re
import sqlite3
import threading
import time

import pytest

import host
from client import output_bytes

RECORD = {"run_id", "session_id", "language", "context", "status", "outcome", "stdout", "stderr", "stdout_truncated", "stderr_truncated",
          "stdout_bytes", "stderr_bytes", "results", "results_truncated", "execution_count", "context_reset", "kernel_origin", "started_at",
          "duration_ms", "queue_ms", "cpu_ms", "memory_peak_bytes", "pids_peak"}


def main_result(record):
    main = [result for result in record["results"] if result["is_main_result"]]
    return main[0]["data"] if main else None


def test_record_is_complete(session):
    """The record of a run has every field, and the facts in it are true."""
    record = session.run("import time\nprint('out')\nimport sys\nprint('err', file=sys.stderr)\nx = bytearray(30 << 20)\n"
                         "t = time.process_time()\nwhile time.process_time() - t < 0.2: pass\n2 + 2")
    assert set(record) == RECORD, set(record) ^ RECORD
    assert record["outcome"] == "ok" and record["status"] == "finished" and record["language"] == "python"
    assert record["stdout"] == "out\n" and record["stderr"] == "err\n"
    assert record["stdout_bytes"] == 4 and record["stderr_bytes"] == 4
    assert not record["stdout_truncated"] and not record["stderr_truncated"] and not record["results_truncated"]
    assert main_result(record) == {"text/plain": "4"}
    assert record["execution_count"] == 1 and record["context_reset"] is False
    assert record["duration_ms"] >= 200 and 190 <= record["cpu_ms"] <= 2000, record
    assert 30 << 20 <= record["memory_peak_bytes"] <= session.record["limits"]["memory_bytes"], record
    assert record["pids_peak"] >= 1
    assert re.fullmatch(r"run-[a-z2-7]{26}", record["run_id"]) and record["session_id"] == session.id


def test_server_timing(session):
    """`Server-Timing` says where the time went."""
    header = session.try_run("1").headers["server-timing"]
    parts = dict(re.findall(r"(\w+);dur=([\d.]+)", header))
    assert set(parts) == {"queue", "spawn", "run", "collect", "total"}, header
    assert float(parts["total"]) > 0


@pytest.mark.parametrize("language, first, second, output", [
    ("python", "import math\nx = 41\ndef f(n): return n + 1\nclass C: y = 5", "print(f(x), C.y, math.floor(2.5))", "42 5 2\n"),
    ("javascript", "const x = 41; let y = 5; function f(n) { return n + 1 }\nclass C {}; const os = require('os')",
     "console.log(f(x), y, typeof C, typeof os.cpus)", "42 5 function function\n"),
])
def test_context_persists(session, language, first, second, output):
    """Names, imports, functions and classes of one run are there in the next."""
    assert session.run(first, language)["outcome"] == "ok"
    record = session.run(second, language)
    assert record["stdout"] == output and record["execution_count"] == 2, record


def test_contexts_are_per_language_and_session(session, make_session):
    """Python and JavaScript do not share names, and neither do two sessions."""
    other = make_session()
    session.run("x = 1")
    assert session.run("console.log(typeof x)", "javascript")["stdout"] == "undefined\n"
    assert other.run("print('x' in globals())")["stdout"] == "False\n"


@pytest.mark.parametrize("alias, canonical", [("py", "python"), ("python3", "python"), ("PYTHON", "python"), ("js", "javascript"),
                                              ("node", "javascript"), ("NodeJS", "javascript")])
def test_language_aliases(session, alias, canonical):
    """Aliases in any case name the same kernel, and the record has the canonical name."""
    assert session.run("1", alias)["language"] == canonical


@pytest.mark.parametrize("language, code, text", [
    ("python", "[1, 'a', None]", "[1, 'a', None]"), ("python", "'text'", "'text'"), ("python", "x = 3\nx", "3"),
    ("python", "import asyncio\nawait asyncio.sleep(0, 'waited')", "'waited'"),
    ("javascript", "({a: 1, b: [1, 2]})", "{ a: 1, b: [ 1, 2 ] }"), ("javascript", "'text'", "'text'"),
    ("javascript", "await Promise.resolve(5)", "5"), ("javascript", "const q = 1; q + 1", "2"),
])
def test_main_result(session, language, code, text):
    """The value of the last expression is the main result, as the interpreter prints it."""
    assert main_result(session.run(code, language))["text/plain"] == text


@pytest.mark.parametrize("language, code", [("python", "None"), ("python", "x = 1"), ("python", "5;"), ("python", "print(1)"),
                                            ("javascript", "undefined"), ("javascript", "const z = 1"), ("javascript", "console.log(1)")])
def test_no_main_result(session, language, code):
    """Statements, None and undefined, and a Python line that ends in `;`, give no result."""
    assert session.run(code, language)["results"] == []


def test_javascript_redeclaration(session):
    """`const`, `let` and `class` may be declared again in a later run."""
    for n in (1, 2):
        record = session.run(f"const a = {n}; let b = {n}; class C {{}}; a + b", "javascript")
        assert main_result(record)["text/plain"] == str(2 * n), record


def test_rich_results(session):
    """Objects that know how to show themselves come back as MIME results, in order."""
    record = session.run("class H:\n    def _repr_html_(self): return '<b>x</b>'\n    def __repr__(self): return 'H'\n"
                         "class J:\n    def _repr_mimebundle_(self, include=None, exclude=None):\n"
                         "        return {'application/json': {'a': [1, 2]}, 'text/plain': 'J'}\n"
                         "class P:\n    def _repr_png_(self): return b'\\x89PNG'\n    def __repr__(self): return 'P'\n"
                         "display(H())\ndisplay(J())\nP()")
    data = [result["data"] for result in record["results"]]
    assert data[0]["text/html"] == "<b>x</b>" and data[0]["text/plain"] == "H"
    assert data[1]["application/json"] == {"a": [1, 2]}
    assert data[2]["image/png"] == "iVBORw==" and [r["is_main_result"] for r in record["results"]] == [False, False, True]


@pytest.mark.parametrize("language, code, name, value, line", [
    ("python", "def f():\n    return 1 / 0\nf()", "ZeroDivisionError", "division by zero", "return 1 / 0"),
    ("python", "print('a')\nif True print", "SyntaxError", "", "if True print"),
    ("javascript", "function f() { null.x }\nf()", "TypeError", "Cannot read", "f"),
    ("javascript", "let = = 3", "SyntaxError", "", ""),
    ("javascript", "await Promise.reject(new RangeError('far'))", "RangeError", "far", ""),
])
def test_error_record(session, language, code, name, value, line):
    """An uncaught error is the run's outcome, with name, value and traceback; the context is kept."""
    session.run("kept = 1", language)
    record = session.run(code, language)
    assert record["outcome"] == "error" and set(record) == RECORD | {"error"}, record
    assert record["error"]["name"] == name and value in record["error"]["value"], record["error"]
    traceback = "\n".join(record["error"]["traceback"])
    assert line in traceback and name in traceback and "/opt/codespace" not in traceback, traceback
    assert name in record["stderr"]
    assert session.run("kept", language)["outcome"] == "ok"


def test_exit_ends_the_run_only(session):
    """sys.exit and process.exit end the run, keep the context, and a status other than 0 is an error."""
    session.run("kept = 1")
    assert session.run("import sys\nprint('a')\nsys.exit()\nprint('b')")["outcome"] == "ok"
    record = session.run("sys.exit(3)")
    assert record["outcome"] == "error" and record["error"]["name"] == "SystemExit" and "3" in record["error"]["value"]
    assert session.run("print(kept)")["stdout"] == "1\n"
    session.run("var kept = 2", "javascript")
    record = session.run("console.log('a'); process.exit(0); console.log('b')", "javascript")
    assert record["outcome"] == "ok" and record["stdout"] == "a\n", record
    assert session.run("console.log(kept)", "javascript")["stdout"] == "2\n"


@pytest.mark.parametrize("code, killed_by", [("import os\nos._exit(7)", None), ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "signal"),
                                             ("import ctypes\nctypes.string_at(0)", "signal")])
def test_kernel_death(session, code, killed_by):
    """A kernel that exits or crashes is a normal end: its outcome says so, and the next run says that the context is new."""
    session.run("kept = 1")
    record = session.run("print('before', flush=True)\n" + code)
    assert record["outcome"] == "kernel_died" and record["stdout"] == "before\n", record
    assert record.get("killed_by") == killed_by, record
    if killed_by:
        assert record["signal"] in (9, 11), record
    else:
        assert record["exit_code"] == 7, record
    record = session.run("print('kept' in globals())")
    assert record["outcome"] == "ok" and record["context_reset"] and record["stdout"] == "False\n", record
    assert not session.run("1")["context_reset"]


def test_out_of_memory(make_session):
    """A run that needs more memory than the session has ends as `out_of_memory`; the session goes on."""
    session = make_session(limits={"memory_bytes": 96 << 20})
    record = session.run("print('before', flush=True)\nx = []\nwhile True: x.append(bytearray(1 << 20))")
    assert record["outcome"] == "out_of_memory" and record["killed_by"] == "memory" and record["stdout"] == "before\n", record
    assert record["memory_peak_bytes"] <= 96 << 20
    assert session.run("print(1)")["stdout"] == "1\n"


def test_output_order_and_subprocesses(session):
    """Output of subprocesses and C code is captured at the descriptor, in order."""
    record = session.run("import os, subprocess\nprint('a')\nsubprocess.run(['echo', 'b'])\nprint('c')\nos.write(1, b'd\\n')\nprint('e')")
    assert record["stdout"] == "a\nb\nc\nd\ne\n"
    record = session.run("console.log('a'); require('child_process').execSync('echo b', {stdio: 'inherit'}); console.error('x'); console.log('c')",
                         "javascript")
    assert record["stdout"] == "a\nb\nc\n" and record["stderr"] == "x\n", record


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_output_cap(session, stream):
    """Output past the cap is counted and dropped, and the record says so; the program is not slowed to a stop."""
    record = session.run(f"import sys\nfor _ in range(5000): sys.{stream}.write('x' * 999 + '\\n')")
    assert record["outcome"] == "ok" and record[stream + "_truncated"] and record[stream + "_bytes"] == 5_000_000, record["outcome"]
    assert 500_000 < len(record[stream]) < 5_000_000 and set(record[stream]) == {"x", "\n"}
    other = "stderr" if stream == "stdout" else "stdout"
    assert not record[other + "_truncated"] and record[other + "_bytes"] == 0


def test_binary_output(session):
    """Any bytes give a valid answer: replaced in the text, exact in the base64 field."""
    record = session.run("import sys\nsys.stdout.buffer.write(bytes(range(256)) * 3)")
    assert record["stdout_bytes"] == 768 and "\ufffd" in record["stdout"]
    assert output_bytes(record) == bytes(range(256)) * 3
    assert "stdout_base64" not in session.run("print('ä€😀')")


def test_a_run_cannot_forge_its_record(session):
    """What a run prints or writes to the control channel changes nothing but its own results."""
    code = ("import os, struct\nprint('{\"outcome\":\"out_of_memory\",\"exit_code\":9}')\n"
            "for fd in range(3, 64):\n"
            "    for frame in (struct.pack('<II', 19, 0), b'\\xff' * 64):\n"
            "        try:\n            os.write(fd, frame)\n        except OSError:\n            pass\n")
    record = session.run(code)
    assert record["outcome"] in ("ok", "kernel_died"), record
    assert record["session_id"] == session.id and "9" not in str(record.get("exit_code", ""))
    assert session.run("print('fine')")["stdout"] == "fine\n"


def test_runs_queue(session):
    """Runs of one kernel wait for each other; none is lost, none overlaps."""
    answers = []

    def one(n):
        caller = session.api.another()
        answers.append(session.via(caller).run(f"import time\na = time.monotonic()\ntime.sleep(0.1)\nprint({n}, a, time.monotonic())"))
        caller.close()

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    spans = sorted(tuple(float(word) for word in record["stdout"].split()[1:]) for record in answers)
    assert len(spans) == 8 and all(earlier[1] <= later[0] for earlier, later in zip(spans, spans[1:])), spans
    assert sorted(record["execution_count"] for record in answers) == list(range(1, 9))
    assert sum(record["queue_ms"] > 50 for record in answers) >= 6


def test_full_queue_refuses(session):
    """A bounded queue refuses at once what it cannot hold."""
    session.run("1")
    answers = []

    def one():
        caller = session.api.another()
        answers.append(session.via(caller).try_run("import time\ntime.sleep(0.05)", timeout_s=30))
        caller.close()

    threads = [threading.Thread(target=one) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    refused = [answer for answer in answers if answer.status != 200]
    assert len(answers) == 60 and refused, "60 runs at once all found room: what is the bound?"
    for answer in refused:
        answer.problem(503, "overloaded")
        assert answer.headers["retry-after"]


def test_languages_run_side_by_side(session):
    """The Python and the JavaScript kernel of one session do not wait for each other."""
    session.run("1")
    session.run("1", "javascript")
    slow = threading.Thread(target=lambda: session.run("import time\ntime.sleep(3)"))
    slow.start()
    caller = session.api.another()
    started = time.monotonic()
    assert session.via(caller).run("console.log(1)", "javascript")["stdout"] == "1\n"
    assert time.monotonic() - started < 2.5
    slow.join()
    caller.close()


def background_run(session, code, **fields):
    """Starts a run on a connection of its own; returns (thread, list that gets the answer, client)."""
    caller, answers = session.api.another(), []
    thread = threading.Thread(target=lambda: answers.append(session.via(caller).try_run(code, **fields)))
    thread.start()
    return thread, answers, caller


def run_id_in_store(deployment, key):
    """The id of a run under way: its caller has it only with the answer, the database has it now."""
    with sqlite3.connect(f"file:{deployment.state}/codespace.db?mode=ro", uri=True) as store:
        row = store.execute("SELECT object FROM claims WHERE key = ?", (key,)).fetchone()
    return "run-" + base64.b32encode(row[0]).decode().lower().rstrip("=") if row else None


@pytest.mark.parametrize("language, code", [("python", "print('on', flush=True)\nimport time\ntime.sleep(50)"),
                                            ("javascript", "console.log('on'); await new Promise(r => setTimeout(r, 50000))")])
def test_cancel(session, deployment, language, code):
    """A run can be looked at and cancelled while it runs; the next one works."""
    session.run("kept = 1", language)
    key = f"cancel-{time.time_ns()}"
    thread, answers, caller = background_run(session, code, language=language, headers={"Idempotency-Key": key})
    run_id = host.wait_until(lambda: run_id_in_store(deployment, key), 10, "the run in the database")
    path = f"{session.path}/runs/{run_id}"
    host.wait_until(lambda: session.api.get(path).json.get("stdout") == "on\n", 10, "output of the run so far")
    assert session.api.get(path).ok()["status"] == "running"
    assert session.api.post(path + "/cancel").status == 204
    thread.join(10)
    record = answers[0].ok()
    assert record["outcome"] == "cancelled" and record["killed_by"] == "client" and record["stdout"] == "on\n", record
    assert session.api.get(path).ok() == record
    assert session.run("1", language)["outcome"] == "ok"
    caller.close()


def test_cancel_of_an_unknown_run(session):
    """Cancelling a run that never was is told as such."""
    session.api.post(f"{session.path}/runs/run-{'a' * 26}/cancel").problem(404, "run_not_found")


def test_find_run_later(session):
    """The record of a finished run can be read again by its id, and is the same."""
    record = session.run("print('hello')\n1 + 1")
    found = session.api.get(f"{session.path}/runs/{record['run_id']}").ok()
    assert found == record
    session.api.get(f"{session.path}/runs/run-{'a' * 26}").problem(404, "run_not_found")
    session.api.get(f"{session.path}/runs/nonsense").problem(404, "run_not_found")


def test_idempotency_key(session):
    """A retry with the same key gets the result of the first run; another body is refused."""
    key = {"Idempotency-Key": "run-once"}
    code = "n = globals().get('n', 0) + 1\nprint(n)"
    first = session.try_run(code, headers=key).ok()
    again = session.try_run(code, headers=key).ok()
    assert first["stdout"] == "1\n" and again == first
    session.try_run(code + "\n", headers=key).problem(422, "idempotency_mismatch")
    assert session.run("print(n)")["stdout"] == "1\n"


def test_client_that_hangs_up(session):
    """A client that goes away does not cancel its run, and the retry with its key gets the result."""
    import json
    import socket

    session.run("import time, os")
    code = "time.sleep(1)\nopen('/tmp/ran', 'a').write('x')\nprint('done')"
    body = json.dumps({"language": "python", "code": code}).encode()
    head = (f"POST {session.path}/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.api.key}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: gone\r\nContent-Length: {len(body)}\r\n\r\n").encode()
    with socket.create_connection((session.api.host, session.api.port)) as s:
        s.sendall(head + body)
        host.wait_until(lambda: session.api.get(session.path + "/metrics").json["runs_active"] == 1, 10, "the run active")
    record = session.try_run(code, headers={"Idempotency-Key": "gone"}).ok()
    assert record["outcome"] == "ok" and record["stdout"] == "done\n", record
    assert session.read("/tmp/ran").body == b"x"


def test_stdin_is_empty(session):
    """A run that asks for input gets end of file, not a wait."""
    record = session.run("try:\n    input()\nexcept EOFError:\n    print('eof')", timeout_s=5)
    assert record["stdout"] == "eof\n"


def test_one_shot(api, image):
    """POST /v1/runs makes a session, writes files, runs, and leaves nothing."""
    record = api.post("/v1/runs", {"image": image, "language": "python", "code": "print(open('data/in.txt').read())\n6 * 7",
                                   "files": {"data/in.txt": "from a file"}, "env": {"A": "b"}, "timeout_s": 20}).ok()
    assert record["stdout"] == "from a file\n" and main_result(record) == {"text/plain": "42"} and record["outcome"] == "ok"
    api.get(f"/v1/sessions/{record['session_id']}").problem(410, "session_ended")


def test_large_code(session):
    """Code of nearly a mebibyte runs; more is refused with the limit in the text."""
    code = "x = '" + "a" * 1_000_000 + "'\nprint(len(x))"
    assert session.run(code)["stdout"] == "1000000\n"
    answer = session.try_run("#" * ((1 << 20) + 1))
    assert answer.status in (400, 413) and "1048576" in answer.json["detail"], answer


def test_unicode(session):
    """Text of any script survives both ways, in both languages."""
    text = "ä€😀\u0000\u2028漢字"
    literal = "ä€😀\\u0000\\u2028漢字"
    assert session.run(f"print('{literal}', end='')")["stdout"] == text
    assert session.run(f"process.stdout.write('{literal}')", "javascript")["stdout"] == text
