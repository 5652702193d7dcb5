"""What a key may do: scopes, sessions, requests a minute."""
import subprocess

import pytest

from client import Session


@pytest.fixture
def caller(deployment):
    """Makes a client with a key of its own."""
    made = []

    def make(*options):
        made.append(deployment.client(deployment.second_key(*options)))
        return made[-1]

    yield make
    for client in made:
        client.close()


def test_scopes(caller, deployment, image, session):
    viewer, scraper, worker = caller("--scopes", "read"), caller("--scopes", "metrics"), caller("--scopes", "use")
    assert viewer.get("/v1/images").ok() and viewer.get("/v1/sessions").ok()["total"] == 0
    problem = viewer.post("/v1/sessions", {"image": image}).problem(403, "forbidden")
    assert "`read`" in problem["detail"] and "`use`" in problem["detail"]
    viewer.get("/metrics").problem(403, "forbidden")
    assert scraper.get("/metrics").status == 200
    scraper.get("/v1/sessions").problem(403, "forbidden")
    own = Session.create(worker, image=image)
    assert own.run("1")["outcome"] == "ok"
    own.delete()
    worker.get("/metrics").problem(403, "forbidden")
    form = f"Action=ListSession&Authorization=Bearer%20{viewer.key}".encode()
    answer = viewer.request("POST", "/", body=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 403 and answer.json["Code"], answer


def test_sessions_of_a_key(caller, api, image):
    one = caller("--max-sessions", "2")
    made = [Session.create(one, image=image) for _ in range(2)]
    refused = one.post("/v1/sessions", {"image": image})
    assert "2 sessions" in refused.problem(429, "quota_exceeded")["detail"] and int(refused.headers["retry-after"]) >= 1
    Session.create(api, image=image).delete()  # another key's are not counted
    made.pop().delete()
    made.append(Session.create(one, image=image))
    for session in made:
        session.delete()


def test_limits_of_a_key(caller, image):
    """What its sessions get that ask for nothing else, and what they get at most; the answer shows it, and it holds."""
    api = caller("--limits", "memory_bytes=134217728 pids=40", "--most", "cpus=0.5 pids=100")
    session = Session.create(api, image=image)
    assert session.record["limits"]["memory_bytes"] == 128 << 20 and session.record["limits"]["pids"] == 40 and session.record["limits"]["cpus"] == 0.5
    assert session.run("import os; print(os.cpu_count())")["stdout"] == "1\n"
    assert session.try_run("b = bytearray(200 << 20)").json["outcome"] == "out_of_memory"
    session.delete()
    session = Session.create(api, image=image, limits={"pids": 4000, "cpus": 8, "memory_bytes": 256 << 20})
    assert (session.record["limits"]["pids"], session.record["limits"]["cpus"], session.record["limits"]["memory_bytes"]) == (100, 0.5, 256 << 20)
    session.delete()
    api.post("/v1/sessions", {"image": image, "limits": {"pids": 1 << 20}}).problem(400, "invalid_request")


def test_requests_a_minute(caller, api):
    slow = caller("--requests-per-minute", "10")
    answers = [slow.get("/v1/images") for _ in range(30)]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(answers) - len(refused) <= 11 and refused
    assert "10 requests a minute" in refused[0].problem(429, "quota_exceeded")["detail"] and 1 <= int(refused[0].headers["retry-after"]) <= 6
    assert api.get("/v1/images").status == 200  # another key's are not counted
    assert slow.get("/healthz").status == 200   # what needs no key is not counted


@pytest.mark.parametrize("options", [["--scopes", "all"], ["--scopes", ""], ["--max-sessions", "-1"], ["--requests-per-minute", "x"], ["--limits", "memory=1"], ["--most", "cpus=0"]])
def test_bad_options(deployment, options):
    done = subprocess.run([str(deployment.bin / "codespaced"), "key", "create", "--state", "/nowhere", *options], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr, done
