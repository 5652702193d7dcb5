"""The audit log, and the ids by which a caller finds its requests again."""
import json
import signal
import urllib.parse

import pytest

import host
from client import Session
from deployment import Deployment

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}


def start(request, image, content):
    made = Deployment(request.config.getoption("--build"), request.config.getoption("--images"), image)
    made.config = f'[audit]\nfile = "{made.state}/audit.jsonl"\ncontent = {content}\n'
    made.start()
    return made


@pytest.fixture(params=[0, 1])
def own(request, image):
    made = start(request, image, request.param)
    made.with_content = request.param == 1
    try:
        yield made
    finally:
        left = made.finish()
    assert not left, "\n".join(left)


def lines(own):
    return [json.loads(line) for line in (own.state / "audit.jsonl").read_text().splitlines()]


def test_who_did_what(own, image):
    api = own.client()
    session = Session.create(api, image=image)
    answer = session.try_run("print('quite ' + 'secret')", headers=HEADERS)
    assert answer.headers["traceresponse"].startswith(f"00-{TRACE}-") and not answer.headers["traceresponse"].startswith(HEADERS["traceparent"][:52])
    session.put("f", b"contents").ok(201)
    session.read("f")
    api.get("/v1/sessions/session-aaaaaaaaaaaaaaaaaaaaaaaaaa").problem(404, "session_not_found")
    form = urllib.parse.urlencode({"Authorization": f"Bearer {own.key}", "SessionId": session.id, "Name": "shell", "Args": json.dumps({"command": "echo tool"})})
    api.request("POST", "/?Action=CallMcpTool", body=form.encode(), headers={"Content-Type": "application/x-www-form-urlencoded"}).ok()
    own.client("csk_wrong").get("/v1/sessions").problem(401, "unauthorized")
    assert session.delete().status == 204
    seen = lines(own)
    assert [(one["method"], one["route"], one["status"]) for one in seen] == [
        ("POST", "/v1/sessions", 201), ("POST", "/v1/sessions/{id}/runs", 200), ("PUT", "/v1/sessions/{id}/files/{path...}", 201),
        ("GET", "/v1/sessions/{id}/files/{path...}", 200), ("GET", "/v1/sessions/{id}", 404), ("POST", "/?Action=CallMcpTool", 200), ("GET", "/v1/sessions", 401),
        ("DELETE", "/v1/sessions/{id}", 204)], seen
    assert {one["session_id"] for one in seen[:4] + seen[5:6] + seen[7:]} == {session.id}
    assert len({one["key_id"] for one in seen if "key_id" in one}) == 1 and "key_id" not in seen[6] and all(one["peer"] == "127.0.0.1" for one in seen)
    assert seen[1]["trace_id"] == TRACE and seen[1]["request_id"] == answer.headers["x-request-id"] and "trace_id" not in seen[0]
    text = (own.state / "audit.jsonl").read_text()
    assert own.key not in text and "contents" not in text
    assert ("quite secret" in text, "print(" in text, "echo tool" in text) == (own.with_content,) * 3
    # What the log of every request says of it.
    host.wait_until(lambda: f"trace_id={TRACE}" in own.log("gateway"), 5, "the trace in the log")
    assert "secret" not in own.log("gateway")


def test_rotation(own):
    api = own.client()
    api.get("/v1/sessions").ok()
    (own.state / "audit.jsonl").rename(own.state / "audit.jsonl.1")
    api.get("/v1/sessions").ok()
    own.gateway.send_signal(signal.SIGHUP)
    host.wait_until((own.state / "audit.jsonl").exists, 10, "the new file")
    api.get("/v1/sessions").ok()
    assert len(lines(own)) == 1 and len((own.state / "audit.jsonl.1").read_text().splitlines()) == 2
    api.close()


def test_a_command_gets_the_trace_and_a_retry_its_result(own, image):
    api = own.client()
    session = Session.create(api, image=image)
    key = {"Idempotency-Key": "traced"}
    first = session.try_command("echo $TRACEPARENT", headers={**HEADERS, **key}).ok()
    assert first["stdout"].startswith(f"00-{TRACE}-") and first["stdout"].strip() != HEADERS["traceparent"]
    # Each attempt is a span of its own; it is the same request all the same.
    again = session.try_command("echo $TRACEPARENT", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b8-01", **key}).ok()
    assert again["stdout"] == first["stdout"] and again["command_id"] == first["command_id"]
    assert session.try_command("echo $TRACEPARENT", headers=HEADERS, env={"TRACEPARENT": "mine"}).ok()["stdout"] == "mine\n"
    assert session.shell("echo -$TRACEPARENT-") == "--\n"
    session.delete()
    api.close()


def test_a_file_that_cannot_be_opened_is_said_at_start(request, image):
    made = Deployment(request.config.getoption("--build"), request.config.getoption("--images"), image)
    made.config = '[audit]\nfile = "/nonexistent/audit"\n'
    try:
        with pytest.raises(AssertionError, match="open the audit log /nonexistent/audit"):
            made.start()
    finally:
        left = made.finish()
    assert not left, "\n".join(left)
