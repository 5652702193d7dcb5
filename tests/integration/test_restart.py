"""Nothing is lost when the gateway restarts, is upgraded or crashes; and when the launcher
goes, what is lost with it is said. On a deployment of its own, because it is stopped here."""
import os
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time

import pytest

import host
from client import Session
from counting import Callers
from deployment import own_deployment


@pytest.fixture
def own(request, image):
    """A deployment that this test may stop and start."""
    with own_deployment(request, image) as made:
        yield made


def restart(own, sign):
    own.stop_gateway(sign)
    own.start_gateway()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_gateway_restart(own, image, sign):
    """After a crash or an orderly restart the session is there, with its variables, files, processes and finished runs."""
    key = own.key
    api = own.client()
    session = Session.create(api, image=image, labels={"a": "b"}, env={"E": "1"}, idle_timeout_s=500)
    session.put("f", b"file").ok(201)
    session.run("x = 42", "python")
    session.run("var y = 43", "javascript")
    session.command("sleep 300 & echo")
    record = session.run("print('hello')\n'result'")
    ended = Session.create(api, image=image)
    ended.delete()
    view = host.SessionView(session)
    members = sorted(view.members())

    restart(own, sign)
    assert own.key == key
    api.close()
    assert sorted(view.members()) == members, "the restart changed the session's processes"
    now = session.get().ok()
    assert now["status"] == "running" and now["labels"] == {"a": "b"} and now["idle_timeout_s"] == 500
    assert now["created_at"] == session.record["created_at"]
    assert session.run("print(x)")["stdout"] == "42\n"
    assert session.run("console.log(y, process.env.E)", "javascript")["stdout"] == "43 1\n"
    assert session.read("f").body == b"file" and session.shell("echo $E") == "1\n"
    found = session.api.get(f"{session.path}/runs/{record['run_id']}").ok()
    assert found == record
    assert ended.get().problem(410, "session_ended")["end_reason"] == "deleted"
    assert [e["session_id"] for e in api.get("/v1/sessions").ok()["sessions"]] == [session.id]
    assert session.delete().status == 204
    api.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_run_goes_on_over_a_restart(own, image, sign):
    """A run that is under way when the gateway goes finishes, and the retry with its key gets its result, once."""
    api = own.client()
    session = Session.create(api, image=image)
    session.run("import time")
    code = "time.sleep(3)\nopen('/tmp/ran', 'a').write('x')\nprint('done')"
    key = {"Idempotency-Key": "over-a-restart"}
    caller, answers = own.client(), []

    def first_try():
        try:
            answers.append(session.via(caller).try_run(code, headers=key))
        except OSError as broken:
            answers.append(broken)

    thread = threading.Thread(target=first_try)
    thread.start()
    host.wait_until(lambda: api.get(session.path + "/metrics").json.get("runs_active") == 1, 10, "the run active")
    restart(own, sign)
    thread.join(30)
    api.close()
    record = session.try_run(code, headers=key).ok()
    assert record["outcome"] == "ok" and record["stdout"] == "done\n" and record["language"] == "python", record
    assert session.read("/tmp/ran").body == b"x", "the run was started twice"
    if answers and getattr(answers[0], "status", None) == 200:  # drained before the stop
        assert answers[0].json == record
    api.close()
    caller.close()


def test_lifetimes_hold_over_a_restart(own, image):
    """A session whose time passes while the gateway is away is ended when it is back."""
    api = own.client()
    session = Session.create(api, image=image, max_lifetime_s=3)
    view = host.SessionView(session)
    own.stop_gateway(signal.SIGKILL)
    time.sleep(3.1)  # the lifetime itself
    own.start_gateway()
    api.close()
    host.wait_until(lambda: session.get().status == 410, 10, "an end of the session")
    assert session.get().json["end_reason"] == "lifetime"
    assert view.members() == []
    api.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_launcher_restart(own, image, sign):
    """With the launcher its sessions go: they answer 410 with the reason, nothing of them runs on, and new ones work."""
    api = own.client()
    session = Session.create(api, image=image)
    session.command("setsid sleep 300 & echo")
    view = host.SessionView(session)
    own.stop_launcher(sign)
    own.start_launcher()
    host.wait_until(lambda: not view.members(), 10, "an end of the lost session's processes")
    host.wait_until(lambda: session.get().status == 410, 15, "the gateway noticing")
    reason = session.get().problem(410, "session_ended")["end_reason"]
    assert reason in ("lost_at_reboot", "init_died"), reason
    host.wait_until(lambda: api.get("/readyz").status == 200, 15, "readiness")
    again = Session.create(api, image=image)
    assert again.run("print(1)")["stdout"] == "1\n"
    again.delete()
    api.close()


def test_launcher_down(own, image):
    """Without a launcher readiness says so, creation is refused with the reason, and the gateway lives."""
    api = own.client()
    own.stop_launcher(signal.SIGKILL)
    host.wait_until(lambda: api.get("/readyz").status == 503, 15, "readiness lost")
    assert not all(check["ok"] for check in api.get("/readyz?verbose").json["checks"])
    api.post("/v1/sessions", {"image": image}).problem(503, "launcher_unavailable")
    assert api.get("/healthz").status == 200
    own.start_launcher()
    host.wait_until(lambda: api.get("/readyz").status == 200, 15, "readiness back")
    Session.create(api, image=image).delete()
    api.close()


