"""Ten thousand sessions created, used and deleted on one daemon: what the last thousand cost is what the first thousand cost."""
import sqlite3
import threading
import time

import pytest

import host
from client import Session
from deployment import own_deployment
from test_leaks import quiet

THOUSANDS, EACH, CLIENTS = 10, 1000, 2
# Of resident memory, between the end of the first thousand and that of the last. The allocator's arenas and SQLite's
# page cache (2 MiB) fill up on the way; one leaked KiB a session would be nine MiB.
GATEWAY_GROWTH_KIB, LAUNCHER_GROWTH_KIB = 6144, 512
LOG_SLACK, TIME_SLACK = 1.05, 2.0


@pytest.fixture
def own(request, image):
    with own_deployment(request, image, config="[pool]\nsize = 2\nmost = 2\ndata = 0\njavascript = 0\n") as made:
        yield made


def work(own, image, count, failures):
    api = own.client()
    try:
        for n in range(count):
            session = Session.create(api, image=image, labels={"n": str(n)})
            assert session.run(f"print({n})")["stdout"] == f"{n}\n"
            assert session.delete().status == 204
    except Exception as broken:  # pylint: disable=broad-except
        failures.append(repr(broken))
    finally:
        api.close()


def rows(own):
    with sqlite3.connect(f"file:{own.state}/codespace.db?mode=ro", uri=True) as db:
        return {table: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("sessions", "labels", "claims")}


def resident_kib(pid):
    """Of the launcher, whose private memory changes with whether a child that shares its pages is just being made."""
    return int(host.status(pid)["VmRSS"].split()[0])


def facts(own):
    return {"gateway KiB": host.memory_kib(own.gateway.pid), "launcher KiB": resident_kib(own.launcher.pid), "log bytes": (own.logs / "gateway.log").stat().st_size,
            "launcher log bytes": (own.logs / "launcher.log").stat().st_size, **{f"rows of {table}": n for table, n in rows(own).items()}}


def test_ten_thousand_sessions(own, image, capsys):
    failures, history, took = [], [facts(own)], []
    for thousand in range(THOUSANDS):
        began = time.monotonic()
        threads = [threading.Thread(target=work, args=(own, image, EACH // CLIENTS, failures)) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        took.append(time.monotonic() - began)
        if thousand == 0:
            counts = quiet(own)
        history.append(facts(own))
    after = quiet(own)
    first, last = history[1], history[-1]
    with capsys.disabled():
        print(f"\n{THOUSANDS * EACH} sessions, seconds per thousand {took[0]:.1f} first, {took[-1]:.1f} last; after the first thousand {first}, after the last {last}")
    # A kept connection more or less; everything else is the same number.
    for name, count in counts.items():
        assert abs(after[name] - count) <= (6 if "descriptors" in name else 0), f"{name}: {count} after the first thousand, {after[name]} after the last"
    assert last["gateway KiB"] - first["gateway KiB"] < GATEWAY_GROWTH_KIB
    assert last["launcher KiB"] - first["launcher KiB"] < LAUNCHER_GROWTH_KIB
    # One row is kept of each ended session, for seven days, and nothing else.
    assert last["rows of sessions"] == THOUSANDS * EACH and last["rows of claims"] == 0 and last["rows of labels"] == THOUSANDS * EACH
    of_first, of_last = (history[i]["log bytes"] - history[i - 1]["log bytes"] for i in (1, THOUSANDS))
    assert of_last < LOG_SLACK * of_first, f"log bytes of a thousand sessions: {of_first} at first, {of_last} at last"
    assert last["launcher log bytes"] == first["launcher log bytes"]
    assert took[-1] < TIME_SLACK * took[0] + 5
