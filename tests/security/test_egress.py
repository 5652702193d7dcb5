"""The way out of a session: nothing without one, and with one only to what its rules permit.
On a deployment of its own whose proxy lives in a small internet of the test's (world.py). In
it, private, metadata and loopback servers are really reachable for the proxy, so that only its
decision keeps a session from them."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import urllib.request

import pytest

import host
from client import Session
from deployment import own_deployment
from world import World

ROOT = pathlib.Path(__file__).resolve().parents[2]
REGISTRY = ROOT / "build/registry"
SESSION_BYTES = 40_000_000
PORT = 3128

# Speaks to the proxy by hand: sends the bytes given, prints what comes back until the end.
SPEAK = """
import socket, sys, time
def speak(data, wait=8, then=None):
    s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(wait); s.sendall(data)
    got = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece: break
            got += piece
            if then is not None and b"\\r\\n\\r\\n" in got:
                s.sendall(then); then = None
    except (TimeoutError, ConnectionResetError) as stopped:
        got += b" <" + type(stopped).__name__.encode() + b">"
    return got.decode("latin-1")
def status(target, method="CONNECT"):
    answer = speak(f"{method} {target} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode("latin-1"), then=b"")
    return answer.split("\\r\\n")[0]
"""


@pytest.fixture(scope="module")
def world():
    packages()
    made = World(REGISTRY)
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def own(request, image, world):
    with own_deployment(request, image, world,
                        egress_options=["--session-bytes", str(SESSION_BYTES), "--deny", "93.184.216.66", "--deny", "93.184.216.99"],
                        config='[network]\nmode = "allowlist"\nallow = "api.example.com, *.pypi.org"\n') as made:
        yield made


@pytest.fixture
def make(own, image, world):
    api = own.client()
    sessions = []

    def create(mode, *allow, arm=True, **fields):
        network = {"mode": mode, **({"allow": list(allow)} if allow else {})}
        session = Session.create(api, image=image, network=network, **fields)
        sessions.append(session)
        if arm:
            session.put("/workspace/ca.pem", (world.directory / "ca.pem").read_bytes()).ok(201)
            session.run(SPEAK)
        return session

    yield create
    for session in sessions:
        session.delete()
    api.close()
    own.assert_alive()


def packages():
    """One real package from each registry, fetched once by their usual clients."""
    REGISTRY.mkdir(parents=True, exist_ok=True)
    if not list(REGISTRY.glob("*.whl")):
        subprocess.run(["/usr/bin/python3", "-m", "pip", "download", "-q", "--no-deps", "--no-binary=:none:", "-d", REGISTRY, "humanize==4.9.0"], check=True)
    if not list(REGISTRY.glob("*.tgz")):
        if shutil.which("npm"):
            subprocess.run(["npm", "pack", "--silent", "left-pad@1.3.0"], cwd=REGISTRY, check=True, stdout=subprocess.DEVNULL)
        else:  # Debian's nodejs comes without it
            urllib.request.urlretrieve("https://registry.npmjs.org/left-pad/-/left-pad-1.3.0.tgz", REGISTRY / "left-pad-1.3.0.tgz")


def fetch(session, url, options=""):
    """(exit code, body, stderr) of a curl in the session."""
    record = session.command(f"curl -sS --max-time 20 --cacert ca.pem {options} '{url}'")
    return record["exit_code"], record["stdout"], record["stderr"]


def served_at(session, url, options=""):
    """The address of the server that answered; the answer is its own account of the request."""
    code, body, errors = fetch(session, url, options)
    assert code == 0, (url, body, errors)
    return json.loads(body)["at"]


def answer(session, code):
    return session.run("print(" + code + ", end='')")["stdout"]


# --- without a network ------------------------------------------------------------------------


def test_no_network_says_how_to_get_one(make):
    session = make("none")
    assert session.get().ok()["network"] == {"mode": "none"}
    line = answer(session, "status('pypi.org:443')")
    assert line.startswith("HTTP/1.1 403 CodeSpace: this session has no network; create one with") and '"allowlist"' in line
    record = session.command("pip install --retries 1 humanize 2>&1")
    assert record["exit_code"] != 0 and "this session has no network; create one with" in record["stdout"], record["stdout"]
    record = session.command("npm install left-pad 2>&1")
    assert record["exit_code"] != 0 and "this session has no network; create one with" in record["stdout"], record["stdout"]


@pytest.mark.parametrize("mode", ["none", "full"])
def test_nothing_goes_around_the_proxy(make, mode):
    """Only `lo`, no route, no name server, in every mode."""
    session = make(mode)
    out = session.run("""
import socket, os
print([line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line])
for family, address in ((socket.AF_INET, "93.184.216.34"), (socket.AF_INET, "10.1.2.3"), (socket.AF_INET6, "2606:2800:220:1::34"), (socket.AF_INET, "169.254.169.254")):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind); s.settimeout(3)
        try: s.connect((address, 80)); print("connected", address)
        except OSError as e: print(e.strerror)
