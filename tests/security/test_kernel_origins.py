"""A kernel is the same to the host whether it was executed, forked from a zygote, or had been
waiting in the pool; and every one of these ways, and each fallback, is taken when it should be."""
import os
import signal
import time

import pytest

import host
from client import Session
from deployment import Deployment

OFF = "[pool]\nsize = 0\ndata = 0\n"
CONFIGURATIONS = {"cold": OFF + "[kernels]\nzygotes = 0\n", "zygote": OFF, "pool": "[pool]\nsize = 2\ndata = 1\n"}
# Fields of /proc/PID/status that a birth must not change.
STATUS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters", "Umask",
          "SigBlk", "SigIgn", "SigCgt", "Groups", "Threads", "TracerPid", "Speculation_Store_Bypass")
RECVMSG = ("47", "212")  # its number on x86-64 and arm64
SEVEN = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")


def zygotes(deployment):
    found = {}
    for pid in host.pids():
        words = host.cmdline(pid)
        if words[-2:-1] == ["zygote"] and host.status(pid).get("PPid", "").strip() == str(deployment.launcher.pid):
            found[words[-1]] = pid
    return found


def wait_for_zygotes(deployment, flavours=("min",)):
    """A zygote is ready when it waits for the launcher in recvmsg(2)."""
    def ready():
        running = zygotes(deployment)
        return all(f in running and host.read(f"/proc/{running[f]}/syscall").split(" ")[0] in RECVMSG for f in flavours)
    host.wait_until(ready, 60, f"zygotes {flavours}")
    time.sleep(0.1)  # the launcher reads the zygote's word a moment later


@pytest.fixture(scope="module")
def deployments(request):
    made, left = {}, []
    try:
        for kind, config in CONFIGURATIONS.items():
            made[kind] = Deployment(request.config.getoption("--build"), request.config.getoption("--images"),
                                    request.config.getoption("--image"))
            made[kind].config = config
            made[kind].start()
        wait_for_zygotes(made["zygote"])
        wait_for_zygotes(made["pool"], ("min", "data"))
        host.wait_until(lambda: pooled(made["pool"]) >= 3, 30, "three ready sessions")
        yield made
    finally:
        for deployment in made.values():
            left += deployment.finish()
    assert not left, "\n".join(left)


def pooled(deployment):
    return len([name for name in os.listdir(deployment.runtime / "sessions") if name.startswith("pool-")])


def bare(deployment):
    """Inodes of the sockets of the complete sessions without a kernel."""
    return {entry.inode() for entry in os.scandir(deployment.runtime / "sessions") if entry.name.startswith("bare-")}


def wait_for_bare(deployment):
    """Two creations of an image in a row make it the usual one."""
    api = deployment.client()
    for _ in range(2):
        Session.create(api, image=deployment.image).delete()
    api.close()
    host.wait_until(lambda: len(bare(deployment)) == 2, 10, "two bare sessions")


@pytest.fixture
def new_session(deployments):
    made, clients = [], []

    def make(kind, **fields):
        api = deployments[kind].client()
        clients.append(api)
        made.append(Session.create(api, image=deployments[kind].image, **fields))
        return made[-1]

    yield make
    for session in made:
        session.delete()
    for api in clients:
        api.close()


def python_kernel(session):
    view = host.SessionView(session)
    kernels = [pid for pid in view.kernels() if "/python/" in " ".join(host.cmdline(pid))]
    assert len(kernels) == 1, kernels
    return view, kernels[0]


