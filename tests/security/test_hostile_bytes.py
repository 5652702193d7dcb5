"""The servers' sockets under bytes that are nothing anybody should send: requests of every kind,
damaged in every way, the same ones in each run. After them everything works as before. Longer
runs of the parsers themselves are tests/fuzz."""
import os
import random
import socket
import struct

import pytest

import host
from client import Session, parse

ROUNDS = 1500


def damaged(chance, seeds):
    """A seed after a few random changes."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        what = chance.randrange(6)
        if what == 0 and at < len(data):
            data[at] = chance.randrange(256)
        elif what == 1:
            data[at:at] = bytes([chance.randrange(256)])
        elif what == 2:
            del data[at:at + chance.randrange(1, 9)]
        elif what == 3:
            data[at:at] = chance.choice([b"\r\n", b"\r\n\r\n", b"\n", b"\0", b": ", b"%00", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n"])
        elif what == 4:
            data[at:at] = data[:at][-40:] * chance.randrange(1, 20)
        else:
            del data[at:]
    return bytes(data)


def test_http(deployment, session):
    """Every answer is HTTP and none is a failure of the server's, whatever arrives."""
    key = deployment.key.encode()
    path = f"/v1/sessions/{session.id}".encode()
    seeds = [
        b"GET /v1/sessions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + key + b"\r\nConnection: close\r\n\r\n",
        b"POST " + path + b"/runs HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + key + b"\r\nContent-Type: application/json\r\nContent-Length: 36\r\n"
        b"Connection: close\r\n\r\n" + b'{"language":"python","code":"1 + 1"}',
        b"PUT " + path + b"/files/a%20b HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + key + b"\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
        b"GET " + path + b"/files/a?list=1&depth=2 HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + key + b"\r\nRange: bytes=0-5\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60\r\nConnection: close\r\n\r\n"
        b"Action=ListMcpTools&Authorization=Bearer%20x&ImageId=code_la",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(100),
    ]
    chance = random.Random(1123)
    for number in range(ROUNDS):
        data = damaged(chance, seeds)
        with socket.create_connection(("127.0.0.1", deployment.port), timeout=20) as s:
            received = b""
            try:
                s.sendall(data)
                s.shutdown(socket.SHUT_WR)
                while piece := s.recv(65536):
                    received += piece
            except OSError:  # it was closed before we had said all
                pass
        if received.startswith(b"HTTP/1.1 "):
            answer = parse(received)
            assert answer.status < 500 or answer.status == 503, (number, data, received[:300])
        else:
            assert not received or received[0] in (0x15, 0x16), (number, data, received[:100])  # nothing, or TLS's own refusal
    deployment.assert_alive()
    assert session.run("print(1)")["stdout"] == "1\n"


def test_launcher_protocol(deployment, session, image):
    """Packets of every length, random and nearly right, to the launcher's socket as the gateway's user: it refuses,
    or does one of the few things its protocol can say, and goes on."""
    path = str(deployment.runtime / "launcher.sock")
    magic = open_magic()
    size = 4 + 4 + 16 + 8 + 40 + 12
    chance = random.Random(64)
    for number in range(ROUNDS):
        if number % 3 == 0:
            packet = os.urandom(chance.randrange(0, 300))
        else:
            # Right magic and op, the rest random: limits, images and sessions there are not.
            packet = struct.pack("<II", magic, chance.randrange(0, 12)) + chance.randbytes(size - 8 + chance.choice([0, 0, 0, -1, 1, 40]))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(10)
            s.connect(path)
            try:
                s.send(packet)
                s.settimeout(0.02)
                s.recv(4096)
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                pass
    deployment.assert_alive()
    assert session.run("print(2)")["stdout"] == "2\n"
    other = Session.create(session.api, image=image)
    other.delete()


def open_magic():
    """The protocol's magic number, from its one definition."""
    import pathlib
    import re
    text = (pathlib.Path(__file__).resolve().parents[2] / "sandbox/wire/launcher_protocol.h").read_text()
    return int(re.search(r"kLauncherMagic = (0x[0-9a-f]+)", text).group(1), 16)


def test_init_protocol(deployment, session):
    """The same for a session's own socket: at worst this session is gone, and it is not."""
    view = host.SessionView(session)
    sockets = list((deployment.runtime / "sessions").glob("*.sock"))
    assert sockets
    chance = random.Random(65)
    seeds = [struct.pack("<II", kind, 60) + chance.randbytes(60) for kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 17, 18, 19, 20, 21, 22, 23, 64)]
    for number in range(ROUNDS // 3):
        packet = damaged(chance, seeds)
        for path in sockets:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.settimeout(0.01)
                s.connect(str(path))
                try:
                    s.sendall(packet)
                    s.shutdown(socket.SHUT_WR)
                    s.recv(4096)
                except (TimeoutError, BrokenPipeError, ConnectionResetError):
                    pass
    assert session.run("print(3)")["stdout"] == "3\n"
    assert host.status(view.init)


@pytest.mark.parametrize("headers, status, code", [
    ("Host: evil.example", 421, "misdirected_request"), ("Host: localhost.evil.example:8642", 421, "misdirected_request"), ("Host: 127.0.0.1.nip.io", 421, "misdirected_request"),
    ("Host: localhost\r\nHost: localhost", 400, "bad_request"), ("X: y", 400, "bad_request"),
    ("Host: localhost\r\nOrigin: http://evil.example", 403, "cross_origin"), ("Host: localhost\r\nOrigin: null", 403, "cross_origin"),
    ("Host: localhost\r\nOrigin: http://localhost:3000", 403, "cross_origin"), ("Host: localhost\r\nSec-Fetch-Site: cross-site", 403, "cross_origin"),
    ("Host: evil.example\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: same-origin", 421, "misdirected_request"),  # a name that was rebound to us
])
def test_web_pages_of_others(deployment, headers, status, code):
    """Not even with a key: what a browser sends for somebody else's page is refused, and so are names that are not ours."""
    client = deployment.client()
    head = f"GET /v1/images HTTP/1.1\r\n{headers}\r\nAuthorization: Bearer {deployment.key}\r\nConnection: close\r\n\r\n"
    answer = client.raw_request(head.encode())
    assert answer.status == status and answer.json["code"] == code, answer
    assert "access-control-allow-origin" not in answer.headers


def test_no_preflight_is_granted(deployment):
    client = deployment.client()
    answer = client.raw_request(b"OPTIONS /v1/sessions HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\nAccess-Control-Request-Method: POST\r\nConnection: close\r\n\r\n")
    assert answer.status in (403, 405) and not [name for name in answer.headers if name.startswith("access-control")], answer


def test_own_names_are_served(deployment):
    for name in ("localhost", f"localhost:{deployment.port}", "127.0.0.1", "[::1]", socket.gethostname()):
        client = deployment.client()
        head = f"GET /v1/images HTTP/1.1\r\nHost: {name}\r\nAuthorization: Bearer {deployment.key}\r\nConnection: close\r\n\r\n"
        assert client.raw_request(head.encode()).status == 200, name
