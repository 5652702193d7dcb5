"""Sessions: life, state, lists, labels, what is refused and how."""
import asyncio
import time
import uuid

import pytest
from agentbay import AgentBay, AsyncAgentBay, CreateSessionParams


@pytest.mark.parametrize("image", ["code_latest", "linux_latest", None])
def test_create_and_delete(agent_bay, image):
    result = agent_bay.create(CreateSessionParams(image_id=image) if image else None)
    assert result.success and result.session.session_id.startswith("session-") and result.request_id
    session = result.session
    assert session.command.execute_command("echo there").stdout == "there\n"
    assert session.get_status().status == "RUNNING"
    began = time.monotonic()
    assert session.delete().success and time.monotonic() - began < 3
    status = session.get_status()
    assert status.success and status.status == "FINISH"
    assert not agent_bay.get(session.session_id).success
    assert session.session_id not in [s["sessionId"] for s in agent_bay.list().session_ids]
    for result in (session.code.run_code("1", "python"), session.command.execute_command("true"), session.file_system.read_file("/etc/hosts"), session.info):
        result = result() if callable(result) else result
        assert not result.success and session.session_id in result.error_message


def test_delete_twice_and_from_another_client(agent_bay, make_session):
    session = make_session()
    other = agent_bay.get(session.session_id).session
    assert agent_bay.delete(other).success
    assert agent_bay.delete(session).success
    assert not session.command.execute_command("true").success


def test_get_has_everything(agent_bay, make_session):
    session = make_session()
    result = agent_bay.get(session.session_id)
    assert result.success and result.session.session_id == session.session_id and "resourceId=" in result.session.resource_url
    assert result.session.code.run_code("print('same')", "python").result == "same\n"
    info = session.info()
    assert info.success and info.data.session_id == session.session_id and "resourceId=" in info.data.resource_url
    for missing in ("session-aaaaaaaaaaaaaaaaaaaaaaaaaa", "not a session", "../x"):
        failed = agent_bay.get(missing)
        assert not failed.success and "not found" in failed.error_message


def test_labels(agent_bay, make_session):
    session = make_session(labels={"project": "demo", "ünïcode": "värde 漢"})
    assert session.get_labels().data == {"project": "demo", "ünïcode": "värde 漢"}
    assert session.set_labels({"only": "this"}).success
    assert session.get_labels().data == {"only": "this"}
    for wrong in ({}, {"": "x"}, None, []):
        assert not session.set_labels(wrong).success


def test_list_by_label_and_page(agent_bay, make_session):
    tag = uuid.uuid4().hex
    made = [make_session(labels={"tag": tag, "n": str(n)}).session_id for n in range(5)]
    seen = []
    for page in (1, 2, 3):
        result = agent_bay.list(labels={"tag": tag}, page=page, limit=2)
        assert result.success and result.total_count == 5 and result.max_results == 2
        seen += [s["sessionId"] for s in result.session_ids]
    assert sorted(seen) == sorted(made) and result.next_token == ""
    assert not agent_bay.list(labels={"tag": tag}, page=4, limit=2).success
    assert [s["sessionId"] for s in agent_bay.list(labels={"tag": tag, "n": "3"}).session_ids] == [made[3]]
    nothing = agent_bay.list(labels={"tag": "no such"})
    assert nothing.success and nothing.session_ids == [] and nothing.total_count == 0


def test_pause_and_resume(agent_bay, make_session):
    tag = uuid.uuid4().hex
    session = make_session(labels={"tag": tag})
    session.code.run_code("kept = 41", "python")
    session.command.execute_command("echo kept > /tmp/kept")
    assert agent_bay.beta_pause(session).success
    assert session.get_status().status == "PAUSED"
    assert [s["sessionStatus"] for s in agent_bay.list(labels={"tag": tag}, status="PAUSED").session_ids] == ["PAUSED"]
    assert agent_bay.list(labels={"tag": tag}, status="RUNNING").session_ids == []
    refused = session.command.execute_command("true")
    assert not refused.success and "resume" in refused.error_message
    assert agent_bay.beta_resume(session).success and session.get_status().status == "RUNNING"
    assert session.code.run_code("kept + 1", "python").result == "42" and session.command.execute_command("cat /tmp/kept").stdout == "kept\n"
    assert agent_bay.beta_pause(session).success and agent_bay.beta_pause(session).success
    assert agent_bay.delete(session).success


def test_metrics(make_session):
    session = make_session()
    result = session.get_metrics()
    assert result.success, result.error_message
    m = result.metrics
    assert m.cpu_count >= 1 and 0 <= m.cpu_used_pct <= 100 and m.mem_total > 0 and 0 < m.mem_used < m.mem_total and m.disk_total > 0 and m.timestamp
    session.command.execute_command("head -c 20000000 /dev/zero > /workspace/big")
    assert session.get_metrics().metrics.disk_used >= 20_000_000


