"""session.command: output, exit codes, times, environment."""
import concurrent.futures
import time

import pytest


def test_output_and_exit_code(session):
    result = session.command.execute_command("echo out; echo err >&2")
    assert result.success and result.exit_code == 0 and result.stdout == "out\n" and result.stderr == "err\n" and result.output == "out\nerr\n"
    assert result.error_message == "" and result.request_id


def test_a_command_that_fails(session):
    result = session.command.execute_command("echo partial; ls /non_existent_path_12345")
    assert not result.success and result.exit_code == 2 and result.stdout == "partial\n" and "No such file" in result.error_message
    assert len(result.trace_id) == 32
    for code in (1, 3, 42, 127, 255):
        result = session.command.execute_command(f"exit {code}")
        assert not result.success and result.exit_code == code and result.error_message


def test_killed_by_a_signal(session):
    result = session.command.execute_command("kill -9 $$")
    assert not result.success and result.exit_code == 137 and "signal 9" in result.error_message


def test_too_long(session):
    began = time.monotonic()
    result = session.command.execute_command("echo first; sleep 5", timeout_ms=1000)
    assert not result.success and 0.9 < time.monotonic() - began < 4.5
    assert "timeout" in result.error_message and "1000 ms" in result.error_message and "first" in result.error_message and result.request_id
    assert session.command.execute_command("sleep 1; echo in time", timeout_ms=5000).stdout == "in time\n"
    assert session.command.execute_command("echo any", timeout_ms=600_000).success


def test_nothing_of_a_command_that_took_too_long_goes_on(session):
    session.command.execute_command("(setsid sh -c 'while :; do date +%s%N > /tmp/alive; sleep 0.1; done') & sleep 30", timeout_ms=1000)
    first = session.command.execute_command("cat /tmp/alive").stdout
    time.sleep(0.5)
    assert session.command.execute_command("cat /tmp/alive").stdout == first


def test_directory_and_environment_are_of_one_command(session):
    value = "a 'b' \"c\" $HOME; `id`\nnext"
    result = session.command.execute_command('printf %s "$GIVEN"; echo; pwd', cwd="/tmp", envs={"GIVEN": value})
    assert result.stdout == value + "\n/tmp\n"
    assert session.command.execute_command("echo [$GIVEN] $(pwd); cd /; X=1").stdout == "[] /workspace\n"
    assert session.command.execute_command("echo [$X] $(pwd)").stdout == "[] /workspace\n"
    session.command.execute_command("mkdir -p '/tmp/test dir'")
    assert session.command.execute_command("pwd", cwd="/tmp/test dir").stdout == "/tmp/test dir\n"
    result = session.command.execute_command("pwd", cwd="/missing/place")
    assert not result.success and "/missing/place" in result.error_message


def test_wrong_environments_never_leave_the_client(session):
    with pytest.raises(ValueError):
        session.command.execute_command("true", envs={"A": 1})


def test_shell_text_of_every_kind(session):
    command = """
greet() { echo "hello $1"; }
for i in 1 2 3; do greet $i; done | grep -v 2 > /tmp/greetings
cat <<'EOF' >> /tmp/greetings
$not expanded
EOF
if test -s /tmp/greetings; then wc -l < /tmp/greetings; fi; cat /tmp/greetings
"""
    assert session.command.execute_command(command).stdout == "3\nhello 1\nhello 3\n$not expanded\n"


def test_aliases(session):
    assert session.command.run("echo 1").stdout == session.command.exec("echo 1").stdout == "1\n"


def test_many_at_once(session):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda n: session.command.execute_command(f"sleep 0.2; echo {n}"), range(12)))
    assert [r.stdout for r in results] == [f"{n}\n" for n in range(12)]


def test_a_server_left_in_the_background_lives_on(session):
    session.command.execute_command("cd /tmp && (python3 -m http.server 8123 >/dev/null 2>&1 &)")
    result = session.command.execute_command("for i in $(seq 50); do curl -sf http://127.0.0.1:8123/ >/dev/null && echo up && break; sleep 0.1; done")
    assert result.stdout == "up\n"


def test_environment_of_the_session(make_session):
    session = make_session()
    assert session.env.set({"STAGE": "test", "EMPTY": ""}).success
    assert session.command.execute_command('echo "$STAGE|${EMPTY-unset}"').stdout == "test||\n".replace("||", "|")
    assert session.code.run_code("import os; os.environ['STAGE']", "python").result == "'test'"
    assert session.env.set({"STAGE": "later"}).success
    assert session.code.run_code("os.environ['STAGE']", "python").result == "'later'"
    assert session.code.run_code("process.env.STAGE", "javascript").result == "'later'"
    assert session.env.get(["STAGE", "MISSING"]).envs == {"STAGE": "later"}
    everything = session.env.get().envs
    assert everything["STAGE"] == "later" and everything["HOME"] == "/home/sandbox" and "PATH" in everything
    assert not session.env.set({"BAD=NAME": "x"}).success
