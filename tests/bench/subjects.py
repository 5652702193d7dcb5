"""What the benchmark times: a bare interpreter, bubblewrap, and the server over one kept-alive
socket. Each measurement is a function that returns seconds."""
import json
import socket
import subprocess
import time

PYTHON, NODE = "/usr/bin/python3", "/usr/bin/node"
CLEAN = {"PATH": "/usr/bin:/bin"}
HELLO = 'print("hello")'
LIBRARIES = "import numpy, pandas, matplotlib.pyplot\nprint(numpy.random.rand() < 1)"
BUBBLEWRAP = ["bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]


def seconds(work):
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def process(*command):
    out = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=CLEAN).stdout
    assert out.endswith(b"\n"), out


def bare_python():
    return seconds(lambda: process(PYTHON, "-c", HELLO))


def bare_node():
    return seconds(lambda: process(NODE, "-e", 'console.log("hello")'))


def bubblewrap():
    return seconds(lambda: process(*BUBBLEWRAP, PYTHON, "-c", HELLO))


def cold_import(rootfs):
    """In the image's files, read-only; what bubblewrap itself takes is a hundredth of this."""
    return seconds(lambda: process("bwrap", "--ro-bind", str(rootfs), "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp",
                                   "--setenv", "MPLBACKEND", "Agg", "--setenv", "HOME", "/tmp", PYTHON, "-c", LIBRARIES))


class Connection:
    """HTTP/1.1 on one kept-alive socket and nothing more: what is timed is the server, not the
    half a millisecond that the standard library's client needs for each request."""

    def __init__(self, port, key=""):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.head = f"HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n".encode()

    def request(self, method, path, body=b""):
        """Status and body of the answer."""
        self.socket.sendall(b"%s %s %sContent-Length: %d\r\n\r\n%s" % (method, path, self.head, len(body), body))
        data = bytearray()
        while b"\r\n\r\n" not in data:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        head, _, data = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
        while len(data) < length:
            data += self.socket.recv(1 << 20)
        return int(head[9:12]), bytes(data)

    def close(self):
        self.socket.close()


class Server:
    """The API as a client uses it, over one connection."""

    def __init__(self, port, key, image):
        self.api = Connection(port, key)
        self.image = image

    def create(self, **more):
        status, body = self.api.request(b"POST", b"/v1/sessions", json.dumps({"image": self.image, **more}).encode())
        assert status == 201, body
        return b"/v1/sessions/" + json.loads(body)["session_id"].encode()

    def run(self, session, code, language="python"):
        status, body = self.api.request(b"POST", session + b"/runs", json.dumps({"language": language, "code": code}).encode())
        assert status == 200, body
        return body

    def delete(self, session):
        status, body = self.api.request(b"DELETE", session)
        assert status == 204, body

    def whole(self):
        """Times of create, run, delete; checks the output."""
        times = [time.perf_counter()]
        session = self.create()
        times.append(time.perf_counter())
        record = self.run(session, HELLO)
        times.append(time.perf_counter())
        self.delete(session)
        times.append(time.perf_counter())
        assert json.loads(record)["stdout"] == "hello\n"
        return [after - before for before, after in zip(times, times[1:])]

    def first(self, code, language="python", **more):
        """Seconds from the request for a session to its first output."""
        started = time.perf_counter()
        session = self.create(**more)
        record = self.run(session, code, language)
        taken = time.perf_counter() - started
        self.delete(session)
        assert json.loads(record)["outcome"] == "ok", record
        return taken

    def close(self):
        self.api.close()