def groups(pid):
    """Controller -> path of the control group below the session's, with its numbers taken out."""
    table = {}
    for line in host.read(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        parts = path.split("/")
        below = [i for i, part in enumerate(parts) if part.startswith("codespace-")]
        table[controllers] = "/".join("".join(c for c in part if not c.isdigit()) for part in parts[below[0] + 1:]) if below else ""
    return table


def posture(session):
    view, pid = python_kernel(session)
    status = host.status(pid)
    base = min(int(line.split()[1]) for line in host.read(f"/proc/{view.init}/uid_map").splitlines())
    facts = {name: status.get(name, "").strip() for name in STATUS}
    facts |= {kind: [int(number) - base for number in status[kind].split()] for kind in ("Uid", "Gid")}
    facts |= {f"shares {kind} with init": host.namespace(pid, kind) == host.namespace(view.init, kind) for kind in SEVEN}
    facts["parent is init"] = status["PPid"].strip() == str(view.init)
    facts["leads its session"] = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[3] == str(pid)
    facts["terminal"] = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[4]
    facts["descriptors"] = {n: t for n, t in host.descriptors(pid).items()}
    facts["limits"] = host.read(f"/proc/{pid}/limits")
    facts["groups"] = groups(pid)
    facts["command"] = host.cmdline(pid)
    facts["environment"] = sorted(v for v in host.read(f"/proc/{pid}/environ").split("\0") if v)
    facts["oom_score_adj"] = host.read(f"/proc/{pid}/oom_score_adj")
    facts["cwd"] = host.link(f"/proc/{pid}/cwd")
    facts["root"] = host.link(f"/proc/{pid}/root")
    facts["owner of its files"] = os.stat(f"/proc/{pid}/fd").st_uid - base
    facts["coredump"] = host.read(f"/proc/{pid}/coredump_filter")
    facts["personality"] = host.read(f"/proc/{pid}/personality")
    facts["nice"] = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()[16]
    return facts


def test_posture_is_the_same(deployments, new_session):
    """Everything the host shows of a kernel is equal for all origins."""
    seen = {}
    for kind, origin in (("cold", "cold"), ("zygote", "zygote"), ("pool", "zygote")):
        session = new_session(kind)
        assert session.run("x = 1")["kernel_origin"] == origin, kind
        seen[kind] = posture(session)
    wait_for_bare(deployments["zygote"])
    session = new_session("zygote")
    assert session.run("x = 1")["kernel_origin"] == "zygote"
    seen["bare"] = posture(session)
    for kind in ("zygote", "pool", "bare"):
        different = {name: (seen["cold"][name], seen[kind][name]) for name in seen["cold"] if seen["cold"][name] != seen[kind][name]}
        assert not different, f"{kind}: {different}"
    assert seen["cold"]["Seccomp_filters"] == "2" and set(seen["cold"][c] for c in STATUS[:5]) == {"0000000000000000"}


@pytest.mark.parametrize("kind, origin", [("zygote", "zygote"), ("cold", "cold")])
def test_a_bare_session_becomes_the_one_that_was_asked_for(deployments, new_session, kind, origin):
    """Taken when there is no pool; its limits are those of the request; the next one takes its place."""
    wait_for_bare(deployments[kind])
    before = bare(deployments[kind])
    session = new_session(kind, limits={"memory_bytes": 384 << 20, "workspace_bytes": 32 << 20, "pids": 77})
    assert os.stat(deployments[kind].socket_of(session)).st_ino in before
    disk = os.statvfs(f"/proc/{host.SessionView(session).init}/root/workspace")
    assert disk.f_blocks * disk.f_frsize == 32 << 20
    assert session.run("1 + 1")["kernel_origin"] == origin
    shown = session.api.get(f"/v1/sessions/{session.id}").ok()["limits"]
    assert (shown["memory_bytes"], shown["pids"]) == (384 << 20, 77)
    host.wait_until(lambda: len(bare(deployments[kind])) == 2, 10, "the next bare session")


@pytest.mark.parametrize("kind", ["zygote", "pool"])
def test_kernel_is_in_every_group_of_its_session(new_session, kind):
    """A kernel from a zygote is limited in cpu and frozen with its session like init."""
    session = new_session(kind, limits={"cpus": 0.5})
    used = session.run("import time\nt = time.process_time(), time.monotonic()\n"
                       "while time.monotonic() < t[1] + 2: pass\nprint(time.process_time() - t[0])")
    assert float(used["stdout"]) < 1.6, "half a processor for two seconds"
    _, pid = python_kernel(session)
    session.api.post(session.path + "/pause", {}).ok(200)
    group = [line for line in host.read(f"/proc/{pid}/cgroup").splitlines() if ":freezer:" in line or line.startswith("0::")]
    assert any("codespace-" in line for line in group), group
    session.api.post(session.path + "/resume", {}).ok(200)
    assert session.run("print(2)")["stdout"] == "2\n"


RANDOM = """
import os, random, secrets, tempfile, uuid
print([random.random(), str(uuid.uuid4()), secrets.token_hex(8), os.urandom(8).hex(), tempfile.mktemp()] + NUMPY)
"""


@pytest.mark.parametrize("flavour", ["min", "data"])
def test_children_of_one_zygote_draw_different_numbers(deployments, new_session, flavour):
    """No generator is shared by two sessions whose kernels have the same parent."""
    wait_for_zygotes(deployments["pool"], ("min", "data"))
    numpy = "[__import__('numpy').random.rand()]" if flavour == "data" else "[]"
    drawn = []
    for _ in range(2):
        session = new_session("pool", flavour=flavour)
        record = session.run(RANDOM.replace("NUMPY", numpy))
        assert record["kernel_origin"] == "zygote", record
        drawn.append(eval(record["stdout"]))  # noqa: S307  our own list, printed
    assert all(a != b for a, b in zip(*drawn)), drawn


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_what_c_code_prints_is_in_the_run_that_printed_it(new_session, kind):
    session = new_session(kind)
    session.run("x = 1")
    assert session.run("import ctypes\nctypes.CDLL(None).puts(b'from C')\nx")["stdout"] == "from C\n"
    assert session.run("print('later')")["stdout"] == "later\n"


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_the_first_run_can_be_interrupted_and_the_next_is_charged_for_itself(new_session, kind):
    session = new_session(kind)
    late = session.run("while True: pass", timeout_s=1)
    assert (late["outcome"], late["context_reset"]) == ("timed_out", False)
    after = session.run("1")
    assert after["outcome"] == "ok" and not after["context_reset"]
    assert after["cpu_ms"] < 500, after  # nothing of the second before it


def test_environment_and_limits_are_set_at_hand_over(deployments, new_session):
    """What a request asks for holds in a session that was made before it was asked for."""
    host.wait_until(lambda: pooled(deployments["pool"]) >= 2, 30, "a ready session")
    session = new_session("pool", env={"GREETING": "hello"}, labels={"a": "b"},
                          limits={"memory_bytes": 200 << 20, "workspace_bytes": 3 << 20, "pids": 40})
    assert session.run("import os; print(os.environ['GREETING'])")["stdout"] == "hello\n"
    assert session.run("console.log(process.env.GREETING)", "javascript")["stdout"] == "hello\n"
    assert session.shell("df -k --output=size /workspace | tail -1").strip() == "3072"
    assert session.run("x = bytearray(400 << 20)")["outcome"] == "out_of_memory"
    assert session.get().json["labels"] == {"a": "b"}


def test_first_cell_with_libraries_gets_them_preloaded(deployments, new_session):
    """A first cell that imports numpy gets a kernel that has it; a later one keeps its context."""
    wait_for_zygotes(deployments["zygote"], ("min", "data"))
    session = new_session("zygote")
    record = session.run("import sys\nloaded = 'pandas' in sys.modules\nimport numpy as np\nprint(loaded)")
    assert (record["kernel_origin"], record["stdout"]) == ("zygote", "True\n")
    other = new_session("zygote")
    other.run("kept = 5")
    assert other.run("import numpy\nprint(kept)")["stdout"] == "5\n"


def test_javascript_is_there_ahead(deployments, new_session):
    """A single run of JavaScript has its Node.js started, and so have the sessions of who ran some."""
    api = deployments["pool"].client()
    body = {"image": deployments["pool"].image, "language": "javascript", "code": "1 + 1"}
    host.wait_until(lambda: api.post("/v1/runs", body).ok()["kernel_origin"] == "ahead", 30, "a single run that finds Node.js")
    api.close()
    host.wait_until(lambda: new_session("pool").run("1 + 1", "javascript")["kernel_origin"] == "ahead", 30, "a session that has Node.js")


def test_broken_zygote_falls_back_to_the_cold_start(deployments, new_session):
    """With its zygote killed a session starts its kernel cold, and a new zygote comes up."""
    killed = zygotes(deployments["zygote"])["min"]
    os.kill(killed, signal.SIGKILL)
    session = new_session("zygote")
    assert session.run("print(1)")["stdout"] == "1\n"

    def again():
        probe = new_session("zygote")
        return probe.run("1")["kernel_origin"] == "zygote"
    host.wait_until(again, 30, "a kernel from a new zygote")
    assert zygotes(deployments["zygote"])["min"] != killed


def test_stopped_zygote_does_not_hold_up_sessions(deployments, new_session):
    """A zygote that does not answer costs its sessions a bounded wait, once."""
    wait_for_zygotes(deployments["zygote"])
    stopped = zygotes(deployments["zygote"])["min"]
    os.kill(stopped, signal.SIGSTOP)
    session = new_session("zygote")
    record = session.run("print(1)")
    assert (record["stdout"], record["kernel_origin"]) == ("1\n", "cold")
    host.wait_until(lambda: zygotes(deployments["zygote"]).get("min") != stopped, 30, "an end of the zygote that hangs")


def test_a_kernel_that_does_not_come_holds_up_no_pause(deployments, new_session):
    """Init counts the time of a kernel that is on its way also where no run waits for it."""
    # Until the zygote is there; and the image is the usual one then, so sessions without a kernel are kept of it.
    host.wait_until(lambda: new_session("zygote").run("1")["kernel_origin"] == "zygote", 30, "a kernel from a zygote")
    new_session("zygote").run("1")
    host.wait_until(lambda: "bare" in "".join(os.listdir(deployments["zygote"].runtime / "sessions")), 30, "a bare session")
    time.sleep(0.2)  # its init is asked to expect a kernel
    stopped = zygotes(deployments["zygote"])["min"]
    os.kill(stopped, signal.SIGSTOP)
    session = new_session("zygote")
    assert session.api.post(f"{session.path}/pause", {}).status == 200
    assert zygotes(deployments["zygote"])["min"] == stopped  # it was not the end of the zygote, two seconds later, that let go
    assert session.api.post(f"{session.path}/resume", {}).status == 200
    assert session.run("print(1)")["stdout"] == "1\n"


def test_a_killed_kernel_is_replaced_cold(new_session):
    """No zygote forks into a session that was used: the replacement is executed."""
    session = new_session("zygote")
    session.run("1")
    _, pid = python_kernel(session)
    os.kill(pid, signal.SIGKILL)
    host.wait_until(lambda: session.run("1")["kernel_origin"] == "cold", 10, "a cold kernel")


def test_nothing_of_a_timed_out_run_goes_on(new_session):
    """Native threads and timers of a run that was ended by force stand still until the next run."""
    session = new_session("zygote")
    code = ("import ctypes, threading, time\n"
            "def tick():\n"
            "    while True:\n"
            "        try:\n            open('/tmp/ticks', 'a').write('x'); time.sleep(0.01)\n"
            "        except BaseException: pass\n"
            "import signal\n"
            "signal.signal(signal.SIGALRM, lambda *_: open('/tmp/ticks', 'a').write('y'))\n"
            "signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)\n"
            "while True: time.sleep(1)\n")
    record = session.run(code, timeout_s=1)
    assert record["outcome"] == "timed_out"
    sizes = []
    for _ in range(2):
        sizes.append(session.stat("/tmp/ticks").json["size"])
        time.sleep(0.5)
    assert sizes[0] == sizes[1], "it writes on"
    assert session.run("print(1)")["stdout"] == "1\n"