try: print(socket.getaddrinfo("www.example.com", 80))
except OSError as e: print("no name")
""")["stdout"].splitlines()
    assert out[0] == "['lo']" and out[-1] == "no name"
    assert set(out[1:-1]) <= {"Network is unreachable", "Cannot assign requested address"}, out


# --- what is asked for is checked -------------------------------------------------------------


@pytest.mark.parametrize("network, pointer", [
    ({}, "/network/mode"), ({"mode": "host"}, "/network/mode"), ({"mode": "allowlist"}, "/network/allow"), ({"mode": "allowlist", "allow": []}, "/network/allow"),
    ({"mode": "none", "allow": ["a.example"]}, "/network/allow"), ({"mode": "full", "allow": ["a.example"]}, "/network/allow"),
    ({"mode": "allowlist", "allow": ["a.example", "https://b.example"]}, "/network/allow/1"), ({"mode": "allowlist", "allow": ["*"]}, "/network/allow/0"),
    ({"mode": "allowlist", "allow": ["localhost"]}, "/network/allow/0"), ({"mode": "allowlist", "allow": ["0x7f.1"]}, "/network/allow/0"),
    ({"mode": "allowlist", "allow": ["a.example:99999"]}, "/network/allow/0"), ({"mode": "allowlist", "allow": [7]}, "/network/allow/0"),
    ({"mode": "allowlist", "allow": ["a\n.example"]}, "/network/allow/0"), ({"mode": "allowlist", "allow": ["a.example"] * 129}, "/network/allow"),
])
def test_bad_networks(own, image, network, pointer):
    api = own.client()
    problem = api.post("/v1/sessions", {"image": image, "network": network}).problem(400, "invalid_request")
    assert problem["errors"][0]["pointer"] == pointer, problem
    api.close()


def test_the_operators_default(own, image, world):
    """A client that says nothing of a network gets the configured one; so do the SDKs."""
    api = own.client()
    session = Session.create(api, image=image)
    assert session.get().ok()["network"] == {"mode": "allowlist", "allow": ["api.example.com", "*.pypi.org"]}
    session.put("/workspace/ca.pem", (world.directory / "ca.pem").read_bytes()).ok(201)
    assert served_at(session, "http://api.example.com/") == "93.184.216.34"
    session.delete()
    api.close()


# --- the list ---------------------------------------------------------------------------------


def test_allow_list(make):
    session = make("allowlist", "www.example.com", "*.pypi.org", "other.example.com:8443", "93.184.216.34:2222")
    assert session.get().ok()["network"]["allow"][0] == "www.example.com"
    assert served_at(session, "http://www.example.com/") == "93.184.216.34"
    assert served_at(session, "https://www.example.com/x") == "93.184.216.34"
    assert served_at(session, "http://other.example.com:8443/") == "93.184.216.34"
    for refused in ("http://api.example.com/", "http://other.example.com/", "http://www.example.com:8443/", "http://93.184.216.34/"):
        code, body, _ = fetch(session, refused)
        assert "is not in this session's allow list; create a session with network.allow containing" in body, (refused, body)
    assert fetch(session, "https://api.example.com/")[0] != 0
    assert "hello" in answer(session, "speak(b'CONNECT 93.184.216.34:2222 HTTP/1.1\\r\\n\\r\\n', 2)")
    counts = session.api.get(f"/v1/sessions/{session.id}/metrics").ok()["network"]
    assert counts["allowed"] == 4 and counts["refused"] == 5 and counts["bytes_received"] > 500 and counts["bytes_sent"] > 200, counts


def test_handshake_must_ask_for_the_permitted_name(make):
    """Behind one address are many servers: the name in the TLS handshake is the one that was asked for."""
    session = make("allowlist", "www.example.com")
    assert served_at(session, "https://www.example.com/") == "93.184.216.34"
    code, body, _ = fetch(session, "https://other.example.com/", "--connect-to other.example.com:443:www.example.com:443")
    assert code != 0 and not body
    code, body, _ = fetch(session, "https://93.184.216.34/", "-k --connect-to 93.184.216.34:443:www.example.com:443")  # no name at all
    assert code != 0 and not body
    assert "no tunnel to port 80" in answer(session, "status('www.example.com:80')")
    plain = answer(session, "speak(b'CONNECT www.example.com:443 HTTP/1.1\\r\\n\\r\\n', 4, b'GET / HTTP/1.1\\r\\nHost: other.example.com\\r\\n\\r\\n')")
    assert "200 Connection established" in plain and "HTTP/1.1 400" not in plain and '"at"' not in plain, plain


# --- addresses --------------------------------------------------------------------------------


def test_the_forbidden_servers_are_really_there(world):
    """Without the proxy's rules they would answer: the tests below would fail if a rule was missing."""
    for address in ("10.1.2.3", "169.254.169.254", "93.184.216.66", "93.184.216.34"):
        done = subprocess.run(["ip", "netns", "exec", world.proxy, "curl", "-sS", "--noproxy", "*", "--max-time", "5", f"http://{address}/"],
                              capture_output=True, text=True, check=False)
        assert f'"at": "{address}"' in done.stdout, done.stderr


