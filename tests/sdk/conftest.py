"""What the tests of the SDKs share: the variables that `codespaced env` prints, and the RPC spoken by hand."""
import json
import re
import subprocess
import threading
import urllib.parse
import uuid

import pytest

from client import Client

# These run inside the SDKs' own environments, started by test_python.py and its like.
collect_ignore = ["guide", "java", "python"]


def exports(deployment):
    """What `codespaced env` prints, as a shell would set it."""
    out = subprocess.run([deployment.bin / "codespaced", "env", "--state", deployment.state, "--listen", f"127.0.0.1:{deployment.port}"],
                         capture_output=True, text=True, check=True).stdout
    return dict(re.findall(r"^export (\w+)='([^']*)'$", out, re.M))


class Rpc:
    """One connection that speaks the RPC as the SDKs do, in whatever variation a test asks for."""

    def __init__(self, deployment, key=None):
        self.http = Client("127.0.0.1", deployment.port, None)
        self.key = deployment.key if key is None else key

    def send(self, query, body=b"", method="POST", headers=None):
        """The answer, which must be an envelope whatever was sent."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}
        answer = self.http.request(method, "/?" + query if query else "/", body=body, headers=headers)
        envelope = answer.json
        assert set(envelope) >= {"Code", "Message", "RequestId", "HttpStatusCode", "Success"}, answer
        assert envelope["RequestId"] and envelope["HttpStatusCode"] == answer.status and envelope["Success"] is (answer.status == 200)
        assert (envelope["Code"] == "ok") is envelope["Success"] and envelope["Message"]
        assert answer.headers["content-type"] == "application/json"
        return envelope

    def call(self, action, **fields):
        system = {"Action": action, "Format": "json", "Version": "2025-05-06", "Timestamp": "2026-11-23T04:59:07Z", "SignatureNonce": uuid.uuid4().hex}
        form = {"Authorization": f"Bearer {self.key}", **{name: json.dumps(v) if isinstance(v, dict) else str(v) for name, v in fields.items()}}
        return self.send(urllib.parse.urlencode(system), urllib.parse.urlencode(form).encode())

    def create(self, **fields):
        data = self.call("CreateMcpSession", ImageId="code_latest", **fields)["Data"]
        assert data["Success"] is True and data["SessionId"].startswith("session-")
        return data["SessionId"]

    def tool(self, session, name, **args):
        """(text, is_error) of a tool call that reached the tool."""
        envelope = self.call("CallMcpTool", SessionId=session, Name=name, Args=args)
        assert envelope["Success"], envelope
        (content,) = envelope["Data"]["content"]
        assert content["type"] == "text" and isinstance(envelope["Data"]["isError"], bool)
        assert content["text"] or (name == "read_file" and not envelope["Data"]["isError"])
        return content["text"], envelope["Data"]["isError"]


@pytest.fixture
def rpc(deployment):
    made = Rpc(deployment)
    yield made
    made.http.close()


@pytest.fixture(scope="module")
def rpc_session(deployment):
    first, last = Rpc(deployment), Rpc(deployment)
    session = first.create()
    first.http.close()  # the server does so itself after a minute, and the tests between may take that
    yield session
    assert last.call("DeleteSessionAsync", SessionId=session)["Success"]
    last.http.close()


@pytest.fixture
def in_background():
    """start(f): runs f beside the test; the result of the call it gives is that of f."""
    def start(work):
        got = []
        thread = threading.Thread(target=lambda: got.append(work()))
        thread.start()

        def join():
            thread.join(90)
            return got[0]
        return join
    return start
