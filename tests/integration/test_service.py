"""The routes that describe the service, TLS on the same port, and the operator's commands."""
import os
import socket
import ssl
import stat
import subprocess
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

import host
from client import Client, Session
from deployment import own_deployment


def test_health_needs_no_key(api):
    """Health, readiness, version and contract are open; everything else needs the key."""
    anonymous = api.another(key="")
    for path in ("/healthz", "/livez", "/readyz", "/version", "/openapi.json"):
        assert anonymous.get(path).status == 200, path
    anonymous.get("/v1/images").problem(401, "unauthorized")
    anonymous.close()


def test_readiness_names_its_checks(api):
    """`/readyz?verbose` lists what was checked."""
    body = api.get("/readyz?verbose").ok()
    assert body["ready"] and len(body["checks"]) >= 3
    assert all(check["ok"] and check["name"] for check in body["checks"]), body


def test_version(api):
    """`/version` says what runs."""
    body = api.get("/version").ok()
    assert body["name"] == "codespaced" and body["version"][0].isdigit()


def test_openapi(api):
    """The contract is OpenAPI 3.1 and has every route these tests use, with the problem type."""
    contract = api.get("/openapi.json").ok()
    assert contract["openapi"].startswith("3.1")
    for path in ("/v1/sessions", "/v1/sessions/{id}", "/v1/sessions/{id}/runs", "/v1/sessions/{id}/commands", "/v1/sessions/{id}/files/{path}",
                 "/v1/sessions/{id}/files:mkdir", "/v1/sessions/{id}/files:move", "/v1/runs", "/v1/images", "/healthz", "/readyz", "/version"):
        assert path in contract["paths"], path
    assert "application/problem+json" in str(contract)


def test_images(api, image):
    """The images are listed with languages and versions."""
    images = {entry["name"]: entry for entry in api.get("/v1/images").ok()["images"]}
    entry = images[image]
    assert "python" in entry["languages"] and entry["versions"]["python"].startswith("3.")
    if image == "code_latest":
        assert entry["versions"]["python"] == "3.11.2" and entry["versions"]["node"] == "18.20.4"


def test_alias_names_the_image(make_session, api, image):
    """An alias of an image creates a session of it."""
    entry = next(entry for entry in api.get("/v1/images").ok()["images"] if entry["name"] == image)
    for alias in entry["aliases"]:
        assert make_session(image=alias).record["image"] == image


