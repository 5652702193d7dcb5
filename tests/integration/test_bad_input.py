"""Bad input of every kind: each is answered with problem+json, a stable code and a request id,
or the connection is closed after its time limit; and afterwards the server serves as before."""
import json
import socket
import time

import pytest

import host
from client import parse

JSON = "application/json"


@pytest.fixture(autouse=True)
def still_serving(deployment):
    """After each case the gateway is the same process and answers."""
    before = deployment.gateway.pid
    yield
    assert deployment.gateway.poll() is None and deployment.gateway.pid == before, deployment.log("gateway")[-3000:]
    caller = deployment.client()
    assert caller.get("/v1/images").status == 200
    caller.close()


def test_unknown_session(api):
    """An id that was never given out, or is no id, answers 404."""
    for identifier in ("session-" + "a" * 26, "session-" + "A" * 26, "session-aa", "x", "session-" + "a" * 25 + "%2e", "%F0%9F%98%80", "a" * 3000):
        answer = api.get(f"/v1/sessions/{identifier}")
        answer.problem(404, "session_not_found")
        api.post(f"/v1/sessions/{identifier}/runs", {"language": "python", "code": "1"}).problem(404, "session_not_found")


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"1", b"\"x\"", b"{} {}", b"{'a': 1}", b"{\"language\": \"python\", \"code\": \"1\",}", b"\xff\xfe", b"{\"code\": NaN}",
    b"{\"language\": \"python\", \"code\": \"\xff\"}", b"{\"language\": \"python\", \"code\": \"\\ud800\"}", b"\x00", b"{\"a\": 1e999999}",
    b"{\"language\": \"python\", \"code\": \"1\", \"code\": \"2\"}", b"{\"language\": \"python\"}", b"{\"code\": \"1\"}", b"{\"language\": 1, \"code\": \"1\"}",
    b"{\"language\": \"python\", \"code\": [\"1\"]}", b"{\"language\": \"python\", \"code\": \"1\", \"timeout_s\": \"2\"}",
    b"// comment\n{\"language\": \"python\", \"code\": \"1\"}",
])
def test_malformed_json(session, body):
    """What is not one JSON object of the right fields and types is the client's fault, by name."""
    answer = session.api.request("POST", session.path + "/runs", body=body, headers={"Content-Type": JSON})
    answer.problem(400, "invalid_request")


def test_lone_byte_order_mark(session):
    """A byte order mark is not JSON, or is skipped; it is never an error of the server."""
    answer = session.api.request("POST", session.path + "/runs", body=b"\xef\xbb\xbf{\"language\":\"python\",\"code\":\"1\"}", headers={"Content-Type": JSON})
    assert answer.status in (200, 400), answer


@pytest.mark.parametrize("field, value", [
    ("timeout_s", 0), ("timeout_s", 0.5), ("timeout_s", -1), ("timeout_s", 61), ("timeout_s", 60.001), ("timeout_s", 1e300), ("timeout_s", True),
    ("timeout_s", "10"), ("language", "cobol"), ("language", ""), ("language", "python\x00"), ("code", None), ("unknown_field", 1),
    ("__proto__", {}), ("session_id", "x"), ("code", 1),
])
def test_bad_run_fields(session, field, value):
    """Unknown fields, languages and values out of range are refused, and the text names the field."""
    body = {"language": "python", "code": "1", field: value}
    code = "unknown_language" if field == "language" else "invalid_request"
    problem = session.api.post(session.path + "/runs", body).problem(400, code)
    assert field in json.dumps(problem), problem
    if field == "timeout_s" and isinstance(value, (int, float)) and not isinstance(value, bool):
        assert "60" in problem["detail"] and "1" in problem["detail"], problem
    if code == "unknown_language":
        assert "python" in problem["detail"] and "javascript" in problem["detail"], problem


