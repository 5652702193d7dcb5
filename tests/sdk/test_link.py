"""The direct link: switched on, a session comes with an address and a token, and the SDK calls tools
there as one plain JSON request."""
import json
import subprocess

import pytest

from client import Client
from conftest import Rpc, exports
from deployment import own_deployment
from test_python import environment  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def linked(request):
    with own_deployment(request, request.config.getoption("--image"), config="[server]\ndirect_link = 1\n") as made:
        yield made


def call(deployment, session, token, body, path="/link/{}/callTool"):
    headers = {"Content-Type": "application/json", **({"X-Access-Token": token} if token is not None else {})}
    return Client("127.0.0.1", deployment.port, None).request("POST", path.format(session), body=body if isinstance(body, bytes) else json.dumps(body).encode(), headers=headers)


def result(answer):
    data = answer.ok()["data"]["result"]
    (content,) = data["content"]
    assert content["text"]
    return content["text"], data["isError"]


@pytest.fixture
def made(linked):
    rpc = Rpc(linked)
    data = rpc.call("CreateMcpSession")["Data"]
    yield data["SessionId"], data["Token"], data["LinkUrl"]
    rpc.call("DeleteSessionAsync", SessionId=data["SessionId"])


def test_the_token_opens_its_session_only(linked, made):
    session, token, link = made
    assert link == f"http://127.0.0.1:{linked.port}/link/{session}"
    body = {"tool": "shell", "args": {"command": "echo linked"}, "server": "wuying_shell", "requestId": "link-1", "token": token}
    text, failed = result(call(linked, session, token, body))
    assert not failed and json.loads(text)["stdout"] == "linked\n"
    other = Rpc(linked).create()
    stranger = Rpc(linked, linked.second_key()).call("CreateMcpSession")["Data"]
    for session_id, wrong in ((session, "cst_wrong"), (session, None), (session, ""), (other, token), (session, linked.key), (session, stranger["Token"]), (session, token + "x")):
        answer = call(linked, session_id, wrong, body)
        answer.problem(401, "unauthorized")
    assert Rpc(linked, token).call("ListSession")["Code"] == "NOT_LOGIN"
    assert Client("127.0.0.1", linked.port, token).get("/v1/sessions").status == 401


@pytest.mark.parametrize("body, said", [
    (b"", "JSON"), (b"{", "JSON"), (b"[]", "JSON"), ({}, "`tool` is missing"), ({"tool": 5}, "`tool` must be a string"), ({"tool": "none", "args": {}}, "tool not found"),
    ({"tool": "shell", "args": []}, "`args` must be a JSON object"), ({"tool": "shell"}, "`command` is missing"), ({"tool": "shell", "args": {"command": "exit 3"}}, '"exit_code":3'),
])
def test_what_is_wrong_is_an_answer_that_clients_show(linked, made, body, said):
    session, token, _ = made
    text, failed = result(call(linked, session, token, body))
    assert failed and said in text


def test_a_session_that_is_gone_or_paused(linked, made):
    session, token, _ = made
    body = {"tool": "shell", "args": {"command": "true"}}
    rpc = Rpc(linked)
    paused = rpc.call("PauseSessionAsync", SessionId=session)
    assert paused["Success"], paused
    text, failed = result(call(linked, session, token, body))
    assert failed and "paused" in text
    rpc.call("DeleteSessionAsync", SessionId=session)
    text, failed = result(call(linked, session, token, body))
    assert failed and text == f"session not found or expired: {session}"


def test_it_is_off_unless_switched_on(deployment):
    rpc = Rpc(deployment)
    session = rpc.create()
    call(deployment, session, "cst_x", {"tool": "shell"}).problem(404, "not_found")
    rpc.call("DeleteSessionAsync", SessionId=session)


def test_the_sdk_takes_it(linked, environment, tmp_path):  # noqa: F811
    """Whole files in one request, and every answer as by the other way."""
    program = """
from agentbay import AgentBay, CreateSessionParams
session = AgentBay().create(CreateSessionParams(image_id="code_latest")).session
assert session.link_url and session.token
text = "linked ä " * 300_000
assert session.file_system.write_file("/tmp/f", text).success
assert session.file_system.read_file("/tmp/f").content == text
result = session.code.run_code("print(1)\\n2", "python")
assert result.success and result.result == "2" and result.request_id.startswith("link-"), vars(result)
failed = session.code.run_code("1/0", "python")
assert not failed.success and "ZeroDivisionError" in failed.error_message
command = session.command.execute_command("echo out; exit 4")
assert command.exit_code == 4 and command.stdout == "out\\n"
assert session.file_system.list_directory("/tmp").entries[0].name == "f"
assert session.delete().success
print("linked")
"""
    done = subprocess.run([environment / "bin/python", "-c", program], env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **exports(linked)},
                          cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.endswith("linked\n"), done.stdout[-3000:] + done.stderr[-3000:]
