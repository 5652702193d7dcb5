"""The RPC as each SDK puts it on the wire, spoken by hand: the variations of the Go and TypeScript
SDKs too, which no package registry has. And everything that is wrong with a request."""
import base64
import http.client
import json
import random
import time
import urllib.parse

import pytest

from client import Client, parse
from conftest import Rpc

FORM = "application/x-www-form-urlencoded"


# --- the same request in four handwritings -----------------------------------------------------

def test_parameters_may_be_anywhere(rpc, rpc_session):
    """In the query, in the body, in both (the body counts), with a plus or %20 for a blank."""
    key = urllib.parse.quote("Bearer " + rpc.key)
    assert rpc.send(f"Action=GetSessionDetail&SessionId={rpc_session}", f"Authorization={key}".encode())["Data"]["Status"] == "RUNNING"
    assert rpc.send(f"Action=SyncContext&Authorization={key}", f"SessionId={rpc_session}".encode())["Success"]
    assert rpc.send(f"Action=GetSession&SessionId=other&Authorization={key.replace('%20', '+')}", f"SessionId={rpc_session}".encode())["Success"]
    assert rpc.send("", f"Action=GetSession&SessionId={rpc_session}&Authorization={key}".encode())["Success"]
    refused = rpc.send(f"Action=GetAndLoadInternalContext&SessionId={rpc_session}&ContextTypes.1=file_transfer&Authorization={key}", method="GET", headers={"Content-Type": ""})
    assert refused["Code"] != "NOT_LOGIN"


