"""A Debian 12 virtual machine: made by mmdebstrap, booted by qemu under software emulation, with Debian's own kernel, systemd and control
groups version 2. Commands go in over ssh on a loopback port; a second one leads to the gateway. Only processes it started are ended."""
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

BOOT_BOUND_S = 240
COMMAND_BOUND_S = 300
# What the tests use in there; what the package depends on is asked of the package itself.
PACKAGES = ["systemd-sysv", "udev", "dbus", "linux-image-cloud-amd64", "initramfs-tools", "openssh-server", "python3", "python3-pytest", "python3-yaml",
            "python3-prometheus-client", "nodejs", "ca-certificates", "curl", "iproute2", "procps", "init-system-helpers", "sqlite3", "util-linux", "strace", "logrotate"]
DISK_SIZE = "4G"
STORE_SIZE = "3G"
CONFIGURE = r"""
set -e
root=$1
echo codespace-vm > "$root/etc/hostname"
printf '127.0.0.1 localhost codespace-vm\n::1 localhost\n' > "$root/etc/hosts"
printf 'LABEL=root / ext4 noatime 0 1\nLABEL=store /var/lib/codespace/images ext4 noatime,nofail 0 2\n' > "$root/etc/fstab"
printf '[Match]\nName=en* eth*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n' > "$root/etc/systemd/network/vm.network"
: > "$root/etc/resolv.conf"
mkdir -p "$root/root/.ssh" "$root/var/lib/codespace/images"
chmod 700 "$root/root/.ssh"
for unit in systemd-networkd.service ssh.service; do systemctl --root="$root" enable -q "$unit"; done
for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer systemd-timesyncd.service getty@tty1.service \
    serial-getty@ttyS0.service; do
  systemctl --root="$root" mask -q "$unit"
done
printf '[Journal]\nStorage=persistent\nRateLimitBurst=0\n' > "$root/etc/systemd/journald.conf"
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


def depends(package):
    """The names of the packages a .deb needs."""
    return [word.split("|")[0].split("(")[0].strip() for word in run(["dpkg-deb", "-f", package, "Depends"]).split(",")]


def debian_sources():
    """The archive this machine uses itself."""
    listed = run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)", "Created-By: Packages"])
    found = {tuple(line.split("|")) for line in listed.splitlines()}
    lines = [f"deb {uri} {codename} main" for origin, uri, codename, component in sorted(found)
             if origin == "Debian" and component == "main" and codename in ("bookworm", "bookworm-updates", "bookworm-security")]
    return "\n".join(lines or ["deb http://deb.debian.org/debian bookworm main", "deb http://security.debian.org/debian-security bookworm-security main"]) + "\n"


class Disks:
    """The machine's disks, made once for a set of packages and never written again: each machine has its own layer above them."""

    def __init__(self, cache, package, store):
        self.cache = pathlib.Path(cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        names = sorted(set(PACKAGES) | set(depends(package)))
        image = os.readlink(store / "code_latest")
        made_of = "\n".join([*names, image, CONFIGURE, DISK_SIZE, STORE_SIZE])
        self.root = self.cache / hashlib.sha256(made_of.encode()).hexdigest()[:16]
        if not (self.root / "complete").exists():
            for old in self.cache.iterdir():
                shutil.rmtree(old)
            self._make(names, store, image)

    def _make(self, names, store, image):
        self.root.mkdir()
        tree = self.root / "tree"
        # In a mount namespace of its own: a build that is killed leaves no mounts behind.
        run(["unshare", "--mount", "--propagation", "private", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory",
             "--aptopt=APT::Install-Recommends \"false\"", "--aptopt=Acquire::Retries \"3\"", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=force-unsafe-io",
             f"--include={','.join(names)}", "", tree, "-"], input=debian_sources(), timeout=900)
        run(["sh", "-c", CONFIGURE, "sh", tree])
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / "key"])
        shutil.copy(self.root / "key.pub", tree / "root/.ssh/authorized_keys")
        for name in ("vmlinuz", "initrd.img"):
            (found,) = (tree / "boot").glob(f"{name}-*")
            shutil.copy(found, self.root / name)
        self._make_disk(tree, "root", DISK_SIZE)
        shutil.rmtree(tree)
        images = self.root / "images"
        images.mkdir()
        run(["cp", "-al", store / image, images / image])
        (images / "code_latest").symlink_to(image)
        self._make_disk(images, "store", STORE_SIZE)
        shutil.rmtree(images)
        (self.root / "complete").touch()

    def _make_disk(self, tree, label, size):
        run(["mke2fs", "-q", "-t", "ext4", "-L", label, "-d", tree, "-m", "0", self.root / f"{label}.img", size], timeout=600)


