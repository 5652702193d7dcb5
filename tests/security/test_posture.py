"""The confinement of every process, read from the host. Nothing here asks the session."""
import glob
import os
import re

import pytest

import host

SEVEN = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
# Init keeps CAP_SETGID, CAP_SETUID and CAP_KILL in the session's own namespace.
INIT_CAPABILITIES = 0b11100000


@pytest.fixture(scope="module")
def used(deployment, image):
    """A session with both kernels, a command in the background, and a view of it."""
    from client import Session

    api = deployment.client()
    made = Session.create(api, image=image)
    made.run("1")
    made.run("1", "javascript")
    made.command("sleep 600 & echo")
    yield made, host.SessionView(made)
    made.delete()
    api.close()


def tenants(view):
    found = [pid for pid in view.members() if pid != view.init]
    assert len(found) >= 3, "expected two kernels and the sleeper"
    return found


def capabilities(pid):
    facts = host.status(pid)
    return {name: int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def maps(pid, kind="uid_map"):
    return [tuple(int(word) for word in line.split()) for line in host.read(f"/proc/{pid}/{kind}").splitlines()]


def test_gateway_has_no_privilege(deployment):
    """The gateway is not root, holds no capability and can gain none."""
    pid = deployment.gateway.pid
    facts = host.status(pid)
    assert all(int(number) != 0 for number in facts["Uid"].split() + facts["Gid"].split()), facts["Uid"]
    assert set(capabilities(pid).values()) == {0}, capabilities(pid)
    assert facts["NoNewPrivs"] == "1"
    assert facts["Groups"].split() in ([], [facts["Gid"].split()[0]]), facts["Groups"]
    assert host.namespace(pid, "user") == host.namespace("self", "user")


def test_gateway_never_forks(deployment, used):
    """The gateway has no child process."""
    children = [pid for pid in host.pids() if host.status(pid).get("PPid", "").strip() == str(deployment.gateway.pid)]
    assert children == []


def test_launcher_has_no_capability_on_the_host(deployment):
    """The launcher lives in a user namespace of its own; over the host's it has no capability, and host id 0 is not mapped."""
    pid = deployment.launcher.pid
    assert host.namespace(pid, "user") != host.namespace("self", "user")
    assert host.status(pid)["NoNewPrivs"] == "1"
    assert host.uid(pid) != 0
    for kind in ("uid_map", "gid_map"):
        for inside, outside, count in maps(pid, kind):
            assert outside > 0 and outside + count <= 1 << 32, (kind, inside, outside, count)
    assert host.read(f"/proc/{pid}/setgroups").strip() == "deny"
    assert host.namespace(pid, "mnt") != host.namespace("self", "mnt")
    points = [line.split()[2] for line in host.mounts(pid)]
    assert "/usr" in points and not {"/home", "/root", "/var", "/etc", "/boot"} & set(points), points


def test_launcher_is_small(deployment):
    """The launcher is one thread, with no network socket and no file of the host open for writing but its lock and
    the ways into the control groups of sessions made ahead."""
    pid = deployment.launcher.pid
    assert host.status(pid)["Threads"] == "1"
    control_groups = {os.stat(path).st_dev for path in glob.glob("/sys/fs/cgroup/*") + ["/sys/fs/cgroup"]}
    for number, target in host.descriptors(pid).items():
        if number > 2 and target.startswith("/") and not target.startswith(("/memfd:", "/sys/fs/cgroup", "/proc")):
            flags = int(host.read(f"/proc/{pid}/fdinfo/{number}").split("flags:")[1].split()[0], 8)
            is_way_in = target.endswith("/tasks") and os.stat(f"/proc/{pid}/fd/{number}").st_dev in control_groups
            assert flags & os.O_ACCMODE == os.O_RDONLY or target.endswith("launcher.lock") or is_way_in, (number, target)


def test_namespaces_differ(deployment, used):
    """All seven namespaces of a session differ from the host's and the launcher's, and are the same for all its processes."""
    _, view = used
    for kind in SEVEN:
        own = host.namespace(view.init, kind)
        assert own and own not in (host.namespace("self", kind), host.namespace(deployment.launcher.pid, kind)), kind
        assert {host.namespace(pid, kind) for pid in view.members()} == {own}, kind


def test_namespaces_of_two_sessions_differ(used, make_session):
    """Two sessions share no namespace and no id range."""
    _, view = used
    other = host.SessionView(make_session())
    for kind in SEVEN:
        assert host.namespace(view.init, kind) != host.namespace(other.init, kind), kind
    ranges = [{n for _, first, count in maps(v.init) for n in range(first, first + count)} for v in (view, other)]
    assert not ranges[0] & ranges[1]


def test_id_maps(deployment, used):
    """A session maps ids of the configured range only, never host id 0, and cannot change its groups."""
    _, view = used
    for kind in ("uid_map", "gid_map"):
        for pid in (view.init, *tenants(view)):
            assert maps(pid, kind), (pid, kind)
            for inside, outside, count in maps(pid, kind):
                assert deployment.id_first <= outside and outside + count <= deployment.id_first + deployment.id_count, (inside, outside, count)
    assert host.read(f"/proc/{view.init}/setgroups").strip() == "deny"


def test_four_different_users(deployment, used):
    """Gateway, launcher, init and tenant run under four different users of the host, none of them root."""
    _, view = used
    users = [host.uid(deployment.gateway.pid), host.uid(deployment.launcher.pid), host.uid(view.init)]
    tenant = {host.uid(pid) for pid in tenants(view)}
    assert len(tenant) == 1
    users += tenant
    assert len(set(users)) == 4 and 0 not in users, users


def test_tenant_processes(used):
    """Every process of the tenant: no capability in any set, no_new_privs, two filters, no descriptor of the host."""
    _, view = used
    for pid in tenants(view):
        facts = host.status(pid)
        assert set(capabilities(pid).values()) == {0}, (pid, capabilities(pid))
        assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2" and int(facts["Seccomp_filters"]) == 2, (pid, facts)
        assert facts["Groups"].strip() == ""
        for number, target in host.descriptors(pid).items():
            assert target == "/dev/null" or target.startswith(("pipe:", "socket:", "anon_inode:", "/dev/pts/", "/dev/urandom", "/dev/random")), (pid, number, target)


def test_kernel_descriptors(used):
    """A kernel that has just started holds its three streams and its control channel, and nothing that leads out."""
    _, view = used
    for pid in view.kernels():
        if "kernel.py" in " ".join(host.cmdline(pid)):
            table = host.descriptors(pid)
            sockets = [number for number, target in table.items() if target.startswith("socket:")]
            assert table[0] == "/dev/null" and len(sockets) == 1, table


def test_init(used):
    """Init keeps three capabilities over its own namespace, can gain none, has an empty environment, and is a sealed memory file."""
    _, view = used
    pid = view.init
    sets = capabilities(pid)
    assert sets["CapEff"] == sets["CapPrm"] == INIT_CAPABILITIES and sets["CapBnd"] == sets["CapAmb"] == 0, sets
    facts = host.status(pid)
    assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2" and int(facts["Seccomp_filters"]) == 2
    assert host.link(f"/proc/{pid}/exe").startswith("/memfd:codespace-init")
    assert host.read(f"/proc/{pid}/environ") == ""
    assert host.read(f"/proc/{pid}/limits").split("Max core file size")[1].split()[:2] == ["1", "1"]
    for number, target in host.descriptors(pid).items():
        assert target == "/dev/null" or target.startswith(("socket:", "pipe:", "anon_inode:", "/")), (number, target)
        assert not target.startswith(("/etc", "/root", "/home", "/var", "/run/codespace")), (number, target)


def test_init_opens_nothing_for_writing_but_groups(used):
    """Of the host's files init holds directories of its own control groups, and files in them, alone."""
    _, view = used
    own = re.compile(r"^/s\d+/user/[^/]+/memory\.(peak|max_usage_in_bytes)$")
    for number, target in host.descriptors(view.init).items():
        if target.startswith("/") and target != "/dev/null" and "memfd" not in target:
            flags = int(host.read(f"/proc/{view.init}/fdinfo/{number}").split("flags:")[1].split()[0], 8)
            assert flags & os.O_DIRECTORY or flags & os.O_ACCMODE == os.O_RDONLY or own.search(target), (number, target, oct(flags))


def test_session_is_in_its_groups(deployment, used):
    """Each process of a session is in a control group below the launcher's, with memory and process limits on it."""
    session, view = used
    base = host.base_group(deployment.runtime)
    for pid in view.members():
        groups = host.read(f"/proc/{pid}/cgroup")
        paths = {line.split(":", 2)[1]: line.split(":", 2)[2] for line in groups.splitlines()}
        controllers = ["memory", "pids"] if any("memory" in key for key in paths) else [""]
        for controller in controllers:
            path = next(path for key, path in paths.items() if controller in key.split(",") or key == controller)
            assert base in path, (pid, controller, path)
    limit = session.record["limits"]["memory_bytes"]
    found = [host.read(f"{group}/{name}").strip() for group in host.cgroups_named(base) for name in ("memory.max", "memory.limit_in_bytes")]
    assert any(value.isdigit() and limit <= int(value) <= limit + (64 << 20) for value in found), found


def test_sockets_are_for_the_gateway_alone(deployment, used):
    """The launcher's and the sessions' sockets can be reached by the gateway's group and by nobody else."""
    for path in (deployment.runtime, deployment.runtime / "sessions"):
        assert os.stat(path).st_mode & 0o007 == 0, path
    assert os.stat(deployment.runtime / "launcher.sock").st_mode & 0o007 == 0


def test_out_of_memory_order(deployment, used):
    """When the machine runs out of memory, tenants go first."""
    _, view = used
    score = lambda pid: int(host.read(f"/proc/{pid}/oom_score_adj"))  # noqa: E731
    for pid in tenants(view):
        assert score(pid) >= 500 > max(score(deployment.gateway.pid), score(deployment.launcher.pid)), pid


def test_control_groups_lead_nowhere(used):
    """Init's descriptors of control groups are within a mount of their own, whose root is the launcher's base group:
    however many `..` follow, they end there and not in the host's root."""
    _, view = used
    groups = [fd for fd in os.listdir(f"/proc/{view.init}/fd") if os.path.exists(f"/proc/{view.init}/fd/{fd}/cgroup.procs")]
    assert groups
    for fd in groups:
        top = f"/proc/{view.init}/fd/{fd}/" + "../" * 40
        assert not os.path.exists(top + "usr") and not os.path.exists(top + "proc"), os.listdir(top)
        assert os.path.exists(top + "cgroup.procs"), os.listdir(top)