def test_a_chunked_body(deployment, rpc, rpc_session):
    """One SDK sends no length, ever."""
    body = urllib.parse.urlencode({"Authorization": "Bearer " + rpc.key, "SessionId": rpc_session, "Name": "shell", "Args": json.dumps({"command": "echo chunked"})}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", deployment.port)
    connection.request("POST", "/?Action=CallMcpTool", iter([body[:50], body[50:]]), {"Content-Type": FORM}, encode_chunked=True)
    assert json.loads(json.loads(connection.getresponse().read())["Data"]["content"][0]["text"])["stdout"] == "chunked\n"


def test_content_types_and_hosts(deployment, rpc, rpc_session):
    key = urllib.parse.quote("Bearer " + rpc.key)
    for content_type in (FORM, FORM + "; charset=utf-8", FORM.upper(), FORM + ";charset=UTF-8"):
        assert rpc.send(f"Action=GetSession&SessionId={rpc_session}", f"Authorization={key}".encode(), headers={"Content-Type": content_type})["Success"]
    for given, shown in ((f"http://127.0.0.1:{deployment.port}", f"127.0.0.1:{deployment.port}"), ("myhost:1", "myhost:1"), ("a b\"<", "localhost")):
        data = rpc.send(f"Action=GetSession&SessionId={rpc_session}", f"Authorization={key}".encode(), headers={"Host": given})["Data"]
        assert data["ResourceUrl"] == f"http://{shown}/console?resourceId={rpc_session}"
    refused = rpc.send(f"Action=GetSession&SessionId={rpc_session}", f"Authorization={key}".encode(), headers={"Host": "rebound.example"})
    assert not refused["Success"] and "tls_names" in refused["Message"], refused


@pytest.mark.parametrize("yes, no", [("True", "False"), ("true", "false"), ("TRUE", "FALSE")])
def test_truth_in_any_case(rpc, yes, no):
    assert "can be created" in rpc.call("GetContext", Name="x", AllowCreate=yes)["Message"]
    assert rpc.call("GetContext", Name="x", AllowCreate=no)["Code"] == "Context.NotFound"


def test_empty_is_absent(rpc, rpc_session):
    """Some clients send every optional field, empty."""
    assert rpc.call("CallMcpTool", SessionId=rpc_session, Name="shell", Args='{"command": "true"}', Server="", ImageId="", ExternalUserId="", Tool="")["Success"]
    assert rpc.call("ListSession", Labels="", MaxResults="", NextToken="", Status="")["Success"]
    assert rpc.call("ListMcpTools", ImageId="")["Success"]


def test_system_parameters_are_tolerated(rpc, rpc_session):
    query = "Action=GetSession&Signature=abc&SignatureMethod=HMAC-SHA1&AccessKeyId=x&SecurityToken=y&Format=XML&Version=1999-01-01"
    assert rpc.send(query, urllib.parse.urlencode({"Authorization": "Bearer " + rpc.key, "SessionId": rpc_session, "Unknown": "1"}).encode())["Success"]


# --- what answers have ---------------------------------------------------------------------------

def test_a_session_has_the_fields_the_typed_clients_want(rpc):
    made = rpc.call("CreateMcpSession", ImageId="linux_latest", Labels={"a": "b"}, LoginRegionId="cn-hangzhou", SdkStats={"source": "sdk"})["Data"]
    session = made["SessionId"]
    kinds = {"SessionId": str, "ResourceUrl": str, "Success": bool, "ErrMsg": str, "ToolList": str, "Token": str, "LinkUrl": str, "AppInstanceId": str,
             "ResourceId": str, "NetworkInterfaceIp": str, "HttpPort": str, "VpcResource": bool}
    assert {name: type(made[name]) for name in kinds} == kinds
    assert made["Token"] == "" and made["LinkUrl"] == ""  # else the client would leave this surface
    got = rpc.call("GetSession", SessionId=session)["Data"]
    assert got["contexts"] == [] and got["Status"] == "RUNNING" and got["ResourceUrl"] == made["ResourceUrl"] and got["AppInstanceId"] and got["ResourceId"]
    assert isinstance(rpc.call("GetLabel", SessionId=session)["Data"]["Labels"], str)
    info = rpc.call("GetMcpResource", SessionId=session)["Data"]
    assert set(info["DesktopInfo"]) == {"AppId", "AuthCode", "ConnectionProperties", "ResourceId", "ResourceType", "Ticket"}
    tools = json.loads(rpc.call("ListMcpTools")["Data"])
    assert tools == json.loads(made["ToolList"]) and all(t["name"] and t["server"] and t["tool"] and t["description"] and t["inputSchema"] for t in tools)
    assert rpc.call("ReleaseMcpSession", SessionId=session)["Success"] and rpc.call("ReleaseMcpSession", SessionId=session)["Success"]
    ended = rpc.call("GetSessionDetail", SessionId=session)["Data"]
    assert ended["Status"] == "FINISH" and ended["EndReason"] == "deleted" and ended["IsDeleted"] == 1
    gone = rpc.call("GetSession", SessionId=session)
    assert gone["Code"] == "InvalidMcpSession.NotFound" and gone["Message"].startswith(f"session not found or expired: {session}")


def test_pages_end_without_an_empty_one(rpc):
    tag = {"page": str(time.time_ns())}
    made = [rpc.create(Labels=tag) for _ in range(4)]
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = rpc.call("ListSession", Labels=tag, MaxResults=2, NextToken=token)
        seen += [entry["SessionId"] for entry in page["Data"]]
        token, pages = page["NextToken"], pages + 1
        assert page["TotalCount"] == 4 and page["MaxResults"] == 2
    assert seen == made[::-1] and pages == 2
    assert rpc.call("ListSession", Labels=tag, MaxResults=100_000)["MaxResults"] == 100
    assert rpc.call("ListSession", Labels=tag, Status="PAUSING")["Data"] == []
    for session in made:
        rpc.call("DeleteSessionAsync", SessionId=session)
    assert rpc.call("ListSession", Labels=tag)["TotalCount"] == 0


def test_everything_is_answered_before_58_seconds(deployment, rpc, rpc_session, in_background):
    """A run that is given all the time there is and ignores being interrupted."""
    rpc2 = Rpc(deployment)
    began = time.monotonic()
    code = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nprint('begun', flush=True)\nwhile True: pass"
    run = in_background(lambda: rpc2.tool(rpc_session, "run_code", code=code, language="python", timeout_s=60))
    command = rpc.tool(rpc_session, "shell", command="trap '' INT TERM; while :; do sleep 1; done", timeout_ms=300_000)
    assert command[1] and "50000 ms" in command[0] and time.monotonic() - began < 56
    text, failed = run()
    assert failed and time.monotonic() - began < 58.5
    assert json.loads(text)["stdout"] == ["begun\n"] and "at most 56 s" in json.loads(text)["executionError"]


# --- tools ------------------------------------------------------------------------------------------

def test_ranges_put_together_are_the_text(rpc, rpc_session):
    """Pieces of any size, cut inside characters, of texts of every length of character."""
    random.seed(5)
    for n in range(12):
        text = "".join(random.choices("aä漢🎉\n", k=300))
        assert not rpc.tool(rpc_session, "write_file", path="/tmp/ranges", content=text)[1]
        size, step = len(text.encode()), random.choice([4, 5, 7, 50, 299])
        pieces = [rpc.tool(rpc_session, "read_file", path="/tmp/ranges", offset=at, length=step)[0] for at in range(0, size, step)]
        assert "".join(pieces) == text, (n, step)
        raw = [rpc.tool(rpc_session, "read_file", path="/tmp/ranges", offset=at, length=step, format="binary")[0] for at in range(0, size, step)]
        assert b"".join(base64.b64decode(p, validate=True) for p in raw) == text.encode()
    assert rpc.tool(rpc_session, "read_file", path="/tmp/ranges", offset=10**9) == ("", False)
    assert rpc.tool(rpc_session, "read_file", path="/tmp/ranges") == (text, False)


def test_half_a_surrogate_pair(rpc, rpc_session):
    """A client that cuts UTF-16 text into pieces sends one half in each."""
    args = '{"path": "/tmp/half", "content": "a\\ud83d", "mode": "overwrite"}'
    assert rpc.call("CallMcpTool", SessionId=rpc_session, Name="write_file", Args=args)["Data"]["isError"] is False
    args = '{"path": "/tmp/half", "content": "\\ude00 \\\\ud83d \\ud83c\\udf89", "mode": "append"}'
    assert rpc.call("CallMcpTool", SessionId=rpc_session, Name="write_file", Args=args)["Data"]["isError"] is False
    assert rpc.tool(rpc_session, "read_file", path="/tmp/half")[0] == "a\ufffd\ufffd \\ud83d 🎉"


def test_both_spellings_of_arguments(rpc, rpc_session):
    for name in ("x1", "x2", "y1"):
        rpc.tool(rpc_session, "write_file", path=f"/tmp/spell/{name}", content="old")
    for exclude in ({"excludePatterns": "x1,y*"}, {"excludePatterns": ["x1", "y*"]}, {"exclude_patterns": ["x1", "y*"]}, ):
        assert rpc.tool(rpc_session, "search_files", path="/tmp/spell/", pattern="*", **exclude) == ("/tmp/spell/x2", False)
    assert rpc.tool(rpc_session, "search_files", path="/tmp/spell", pattern="z*", exclude_patterns=None) == ("No matches found", False)
    for dry in ("dryRun", "dry_run"):
        assert not rpc.tool(rpc_session, "edit_file", path="/tmp/spell/x1", edits=[{"oldText": "old", "newText": "new"}], **{dry: True})[1]
        assert rpc.tool(rpc_session, "read_file", path="/tmp/spell/x1")[0] == "old"
    text, failed = rpc.tool(rpc_session, "write_file", path="/tmp/spell/x1", content="", mode="create_new")
    assert failed and "exists" in text
    assert rpc.tool(rpc_session, "write_file", path="/tmp/spell/new", content="", mode="")[1] is False
    assert rpc.tool(rpc_session, "write_file", path="/tmp/none/f", content="", create_parent_dir=False)[1] is True
    assert rpc.tool(rpc_session, "write_file", path="/tmp/none/f", content="", create_parent_dir=True)[1] is False
    assert rpc.tool(rpc_session, "read_file", path="/tmp/none/f") == ("", False)


@pytest.mark.parametrize("name, args, said", [
    ("run_code", {"code": "1"}, "`language` is missing"), ("run_code", {"language": "python"}, "`code` is missing"),
    ("run_code", {"code": 5, "language": "python"}, "`code` must be a string"), ("run_code", {"code": "1", "language": "python", "timeout_s": "x"}, "`timeout_s` must be"),
    ("run_code", {"code": "1", "language": "python", "timeout_s": 0}, "`timeout_s` must be"), ("run_code", {"code": "1", "language": "cobol"}, "language cobol is not available"),
    ("run_code", {"code": "#" * 5_000_000, "language": "python"}, "too much"), ("shell", {"command": ""}, "empty"), ("shell", {"command": "a\0b"}, "NUL"),
    ("shell", {"command": "true", "timeout_ms": -1}, "`timeout_ms` must be"), ("shell", {"command": "true", "envs": ["A=1"]}, "`envs` must"),
    ("shell", {"command": "true", "envs": {"A": 1}}, "`envs` must"), ("shell", {"command": "true", "cwd": 5}, "`cwd` must be a string"),
    ("shell", {"command": "x" * 200_000}, "script file"), ("read_file", {}, "`path` is missing"), ("read_file", {"path": ""}, "path is empty"),
    ("read_file", {"path": "a/../../b"}, ".."), ("read_file", {"path": "/tmp", "offset": -1}, "`offset` must be"), ("read_file", {"path": "/tmp", "format": "exe"}, "`format` must be"),
    ("read_file", {"path": "/tmp"}, "directory"), ("write_file", {"path": "/tmp/x"}, "`content` is missing"), ("write_file", {"path": "/tmp/x", "content": "", "mode": "w"}, "overwrite, append or create_new"),
    ("write_file", {"path": "/tmp/x", "content": "", "create_parent_dir": 7}, "true or false"), ("edit_file", {"path": "/tmp/x", "edits": "no"}, "`edits` must be"),
    ("edit_file", {"path": "/tmp/x", "edits": [{"oldText": 1, "newText": ""}]}, "`edits` must be"), ("edit_file", {"path": "/etc/hosts", "edits": []}, "0 edits"),
    ("read_multiple_files", {"paths": []}, "`paths` is missing or empty"), ("read_multiple_files", {"paths": [1]}, "`paths` must be"),
    ("search_files", {"path": "/tmp"}, "`pattern` is missing"), ("move_file", {"source": "/tmp/a"}, "`destination` is missing"),
    ("get_file_change", {"path": "/none"}, "does not exist"), ("set_env", {"envs": []}, "`envs` is missing"), ("oss_upload", {"path": "x"}, "tool not found"),
    ("no such tool", {}, "tool not found"), ("run_code; ls", {}, "tool not found"),
])
def test_wrong_arguments_are_failures_of_the_tool(rpc, rpc_session, name, args, said):
    text, failed = rpc.tool(rpc_session, name, **args)
    assert failed and said in text, text


# --- what is refused --------------------------------------------------------------------------------

@pytest.mark.parametrize("args", ["", "{", "[]", "5", '"text"', "null", "{" * 100_000, '{"a":' * 50 + "1" + "}" * 50, '{"command": "\udcff"}'])
def test_arguments_that_are_no_object(rpc, rpc_session, args):
    body = urllib.parse.urlencode({"Authorization": "Bearer " + rpc.key, "SessionId": rpc_session, "Name": "get_metrics", "Args": args}, errors="surrogateescape")
    envelope = rpc.send("Action=CallMcpTool", body.encode())
    assert envelope["Success"] if args == "" else envelope["Code"] == "InvalidParameter" and "Args" in envelope["Message"]


@pytest.mark.parametrize("key", ["", "Bearer ", "Bearer wrong", "Basic abc", "Bearer " + "x" * 10_000, "Bearer \0", "Bearer ü"])
def test_keys_that_are_none(deployment, rpc, key):
    envelope = rpc.send("Action=ListSession", urllib.parse.urlencode({"Authorization": key}).encode())
    assert envelope["Code"] == "NOT_LOGIN" and "AGENTBAY_API_KEY" in envelope["Message"]
    with_header = rpc.send("Action=ListSession", headers={"Authorization": "Bearer " + deployment.key})
    assert with_header["Code"] == "NOT_LOGIN"  # a browser could be made to send a header it knows, a form field it cannot


def test_another_keys_session_does_not_exist(deployment, rpc, rpc_session):
    stranger = Rpc(deployment, deployment.second_key())
    for action in ("GetSession", "GetSessionDetail", "DeleteSessionAsync", "ReleaseMcpSession", "PauseSessionAsync", "ResumeSessionAsync", "RefreshSessionIdleTime",
                   "GetLabel", "GetMcpResource", "SyncContext", "GetContextInfo"):
        theirs = stranger.call(action, SessionId=rpc_session)
        never = stranger.call(action, SessionId="session-" + "a" * 26)
        assert theirs["Code"] == never["Code"] == "InvalidMcpSession.NotFound", action
        assert theirs["Message"].replace(rpc_session, "") == never["Message"].replace("session-" + "a" * 26, "")
    assert stranger.call("SetLabel", SessionId=rpc_session, Labels={"a": "b"})["Code"] == "InvalidMcpSession.NotFound"
    tools = [t["name"] for t in json.loads(rpc.call("ListMcpTools")["Data"])] + ["no_such_tool"]
    full = {"path": "/tmp", "code": "1", "language": "python", "command": "true", "content": "", "source": "/a", "destination": "/b", "pattern": "*", "paths": ["/a"],
            "edits": [{"oldText": "a", "newText": "b"}], "envs": [{"key": "A", "value": "1"}]}
    for tool in tools:
        args = {**full, "envs": {"A": "1"}} if tool == "shell" else full
        assert stranger.call("CallMcpTool", SessionId=rpc_session, Name=tool, Args=args)["Code"] == "InvalidMcpSession.NotFound", tool
    assert rpc_session not in json.dumps(stranger.call("ListSession"))
    assert rpc.call("GetSession", SessionId=rpc_session)["Success"]


@pytest.mark.parametrize("action", ["", "Nothing", "getsession", "InitBrowser", "GetCdpLink", "GetAdbLink", "CreateNetwork", "DescribeNetwork", "GetLink", "GetAndLoadInternalContext", "X" * 5000])
def test_actions_that_are_not_there(rpc, action):
    envelope = rpc.call(action, SessionId="session-x")
    assert envelope["Code"] == "InvalidAction.NotFound" and len(envelope["Message"]) < 300


@pytest.mark.parametrize("action, fields, code", [
    ("GetSession", {}, "InvalidParameter"), ("DeleteSessionAsync", {"SessionId": ""}, "InvalidParameter"), ("GetSession", {"SessionId": "../../x"}, "InvalidMcpSession.NotFound"),
    ("GetSession", {"SessionId": "\0"}, "InvalidMcpSession.NotFound"), ("CallMcpTool", {"SessionId": "session-x"}, "InvalidParameter"),
    ("CreateMcpSession", {"Labels": "{"}, "InvalidParameter"), ("CreateMcpSession", {"Labels": '{"a": 1}'}, "InvalidParameter"), ("CreateMcpSession", {"Labels": "[1]"}, "InvalidParameter"),
    ("CreateMcpSession", {"Labels": json.dumps({str(n): "x" for n in range(100)})}, "InvalidParameter"), ("CreateMcpSession", {"ImageId": "windows_latest"}, "InvalidImage.NotFound"),
    ("CreateMcpSession", {"PersistenceDataList": '[{"ContextId": "SdkCtx-1", "Path": "/tmp"}]'}, "Context.NotFound"),
    ("ListSession", {"MaxResults": "many"}, "InvalidParameter"), ("ListSession", {"Status": "SLEEPING"}, "InvalidParameter"), ("ListSession", {"NextToken": "!!!"}, "InvalidParameter"),
    ("GetContext", {"AllowCreate": "perhaps"}, "InvalidParameter"), ("DeleteContext", {"Id": "SdkCtx-1"}, "Context.NotFound"),
    ("ClearContext", {"Id": "SdkCtx-1"}, "Context.NotFound"), ("DescribeContextFiles", {"ContextId": "SdkCtx-1"}, "Context.NotFound"),
])
def test_refused_with_a_reason(rpc, action, fields, code):
    envelope = rpc.call(action, **fields)
    assert envelope["Code"] == code and len(envelope["Message"]) > 10, envelope


def test_forms_that_are_broken(deployment, rpc):
    assert rpc.send("Action=ListSession", b"Authorization=%zz")["Code"] == "InvalidParameter"
    assert rpc.send("Action=ListSession", b"&&&===&=&%41")["Code"] == "NOT_LOGIN"
    assert rpc.send("Action=ListSession", b"&".join(b"f%d=1" % n for n in range(300)))["Code"] == "InvalidParameter"
    assert rpc.send("Action=ListSession", b"x=1", headers={"Content-Type": "application/json"})["Code"] == "UnsupportedMediaType"
    assert rpc.send("Action=ListSession", b"\xff\x00\xfe")["Code"] == "NOT_LOGIN"
    api = Client("127.0.0.1", deployment.port, None)
    for head, code in ((b"Content-Length: 999999999999\r\n", "RequestTooLarge"), (b"Transfer-Encoding: chunked\r\n", "InvalidParameter")):
        answer = parse(api.raw(b"POST /?Action=ListSession HTTP/1.1\r\nHost: x\r\nContent-Type: " + FORM.encode() + b"\r\n" + head + b"\r\nzz\r\n", half_close=True))
        assert answer.json["Code"] == code and answer.json["RequestId"], answer
    assert rpc.call("ListSession")["Success"]


def test_a_paused_session_says_so(rpc):
    session = rpc.create()
    assert rpc.call("PauseSessionAsync", SessionId=session)["Success"] and rpc.call("PauseSessionAsync", SessionId=session)["Success"]
    assert rpc.call("GetSession", SessionId=session)["Data"]["Status"] == rpc.call("GetSessionDetail", SessionId=session)["Data"]["Status"] == "PAUSED"
    for tool in ("run_code", "shell", "read_file"):
        envelope = rpc.call("CallMcpTool", SessionId=session, Name=tool, Args={"path": "/tmp/x", "code": "1", "language": "python", "command": "true"})
        assert envelope["Code"] == "InvalidMcpSession.Paused" and f"session {session} is paused; resume it" in envelope["Message"]
    assert rpc.call("ResumeSessionAsync", SessionId=session)["Success"] and rpc.call("ResumeSessionAsync", SessionId=session)["Success"]
    assert rpc.tool(session, "shell", command="true")[1] is False
    assert rpc.call("DeleteSessionAsync", SessionId=session)["Success"]
    assert rpc.call("PauseSessionAsync", SessionId=session)["Code"] == "InvalidMcpSession.NotFound"
