"""Speaks to a kernel driver the way init does, for the conformance tests of images/kernels/PROTOCOL.md.

A driver has a socket pair on descriptor 3 and pipes on 1 and 2, and is spoken to in frames.
"""
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import time


EXECUTE, CONFIGURE, READY, RESULT, ERROR, DONE = 1, 2, 16, 17, 18, 19
PATIENCE_S = 30  # the machine may be busy; only a hang ever takes this long


class KernelDied(Exception):
    """The driver closed its channel in the middle of a run."""


class Outcome:
    def __init__(self):
        self.stdout = b""
        self.stderr = b""
        self.results = []   # (is_main, {mime: text})
        self.error = None   # (name, value, [lines])

    @property
    def main(self):
        found = [bundle for is_main, bundle in self.results if is_main]
        assert len(found) <= 1, found
        return found[0]["text/plain"] if found else None


class Reader:
    def __init__(self, data):
        self.data = data

    def u32(self):
        value, = struct.unpack_from("<I", self.data)
        self.data = self.data[4:]
        return value

    def field(self):
        size = self.u32()
        value, self.data = self.data[:size], self.data[size:]
        assert len(value) == size
        return value.decode("utf-8")


class Program:
    """Starts a kernel as init does cold: by exec, its environment with it."""

    def __init__(self, argv):
        self.argv = argv

    def start(self, cwd, env, stdin, stdout, stderr, control):
        self.process = subprocess.Popen(
            # The shell puts the socket on 3, where init has it.
            ["/bin/bash", "-c", 'fd=$1; shift; exec 3<&"$fd" {fd}<&-; exec "$@"', "bash", str(control), *self.argv],
            stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd, env=env, pass_fds=[control])
        return self.process, None


class Fork:
    """Starts a kernel as a child of the zygote in forking.py; its environment comes in a frame."""

    def __init__(self, address):
        self.address = address

    def start(self, cwd, env, stdin, stdout, stderr, control):
        self.client = socket.socket(socket.AF_UNIX)
        self.client.settimeout(PATIENCE_S)
        self.client.connect(self.address)
        socket.send_fds(self.client, [os.fsencode(cwd)], [stdin, stdout, stderr, control])
        self.answers = self.client.makefile("rb")
        self.pid = int(self.answers.readline())
        return self, env

    def send_signal(self, number):
        os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, patience):
        self.client.settimeout(patience)
        return os.waitstatus_to_exitcode(int(self.answers.readline()))


class Kernel:
    """One driver process and the host's ends of its channels."""

    def __init__(self, starter, cwd, env, configure=True):
        self.cwd = cwd
        self.control, theirs = socket.socketpair()
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        with open(os.devnull) as null:
            self.process, variables = starter.start(cwd, env, null.fileno(), out, err, high)
        theirs.close()
        os.close(high)
        os.close(out)
        os.close(err)
        self.control.settimeout(PATIENCE_S)
        for fd in (self.stdout, self.stderr):
            os.set_blocking(fd, False)
        self.count = 0
        self.inbound = b""
        self.last = None
        self.status = None
        self.configured = variables is not None and configure
        if self.configured:
            self.configure(variables)

    def send_frame(self, kind, payload):
        self.control.sendall(struct.pack("<II", kind, len(payload)) + payload)

    def configure(self, variables):
        payload = struct.pack("<I", len(variables))
        for text in (text for pair in variables.items() for text in pair):
            payload += struct.pack("<I", len(os.fsencode(text))) + os.fsencode(text)
        self.send_frame(CONFIGURE, payload)

    def read_frame(self):
        while len(self.inbound) < 8 or len(self.inbound) < 8 + struct.unpack_from("<I", self.inbound, 4)[0]:
            ready = select.select([self.control, self.stdout, self.stderr], [], [], PATIENCE_S)[0]
            assert ready, (self.last.stdout[-1000:], self.last.stderr[-1000:])
            self.drain()
            if self.control not in ready:
                continue
            piece = self.control.recv(1 << 16)
            if not piece:
                raise KernelDied
            self.inbound += piece
        kind, size = struct.unpack_from("<II", self.inbound)
        payload, self.inbound = self.inbound[8:8 + size], self.inbound[8 + size:]
        assert size <= 4 << 20
        return kind, payload

    def drain(self):
        for fd, name in ((self.stdout, "stdout"), (self.stderr, "stderr")):
            try:
                while piece := os.read(fd, 1 << 16):
                    if self.last is not None:
                        setattr(self.last, name, getattr(self.last, name) + piece)
            except BlockingIOError:
                pass

    def send(self, code):
        self.drain()
        self.count += 1
        self.last = Outcome()
        self.send_frame(EXECUTE, struct.pack("<I", self.count) + (code if isinstance(code, bytes) else code.encode()))

    def finish(self):
        """Reads frames up to `done`, and what was printed before it."""
        outcome = self.last
        while True:
            kind, payload = self.read_frame()
            if kind == DONE:
                assert payload == b""
                self.drain()
                return outcome
            reader = Reader(payload)
            if kind == RESULT:
                is_main, reader.data = reader.data[0], reader.data[1:]
                assert is_main in (0, 1)
                bundle = {}
                for _ in range(reader.u32()):
                    mime = reader.field()
                    bundle[mime] = reader.field()
                assert bundle and not reader.data
                outcome.results.append((bool(is_main), bundle))
            elif kind == ERROR:
                assert outcome.error is None, "two errors in one run"
                name, value = reader.field(), reader.field()
                outcome.error = (name, value, [reader.field() for _ in range(reader.u32())])
                assert not reader.data
            else:
                assert kind == READY and self.count <= 1, kind

    def run(self, code):
        self.send(code)
        return self.finish()

    def wait_for_output(self, text):
        """Until the current run has printed `text`."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.last.stdout:
            assert time.monotonic() < end, (self.last.stdout, self.last.stderr)
            self.drain()
            time.sleep(0.005)  # polling two pipes for the bytes of a run in progress

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)

    def wait_exit(self):
        if self.status is None:
            self.status = self.process.wait(PATIENCE_S)
        return self.status

    def close(self):
        self.control.close()
        try:
            if self.status is None:
                self.process.wait(5)
        except (subprocess.TimeoutExpired, TimeoutError):
            self.process.kill()
            self.wait_exit()
        os.close(self.stdout)
        os.close(self.stderr)
