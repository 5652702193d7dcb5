"""A plain HTTP client for the tests: every answer is returned as it came, nothing is
retried and nothing is repaired, so that a test sees what a user would see."""
import base64
import http.client
import json
import socket
import urllib.parse

PROBLEM_FIELDS = ("type", "title", "status", "detail", "code", "request_id")


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers.get('content-type')} {self.body[:600]!r}>"

    def ok(self, status=200):
        assert self.status == status, f"expected {status}, got {self!r}"
        return self.json if self.body else None

    def problem(self, status, code):
        """The answer is problem+json with this status and code; returns the body."""
        assert self.status == status, f"expected {status} {code}, got {self!r}"
        assert self.headers.get("content-type", "").startswith("application/problem+json"), self
        body = self.json
        missing = [field for field in PROBLEM_FIELDS if field not in body]
        assert not missing, f"{missing} missing in {body}"
        assert body["status"] == status and body["code"] == code, body
        assert body["request_id"] and body["request_id"] == self.headers.get("x-request-id"), self.headers
        assert body["detail"], body
        return body


class Client:
    """One keep-alive connection and the key to use on it."""

    def __init__(self, host, port, key, timeout=75):
        self.host, self.port, self.key, self.timeout = host, port, key, timeout
        self._http = None

    def close(self):
        if self._http is not None:
            self._http.close()
            self._http = None

    def another(self, key=None):
        """A second connection, with the same key or another."""
        return Client(self.host, self.port, self.key if key is None else key, self.timeout)

    def request(self, method, path, json_body=None, body=None, headers=None):
        sent = {}
        if self.key:
            sent["Authorization"] = "Bearer " + self.key
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        if self._http is None:
            self._http = http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
        try:
            self._http.request(method, path, body=body, headers=sent)
            response = self._http.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
        except Exception:
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer

    def get(self, path, **kw):
        return self.request("GET", path, **kw)

    def post(self, path, json_body=None, **kw):
        return self.request("POST", path, json_body=json_body, **kw)

    def raw(self, data, timeout=20, half_close=False):
        """Sends bytes as they are; returns all that came back until the peer closed."""
        with socket.create_connection((self.host, self.port), timeout=timeout) as s:
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            received = b""
            try:
                while chunk := s.recv(65536):
                    received += chunk
            except ConnectionResetError:
                pass
            return received

    def raw_request(self, head, body=b"", timeout=20):
        """Sends a hand-written request that asks for the connection to be closed; parses the answer."""
        return parse(self.raw(head + body, timeout))


def parse(received):
    """Bytes of one HTTP/1.1 response to an Answer; None if there were none."""
    if not received:
        return None
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [line.split(": ", 1) for line in lines[1:] if ": " in line]
    return Answer(int(lines[0].split()[1]), headers, body)


def quote(path):
    return urllib.parse.quote(path, safe="/")


class Session:
    """A session and the calls on it that a test makes most."""

    def __init__(self, api, record):
        self.api, self.record = api, record
        self.id = record["session_id"]
        self.path = f"/v1/sessions/{self.id}"

    @classmethod
    def create(cls, api, **fields):
        return cls(api, api.post("/v1/sessions", fields).ok(201))

    def via(self, api):
        """The same session over another connection."""
        return Session(api, self.record)

    def get(self):
        return self.api.get(self.path)

    def delete(self):
        return self.api.request("DELETE", self.path)

    def try_run(self, code, language="python", headers=None, **fields):
        return self.api.post(self.path + "/runs", {"language": language, "code": code, **fields}, headers=headers)

    def run(self, code, language="python", **fields):
        return self.try_run(code, language, **fields).ok(200)

    def try_command(self, command, headers=None, **fields):
        return self.api.post(self.path + "/commands", {"command": command, **fields}, headers=headers)

    def command(self, command, **fields):
        return self.try_command(command, **fields).ok(200)

    def shell(self, command, **fields):
        """Standard output of a command that must succeed."""
        record = self.command(command, **fields)
        assert record["outcome"] == "ok", record
        return record["stdout"]

    def file(self, path, query=""):
        """URL of a file: `/tmp/x` is absolute, `a.txt` is below /workspace."""
        return f"{self.path}/files/{quote(path)}" + (f"?{query}" if query else "")

    def put(self, path, data, query="", **kw):
        headers = {"Content-Type": "application/octet-stream", **kw.pop("headers", {})}
        return self.api.request("PUT", self.file(path, query), body=data, headers=headers, **kw)

    def read(self, path, **kw):
        return self.api.get(self.file(path), **kw)

    def stat(self, path):
        return self.api.get(self.file(path, "stat=1"))


def output_bytes(record, stream="stdout"):
    """What was really written: the base64 form where the text needed replacement."""
    exact = record.get(stream + "_base64")
    return base64.b64decode(exact) if exact is not None else record[stream].encode()