@pytest.mark.parametrize("body", [
    {"image": 1}, {"labels": []}, {"labels": {"a": 1}}, {"labels": {"": "x"}}, {"labels": {"a" * 200: "x"}}, {"labels": {"a": "x" * 300}},
    {"labels": {str(n): "x" for n in range(40)}}, {"env": {"A=B": "x"}}, {"env": {"1A": "x"}}, {"env": {"LD_PRELOAD": "x"}}, {"env": {"A": "x\0y"}},
    {"env": {"A": "x" * 70000}}, {"env": {"A": None}}, {"idle_timeout_s": -1}, {"idle_timeout_s": 1.5}, {"max_lifetime_s": "1"}, {"idle_timeout_s": 1e12},
    {"limits": {"memory_bytes": 1}}, {"limits": {"memory_bytes": 1 << 60}}, {"limits": {"pids": 0}}, {"limits": {"pids": 1}}, {"limits": {"cpus": 0}},
    {"limits": {"cpus": 100000}}, {"limits": {"cpu": 1}}, {"limits": {"workspace_bytes": -5}}, {"limits": []}, {"limits": {"memory_bytes": 18446744073709551616}},
    {"network": {"mode": "bridge"}}, {"network": {"mode": "allowlist", "allow": ["127.1"]}}, {"network": {"mode": "none", "x": 1}}, {"privileged": True},
])
def test_bad_session_fields(api, body):
    """A session is never made with something left out or clamped: it is refused, with the place of the mistake."""
    before = api.get("/v1/sessions").ok()["total"]
    api.post("/v1/sessions", body).problem(400, "invalid_request")
    assert api.get("/v1/sessions").ok()["total"] == before


@pytest.mark.parametrize("body", [{}, {"command": ""}, {"command": "a\0b"}, {"command": ["ls"]}, {"command": "ls", "cwd": "a\0b"}, {"command": "ls", "timeout_s": 99},
                                  {"command": "ls", "env": {"LD_PRELOAD": "x"}}, {"command": "ls", "stdin": 1}, {"command": "ls", "shell": "bash"}])
def test_bad_command_fields(session, body):
    """Commands are checked as strictly as runs."""
    session.api.post(session.path + "/commands", body).problem(400, "invalid_request")


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=100000", "limit=1&limit=2", "status=dead", "cursor=%00", "cursor=nonsense",
                                   "label=x", "colour=red", "limit=%zz"])
def test_bad_queries(api, query):
    """Unknown and senseless query parameters are refused."""
    api.get(f"/v1/sessions?{query}").problem(400, "invalid_request")


@pytest.mark.parametrize("depth", [33, 1000, 1_000_000])
@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_deep_json(session, depth, opening, closing):
    """JSON nested too deep is refused before anything is built from it."""
    body = ('{"language":"python","code":"1","x":' + opening * depth + "1" + closing * depth + "}").encode()
    answer = session.api.request("POST", session.path + "/runs", body=body, headers={"Content-Type": JSON})
    if len(body) > 4 << 20:
        answer.problem(413, "payload_too_large")
    else:
        assert "32" in answer.problem(400, "invalid_request")["detail"]