class Machine:
    def __init__(self, disks, directory, memory_mb=3072):
        self.disks, self.directory, self.memory_mb = disks, pathlib.Path(directory), memory_mb
        self.console = self.directory / "console.log"
        self.ssh_port, self.gateway_port = free_port(), free_port()
        self.process = None
        for name in ("root", "store"):
            run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", disks.root / f"{name}.img", self.directory / f"{name}.qcow2"])
        # One connection, kept open: a handshake takes the emulated processor most of a second.
        self._ssh = ["-i", str(disks.root / "key"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
                     "-o", "ConnectTimeout=20", "-o", "ControlMaster=auto", "-o", f"ControlPath={self.directory}/ssh", "-o", "ControlPersist=600"]

    def boot(self):
        """Returns the seconds until it answered."""
        started = time.monotonic()
        drives = [word for name in ("root", "store") for word in ("-drive", f"file={self.directory}/{name}.qcow2,if=virtio,cache=writethrough")]
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(self.memory_mb), "-nographic", "-no-reboot",
             "-kernel", str(self.disks.root / "vmlinuz"), "-initrd", str(self.disks.root / "initrd.img"),
             "-append", "root=/dev/vda rw console=ttyS0 quiet mitigations=off", *drives, "-device", "virtio-rng-pci", "-serial", f"file:{self.console}", "-monitor", "none",
             "-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{self.ssh_port}-:22,hostfwd=tcp:127.0.0.1:{self.gateway_port}-:8642,restrict=on",
             "-device", "virtio-net-pci,netdev=n"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while time.monotonic() - started < BOOT_BOUND_S:
            assert self.process.poll() is None, f"qemu ended with {self.process.returncode}; the console: {self._console()}"
            try:
                if self.status("true", timeout=30)[0] == 0:
                    self.status("systemctl is-system-running --wait", timeout=BOOT_BOUND_S)
                    return time.monotonic() - started
            except subprocess.TimeoutExpired:
                pass
            time.sleep(0.5)
        raise AssertionError(f"no answer from the machine within {BOOT_BOUND_S} s; the console: {self._console()}")

    def _console(self):
        return self.console.read_text(errors="replace")[-3000:] if self.console.exists() else "(nothing)"

    def status(self, script, timeout=COMMAND_BOUND_S, stdin=""):
        """(exit status, output) of a script of the shell, as root."""
        done = subprocess.run(["ssh", *self._ssh, "-p", str(self.ssh_port), "root@127.0.0.1", script], input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
        return done.returncode, done.stdout + done.stderr

    def sh(self, script, timeout=COMMAND_BOUND_S, stdin=""):
        """The output of a script that must succeed."""
        code, out = self.status(script, timeout, stdin)
        assert code == 0, f"`{script[:200]}` ended with {code}:\n{out[-6000:]}"
        return out

    def copy_in(self, *paths, to):
        run(["scp", "-q", "-r", *self._ssh, "-P", self.ssh_port, *paths, f"root@127.0.0.1:{to}"], timeout=COMMAND_BOUND_S)

    def close_ssh(self):
        subprocess.run(["ssh", *self._ssh, "-p", str(self.ssh_port), "-O", "exit", "root@127.0.0.1"], capture_output=True, check=False, timeout=20)

    def power_cut(self):
        """At once, whatever it is doing; what it had not written to its disks is lost."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)
        self.close_ssh()