@pytest.mark.parametrize("target", [
    "private.example.com", "meta.example.com", "loop.example.com", "proxy.example.com", "nat64.example.com", "denied.example.com",
    "insidehosts.example.com", "10.1.2.3", "169.254.169.254", "127.0.0.1", "0.0.0.0", "93.184.216.1", "93.184.216.66", "100.100.100.200", "[::1]", "[fd00:ec2::254]", "[fe80::1]",
    "[64:ff9b::a01:203]", "[2002:a01:203::1]", "[2606:2800:220:1::1]", "224.0.0.1", "255.255.255.255"])
def test_addresses_that_are_not_public(make, target):
    session = make("full")
    for port in (80, 443):
        assert "403" in (line := answer(session, f"status('{target}:{port}')")) and "public address" in line, line
    assert "403" in answer(session, f"status('http://{target}/', 'GET')")


@pytest.mark.parametrize("target", [
    "localhost:80", "127.1:80", "2130706433:80", "0x7f000001:80", "0177.0.0.1:80", "127.0.0.1.:80", "10.0x1.2.3:80", "167838211:80", "[::ffff:a01:203]:80", "[::ffff:10.1.2.3]:80",
    "[::10.1.2.3]:80", "www.example.com.:80", "user@www.example.com:80", "www.example.com%00.evil:80", "www.example.com%2f@10.1.2.3:80", "[fe80::1%25e0]:80", "10.1.2.3\\:80",
    "\xb9\xb0.1.2.3:80", "www.example.com", "www.example.com:", "www.example.com:0", "www.example.com:80:80", "http://www.example.com:80", "/", "*", "[::1", "a" * 300 + ".example.com:80"])
