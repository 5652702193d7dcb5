"""A session starts confined as planned or not at all. Each system call with which the launcher
and its child make one is, by strace(1), made to fail, to kill the process, or to be skipped while
it says it worked; then a creation must be refused, or the session be just as confined as any.
Afterwards the launcher makes sessions as before, and in the end nothing is left."""
import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

import host
from client import Session
from deployment import own_deployment

# Only the child makes these, so its death is that of one session-to-be and not of the launcher.
CHILD_ONLY = ["mount", "umount2", "pivot_root", "setresuid", "setresgid", "setsid", "sethostname", "capset", "seccomp", "prctl", "ioctl", "execveat",
              "dup2", "dup3", "close_range", "prlimit64", "getcwd", "chdir", "recvmsg", "getgroups"]
BOTH = ["clone3", "mkdirat", "openat", "write", "fchownat", "sendmsg", "socket", "bind", "listen", "sendto", "socketpair", "fcntl", "unshare"]
# Of a call that is made very often, every so many.
STEP = {"mount": 7, "openat": 17, "write": 9, "prctl": 9, "fcntl": 3, "mkdirat": 9, "fchownat": 11, "prlimit64": 5, "dup2": 3, "recvmsg": 3}
LIES_STEP = {**STEP, "mount": 3}
# When the fault comes, two bare sessions and two children are ready; the next two are made wholly with it.
AHEAD, CREATIONS = 2, 6
REFILL_S = 0.2  # the longest wait for what is made ahead; with a fault it may not come
MOST = 200


@pytest.fixture(scope="module")
def own(request, image):
    with own_deployment(request, image, config="[pool]\nsize = 0\nmost = 0\ndata = 0\n[kernels]\nzygotes = 0\n") as made:
        yield made


@pytest.fixture(scope="module")
def plan(own, image):
    """What is true of a session that was made undisturbed."""
    api = own.client()
    session = Session.create(api, image=image)
    try:
        return confinement(session)
    finally:
        session.delete()
        api.close()


