"""What the host's kernel says, read from /proc and the control group file systems. The
tests believe this and not what a session says about itself."""
import os
import pathlib
import re
import time

PROC = pathlib.Path("/proc")


def wait_until(condition, bound_s, what):
    """Waits for something the host will show; polls, because /proc sends no events."""
    end = time.monotonic() + bound_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {bound_s} s: {what}")
        time.sleep(0.02)


def pids():
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def read(path):
    """Text of a /proc file; empty if the process is gone, or not even root may look."""
    try:
        return pathlib.Path(path).read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def link(path):
    try:
        return os.readlink(path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def status(pid):
    """Fields of /proc/<pid>/status; empty if it is gone."""
    return dict(line.split(":\t", 1) for line in read(PROC / str(pid) / "status").splitlines() if ":\t" in line)


def cmdline(pid):
    return [part for part in read(PROC / str(pid) / "cmdline").split("\0") if part]


def uid(pid):
    return int(status(pid).get("Uid", "-1").split()[0])


def state(pid):
    return status(pid).get("State", "X")[:1]


def namespace(pid, kind):
    """Like `pid:[4026532281]`: the number is the same inside a session and outside."""
    return link(PROC / str(pid) / "ns" / kind)


def in_pid_namespace(name):
    """Living processes, zombies too, whose PID namespace is this."""
    return [pid for pid in pids() if namespace(pid, "pid") == name]


def of_users(first, count):
    return [pid for pid in pids() if first <= uid(pid) < first + count]


def mounts(pid="self"):
    return sorted(line.split(" ", 2)[2] for line in read(PROC / str(pid) / "mountinfo").splitlines())


def descriptors(pid):
    """Number -> what it is, with the inode numbers taken out of pipes and sockets."""
    table = {}
    for name in os.listdir(PROC / str(pid) / "fd"):
        target = link(PROC / str(pid) / "fd" / name)
        if target:
            table[int(name)] = re.sub(r":\[\d+\]", ":[]", target)
    return table


def memory_kib(pid):
    """Private memory in use: what the process itself holds, without shared libraries."""
    text = read(PROC / str(pid) / "smaps_rollup")
    return sum(int(m) for m in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", text, re.M))


def cgroup_roots():
    roots = []
    for line in read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] in ("cgroup", "cgroup2"):
            roots.append(pathlib.Path(left.split()[4]))
    return roots


def cgroups_named(name):
    """Directories of the base group `name` and all below it, over all hierarchies."""
    found = []
    for root in cgroup_roots():
        for folder, below, _ in os.walk(root):
            if os.path.basename(folder) == name:
                found += [folder] + [os.path.join(f, d) for f, ds, _ in os.walk(folder) for d in ds]
                below.clear()
    return sorted(found)


def base_group(runtime_dir):
    """Name of the launcher's control group: FNV-1a of its runtime directory's path."""
    value = 0xCBF29CE484222325
    for byte in str(runtime_dir).encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"codespace-{value:016x}"


class SessionView:
    """A session as the host sees it, found by the inode number of its PID namespace."""

    def __init__(self, session):
        self.pid_namespace = session.shell("readlink /proc/self/ns/pid").strip()
        assert re.fullmatch(r"pid:\[\d+\]", self.pid_namespace), self.pid_namespace
        self.init = wait_until(self._find_init, 2, "the session's init among the host's processes")
        # An open namespace keeps its number: no later session can be taken for this one.
        self._held = open(f"/proc/{self.init}/ns/pid", "rb")

    def _find_init(self):
        for pid in self.members():
            if status(pid).get("NSpid", "").split()[-1:] == ["1"]:
                return pid
        return None

    def members(self):
        return in_pid_namespace(self.pid_namespace)

    def kernels(self):
        return [pid for pid in self.members() if "/opt/codespace/kernels/" in " ".join(cmdline(pid))
                and status(pid).get("PPid", "").strip() == str(self.init)]

    def strangers(self):
        """Members other than init and its kernels: what a run or command left running. A dead
        child that a living kernel has not waited for is the tenant's own business."""
        known = {self.init, *self.kernels()}
        return {pid: cmdline(pid) or status(pid).get("Name") for pid in self.members()
                if pid not in known and state(pid) not in "ZX"}

    def assert_nothing_runs(self, bound_s=2):
        """Helpers of a file operation may be ending: bounded, not immediate."""
        try:
            wait_until(lambda: not self.strangers(), bound_s, "an end of all the run had started")
        except AssertionError:
            raise AssertionError(f"still running: {self.strangers()}") from None
