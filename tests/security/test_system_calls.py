"""The table of the seccomp policy as real calls: every number, and every conditional argument met and missed by one bit, made inside a
session. The unit tests show that the compiled programs do what the table says; this, that they are what a session has."""
import errno
import pathlib
import subprocess

import pytest

HERE = pathlib.Path(__file__).parent
ENOSYS = str(errno.ENOSYS)
# Made for real, clone leaves children behind, on the caller's own stack.
CLONE = 56


# uretprobe and uprobe: newer kernels let these past every filter, because tracing of programs that have one depends on it (kernel/seccomp.c). They
# do nothing but where the kernel itself put them: called by hand they end with SIGILL and ENXIO.
PAST_EVERY_FILTER = {335: {"died 4"}, 336: {str(errno.ENXIO)}}
# Made, and then refused by the kernel itself to who has no capability.
NEEDS_PRIVILEGE = {116}  # setgroups


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    program = tmp_path_factory.mktemp("calls") / "calls"
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-static", "-o", program, HERE / "system_calls.c"], check=True)
    program.parent.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def cases(deployment):
    lines = subprocess.run([deployment.bin / "seccomp_cases"], capture_output=True, text=True, check=True).stdout.splitlines()
    parsed = []
    for line in lines:
        words = line.split()
        parsed.append((int(words[0]), " ".join(words[:7]), int(words[7]), words[8] == "1"))
    return [case for case in parsed if not (case[0] == CLONE and case[2] == 0)]


def test_every_call_has_its_planned_verdict(make_session, caller, cases):
    session = make_session()
    session.put("/workspace/calls", caller.read_bytes()).ok(201)
    session.put("/workspace/cases", "\n".join(case[1] for case in cases).encode()).ok(201)
    out = session.shell("chmod 755 calls && ./calls < cases > answers 2>&1; echo $?")
    assert out == "0\n", out
    answers = session.read("/workspace/answers").body.decode().splitlines()
    assert len(answers) == len(cases) > 5000
    wrong, maybe_missing = [], []
    for (number, call, planned, conditional), answer in zip(cases, answers):
        if planned != 0:
            if answer != str(planned) and answer not in PAST_EVERY_FILTER.get(number, ()):
                wrong.append(f"{call}: planned errno {planned}, got {answer}")
        elif answer == ENOSYS:
            maybe_missing.append(call)
        elif answer == "died 31":
            wrong.append(f"{call}: planned to be made, and the filter killed")
        elif not conditional and answer == str(errno.EPERM) and number not in NEEDS_PRIVILEGE:
            wrong.append(f"{call}: planned to be made, got EPERM")
    assert not wrong, "\n".join(wrong[:40])
    # What is allowed and yet missing is missing in the kernel: outside as well.
    done = subprocess.run([caller], input="\n".join(maybe_missing), capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {ENOSYS}, [call for call, answer in zip(maybe_missing, done.stdout.splitlines()) if answer != ENOSYS]
    assert len({call.split()[0] for call in maybe_missing}) < 12, maybe_missing


def test_another_architecture_kills(make_session):
    """i386's int 0x80 and x32 numbers end the process; tests/security/probes has both as attacks."""
    session = make_session()
    out = session.shell("python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(0x40000000 + 39))'; echo $?")
    assert out.strip() == "159", out  # 128 + SIGSYS