def test_tools_and_keep_alive(session):
    tools = {t.name: t for t in session.list_mcp_tools().tools}
    assert {"run_code", "shell", "read_file", "write_file", "get_metrics"} <= set(tools)
    assert all(t.server and t.name for t in tools.values())
    assert session.keep_alive().success
    result = session.call_mcp_tool("no_such_tool", {})
    assert not result.success and "tool not found" in result.error_message
    result = session.call_mcp_tool("shell", {"command": 5})
    assert not result.success and "`command` must be a string" in result.error_message
    result = session.call_mcp_tool("shell", {})
    assert not result.success and "`command` is missing" in result.error_message


def test_a_wrong_key(make_session):
    stranger = AgentBay(api_key="csk_wrong")
    result = stranger.create(CreateSessionParams(image_id="code_latest"))
    assert not result.success and "NOT_LOGIN" in result.error_message and "AGENTBAY_API_KEY" in result.error_message
    result = stranger.get(make_session().session_id)
    assert not result.success and "NOT_LOGIN" in result.error_message
    assert not stranger.list().success


def test_what_a_code_sandbox_does_not_have(agent_bay, make_session):
    result = agent_bay.create(CreateSessionParams(image_id="browser_latest"))
    assert not result.success and "browser_latest" in result.error_message and "code_latest" in result.error_message
    session = make_session()
    with pytest.raises(Exception, match="no address of its own"):
        session.get_link()
    assert agent_bay.context.list().contexts == []
    assert not agent_bay.context.get("none").success
    made = agent_bay.context.get("new", create=True)
    assert not made.success and "no persistent contexts" in made.error_message
    assert session.context.info().success and session.context.sync()
    result = session.call_mcp_tool("oss_upload", {"bucket": "b", "object": "o", "path": "/tmp/x"})
    assert not result.success and "tool not found" in result.error_message
    for result in (session.computer.screenshot(), session.mobile.screenshot(), session.oss.upload("b", "o", "/tmp/x")):
        assert not result.success and "tool not found" in result.error_message
    for result in (session.file_system.upload_file(__file__, "/tmp/x"), session.file_system.download_file("/etc/passwd", "/dev/null")):
        assert not result.success and "write_file" in result.error_message
    for streaming in (session.pty.create, session.pty.list):
        with pytest.raises(Exception, match="ws_url is not available"):
            streaming()
    result = session.code.run_code("1", "python", stream_beta=True)
    assert not result.success and "ws_url is not available" in result.error_message
    with pytest.raises(Exception, match="GetSkillMetaData"):
        agent_bay.beta_skills.get_metadata()


def test_variables_of_the_session(make_session):
    session = make_session()
    assert session.env.set({"GREETING": "hello"}).success
    assert session.env.get(["GREETING"]).envs == {"GREETING": "hello"}
    assert session.command.execute_command("echo $GREETING").output == "hello\n"
    assert session.code.run_code("import os; os.environ['GREETING']", "python").result == "'hello'"


def test_delete_with_sync(agent_bay, make_session):
    assert make_session().delete(sync_context=True).success


def test_git(make_session):
    session = make_session()
    git = session.git
    assert git.init("/workspace/repo")
    session.file_system.write_file("/workspace/repo/f", "x")
    git.configure_user("/workspace/repo", "A", "a@example.com")
    git.add("/workspace/repo")
    git.commit("/workspace/repo", "first")
    assert [c.message for c in git.log("/workspace/repo").entries] == ["first"]


def test_the_asynchronous_client():
    async def work():
        agent_bay = AsyncAgentBay()
        results = await asyncio.gather(*[agent_bay.create(CreateSessionParams(image_id="code_latest")) for _ in range(4)])
        sessions = [r.session for r in results]
        runs = await asyncio.gather(*[s.code.run_code(f"print({n})", "python") for n, s in enumerate(sessions)])
        assert [r.result for r in runs] == [f"{n}\n" for n in range(4)]
        commands = await asyncio.gather(*[s.command.execute_command("cat", timeout_ms=2000) for s in sessions])
        assert all(c.success and c.output == "" for c in commands)
        await sessions[0].file_system.write_file("/tmp/f", "async" * 20_000)
        assert (await sessions[0].file_system.read_file("/tmp/f")).content == "async" * 20_000
        assert (await sessions[0].beta_pause()).success and (await sessions[0].beta_resume()).success
        deleted = await asyncio.gather(*[agent_bay.delete(s) for s in sessions])
        assert all(d.success for d in deleted)

    asyncio.run(work())
