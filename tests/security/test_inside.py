"""What a program in a session sees of the machine: itself and little else. Read from inside,
because that is where the tenant reads it."""
import re

ALLOWED_ENVIRONMENT = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "npm_config_proxy", "npm_config_https_proxy", "PWD", "SHLVL", "_",
                       "OLDPWD", "MPLBACKEND", "MPLCONFIGDIR"}
# Mount points a session may write to; everything else is read-only.
WRITABLE = {"/workspace", "/tmp", "/dev/shm", "/home/sandbox", "/dev/pts", "/proc"}
DEVICES = {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm"}


def status(session):
    text = session.shell("cat /proc/self/status")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def mounts(session):
    """(mount point, per-mount options, file system, its own options) of every mount."""
    for line in session.shell("cat /proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        yield fields[4], fields[5].split(","), tail[0], tail[2].split(",")


def test_no_capability(session):
    """All five capability sets of a tenant's program are empty, no_new_privs is set, two filters are loaded."""
    facts = status(session)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts[name], 16) == 0, (name, facts[name])
    assert facts["NoNewPrivs"] == "1" and facts["Seccomp"] == "2" and facts["Seccomp_filters"] == "2", facts
    assert facts["Uid"].split() == ["1000"] * 4 and facts["Gid"].split() == ["1000"] * 4
    assert facts["Groups"].strip() == ""


def test_only_three_descriptors(session):
    """A command finds 0, 1 and 2, and an empty stdin; a kernel shows its tenant no other channel than its own."""
    assert session.shell("ls /proc/self/fd | cat").split() == ["0", "1", "2", "3"]  # 3: ls reading the directory
    assert session.shell("cat; wc -c").strip() == "0"
    code = "import os\nprint([os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n != '3'])"
    links = session.run(code)["stdout"]
    assert not re.search(r"/(run|images|var|root|etc)/", links), links


def test_clean_environment(session):
    """The environment is a fixed list; nothing of the daemons' leaks into commands or kernels."""
    for text in (session.shell("env"), session.run("import os\nprint('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))")["stdout"]):
        found = {line.split("=", 1)[0] for line in text.splitlines()}
        assert found <= ALLOWED_ENVIRONMENT, found - ALLOWED_ENVIRONMENT
        assert "PATH" in found and "HOME" in found


def test_only_own_processes(session, make_session):
    """A tenant sees its own processes: not init, not other sessions, not the host."""
    other = make_session()
    other.command("sleep 60 & echo started")
    listing = session.shell("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done")
    lines = [line for line in listing.splitlines() if line.strip()]
    assert lines and all("sleep" not in line and "codespace-init" not in line for line in lines), lines
    assert "sleep 60" in other.shell("for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null; echo; done")


def test_root_is_read_only(session):
    """Writable mounts are exactly the known ones, each nosuid and nodev and of limited size; /proc/sys is read-only."""
    seen = {}
    for point, options, kind, super_options in mounts(session):
        seen[point] = options
        assert "nosuid" in options, (point, options)
        if not point.startswith("/dev"):
            assert "nodev" in options, (point, options)
        if "ro" in options:
            continue
        assert point in WRITABLE, f"{point} is writable"
        if kind == "tmpfs":
            names = {option.split("=")[0] for option in super_options}
            assert {"size", "nr_inodes"} <= names, (point, super_options)
    assert "ro" in seen["/"] and "ro" in seen["/proc/sys"] and "ro" in seen["/dev"], seen


def test_no_set_user_id_files(session):
    """Where a set-user-id file exists at all, executing it changes nothing."""
    script = ("for f in $(find / -xdev -perm /6000 -type f 2>/dev/null; find /usr -xdev -perm /6000 -type f 2>/dev/null); do"
              " case $f in */su|*/mount|*/passwd|*/chsh|*/newgrp) ($f --help </dev/null >/dev/null 2>&1; true);; esac; done; id -u; "
              "cp /bin/sh /tmp/s; chmod 6755 /tmp/s; /tmp/s -c 'id -u; id -ru; grep -E \"^(Uid|Gid)\" /proc/self/status'")
    lines = session.shell(script).split("\n")
    assert lines[0] == "1000" and lines[1] == "1000" and lines[2] == "1000", lines
    assert lines[3].split()[1:] == ["1000"] * 4 and lines[4].split()[1:] == ["1000"] * 4, lines


def test_image_code_latest_has_no_set_user_id_files(session, image):
    """The built image carries no set-user-id file (the embedded one shows the host's /usr, under nosuid)."""
    found = session.shell("find / -xdev -perm /6000 -type f 2>/dev/null; true").split()
    if image != "host":
        assert found == [], found


def test_only_loopback(session):
    """The only network interface is lo, it is up, and nothing leads anywhere else."""
    text = session.shell("cat /proc/net/dev")
    assert re.findall(r"^\s*(\S+):", text, re.M) == ["lo"], text
    assert session.shell("cat /proc/net/route").strip().count("\n") == 0
    done = session.run("import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
                       "c = socket.create_connection(s.getsockname())\nprint('up')\n"
                       "try:\n    socket.create_connection(('192.0.2.1', 80), 2)\nexcept OSError as e:\n    print(e.errno)")
    assert done["stdout"] == "up\n101\n", done  # ENETUNREACH


def test_names_do_not_resolve(session):
    """Without a network no name but localhost resolves, and the answer comes at once."""
    done = session.run("import socket\nprint(socket.gethostbyname('localhost'))\n"
                       "try:\n    socket.gethostbyname('example.com')\nexcept OSError as e:\n    print(type(e).__name__)")
    assert done["stdout"] == "127.0.0.1\ngaierror\n", done


def test_known_devices(session):
    """/dev holds the harmless devices and the session's own terminals and shared memory."""
    found = set(session.shell("ls -A /dev").split())
    assert found <= DEVICES, found - DEVICES
    assert session.shell("head -c 4 /dev/urandom | wc -c; head -c 2 /dev/zero | wc -c; echo x > /dev/null && echo fine").split() \
        == ["4", "2", "fine"]


def test_no_cgroup_or_sysfs(session):
    """No sysfs, no control group files; the own group is the root of what is visible."""
    assert session.shell("ls -A /sys | wc -l; grep -cE ' (sysfs|cgroup2?) ' /proc/self/mountinfo; true").split() == ["0", "0"]
    for line in session.shell("cat /proc/self/cgroup").splitlines():
        path = line.split(":", 2)[2]
        assert not re.search(r"codespace|launcher", path), line


def test_host_identity_is_hidden(session):
    """Host name, machine id, mounts and boot line of the host do not show."""
    import pathlib
    import socket

    assert session.shell("cat /proc/sys/kernel/hostname").strip() == "sandbox"
    assert session.shell("cat /etc/hostname").strip() == "sandbox"
    assert session.shell("cat /etc/machine-id /proc/cmdline 2>/dev/null | tr -d '\\n' | wc -c").strip() == "0"
    info = session.shell("cat /proc/self/mountinfo /proc/self/cgroup /etc/passwd /etc/hosts")
    machine = pathlib.Path("/etc/machine-id")
    for secret in (socket.gethostname(), machine.read_text().strip() if machine.exists() else ""):
        if len(secret) > 3:
            assert secret not in info


def test_sessions_share_nothing(make_session):
    """A file, an abstract socket and a shared memory segment of one session do not exist in another."""
    first, second = make_session(), make_session()
    first.run("import socket, os\nopen('/tmp/secret', 'w').write('x')\nopen('/dev/shm/secret', 'w').write('x')\n"
              "s = socket.socket(socket.AF_UNIX)\ns.bind('\\0codespace-between')\ns.listen()")
    done = second.run("import socket, os\nprint(os.path.exists('/tmp/secret'), os.path.exists('/dev/shm/secret'))\n"
                      "try:\n    socket.socket(socket.AF_UNIX).connect('\\0codespace-between')\n    print('connected')\n"
                      "except OSError as e:\n    print(e.errno)")
    assert done["stdout"] == "False False\n111\n", done