def test_odd_spellings_are_refused(make, target):
    session = make("full", arm=False)
    session.run(SPEAK)
    line = answer(session, f"status({target!r})")
    assert line.startswith(("HTTP/1.1 400", "HTTP/1.1 403")), line


def test_public_addresses_and_ports(make):
    session = make("full")
    assert served_at(session, "http://www.example.com/") == "93.184.216.34"
    assert served_at(session, "http://fromhosts.example.com/") == "93.184.216.34"
    assert served_at(session, "http://six.example.com/") == "2606:2800:220:1::34"
    assert served_at(session, "https://other.example.com/") == "93.184.216.34"
    assert "port 2222 is out of reach" in answer(session, "status('www.example.com:2222')")
    for unknown in ("nosuch.example.com", "mapped.example.com"):
        assert "502" in answer(session, f"status('{unknown}:80')")


def test_rebinding(make):
    """A name that is public at one question and private at the next: what is connected to is what was looked at."""
    session = make("full")
    seen = set()
    for _ in range(12):
        code, body, _ = fetch(session, "http://rebind.example.com/")
        seen.add(json.loads(body)["at"] if body.startswith("{") else body.split(" has ")[1][:17])
    assert seen == {"93.184.216.34", "no public address"}, seen
    for _ in range(4):  # of several addresses only the public one
        assert served_at(session, "http://mixed.example.com/") == "93.184.216.34"


def test_redirects_are_judged_again(make):
    session = make("full")
    code, body, _ = fetch(session, "http://www.example.com/redirect-inside", "-L")
    assert "no public address" in body and '"at"' not in body, body


def test_host_and_api_are_out_of_reach(make, own):
    """The gateway's own port, on every address of the machine it could be asked for by."""
    session = make("full")
    for target in (f"127.0.0.1:{own.port}", f"localhost:{own.port}", f"[::1]:{own.port}", f"0.0.0.0:{own.port}"):
        assert answer(session, f"status('{target}')").startswith(("HTTP/1.1 403", "HTTP/1.1 400"))


# --- HTTP itself ------------------------------------------------------------------------------


def test_plain_http_is_rewritten(make):
    session = make("allowlist", "www.example.com")
    got = answer(session, "speak(b'GET http://www.example.com/p?q=1 HTTP/1.1\\r\\nHost: other.example.com\\r\\nProxy-Authorization: Basic eDp5\\r\\n"
                          "Connection: keep-alive, X-Secret\\r\\nX-Secret: 1\\r\\nX-Kept: 2\\r\\n\\r\\n"
                          "GET http://other.example.com/second HTTP/1.1\\r\\nHost: other.example.com\\r\\n\\r\\n')")
    assert got.count("HTTP/1.1 200") == 1 and "second" not in got, got
    seen = json.loads(got.split("\r\n\r\n", 1)[1])
    assert seen["path"] == "/p?q=1" and seen["headers"]["Host"] == "www.example.com" and seen["headers"]["X-Kept"] == "2"
    assert not {"X-Secret", "Proxy-Authorization", "Proxy-Connection"} & set(seen["headers"]), seen
    assert seen["headers"]["Connection"] == "close"


