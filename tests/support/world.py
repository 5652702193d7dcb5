"""Two network namespaces: one where the egress proxy lives, and one with a small internet in
it (internet.py). Nothing leads from them to the machine's own network. Private and metadata
addresses are really there and really reachable, so that only the proxy's rules keep a session
from them."""
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile

import trustme

from internet_names import SERVED

PUBLIC = ["93.184.216.34/24", "93.184.216.53/24", "93.184.216.66/24", "2606:2800:220:1::34/64"]
FORBIDDEN = ["10.1.2.3/24", "169.254.169.254/32"]


class World:
    def __init__(self, registry=None):
        self.tag = secrets.token_hex(3)
        self.proxy, self.internet = f"cs-{self.tag}-p", f"cs-{self.tag}-i"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="codespace-world-", dir="/tmp"))
        self.directory.chmod(0o755)
        self.registry = registry
        self.server = None

    def start(self):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        authority.issue_cert(*SERVED).private_key_and_cert_chain_pem.write_to_path(self.directory / "server.pem")
        if self.registry:
            os.symlink(self.registry, self.directory / "registry")
        (self.directory / "resolv.conf").write_text("nameserver 93.184.216.53\n")
        (self.directory / "hosts").write_text("127.0.0.1 localhost\n93.184.216.34 fromhosts.example.com\n10.1.2.3 insidehosts.example.com\n")
        (self.directory / "nsswitch.conf").write_text("hosts: files dns\n")
        for name in (self.proxy, self.internet):
            self._ip("netns", "add", name)
            self._ip("-n", name, "link", "set", "lo", "up")
        self._ip("link", "add", "e0", "netns", self.proxy, "type", "veth", "peer", "name", "e0", "netns", self.internet)
        for address in ("93.184.216.1/24", "10.1.2.1/24", "2606:2800:220:1::1/64"):
            self._address(self.proxy, address)
        for address in PUBLIC + FORBIDDEN:
            self._address(self.internet, address)
        for name in (self.proxy, self.internet):
            self._ip("-n", name, "link", "set", "e0", "up")
        self._ip("-n", self.proxy, "route", "add", "169.254.169.254/32", "dev", "e0")
        script = pathlib.Path(__file__).with_name("internet.py")
        self.server = subprocess.Popen(["ip", "netns", "exec", self.internet, sys.executable, str(script), str(self.directory)],
                                       stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline() == "ready\n", "the servers of the test's internet did not start"

    def enter_proxy(self):
        """Before a command: in the proxy's network, with the test's resolver files."""
        binds = " && ".join(f"mount --bind {self.directory / name} /etc/{name}" for name in ("resolv.conf", "hosts", "nsswitch.conf"))
        return ["ip", "netns", "exec", self.proxy, "unshare", "--mount", "--propagation", "private", "sh", "-c", binds + ' && exec "$@"', "sh"]

    def stop(self):
        if self.server is not None:
            self.server.terminate()
            self.server.wait(10)
        for name in (self.proxy, self.internet):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _address(self, namespace, address):
        self._ip("-n", namespace, "addr", "add", address, "dev", "e0", *(["nodad"] if ":" in address else []))

    @staticmethod
    def _ip(*arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True)