def request_bytes(api, method, path, headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", f"Authorization: Bearer {api.key}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def test_body_too_large(api):
    """A JSON body past 4 MiB is refused by its announced length, and chunked ones where they pass it."""
    size = (4 << 20) + 1
    sent = request_bytes(api, "POST", "/v1/sessions", [f"Content-Type: {JSON}", f"Content-Length: {size}"])
    parse(api.raw(sent)).problem(413, "payload_too_large")
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    sent = request_bytes(api, "POST", "/v1/sessions", [f"Content-Type: {JSON}", "Transfer-Encoding: chunked"], piece * 80 + b"0\r\n\r\n")
    parse(api.raw(sent)).problem(413, "payload_too_large")


def test_large_body_is_answered_while_it_is_sent(api):
    """A client that sends all of a refused body still reads the refusal."""
    answer = api.request("POST", "/v1/sessions", body=b" " * (6 << 20), headers={"Content-Type": JSON})
    answer.problem(413, "payload_too_large")


def test_claimed_file_size(session):
    """An upload past the limit of one file is refused by its announced length."""
    sent = request_bytes(session.api, "PUT", session.file("f"), ["Content-Length: 99999999999999"])
    parse(session.api.raw(sent)).problem(413, "file_too_large")


@pytest.mark.parametrize("key", [None, "", "csk_wrong", "csk_" + "A" * 43, "x" * 5000, "\xff"])
def test_missing_or_wrong_key(api, deployment, key):
    """Without the right key every /v1 route answers 401, known or not, and says how to send it."""
    lines = [] if key is None else [f"Authorization: Bearer {key}"]
    for path in ("/v1/sessions", "/v1/images", "/v1/sessions/session-" + "a" * 26):
        sent = ("\r\n".join([f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *lines]) + "\r\n\r\n").encode("latin-1")
        answer = parse(api.raw(sent))
        answer.problem(401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert "Bearer" in answer.json["detail"]


@pytest.mark.parametrize("header", ["Authorization: Basic {key}", "Authorization: {key}", "Authorization: Bearer{key}", "X-API-Key: x{key}"])
def test_key_in_the_wrong_form(api, header):
    """The key counts only in the two documented forms."""
    sent = f"GET /v1/images HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header.format(key=api.key)}\r\n\r\n".encode()
    parse(api.raw(sent)).problem(401, "unauthorized")


def test_key_in_either_header(api):
    """`Authorization: Bearer` and `X-API-Key` both work; a key in the address does not."""
    for header in (f"Authorization: Bearer {api.key}", f"authorization: bearer {api.key}", f"X-API-Key: {api.key}"):
        sent = f"GET /v1/images HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}\r\n\r\n".encode()
        assert parse(api.raw(sent)).status == 200, header
    sent = f"GET /v1/images?api_key={api.key} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    assert parse(api.raw(sent)).status == 401


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", ""])
def test_wrong_content_type(session, content_type):
    """JSON routes take JSON only: a form of a web page cannot reach them."""
    headers = {"Content-Type": content_type} if content_type else {"Content-Type": ""}
    answer = session.api.request("POST", session.path + "/runs", body=b'{"language":"python","code":"1"}', headers=headers)
    answer.problem(415, "unsupported_media_type")


def test_content_type_with_charset(session):
    """A charset after the type is fine."""
    answer = session.api.request("POST", session.path + "/runs", body=b'{"language":"python","code":"1"}',
                                 headers={"Content-Type": "application/json; charset=utf-8"})
    assert answer.status == 200


def test_unknown_path_and_method(api):
    """An unknown address answers 404, a wrong method 405 with the right ones."""
    for path in ("/", "/v1", "/v1/", "/v1/sessions/", "/v2/sessions", "/v1//sessions", "/V1/sessions", "/admin", "/%2e%2e/etc/passwd"):
        api.get(path).problem(404, "not_found")
    answer = api.request("DELETE", "/v1/sessions")
    answer.problem(405, "method_not_allowed")
    assert {"GET", "POST"} <= set(answer.headers["allow"].split(", "))
    for method in ("TRACE", "CONNECT", "PROPFIND", "OPTIONS"):
        answer = parse(api.raw(request_bytes(api, method, "/v1/images", [])))
        assert answer.status in (400, 404, 405, 501), (method, answer)
        answer.problem(answer.status, answer.json["code"])


@pytest.mark.parametrize("head", [
    b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G\0T / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", b"\r\n\r\n\r\n\r\n", b"\x00" * 100, b"hello\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", b"GET / HTTP/1.1\r\n Folded: x\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"GET http:// HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
])
def test_malformed_http(api, head):
    """What is not HTTP/1.1 is answered with 400 and problem+json, or the connection is closed."""
    received = api.raw(head, timeout=25, half_close=True)
    answer = parse(received)
    if answer is not None:
        assert 400 <= answer.status < 500 or answer.status == 505, answer
        answer.problem(answer.status, answer.json["code"])


def test_request_smuggling(api):
    """Content-Length together with Transfer-Encoding is refused, and what follows is not taken for a request."""
    inner = request_bytes(api, "GET", "/v1/images", [])
    for encoding in ("chunked", "Chunked", "chunked, identity", "xchunked", "identity"):
        head = (f"POST /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nContent-Type: {JSON}\r\n"
                f"Content-Length: 5\r\nTransfer-Encoding: {encoding}\r\n\r\n0\r\n\r\n").encode()
        received = api.raw(head + inner, timeout=25, half_close=True)
        assert received.count(b"HTTP/1.1 ") <= 1 and b" 200 " not in received[:20] and b" 201 " not in received[:20], (encoding, received)


def test_header_flood(api):
    """Too many, too long or endless header fields answer 431 or close the connection; the target has its own limit."""
    many = [f"X-{n}: y" for n in range(150)]
    parse(api.raw(request_bytes(api, "GET", "/v1/images", many))).problem(431, "header_too_large")
    answer = parse(api.raw(request_bytes(api, "GET", "/v1/images", ["X: " + "y" * 40_000])))
    assert answer is None or answer.problem(431, "header_too_large")
    parse(api.raw(request_bytes(api, "GET", "/v1/images?" + "x" * 9000, []))).problem(414, "target_too_long")
    received = api.raw(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1_000_000, timeout=25)
    assert received == b"" or parse(received).status in (400, 431)


def closed_within(s, bound_s):
    """Seconds until the server closes the connection; what it said first is returned too."""
    started = time.monotonic()
    s.settimeout(bound_s)
    received = b""
    try:
        while chunk := s.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    except TimeoutError:
        raise AssertionError(f"the connection is still open after {bound_s} s") from None
    return time.monotonic() - started, received


def test_half_sent_requests(api):
    """A half-sent header, a slow one, and a body that never comes end with their time limits; others are served meanwhile."""
    head = request_bytes(api, "POST", "/v1/sessions", [f"Content-Type: {JSON}", "Content-Length: 100"])
    halves = [b"G", b"GET /v1/images HTTP/1.1\r\nHost:", head[:60], b"\x16\x03\x01"]
    connections = [socket.create_connection((api.host, api.port)) for _ in halves]
    for s, half in zip(connections, halves):
        s.sendall(half)
    body_missing = socket.create_connection((api.host, api.port))
    body_missing.sendall(head + b"{")
    assert api.get("/v1/images").status == 200
    for s in connections:
        closed_within(s, 15)
        s.close()
    _, received = closed_within(body_missing, 40)
    body_missing.close()
    answer = parse(received)
    assert answer is None or answer.status == 408, answer


def test_slow_header(api):
    """A header that arrives byte by byte has the same ten seconds in all."""
    s = socket.create_connection((api.host, api.port))
    started = time.monotonic()
    try:
        for byte in b"GET /v1/images HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 1000:
            s.sendall(bytes([byte]))
            time.sleep(0.2)  # a slow client is the point
            if time.monotonic() - started > 20:
                break
    except (BrokenPipeError, ConnectionResetError):
        pass
    took = time.monotonic() - started
    s.close()
    assert 8 < took < 15, f"cut off after {took:.1f} s"


def test_many_idle_connections(api, deployment):
    """Hundreds of connections that say nothing do not keep others out."""
    idle = [socket.create_connection((api.host, api.port)) for _ in range(300)]
    caller = api.another()
    started = time.monotonic()
    assert caller.get("/v1/images").status == 200 and time.monotonic() - started < 2
    caller.close()
    for s in idle:
        s.close()
    # Their descriptors come back.
    host.wait_until(lambda: len(host.descriptors(deployment.gateway.pid)) < 200, 20, "an end of the idle connections")


def test_client_that_hangs_up(session, deployment):
    """Clients that go away in the middle of a request, a body, an answer cost nothing but their own request."""
    before = len(host.descriptors(deployment.gateway.pid))
    body = json.dumps({"language": "python", "code": "print('x' * 900000)"}).encode()
    whole = request_bytes(session.api, "POST", session.path + "/runs", [f"Content-Type: {JSON}", f"Content-Length: {len(body)}"], body)
    for cut in (1, 20, len(whole) // 2, len(whole) - 1, len(whole)):
        with socket.create_connection((session.api.host, session.api.port)) as s:
            s.sendall(whole[:cut])
    host.wait_until(lambda: len(host.descriptors(deployment.gateway.pid)) <= before + 2, 30, "the connections' descriptors back")
    assert session.run("print(1)")["stdout"] == "1\n"


def test_pipelined_requests(api):
    """Two requests sent at once are answered in order."""
    first = request_bytes(api, "GET", "/version", []).replace(b"Connection: close\r\n", b"")
    received = api.raw(first + request_bytes(api, "GET", "/v1/images", []))
    assert received.count(b"HTTP/1.1 200") == 2 and received.index(b'"version"') < received.index(b'"images"')


def test_request_id(api):
    """A valid `X-Request-Id` is taken over, a bad one is replaced; every answer has one."""
    assert api.get("/v1/images", headers={"X-Request-Id": "my-id.1"}).headers["x-request-id"] == "my-id.1"
    answer = api.get("/v1/images", headers={"X-Request-Id": "x" * 500})
    assert answer.headers["x-request-id"] != "x" * 500
    assert api.get("/healthz").headers["x-request-id"] != api.get("/healthz").headers["x-request-id"]


def test_secrets_are_not_logged(session, deployment):
    """Keys, code, environment, output and file contents are not in the logs; tenant bytes cannot forge lines."""
    mark = "s3cr3t-marker"
    session.run(f"print('{mark}')")
    session.command(f"echo {mark}", env={"V": mark})
    session.put("f", mark.encode())
    session.api.get("/v1/images%0aforged=1")
    session.api.get(f"/v1/sessions/x%0d%0aforged", headers={"X-Request-Id": "a b\tforged"})
    for name in ("gateway", "launcher"):
        log = deployment.log(name)
        assert mark not in log and session.api.key not in log and "\nforged" not in log, name
    assert "request_id=" in deployment.log("gateway")