def test_drain(own, image):
    """SIGTERM lets a short run finish and its answer out."""
    api = own.client()
    session = Session.create(api, image=image)
    session.run("import time")
    caller, answers = own.client(), []
    thread = threading.Thread(target=lambda: answers.append(session.via(caller).try_run("time.sleep(1)\nprint('drained')")))
    thread.start()
    host.wait_until(lambda: api.get(session.path + "/metrics").json.get("runs_active") == 1, 10, "the run active")
    own.stop_gateway(signal.SIGTERM)
    thread.join(10)
    assert answers and answers[0].json["stdout"] == "drained\n", answers
    own.start_gateway()
    api.close()
    caller.close()


def certificate(directory, name):
    """A certificate of somebody's own, and its key, readable for the gateway."""
    files = [str(directory / f"{name}.pem"), str(directory / f"{name}-key.pem")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                    "-addext", f"subjectAltName=DNS:{name},DNS:localhost", "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    for file in files:
        shutil.chown(file, "codespace", "codespace")
    return files


def served(port):
    """A TLS connection, and the certificate that was served on it."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))
    return connection, connection.getpeercert(binary_form=True)


def ask(connection):
    connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connection.recv(4096)[:15]


def test_certificates_are_reloaded_without_dropping_anybody(own):
    own.stop_gateway()
    files = certificate(own.state, "first")
    own.config = f'[server]\ntls_certificate = "{files[0]}"\ntls_key = "{files[1]}"\n'
    own.start_gateway()
    old, first = served(own.port)
    assert ask(old) == b"HTTP/1.1 200 OK"
    for target, source in zip(files, certificate(own.state, "second")):
        os.replace(source, target)
    own.gateway.send_signal(signal.SIGHUP)
    host.wait_until(lambda: served(own.port)[1] != first, 10, "the new certificate")
    assert ask(old) == b"HTTP/1.1 200 OK", "the connection of before was dropped"
    # A key that is not the certificate's: the old ones stay.
    now = served(own.port)[1]
    os.replace(certificate(own.state, "third")[1], files[1])
    own.gateway.send_signal(signal.SIGHUP)
    host.wait_until(lambda: "the certificate was not reloaded" in own.log("gateway"), 10, "the refusal in the log")
    fresh, still = served(own.port)
    assert still == now and ask(fresh) == b"HTTP/1.1 200 OK" and ask(old) == b"HTTP/1.1 200 OK"


def test_backup_under_load(own, image):
    """Copies made while clients work are sound, complete and of one moment."""
    callers = Callers(own.client, image, 4, 8).start()
    gateway = own._readable_gateway()
    as_gateway = ["setpriv", "--reuid=codespace", "--regid=codespace", "--clear-groups"]
    try:
        for n in range(5):
            session = Session.create(own.client(), image=image, labels={"backup": str(n)})
            subprocess.run([*as_gateway, gateway, "backup", own.state / f"backup{n}", "--state", own.state], check=True, capture_output=True, cwd="/")
            with sqlite3.connect(f"file:{own.state}/backup{n}?mode=ro", uri=True) as copy:
                assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                assert copy.execute("SELECT count(*) FROM labels WHERE name = 'backup' AND value = ?", (str(n),)).fetchone() == (1,), "acknowledged, and not in the copy"
                assert {row[0] for row in copy.execute("SELECT name FROM backup_files")} >= {"api-key", "tls/ca.pem", "tls/ca-key.pem", "tls/server.pem"}
            session.delete()
    finally:
        callers.stop()
    assert not callers.mistakes and callers.runs > 50, callers
    callers.check_all()
    assert not callers.mistakes
    callers.delete_all()
    # Into an empty directory: the same keys, the same certificates.
    fresh = own.state / "restored"
    subprocess.run([*as_gateway, gateway, "restore", own.state / "backup4", "--state", fresh], check=True, capture_output=True, cwd="/")
    for name in ("api-key", "tls/ca.pem", "tls/ca-key.pem"):
        assert (fresh / name).read_bytes() == (own.state / name).read_bytes()
    keys = subprocess.run([*as_gateway, gateway, "key", "list", "--state", fresh], check=True, capture_output=True, text=True, cwd="/").stdout
    assert "default" in keys
    refused = subprocess.run([*as_gateway, gateway, "restore", own.state / "backup4", "--state", fresh], capture_output=True, text=True, check=False, cwd="/")
    assert refused.returncode == 1 and "move it away first" in refused.stderr
    rubbish = own.state / "rubbish"
    rubbish.write_bytes(b"no database" * 100)
    shutil.chown(rubbish, "codespace", "codespace")
    refused = subprocess.run([*as_gateway, gateway, "restore", rubbish, "--state", own.state / "other"], capture_output=True, text=True, check=False, cwd="/")
    assert refused.returncode == 1 and "not a database" in refused.stderr, refused.stderr
