"""What a gateway taken over may say to the init of a session, past the frames it should."""
import contextlib
import socket
import struct
import time

import host


def frame(kind, *parts):
    payload = b"".join(parts)
    return struct.pack("<II", kind, len(payload)) + payload


def text(data):
    return struct.pack("<I", len(data)) + data


def run_request(code):
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return frame(1, b"\7" * 16, text(b"python"), text(b"default"), text(code), struct.pack("<QQII", now + 20 * 10**9, now + 22 * 10**9, 1 << 20, 0))


def test_more_than_the_request_is_no_work_for_init(deployment, make_session):
    """Bytes behind a request end the connection; they do not keep init busy, and the run goes on."""
    session = make_session()
    session.run("1")
    view = host.SessionView(session)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(deployment.socket_of(session)))
        client.sendall(run_request(b"import time; time.sleep(1); print('over')"))
        time.sleep(0.2)  # the request is taken
        before = time.monotonic(), int(host.read(f"/proc/{view.init}/schedstat").split()[0])
        client.sendall(b"more")
        with contextlib.suppress(ConnectionResetError):  # as it closes with bytes unread
            while client.recv(4096):
                pass
        time.sleep(0.5)
        wall, busy = time.monotonic() - before[0], int(host.read(f"/proc/{view.init}/schedstat").split()[0]) - before[1]
    assert busy < 20e6, (busy, wall)  # ns of processor time; asking epoll again and again took 100e6
    assert session.run("'after'")["results"][0]["data"]["text/plain"] == "'after'"
