"""Eight clients at once, a hundred sessions each: every call right, nothing left."""
import multiprocessing
import os
import uuid

from agentbay import AgentBay, CreateSessionParams

CLIENTS, SESSIONS = 8, 100


def client(number, tag, errors):
    agent_bay = AgentBay(api_key=os.environ["AGENTBAY_API_KEY"])
    for n in range(SESSIONS):
        said = f"{number}-{n}"
        try:
            made = agent_bay.create(CreateSessionParams(image_id="code_latest", labels={"load": tag}))
            assert made.success, made.error_message
            session = made.session
            run = session.code.run_code(f"name = '{said}'\nprint(name)", "python")
            assert run.success and run.result == said + "\n", run.error_message
            assert session.file_system.write_file("/workspace/f", said).success
            command = session.command.execute_command("cat f")
            assert command.success and command.stdout == said, command.error_message
            read = session.file_system.read_file("/workspace/f")
            assert read.success and read.content == said
            deleted = agent_bay.delete(session)
            assert deleted.success, deleted.error_message
        except Exception as error:  # every one is told, with whose it was
            errors.put(f"{said}: {error!r}")


def test_eight_clients():
    tag = uuid.uuid4().hex
    # Not by fork: the SDK keeps connections in its module, and two processes must not share one.
    spawn = multiprocessing.get_context("spawn")
    errors = spawn.Queue()
    clients = [spawn.Process(target=client, args=(n, tag, errors)) for n in range(CLIENTS)]
    for process in clients:
        process.start()
    for process in clients:
        process.join(600)
        assert process.exitcode == 0
    assert errors.empty(), errors.get()
    assert AgentBay().list(labels={"load": tag}).total_count == 0
