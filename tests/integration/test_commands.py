"""Shell commands over REST."""
import re
import threading
import time

import pytest

import host
from client import output_bytes

RECORD = {"command_id", "session_id", "status", "outcome", "stdout", "stderr", "stdout_truncated", "stderr_truncated",
          "stdout_bytes", "stderr_bytes", "exit_code", "started_at", "duration_ms", "queue_ms", "cpu_ms", "memory_peak_bytes", "pids_peak"}


def test_record(session):
    """A command's record has every field, with exit code, both streams and what it used."""
    record = session.command("echo out; echo err >&2; exit 3")
    assert set(record) == RECORD, set(record) ^ RECORD
    assert record["outcome"] == "error" and record["exit_code"] == 3
    assert record["stdout"] == "out\n" and record["stderr"] == "err\n" and record["stdout_bytes"] == 4
    assert re.fullmatch(r"cmd-[a-z2-7]{26}", record["command_id"]) and record["session_id"] == session.id
    assert session.command("true")["outcome"] == "ok"


@pytest.mark.parametrize("command, code", [("exit 0", 0), ("exit 1", 1), ("exit 255", 255), ("no-such-program", 127), ("/workspace", 126)])
def test_exit_code(session, command, code):
    """The exit code is the shell's own."""
    record = session.command(command)
    assert record["exit_code"] == code and record["outcome"] == ("error" if code else "ok"), record


def test_signal(session):
    """A command that a signal ends says which one."""
    record = session.command("kill -TERM $$")
    assert record["outcome"] == "error" and record["signal"] == 15 and record["killed_by"] == "signal", record
    assert record.get("exit_code") is None


def test_starts_in_workspace(session):
    """Commands start in /workspace as the user sandbox, with a shell's usual tools."""
    assert session.shell("pwd; whoami; id -u; echo $HOME; umask").split() == ["/workspace", "sandbox", "1000", "/home/sandbox", "0022"]


def test_cwd(session):
    """`cwd` is honoured; a missing one is an error that names it, not a failed command."""
    session.shell("mkdir -p sub/dir")
    assert session.shell("pwd", cwd="/tmp") == "/tmp\n"
    assert session.shell("pwd", cwd="sub/dir") == "/workspace/sub/dir\n"
    assert "nowhere" in session.try_command("pwd", cwd="/nowhere").problem(404, "file_not_found")["detail"]
    session.put("plain", b"x").ok(201)
    session.try_command("pwd", cwd="/workspace/plain").problem(409, "not_a_directory")


def test_env(make_session):
    """Variables of the command come on top of the session's, for this command alone."""
    session = make_session(env={"A": "session", "B": "session"})
    assert session.shell('echo "$A $B $C"', env={"B": "command", "C": "x y"}) == "session command x y\n"
    assert session.shell('echo "$A $B $C"') == "session session \n"


def test_stdin(session):
    """`stdin` reaches the command and ends; without it stdin is empty."""
    text = "line ä\n" * 50_000
    assert session.shell("wc -c; cat | wc -l", stdin=text).split()[0] == str(len(text.encode()))
    assert session.shell("cat") == ""
    assert session.command("exit 0", stdin=text)["outcome"] == "ok"  # a command need not read it


def test_bash_if_the_image_has_it(session):
    """Commands run in bash where the image has it."""
    assert session.shell("echo ${BASH_VERSION:+bash}; [[ a == a ]] && echo yes").split() == ["bash", "yes"]


def test_background_server_survives(session):
    """What a finished command left running in the background goes on, and the answer does not wait for it."""
    started = time.monotonic()
    record = session.command("python3 -m http.server 8000 --bind 127.0.0.1 >/dev/null 2>&1 & echo started")
    assert record["stdout"] == "started\n" and time.monotonic() - started < 5
    session.put("hello.txt", b"from the server").ok(201)
    probe = ("import time, urllib.request\nfor _ in range(200):\n    try:\n"
             "        print(urllib.request.urlopen('http://127.0.0.1:8000/hello.txt').read().decode())\n        break\n"
             "    except OSError:\n        time.sleep(0.05)\n")
    assert session.run(probe)["stdout"] == "from the server\n"


def test_grandchild_that_holds_the_pipe(session):
    """Completion never waits for a grandchild that keeps stdout open."""
    started = time.monotonic()
    record = session.command("(sleep 30; echo late) & echo now")
    assert record["stdout"] == "now\n" and record["outcome"] == "ok" and time.monotonic() - started < 3, record


def test_commands_run_side_by_side(session):
    """Commands of one session do not wait for each other."""
    callers = [session.api.another() for _ in range(4)]
    started = time.monotonic()
    threads = [threading.Thread(target=session.via(caller).command, args=("sleep 1",)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for caller in callers:
        caller.close()
    assert time.monotonic() - started < 3


def test_binary_output(session):
    """Any bytes give a valid answer with the exact bytes beside the text."""
    record = session.command("printf '\\377\\000\\200ok'; printf '\\376' >&2")
    assert output_bytes(record) == b"\xff\x00\x80ok" and output_bytes(record, "stderr") == b"\xfe"


def test_output_cap(session):
    """Output past the cap is dropped, counted and flagged."""
    record = session.command("head -c 5000000 /dev/zero | tr '\\0' x; echo e >&2")
    assert record["outcome"] == "ok" and record["stdout_truncated"] and record["stdout_bytes"] == 5_000_000
    assert not record["stderr_truncated"] and record["stderr"] == "e\n"


def test_out_of_memory(make_session):
    """A command that needs more memory than there is ends as `out_of_memory`, and the session goes on."""
    session = make_session(limits={"memory_bytes": 64 << 20})
    record = session.command("python3 -c 'x = bytearray(500 << 20)'; echo after")
    assert record["outcome"] == "out_of_memory" or "after" in record["stdout"], record
    record = session.command("exec python3 -c 'x = bytearray(500 << 20)'")
    assert record["outcome"] == "out_of_memory" and record["killed_by"] == "memory", record
    assert session.shell("echo fine") == "fine\n"
    assert session.api.get(session.path + "/metrics").ok()["oom_kills"] >= 1


def test_find_later(session):
    """A command's record can be read again by its id; a command is not a run."""
    record = session.command("echo hi")
    assert session.api.get(f"{session.path}/commands/{record['command_id']}").ok() == record
    session.api.get(f"{session.path}/commands/cmd-{'a' * 26}").problem(404, "run_not_found")


def test_idempotency_key(session):
    """A retry with the same key does not run the command again."""
    key = {"Idempotency-Key": "command-once"}
    first = session.try_command("echo x >> log; wc -l < log", headers=key).ok()
    assert session.try_command("echo x >> log; wc -l < log", headers=key).ok() == first
    assert session.shell("wc -l < log") == "1\n"


def test_long_command(session):
    """A command may be long; one that the kernel cannot take is refused with the way out."""
    assert session.shell("echo " + "a" * 100_000 + " | wc -c") == "100001\n"
    answer = session.try_command("echo " + "a" * 200_000)
    assert answer.status == 413 and "file" in answer.json["detail"], answer


def test_command_kill_reaches_background_of_a_timed_out_command(session):
    """What a timed-out command had put into the background dies with it; that of a finished one does not."""
    view = host.SessionView(session)
    session.command("sleep 71 & echo")
    session.command("sleep 72 & sleep 73", timeout_s=1)
    left = [" ".join(line) for line in view.strangers().values()]
    assert left == ["sleep 71"], left