@pytest.mark.parametrize("head, status", [
    ("GET http://www.example.com/ HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
    ("POST http://www.example.com/ HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "400"),
    ("GET https://www.example.com/ HTTP/1.1\r\n\r\n", "400"), ("GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", "400"),
    ("GET ftp://www.example.com/ HTTP/1.1\r\n\r\n", "400"), ("GET http://user:pw@www.example.com/ HTTP/1.1\r\n\r\n", "400"),
    ("GET http://www.example.com:22/ HTTP/1.1\r\n\r\n", "403"), ("\x16\x03\x01\x00\x05hello", "400"), ("SOCKS\r\n\r\n", "400"),
    ("GET http://www.example.com/ HTTP/1.1\r\nX: " + "a" * 40000 + "\r\n\r\n", "400"),
])
def test_requests_that_are_none(make, head, status):
    session = make("allowlist", "www.example.com", arm=False)
    session.run(SPEAK)
    assert answer(session, f"speak({head!r}.encode('latin-1'), 12)").startswith("HTTP/1.1 " + status)


def test_bodies_pass_whole(make):
    session = make("allowlist", "www.example.com")
    session.run("open('up', 'wb').write(bytes(range(256)) * 400)")
    for options in ("--data-binary @up", "--data-binary @up -H 'Transfer-Encoding: chunked'", "--data-binary @up -H 'Expect: 100-continue'"):
        for url in ("http://www.example.com/", "https://www.example.com/"):
            code, body, errors = fetch(session, url, options)
            assert code == 0, errors
            assert json.loads(body)["body"].encode("latin-1") == bytes(range(256)) * 400, (url, options)
    assert session.shell("curl -sS --cacert ca.pem https://www.example.com/bytes/5000000 | wc -c").strip() == "5000000"


# --- bounds -----------------------------------------------------------------------------------


def test_bytes_are_bounded(make):
    session = make("allowlist", "www.example.com")
    got = session.shell(f"curl -sS --cacert ca.pem https://www.example.com/bytes/{2 * SESSION_BYTES} 2>/dev/null | wc -c")
    assert SESSION_BYTES * 0.9 < int(got) <= SESSION_BYTES
    code, body, _ = fetch(session, "http://www.example.com/")
    assert "used up the bytes" in body, body


def test_connections_are_bounded_and_others_go_on(make):
    greedy, modest = make("allowlist", "www.example.com", "www.example.com:8443"), make("allowlist", "www.example.com")
    out = greedy.run("""
import socket, time
held = [socket.create_connection(("127.0.0.1", 3128)) for _ in range(100)]
for s in held: s.sendall(b"CONNECT www.example.com:8443 HTTP/1.1\\r\\n\\r\\n"); s.settimeout(1)
def established():
    n = 0
    for s in held:
        try: n += b"200" in s.recv(100)
        except TimeoutError: break
    return n
print(established())
""")["stdout"]
    assert int(out) == 64
    assert served_at(modest, "http://www.example.com/") == "93.184.216.34"
    greedy.run("for s in held: s.close()")
    assert served_at(greedy, "http://www.example.com/") == "93.184.216.34"


def test_silent_connections_end(make):
    session = make("allowlist", "www.example.com")
    out = session.run("""
import socket, time
began = time.monotonic()
s = socket.create_connection(("127.0.0.1", 3128)); s.sendall(b"CONNECT www"); s.settimeout(25)
print(s.recv(100) == b"", 5 < time.monotonic() - began < 20)
""")["stdout"]
    assert out == "True True\n"


# --- packages ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [("allowlist", "pypi.org", "files.pythonhosted.org", "registry.npmjs.org"), ("full",)])
def test_packages_are_installed_and_importable(make, network):
    """Real packages by pip and npm, into the user's home and the workspace, there in the next run."""
    session = make(*network)
    session.run("x = 1")
    installed = session.command("pip install --cert ca.pem humanize 2>&1")
    assert installed["exit_code"] == 0, installed["stdout"]
    assert session.run("import humanize; print(humanize.intcomma(1234567), humanize.__file__)")["stdout"] == \
        "1,234,567 /home/sandbox/.local/lib/python3.11/site-packages/humanize/__init__.py\n"
    installed = session.command("npm install --cafile ca.pem left-pad 2>&1")
    assert installed["exit_code"] == 0, installed["stdout"]
    assert session.run("require('left-pad')(5, 3, '0')", "javascript")["results"][0]["data"]["text/plain"] == "'005'"
    installed = session.command("npm install -g --cafile ca.pem left-pad 2>&1 && ls ~/.local/lib/node_modules")
    assert installed["exit_code"] == 0 and "left-pad" in installed["stdout"], installed["stdout"]


# --- life and death ---------------------------------------------------------------------------


def descriptors(own):
    return len(os.listdir(f"/proc/{own.egress.pid}/fd"))


def test_the_end_of_a_session_ends_its_connections(make, own):
    make("allowlist", "www.example.com").delete()
    before = host.wait_until(lambda: descriptors(own), 5, "the proxy")
    sessions = [make("allowlist", "www.example.com:8443") for _ in range(3)]
    for session in sessions:
        session.run("s = __import__('socket').create_connection(('127.0.0.1', 3128)); s.sendall(b'CONNECT www.example.com:8443 HTTP/1.1\\r\\n\\r\\n'); print(s.recv(100))")
    assert descriptors(own) >= before + 3 * 4
    for session in sessions:
        session.delete()
    host.wait_until(lambda: descriptors(own) <= before, 10, f"the proxy's descriptors back at {before}, now {descriptors(own)}")


def test_sessions_outlive_the_proxy(make, own, image):
    session = make("allowlist", "www.example.com")
    assert served_at(session, "http://www.example.com/") == "93.184.216.34"
    own.stop_egress(signal.SIGKILL)
    api = own.client()
    host.wait_until(lambda: api.post("/v1/sessions", {"image": image, "network": {"mode": "full"}}).status == 503, 5, "a refusal")
    api.post("/v1/sessions", {"image": image, "network": {"mode": "full"}}).problem(503, "egress_unavailable")
    Session.create(api, image=image, network={"mode": "none"}).delete()
    assert api.get("/readyz").status == 200
    session.run("import threading, subprocess\nout = []\nt = threading.Thread(target=lambda: out.append("
                "subprocess.run('curl -sS --max-time 30 http://www.example.com/', shell=True, capture_output=True, text=True).stdout)); t.start()")
    time.sleep(0.5)  # the request waits in the backlog
    own.start_egress()
    assert '"at": "93.184.216.34"' in session.run("t.join(); print(out[0])")["stdout"]
    assert "allow list" in fetch(session, "http://api.example.com/")[1]
    api.close()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_sessions_outlive_the_gateway(make, own, sign):
    session = make("allowlist", "www.example.com")
    own.stop_gateway(sign)
    own.start_gateway()
    session.api.close()
    assert served_at(session, "http://www.example.com/") == "93.184.216.34"
    assert "allow list" in fetch(session, "http://api.example.com/")[1]
    assert session.get().ok()["network"] == {"mode": "allowlist", "allow": ["www.example.com"]}


# --- what is told -----------------------------------------------------------------------------


def test_decisions_are_logged_and_counted(make, own):
    session = make("allowlist", "www.example.com")
    fetch(session, "http://www.example.com/")
    fetch(session, "http://api.example.com/secret-path?token=1")
    session.run("status('evil\\nforged line')")
    log = own.log("egress")
    assert f'allowed session_id={session.id} asked="HTTP www.example.com:80" address=93.184.216.34' in log
    assert f'refused session_id={session.id} asked="HTTP api.example.com:80" verdict=not_listed' in log
    assert "secret-path" not in log and "token" not in log and "\nforged" not in log
    text = session.api.get("/metrics").body.decode()
    counted = {line.split(" ")[0]: float(line.split(" ")[1]) for line in text.splitlines() if line.startswith("codespace_egress_")}
    assert counted['codespace_egress_decisions_total{verdict="allowed"}'] >= 1
    assert counted['codespace_egress_decisions_total{verdict="not_listed"}'] >= 1
    assert counted["codespace_egress_up"] == 1


def test_the_proxy_has_no_privilege(own):
    """A user of its own, no capability, and nothing of the host but its sockets."""
    status = host.status(own.egress.pid)
    users = {host.uid(p.pid) for p in (own.egress, own.gateway, own.launcher)}
    assert len(users) == 3 and 0 not in users
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1" and status.get("Groups", "").strip() == ""
