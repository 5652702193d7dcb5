"""Two callers: every route of the contract that names a session, asked by the one who does not own
it, gives the answer of a session that never existed; and changes nothing."""
import json
import pathlib

import pytest
import yaml

CONTRACT = yaml.safe_load((pathlib.Path(__file__).resolve().parents[2] / "api/openapi.yaml").read_text())
METHODS = ("get", "put", "post", "patch", "delete")
NOWHERE = "session-" + "a" * 26


def operations():
    for path, item in CONTRACT["paths"].items():
        for method in METHODS:
            if method in item and path.startswith("/v1/sessions/{id}"):
                yield method.upper(), path, item[method]


ALL = list(operations())


def body_of(operation):
    """A body that the operation's owner would succeed with, from the contract's own examples."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        example = content["application/json"]
        value = example["example"] if "example" in example else next(iter(example["examples"].values()))["value"]
        return json.dumps(value).encode(), {"Content-Type": "application/json"}
    return (b"bytes", {"Content-Type": "application/octet-stream"}) if content else (None, {})


def ask(client, method, path, operation, session_id, known):
    for name, value in {**known, "id": session_id}.items():
        path = path.replace("{" + name + "}", value).replace("{" + name + "...}", value)
    assert "{" not in path, f"a parameter this test does not know: {path}"
    body, headers = body_of(operation)
    return client.request(method, path, body=body, headers=headers)


def comparable(answer, session_id):
    """What must be the same for a stranger's session and for none, without what differs in any two answers."""
    body = answer.json
    body = {name: value.replace(session_id, "ID") if isinstance(value, str) else value for name, value in body.items() if name != "request_id"}
    return answer.status, answer.headers["content-type"], body


@pytest.fixture
def owned(make_session):
    session = make_session(labels={"mine": "yes"})
    session.put("/workspace/file.txt", b"content").ok(201)
    run = session.run("secret = 42")
    return session, {"run_id": run["run_id"], "command_id": session.command("true")["command_id"], "path": "file.txt", "language": "python", "context": "default"}


def test_the_contract_has_them_all():
    assert len(ALL) >= 20, [operation[:2] for operation in ALL]


@pytest.mark.parametrize("method, path, operation", ALL, ids=[f"{method} {path}" for method, path, _ in ALL])
def test_a_stranger_finds_nothing(owned, stranger, method, path, operation):
    session, known = owned
    theirs = ask(stranger, method, path, operation, session.id, known)
    none = ask(stranger, method, path, operation, NOWHERE, known)
    assert theirs.status == 404 and theirs.json["code"] == "session_not_found", theirs
    assert comparable(theirs, session.id) == comparable(none, NOWHERE)
    now = session.get().ok()
    assert now["status"] == "running" and now["labels"] == {"mine": "yes"}
    assert session.run("print(secret)")["stdout"] == "42\n" and session.read("/workspace/file.txt").body == b"content"


@pytest.mark.parametrize("method, path, operation", ALL, ids=[f"{method} {path}" for method, path, _ in ALL])
def test_nobody_gets_in_without_a_key(deployment, owned, method, path, operation):
    session, known = owned
    for key in ("", "csk_" + "a" * 43, deployment.key[:-1], deployment.key + "a"):
        nobody = deployment.client(key)
        answer = ask(nobody, method, path, operation, session.id, known)
        nobody.close()
        assert answer.status == 401 and answer.json["code"] == "unauthorized", (key, answer)


def test_lists_are_of_ones_own(owned, stranger):
    session, _ = owned
    for query in ("", "?label=mine=yes", "?status=running", "?limit=1000"):
        assert all(found["session_id"] != session.id for found in stranger.get("/v1/sessions" + query).ok()["sessions"])


def test_an_idempotency_key_is_of_one_caller(owned, stranger, api, image):
    """The same key of another caller is another request, not a way to the first one's session."""
    name = {"Idempotency-Key": "shared-name"}
    mine = api.post("/v1/sessions", {"image": image}, headers=name).ok(201)
    theirs = stranger.post("/v1/sessions", {"image": image}, headers=name).ok(201)
    assert mine["session_id"] != theirs["session_id"]
    api.request("DELETE", f"/v1/sessions/{mine['session_id']}").ok(204)
    stranger.request("DELETE", f"/v1/sessions/{theirs['session_id']}").ok(204)
