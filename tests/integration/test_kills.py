"""A gateway that is killed again and again, under load: every variable is still there, every run happened once, no answer was wrong."""
import random
import signal
import time

import pytest

from counting import Callers
from deployment import own_deployment

KILLS, SESSIONS, CLIENTS = 50, 100, 8


@pytest.fixture
def own(request, image):
    with own_deployment(request, image, config="[session]\nidle_timeout_s = 0\n[pool]\njavascript = 0\n") as made:
        yield made


def test_fifty_kills_under_load(own, image, capsys):
    seed = random.randrange(2**32)
    choice = random.Random(seed)
    callers = Callers(own.client, image, CLIENTS, SESSIONS, seed).start()
    try:
        for _ in range(KILLS):
            time.sleep(choice.uniform(0.02, 0.4))
            own.stop_gateway(signal.SIGKILL)
            own.start_gateway()
    finally:
        callers.stop()
    callers.check_all()
    with capsys.disabled():
        print(f"\n{KILLS} kills: {callers} (seed {seed})")
    assert not callers.mistakes, callers.mistakes[:10]
    assert callers.runs > 10 * KILLS, "the load was no load"
    api = own.client()
    listed = set()
    page = api.get("/v1/sessions?limit=100").ok()
    listed |= {s["session_id"] for s in page["sessions"]}
    while page.get("next_cursor"):
        page = api.get(f"/v1/sessions?limit=100&cursor={page['next_cursor']}").ok()
        listed |= {s["session_id"] for s in page["sessions"]}
    api.close()
    assert listed == {one.session.id for one in callers.counted}, "a session was lost or invented"
    callers.delete_all()
