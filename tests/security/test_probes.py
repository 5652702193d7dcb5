"""Every attack of probes/ is run twice: on the host as root, where it must work, and in a
session, where it must not. An attack that works nowhere would prove nothing, so the first
half counts as much as the second."""
import os
import re
import signal
import socket
import subprocess

import pytest

import host

# Outside, attacks run in namespaces of their own, so that those which work hurt nobody.
OWN_NAMESPACES = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--mount-proc",
                  "--propagation", "private"]
NEEDS_ARGUMENT = {"connect_tcp", "connect_unix"}
ARGUMENT_OUTSIDE = {"cloud_metadata": "serve"}

# Kernels may be built without these; then nobody can attack through them.
OPTIONAL_IN_KERNEL = {
    "af_alg", "af_vsock", "af_packet", "af_packet_high_bits", "netlink_generic", "netlink_xfrm", "netlink_netfilter",
    "netlink_audit", "netlink_diag", "io_uring", "io_setup", "bpf_map", "perf", "userfaultfd", "memfd_secret", "fanotify",
    "keyctl_session", "add_key", "request_key", "kexec", "load_module", "unload_module", "swap_on", "memory_policy",
    "handle_of_file", "open_by_handle", "local_descriptor_table", "io_ports", "x32_call", "i386_call", "kcmp_init",
    "write_sysrq", "read_kcore", "read_kallsyms", "read_timer_list", "read_slabs", "read_io_memory", "read_key_users",
    "read_interrupts", "write_cgroup", "vm_read_init", "real_time",
}
ABSENT = {"ENOSYS", "ENOENT", "EAFNOSUPPORT", "EPROTONOSUPPORT"}
# Root of a container may lack CAP_SYS_RESOURCE, and with it these.
NEEDS_SYS_RESOURCE = {"raise_nofile", "raise_memlock", "raise_core", "raise_rtprio", "raise_msgqueue", "set_mm",
                      "lower_oom_score", "write_namespace_limit"}
# Refused with death and not with an errno: no honest program enters the kernel by these doors.
KILLED = {"i386_call", "x32_call"}


def names():
    """Names of all attacks, from the sources, so that none is forgotten here."""
    folder = os.path.join(os.path.dirname(__file__), "probes")
    found = []
    for source in sorted(os.listdir(folder)):
        if source.endswith(".c"):
            with open(os.path.join(folder, source), encoding="utf-8") as text:
                found += re.findall(r'\{"(\w+)", \w+\}', text.read())
    assert len(found) > 100, found
    return [name for name in found if name not in NEEDS_ARGUMENT]


def has_sys_resource():
    return bool(int(host.status("self")["CapEff"], 16) >> 24 & 1)


def outside(program, name, argument=None, namespaces=True):
    # The shell stays and is PID 1, so that attacks on PID 1 meet another process than themselves.
    around = [*OWN_NAMESPACES, "sh", "-c", '"$@"; exit $?', "sh"] if namespaces else []
    command = [*around, str(program), name, *([argument] if argument else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, cwd="/")
    return done.returncode, done.stdout.strip()


def inside(session, name, argument=""):
    """Exit status as the shell saw it, and what the probe said."""
    text = session.shell(f"./probe {name} {argument}; echo exit=$?")
    said, _, code = text.strip().rpartition("exit=")
    return int(code), said.strip()


@pytest.mark.parametrize("name", names())
def test_attack(name, armed, probe_program):
    """An attack that works on the host does not work in a session."""
    code, said = outside(probe_program, name, ARGUMENT_OUTSIDE.get(name))
    if code != 0:
        refusal = said.removeprefix("refused ")
        absent = name in OPTIONAL_IN_KERNEL and (refusal in ABSENT or (name in KILLED and not said))
        unprivileged = name in NEEDS_SYS_RESOURCE and not has_sys_resource() and refusal in ("EPERM", "EACCES")
        assert absent or unprivileged, f"the attack must work outside, but: exit {code}, {said!r}"
    code, said = inside(armed, name)
    if name in KILLED:
        assert code == 128 + signal.SIGSYS and not said, (code, said)
    else:
        assert code == 1 and said.startswith("refused "), (code, said)


def test_host_loopback_is_unreachable(armed, probe_program, deployment):
    """A program in a session cannot connect to a port of the host, nor to the API itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for address in (f"127.0.0.1:{listener.getsockname()[1]}", f"127.0.0.1:{deployment.port}"):
            assert outside(probe_program, "connect_tcp", address, namespaces=False) == (0, "worked")
            code, said = inside(armed, "connect_tcp", address)
            assert (code, said) == (1, "refused ECONNREFUSED"), (address, code, said)


def test_host_unix_sockets_are_unreachable(armed, probe_program, deployment, tmp_path):
    """Neither an abstract name nor a path of the host leads to a socket of the host."""
    sockets = [f"@codespace-probe-{os.getpid()}", str(tmp_path / "s")]
    for name in sockets:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("\0" + name[1:] if name[0] == "@" else name)
            listener.listen()
            assert outside(probe_program, "connect_unix", name, namespaces=False) == (0, "worked")
            code, said = inside(armed, "connect_unix", name)
            assert code == 1 and said in ("refused ECONNREFUSED", "refused ENOENT"), (name, code, said)
    for path in (deployment.runtime / "launcher.sock", "/run/launcher.sock"):
        assert inside(armed, "connect_unix", str(path)) == (1, "refused ENOENT")


def test_kernels_are_confined_like_commands(armed, probe_program):
    """What a Python run starts meets the same refusals as what a command starts."""
    code = ("import subprocess\n"
            "for name in ('unshare_user', 'init_exe', 'bpf_map', 'af_packet', 'write_usr', 'signal_init'):\n"
            "    print(name, subprocess.run(['./probe', name], capture_output=True, text=True).stdout.strip())\n")
    lines = armed.run(code)["stdout"].splitlines()
    assert len(lines) == 6 and all(" refused " in line for line in lines), lines
