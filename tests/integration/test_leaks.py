"""Two hundred sessions created, used and deleted leave the machine as it was: mounts, control
groups, processes, sockets, descriptors of both daemons, and their memory."""
import time

import host
from client import Session

ROUNDS = 200
WARM_UP = 40
# The allocator keeps some of what a run needed, and the gateway the records of finished
# runs, which is bounded by count and size; per session this would be more than 20 KiB.
GATEWAY_GROWTH_KIB = 4096
LAUNCHER_GROWTH_KIB = 256
# A keep-alive connection, or a spare session that is just being made.
DESCRIPTORS = 6


def one_round(api, image, n):
    session = Session.create(api, image=image, labels={"n": str(n)})
    assert session.run(f"print({n})")["stdout"] == f"{n}\n"
    assert session.shell("echo x; sleep 100 >/dev/null 2>&1 &") == "x\n"
    session.put("f", b"x" * 10_000).ok(201)
    assert session.read("f").status == 200
    assert session.delete().status == 204


def facts(deployment):
    sessions = deployment.runtime / "sessions"
    return {
        "mounts of the host": len(host.mounts()),
        "mounts of the launcher": len(host.mounts(deployment.launcher.pid)),
        "control groups": len(host.cgroups_named(host.base_group(deployment.runtime))),
        "processes": len(host.of_users(deployment.id_first, deployment.id_count)),
        "sockets": len(list(sessions.iterdir())),
        "gateway descriptors": len(host.descriptors(deployment.gateway.pid)),
        "launcher descriptors": len(host.descriptors(deployment.launcher.pid)),
        "gateway threads": int(host.status(deployment.gateway.pid)["Threads"]),
    }


def quiet(deployment):
    """The counts once the pool of ready sessions has come down from what many creations made of
    it: demand counts for ten seconds."""
    last, same, waited = None, 0, 0
    while same < 5 and waited < 60:
        time.sleep(1)  # nothing announces that a pool is at rest
        now = facts(deployment)
        same, waited, last = (same + 1 if now == last and waited > 12 else 0), waited + 1, now
    return last


def test_two_hundred_sessions(deployment, api, image):
    """What is counted before is what is counted after."""
    for n in range(WARM_UP):
        one_round(api, image, n)
    before = quiet(deployment)
    gateway, launcher = (host.memory_kib(d.pid) for d in (deployment.gateway, deployment.launcher))
    for n in range(ROUNDS):
        one_round(api, image, n)

    def settled():
        after = facts(deployment)
        return all(abs(after[name] - before[name]) <= (DESCRIPTORS if "descriptors" in name else 0) for name in before)

    try:
        host.wait_until(settled, 40, "the counts of before")
    except AssertionError:
        raise AssertionError(f"before {before}\nafter  {facts(deployment)}") from None
    grown = host.memory_kib(deployment.gateway.pid) - gateway
    assert grown < GATEWAY_GROWTH_KIB, f"the gateway grew by {grown} KiB over {ROUNDS} sessions"
    grown = host.memory_kib(deployment.launcher.pid) - launcher
    assert grown < LAUNCHER_GROWTH_KIB, f"the launcher grew by {grown} KiB over {ROUNDS} sessions"


def test_deletion_is_fast_and_complete_under_load(deployment, make_session):
    """Twenty sessions at once, each with processes and files, are gone when their deletions answer."""
    sessions = [make_session() for _ in range(20)]
    for session in sessions:
        session.command("for i in 1 2 3; do setsid sleep 200 & done; head -c 1000000 /dev/zero > f; echo")
    views = [host.SessionView(session) for session in sessions]
    for session in sessions:
        assert session.delete().status == 204
    assert [view.members() for view in views] == [[]] * 20
