"""Starts and stops the real launcher and gateway for the tests, in directories, ports and
an id range of their own, so that another CodeSpace on the machine is never touched. Ends
only processes it started, by pid, and afterwards reports whatever is left of them."""
import base64
import contextlib
import itertools
import os
import pathlib
import pwd
import random
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
UNUSED_RANGES = itertools.cycle(random.SystemRandom().sample(range(ID_RANGES), ID_RANGES))  # no two at once have the same
START_BOUND_S = 30
STOP_BOUND_S = 20
SERVICE_USERS = ("codespace", "codespace-launcher", "codespace-egress")
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
    def __init__(self, build, images, image, world=None):
        """`world`: where the egress proxy lives (world.py); by default a network with nothing in it."""
        self.bin = pathlib.Path(build).resolve() / "bin"
        self.store = pathlib.Path(images).resolve()
        self.image = image
        self.id_first = ID_FIRST + ID_COUNT * next(UNUSED_RANGES)
        self.id_count = ID_COUNT
        for program in ("codespaced", "codespace-launcher", "codespace-init", "codespace-egress"):
            if not (self.bin / program).exists():
                raise AssertionError(f"{self.bin / program} is missing: build first (cmake --build --preset release)")
        if not (self.store / image / "image.json").exists():
            raise AssertionError(f"image `{image}` is not in {self.store}: run images/{image}/build.sh {self.store}")
        for user in SERVICE_USERS:
            ensure_user(user)
        self.world = world
        self.tag = secrets.token_hex(4)
        self.base = pathlib.Path(f"/run/codespace-test-{self.tag}")
        self.runtime = self.base / "run"
        self.images = self.base / "images"
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="codespace-test-", dir="/tmp"))
        self.logs = pathlib.Path(tempfile.mkdtemp(prefix="codespace-test-logs-", dir="/tmp"))
        self.port = free_port()
        self.config = None          # text of a configuration file for the gateway
        self.launcher = self.gateway = self.egress = None
        self.egress_options = []
        self.key = None
        self._mounts_before = host.mounts()

    # --- start ------------------------------------------------------------------------------

    def start(self):
        self.base.mkdir(mode=0o755)
        self.images.mkdir(mode=0o755)
        user = pwd.getpwnam("codespace")
        os.chown(self.state, user.pw_uid, user.pw_gid)
        os.chmod(self.state, 0o700)
        self.start_egress()
        self.start_launcher()
        self.start_gateway()

    def _spawn(self, name, arguments, enter=()):
        log = open(self.logs / f"{name}.log", "ab")
        command = [*enter, "unshare", "--mount", "--propagation", "private", "sh", "-c", ENTER, "sh",
                   str(self.store), str(self.images), str(self.bin / arguments[0]), *arguments[1:]]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                                     "CODESPACE_NETWORK_EGRESS_SOCKET": str(self.base / "egress/egress.sock")},
                                start_new_session=True)

    def start_egress(self):
        """In a network of its own, so that no test can reach the machine's."""
        directory = self.base / "egress"
        directory.mkdir(mode=0o750, exist_ok=True)
        shutil.chown(directory, "codespace-egress", "codespace")
        enter = self.world.enter_proxy() if self.world else ["unshare", "--net"]
        self.egress = self._spawn("egress", [
            "codespace-egress", "--socket", str(directory / "egress.sock"), "--user", "codespace-egress", "--group", "codespace",
            *self.egress_options], enter)
        self._wait("egress", self.egress, lambda: "ready" in self.log("egress"))

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

    def socket_of(self, session):
        """Where its init listens: named by the 128 bits behind the session's id."""
        key = base64.b32decode(session.id.removeprefix("session-").upper() + "======")
        return self.runtime / "sessions" / f"{key.hex()}.sock"

    def client(self, key=None):
        return client.Client("127.0.0.1", self.port, self.key if key is None else key)

    def second_key(self, *options):
        """Another caller's key, made as an operator would."""
        done = subprocess.run(
            ["setpriv", "--reuid=codespace", "--regid=codespace", "--clear-groups", str(self._readable_gateway()),
             "key", "create", "--name", "second", "--state", str(self.state), *options],
            capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        key = done.stdout.strip()
        assert key.startswith("csk_") and len(key) == 47, f"`codespaced key create` printed no key: {done.stdout!r}"
        self.gateway.send_signal(signal.SIGHUP)
        caller = self.client(key)
        host.wait_until(lambda: caller.get("/v1/images").status != 401, 10, "the new key in force after SIGHUP")
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
        for name, process, start in (("egress", self.egress, self.start_egress), ("launcher", self.launcher, self.start_launcher),
                                     ("gateway", self.gateway, self.start_gateway)):
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

    def stop_egress(self, sign=signal.SIGTERM):
        self._stop(self.egress, sign)

    def stop_launcher(self, sign=signal.SIGTERM):
        self._stop(self.launcher, sign)

    def finish(self):
        """Stops both; returns a line for each thing that was left."""
        left = []
        for stop in (self.stop_gateway, self.stop_launcher, self.stop_egress):
            try:
                stop()
            except AssertionError as late:
                left.append(str(late))
        left += self.left_overs()
        for name in ("gateway", "launcher", "egress"):
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
        # Below the base lies, on version 2, the leaf the launcher itself was in.
        for group in sorted(host.cgroups_named(host.base_group(self.runtime)), reverse=True):
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
        own = (str(self.base), str(self.state))  # another deployment may be under way
        left += [f"mount {m}" for m in host.mounts() if m not in self._mounts_before and any(path in m for path in own)]
        left += [f"socket {s}" for s in self.base.rglob("*.sock")]
        return left


@contextlib.contextmanager
def own_deployment(request, image, world=None, **settings):
    """One that a test may stop and start; `settings` are attributes set before it starts. Fails if anything of it is left."""
    made = Deployment(request.config.getoption("--build"), request.config.getoption("--images"), image, world)
    for name, value in settings.items():
        setattr(made, name, value)
    try:
        made.start()
        yield made
    finally:
        left = made.finish()
    assert not left, "\n".join(left)