def test_https_on_the_same_port(deployment):
    """The port speaks TLS too, with a certificate of the server's own authority for localhost."""
    context = ssl.create_default_context(cafile=str(deployment.state / "tls/ca.pem"))
    for name in ("localhost", "127.0.0.1"):
        request = urllib.request.Request(f"https://{name}:{deployment.port}/v1/images", headers={"Authorization": f"Bearer {deployment.key}"})
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:
            assert answer.status == 200
    with pytest.raises(OSError):
        urllib.request.urlopen(f"https://localhost:{deployment.port}/healthz", context=ssl.create_default_context(), timeout=10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_is_refused(deployment):
    """TLS 1.1 is not spoken."""
    context = ssl.create_default_context(cafile=str(deployment.state / "tls/ca.pem"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        urllib.request.urlopen(f"https://localhost:{deployment.port}/healthz", context=context, timeout=10)


def test_secrets_on_disk(deployment):
    """Key and private keys are readable by the service alone, and the database holds no key."""
    for name in ("api-key", "tls/ca-key.pem", "tls/server-key.pem"):
        assert stat.S_IMODE(os.stat(deployment.state / name).st_mode) == 0o600, name
    for path in deployment.state.glob("codespace.db*"):
        assert deployment.key.encode() not in path.read_bytes(), path


def test_env_command(deployment):
    """`codespaced env` prints exports that a shell can evaluate and that make clients work."""
    done = subprocess.run([deployment.bin / "codespaced", "env", "--state", str(deployment.state), "--listen", f"127.0.0.1:{deployment.port}"],
                          capture_output=True, text=True, check=True)
    script = done.stdout + 'env | grep -E "^(CODESPACE|AGENTBAY|SSL_CERT|REQUESTS_CA|NODE_EXTRA)"'
    shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"})
    values = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    assert values["CODESPACE_URL"] == f"https://localhost:{deployment.port}" and values["AGENTBAY_ENDPOINT"] == f"localhost:{deployment.port}"
    assert values["CODESPACE_API_KEY"] == values["AGENTBAY_API_KEY"] == deployment.key
    for name in ("CODESPACE_CA", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"):
        assert "BEGIN CERTIFICATE" in open(values[name], encoding="utf-8").read(), name
    # curl trusts the bundle without any option but the address.
    done = subprocess.run(["curl", "-sS", "--cacert", values["SSL_CERT_FILE"], "-H", f"Authorization: Bearer {deployment.key}", values["CODESPACE_URL"] + "/v1/images"],
                          capture_output=True, text=True, check=True)
    assert '"images"' in done.stdout


def test_metrics(deployment, image):
    """What happened is what is counted, in the text format that Prometheus reads."""
    api = deployment.client()

    def read():
        answer = api.get("/metrics")
        assert answer.status == 200 and answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        found = {}
        for family in text_string_to_metric_families(answer.body.decode()):
            assert family.name.startswith("codespace_") and family.documentation
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        return found

    before = read()
    session = Session.create(api, image=image)
    session.run("print('12345')")
    session.run("1/0")
    session.command("echo abc >&2")
    during = read()
    session.delete()
    after = read()

    def grown(name, later, earlier=before, **labels):
        key = (name, tuple(sorted(labels.items())))
        return later.get(key, 0) - earlier.get(key, 0)

    assert grown("codespace_runs_total", during, language="python", outcome="ok") == 1
    assert grown("codespace_runs_total", during, language="python", outcome="error") == 1
    assert grown("codespace_runs_total", during, language="shell", outcome="ok") == 1
    assert grown("codespace_run_output_bytes_total", during, stream="stdout") == 6
    assert grown("codespace_run_output_bytes_total", during, stream="stderr") > 4
    assert sum(grown("codespace_session_creation_duration_seconds_count", during, origin=o) for o in ("pool", "zygote", "cold")) == 1
    assert sum(grown("codespace_run_duration_seconds_count", during, language="python", kernel=k) for k in ("running", "zygote", "cold")) == 2
    assert grown("codespace_http_requests_total", during, route="/v1/sessions/{id}/runs", status="200") == 2
    assert grown("codespace_sessions", during, status="running") == 1
    assert grown("codespace_sessions", after, status="running") == 0
    assert grown("codespace_sessions_ended_total", after, reason="deleted") == 1
    assert after["codespace_launcher_up", ()] == 1
    api.close()


def test_metrics_want_a_key(deployment):
    Client("127.0.0.1", deployment.port, None).get("/metrics").problem(401, "unauthorized")


@pytest.mark.parametrize("left", ["csk_'; touch ran; '", "csk_$(touch ran)", "csk_`touch ran`", "root:x:0:0:", ""])
def test_env_command_gives_no_shell_what_is_no_key(deployment, tmp_path, left):
    """The gateway can write the file, and root runs what the command prints."""
    (tmp_path / "api-key").write_text(left + "\n")
    done = subprocess.run([deployment.bin / "codespaced", "env", "--state", tmp_path, "--listen", "127.0.0.1:1"], capture_output=True, text=True)
    assert done.returncode != 0 and done.stdout == "" and "api-key" in done.stderr


def test_env_command_follows_no_link(deployment, tmp_path):
    """Nor does it read what another user put there, or wait for a pipe."""
    (tmp_path / "secret").write_text("csk_of-somebody-else\n")
    for put in (lambda key: key.symlink_to(tmp_path / "secret"), os.mkfifo, lambda key: (key.write_text("csk_planted\n"), os.chown(key, 12345, 12345))):
        put(tmp_path / "api-key")
        done = subprocess.run([deployment.bin / "codespaced", "env", "--state", tmp_path, "--listen", "127.0.0.1:1"], capture_output=True, text=True, timeout=10)
        assert done.returncode != 0 and done.stdout == ""
        (tmp_path / "api-key").unlink()


def test_root_without_user_is_refused(deployment, tmp_path):
    """Started as root without a user to become, the gateway refuses and says what to do."""
    done = subprocess.run([deployment.bin / "codespaced", "serve", "--state", str(tmp_path), "--listen", "127.0.0.1:0"],
                          capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode != 0 and "--user" in done.stdout + done.stderr


def test_too_many_connections(request, image):
    """One more than there may be is told so, and is served as soon as there is room."""
    with own_deployment(request, image, config="[server]\nmax_connections = 4\n[pool]\nsize = 0\nmost = 0\ndata = 0\n") as own:
        held = [own.client() for _ in range(4)]
        for client in held:
            assert client.get("/livez").status == 200
        late = own.client()
        refused = late.get("/v1/sessions")
        assert refused.status == 503 and refused.json["code"] == "overloaded" and refused.headers["retry-after"] == "1", refused
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises(OSError):
            context.wrap_socket(socket.create_connection(("127.0.0.1", own.port), timeout=10))
        held.pop().close()
        host.wait_until(lambda: own.client().get("/livez").status == 200, 10, "room for one more")
        for client in held:
            assert client.get("/livez").status == 200, "one that was served was dropped"
