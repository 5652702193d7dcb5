"""Starts and stops the real launcher and gateway for the tests, in directories, ports and
an id range of their own, so that another CodeSpace on the machine is never touched. Ends
only processes it started, by pid, and afterwards reports whatever is left of them."""
import os
import pathlib
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile

import client
import host

# One of 600 ranges, below that of an installed service, so that two test runs and the service
# are told apart by the ids of their processes.
ID_FIRST, ID_COUNT, ID_RANGES = 1700000000, 262144, 600
START_BOUND_S = 30
STOP_BOUND_S = 20
# The binds are private to the daemon: the service users may not be able to walk to the
# checkout, and the host's mount table stays as it was.
ENTER = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ensure_user(name):
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name], check=True)


class Deployment:
    def __init__(self, build, images, image):
        self.bin = pathlib.Path(build).resolve() / "bin"
        self.store = pathlib.Path(images).resolve()
        self.image = image
        self.id_first = ID_FIRST + ID_COUNT * secrets.randbelow(ID_RANGES)
        self.id_count = ID_COUNT
        for program in ("codespaced", "codespace-launcher", "codespace-init"):
            if not (self.bin / program).exists():
                raise AssertionError(f"{self.bin / program} is missing: build first (cmake --build --preset release)")
        if not (self.store / image / "image.json").exists():
            raise AssertionError(f"image `{image}` is not in {self.store}: run images/{image}/build.sh {self.store}")
        for user in ("codespace", "codespace-launcher"):
            ensure_user(user)
        self.tag = secrets.token_hex(4)
        self.base = pathlib.Path(f"/run/codespace-test-{self.tag}")
        self.runtime = self.base / "run"
        self.images = self.base / "images"
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="codespace-test-", dir="/tmp"))
        self.logs = pathlib.Path(tempfile.mkdtemp(prefix="codespace-test-logs-", dir="/tmp"))
        self.port = free_port()
        self.config = None          # text of a configuration file for the gateway
        self.launcher = self.gateway = None
        self.key = None
        self._mounts_before = host.mounts()

    # --- start ------------------------------------------------------------------------------

    def start(self):
        self.base.mkdir(mode=0o755)
        self.images.mkdir(mode=0o755)
        user = pwd.getpwnam("codespace")
        os.chown(self.state, user.pw_uid, user.pw_gid)
        os.chmod(self.state, 0o700)
        self.start_launcher()
        self.start_gateway()

    def _spawn(self, name, arguments):
        log = open(self.logs / f"{name}.log", "ab")
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh",
                   str(self.store), str(self.images), str(self.bin / arguments[0]), *arguments[1:]]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, start_new_session=True)

    def start_launcher(self):
        self.launcher = self._spawn("launcher", [
            "codespace-launcher", "--runtime", str(self.runtime), "--images", str(self.images),
            "--user", "codespace-launcher", "--group", "codespace", "--id-range", f"{self.id_first}:{ID_COUNT}"])
        self._wait("launcher", self.launcher, lambda: (self.runtime / "launcher.sock").exists())

    def start_gateway(self):
        options = []
        if self.config is not None:
            path = self.base / "codespaced.toml"
            path.write_text(self.config)
            path.chmod(0o644)
            options = ["--config", str(path)]
        self.gateway = self._spawn("gateway", [
            "codespaced", "serve", "--user", "codespace", "--listen", f"127.0.0.1:{self.port}",
            "--state", str(self.state), "--runtime", str(self.runtime), "--images", str(self.images), *options])
        self._wait("gateway", self.gateway, self._is_ready)
        self.key = (self.state / "api-key").read_text().strip()

    def _is_ready(self):
        probe = client.Client("127.0.0.1", self.port, None, timeout=5)
        try:
            return probe.get("/readyz").status == 200
        except OSError:
            return False
        finally:
            probe.close()

    def _wait(self, name, process, ready):
        try:
            host.wait_until(lambda: ready() or process.poll() is not None, START_BOUND_S, f"{name} ready")
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.log(name)}") from None
        assert process.poll() is None, f"{name} ended with {process.returncode} at start:\n{self.log(name)}"

    def log(self, name):
        return host.read(self.logs / f"{name}.log")

    def client(self, key=None):
        return client.Client("127.0.0.1", self.port, self.key if key is None else key)

    def second_key(self):
        """Another caller's key, made as an operator would."""
        done = subprocess.run(
            ["setpriv", "--reuid=codespace", "--regid=codespace", "--clear-groups", str(self._readable_gateway()),
             "key", "create", "--name", "second", "--state", str(self.state)],
            capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        key = done.stdout.strip()
        assert key.startswith("csk_") and len(key) == 47, f"`codespaced key create` printed no key: {done.stdout!r}"
        self.gateway.send_signal(signal.SIGHUP)
        caller = self.client(key)
        host.wait_until(lambda: caller.get("/v1/images").status == 200, 10, "the new key in force after SIGHUP")
        caller.close()
        return key

    def _readable_gateway(self):
        """The service user may not be able to walk to the build directory."""
        copy = self.base / "codespaced"
        if not copy.exists():
            shutil.copy(self.bin / "codespaced", copy)
        return copy

    def assert_alive(self):
        """Fails if a daemon died of a test, and starts it again, so that only that test fails."""
        died = []
        for name, process, start in (("launcher", self.launcher, self.start_launcher), ("gateway", self.gateway, self.start_gateway)):
            if process.poll() is not None:
                died.append(f"the {name} died with {process.returncode}; its log ends with:\n{self.log(name)[-2000:]}")
                start()
        assert not died, "\n".join(died)

    # --- stop -------------------------------------------------------------------------------

    def _stop(self, process, sign):
        if process is None or process.poll() is not None:
            return
        process.send_signal(sign)
        try:
            process.wait(STOP_BOUND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_BOUND_S)
            raise AssertionError(f"pid {process.pid} did not end {STOP_BOUND_S} s after {sign.name}") from None

    def stop_gateway(self, sign=signal.SIGTERM):
        self._stop(self.gateway, sign)

    def stop_launcher(self, sign=signal.SIGTERM):
        self._stop(self.launcher, sign)

    def finish(self):
        """Stops both; returns a line for each thing that was left."""
        left = []
        for stop in (self.stop_gateway, self.stop_launcher):
            try:
                stop()
            except AssertionError as late:
                left.append(str(late))
        left += self.left_overs()
        for name in ("gateway", "launcher"):
            for line in self.log(name).splitlines():
                if "ERROR: " in line and "Sanitizer" in line or "runtime error:" in line:
                    left.append(f"{name}: {line}")
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.rmtree(self.state, ignore_errors=True)
        if not left:
            shutil.rmtree(self.logs, ignore_errors=True)
        else:
            left.append(f"logs: {self.logs}")
        return left

    def _remove_base_groups(self):
        """The launcher has no privilege left to remove its own base group when it ends, so who
        started it as root does; that works only if no process and no session group is left."""
        left = []
        for group in host.cgroups_named(host.base_group(self.runtime)):
            try:
                os.rmdir(group)
            except OSError as error:
                left.append(f"control group {group}: {error.strerror}")
        return left

    def left_overs(self):
        """What must be gone once both have stopped."""
        def gone():
            return not host.of_users(self.id_first, ID_COUNT)
        left = []
        try:
            host.wait_until(gone, 5, "an end of all processes with session ids")
        except AssertionError:
            left += [f"process {p} {host.cmdline(p)}" for p in host.of_users(self.id_first, ID_COUNT)]
        left += self._remove_base_groups()
        left += [f"mount {m}" for m in host.mounts() if m not in self._mounts_before and "codespace" in m]
        left += [f"socket {s}" for s in self.base.rglob("*.sock")]
        return left
