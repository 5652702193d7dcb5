"""Sessions ended at random moments, a thousand times: nothing of them stays behind."""
import os
import random
import signal
import threading
import time

import pytest

import host
from client import Session
from deployment import own_deployment

KILLS = 1000
CLIENTS = 4


@pytest.fixture
def own(request, image):
    with own_deployment(request, image) as made:
        yield made


def children(pid):
    return [int(number) for number in host.read(f"/proc/{pid}/task/{pid}/children").split()]


def facts(own):
    return {
        "processes": len(host.of_users(own.id_first, own.id_count)),
        "control groups": len(host.cgroups_named(host.base_group(own.runtime))),
        "session directories": len(list((own.runtime / "sessions").iterdir())),
        "mounts of the host": len(host.mounts()),
        "mounts of the launcher": len(host.mounts(own.launcher.pid)),
        "launcher descriptors": len(host.descriptors(own.launcher.pid)),
        "egress descriptors": len(host.descriptors(own.egress.pid)),
        "namespaces": len({host.link(f"/proc/{pid}/ns/net") for pid in host.pids()} - {""}),
    }


def at_rest(own):
    """The counts once the pool is as large as it wants to be, which takes demand ten seconds to be forgotten."""
    last, same = None, 0
    for _ in range(60):
        time.sleep(1)  # nothing announces it
        now = facts(own)
        same = same + 1 if now == last else 0
        last = now
        if same >= 12:
            break
    return last


def test_a_thousand_random_ends(own, image):
    """Clients create, use and delete; meanwhile children of the launcher (sessions in use, in the making, in the pool, zygotes)
    are killed at random moments, and sessions deleted in the middle of what they do."""
    first = own.client()
    for _ in range(2):  # the usual image from now on
        Session.create(first, image=image).delete()
    before = at_rest(own)
    chance = random.Random(1000)
    done = {"killed": 0, "deleted": 0, "refused": 0, "served": 0}
    lock = threading.Lock()
    over = threading.Event()
    wrong = []

    def count(what):
        with lock:
            done[what] += 1

    def serve(seed):
        mine = random.Random(seed)
        api = own.client()
        while not over.is_set():
            answer = api.post("/v1/sessions", {"image": image, "network": {"mode": mine.choice(["none", "full"])}})
            if answer.status != 201:
                if answer.status not in (500, 503, 504):
                    wrong.append(repr(answer))
                count("refused")
                continue
            session = Session(api, answer.json)
            deleter = threading.Timer(mine.uniform(0, 0.03), lambda s=session: own_delete(s))
            deleter.start()
            for _ in range(mine.randrange(1, 3)):
                ran = session.try_run("import os; os.fork() or __import__('time').sleep(0.01)", mine.choice(["python", "javascript"]))
                if ran.status not in (200, 404, 409, 410, 500, 503):
                    wrong.append(repr(ran))
                count("served" if ran.status == 200 else "refused")
            deleter.join()
        api.close()

    def own_delete(session):
        api = own.client()
        answer = session.via(api).delete()
        if answer.status not in (204, 404, 410):
            wrong.append(repr(answer))
        count("deleted")
        api.close()

    threads = [threading.Thread(target=serve, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    bound = time.monotonic() + 240
    while done["killed"] < KILLS and time.monotonic() < bound and not wrong:
        time.sleep(chance.uniform(0, 0.02))
        born = children(own.launcher.pid)
        if not born:
            continue
        try:
            os.kill(chance.choice(born), signal.SIGKILL)
            count("killed")
        except ProcessLookupError:
            pass
    over.set()
    for thread in threads:
        thread.join()
    print(done)
    assert not wrong, wrong[:3]
    assert done["killed"] >= KILLS, done
    own.assert_alive()
    after = at_rest(own)
    # The gateway keeps up to four connections to the launcher.
    more = {name: 4 if name == "launcher descriptors" else 2 for name in before}
    assert {name: (before[name], after[name]) for name in before if after[name] > before[name] + more[name]} == {}
    assert first.get("/v1/sessions").ok()["total"] == 0
    session = Session.create(first, image=image)
    assert session.run("print('as before')")["stdout"] == "as before\n"
    session.delete()
    first.close()