class Fault:
    def __init__(self, own, call, action, number):
        self.own, self.injection, self.call = own, f"{call}:{action}:when={number}", call
        self.output = own.base / "strace.out"

    def __enter__(self):
        self.output.write_text("")
        self.process = subprocess.Popen(["strace", "-f", "-qq", "-p", str(self.own.launcher.pid), "-e", f"trace={self.call}", "-e", f"inject={self.injection}",
                                         "-o", str(self.output)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        host.wait_until(lambda: host.status(self.own.launcher.pid).get("TracerPid", "0").strip() == str(self.process.pid) or self.process.poll() is not None, 5, "strace")
        assert self.process.poll() is None, self.process.stderr.read()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(10)

    def happened(self):
        text = self.output.read_text()
        return "(INJECTED)" in text or "killed by SIGKILL" in text


def confinement(session):
    """Facts of every process of the session, from the host, without what differs from one to the next."""
    view = host.SessionView(session)
    facts = {"hostname": session.shell("hostname").strip(), "stdout": session.run("print(6 * 7)")["stdout"]}
    mounts = []
    for line in host.mounts(view.init):
        fields = line.split()
        mounts.append((fields[2], fields[3]))
    facts["mounts"] = sorted(re.sub(r"\[[^]]*\]", "", str(m)) for m in mounts)
    own_namespaces = {kind: host.namespace("self", kind) for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")}
    for name, pid in [("init", view.init)] + [("tenant", kernel) for kernel in view.kernels()]:
        status = host.status(pid)
        first = host.uid(view.init)
        facts[name] = {field: status[field].strip() for field in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")}
        facts[name]["ids"] = [int(number) - first for number in (status["Uid"] + " " + status["Gid"]).split()]
        facts[name]["groups"] = status["Groups"].strip()
        facts[name]["limits"] = host.read(f"/proc/{pid}/limits")
        facts[name]["namespaces"] = [kind for kind, number in own_namespaces.items() if host.namespace(pid, kind) == number]
        facts[name]["descriptors"] = len(host.descriptors(pid)) if name == "tenant" else None
        facts[name]["root"] = host.link(f"/proc/{pid}/root") != "" and os.path.exists(f"/proc/{pid}/root/workspace")
        facts[name]["oom"] = host.read(f"/proc/{pid}/oom_score_adj").strip()
    return facts


def differences(found, plan):
    return [(where, name, value, plan[where].get(name)) for where, facts in found.items() if isinstance(facts, dict)
            for name, value in facts.items() if value != plan[where].get(name)] + [(where, facts) for where, facts in found.items() if facts != plan[where]
                                                                                  and not isinstance(facts, dict)]


def refilled(own):
    """Waits until the launcher has made ahead what it keeps, or cannot."""
    with contextlib.suppress(AssertionError):
        host.wait_until(lambda: len(list(own.runtime.glob("sessions/bare-*.sock"))) >= AHEAD, REFILL_S, "bare sessions")


def creation_under(own, image, plan, call, action, number):
    """Creations with the fault there. Says whether it happened, and how many were refused."""
    api = own.client()
    made, refused = [], 0
    with Fault(own, call, action, number) as fault:
        for _ in range(CREATIONS):
            answer = api.post("/v1/sessions", {"image": image})
            if answer.status == 201:
                made.append(Session(api, answer.json))
            else:
                assert answer.status in (500, 503), answer
                refused += 1
            refilled(own)
        happened = fault.happened()
    for session in made:
        found = confinement(session)
        assert found == plan, f"{call} {action} {number}: not as planned: {differences(found, plan)}"
        session.delete()
    as_always(api, image, plan, f"{call} {action} {number}")
    api.close()
    return happened, refused


def as_always(api, image, plan, what):
    """Without the fault: what was made ahead with it is refused or whole, and what comes after it is whole."""
    for _ in range(2 * AHEAD):
        answer = api.post("/v1/sessions", {"image": image})
        if answer.status == 201:
            session = Session(api, answer.json)
            assert session.run("print(6 * 7)")["stdout"] == plan["stdout"], what
            session.delete()
            return
        assert answer.status in (500, 503), f"{what}: {answer}"
    raise AssertionError(f"{what}: no session can be made any more: {answer}")


def try_all(own, image, plan, call, action):
    happened = refused = 0
    step = (LIES_STEP if action == "retval=0" else STEP).get(call, 1)
    for number in range(1, MOST, step):
        here, no = creation_under(own, image, plan, call, action, number)
        own.assert_alive()
        if not here:
            break
        happened, refused = happened + 1, refused + no
    return happened, refused


@pytest.mark.parametrize("call", CHILD_ONLY + BOTH)
def test_a_call_that_fails(own, image, plan, call):
    happened, refused = try_all(own, image, plan, call, "error=EIO")
    print(f"{call}: {happened} faults, {refused} creations refused")
    assert happened > 0, f"{call} is not called any more: take it off the list"


@pytest.mark.parametrize("call", ["mount", "umount2", "pivot_root", "setresuid", "setsid", "capset", "execveat", "close_range", "seccomp"])
def test_a_child_that_is_killed(own, image, plan, call):
    happened, refused = try_all(own, image, plan, call, "signal=KILL")
    print(f"{call}: {happened} kills, {refused} creations refused")
    assert happened > 0


@pytest.mark.parametrize("call", ["mount", "umount2", "pivot_root", "setresuid", "setresgid", "setsid", "sethostname", "capset", "seccomp", "prctl", "close_range", "prlimit64"])
def test_a_call_that_lies(own, image, plan, call):
    """It says it worked and did nothing: what the check of the posture is for."""
    happened, refused = try_all(own, image, plan, call, "retval=0")
    print(f"{call}: {happened} skipped, {refused} creations refused")
    assert happened > 0
