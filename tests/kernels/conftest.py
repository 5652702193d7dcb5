"""Starts kernel drivers for the conformance tests: installed by images/kernels/install.sh into a
temporary tree and run by this machine's own interpreters, or, with --rootfs DIR and as root,
the drivers and interpreters of a built image. No namespaces of ours and no server.

With --born min or --born data, Python kernels are not executed but forked from a preloaded one.
"""
import contextlib
import pathlib
import shlex
import shutil
import socket
import subprocess
import tomllib

import pytest
from driver import Fork, Kernel, Program

REPO = pathlib.Path(__file__).resolve().parents[2]


def pytest_addoption(parser):
    parser.addoption("--born", choices=["exec", "min", "data"], default="exec", help="how Python kernels start")
    parser.addoption("--driver", help="run test_conformance.py with this driver instead: its command line")
    parser.addoption("--phrases", help="with --driver: the programs of its language, like phrases/python.toml")
    parser.addoption("--rootfs", help="test the drivers and interpreters of this image's rootfs; needs root")


def inside(rootfs, cwd):
    """The words before a command that run it, with the same pid, in an image that sees our temporary files."""
    script = ('mount --rbind /proc "$1/proc"; mount --rbind /dev "$1/dev"; mount --bind /tmp "$1/tmp"; dir=$2; '
              'root=$1; shift 2; exec /usr/sbin/chroot "$root" /bin/sh -c \'cd "$1"; shift; exec "$@"\' sh "$dir" "$@"')
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-euc", script, "sh", rootfs, str(cwd)]


@pytest.fixture(scope="session")
def installed(tmp_path_factory, pytestconfig):
    """The drivers as an image has them: byte code made by the machine's own Python."""
    if pytestconfig.getoption("rootfs"):
        return pathlib.Path(pytestconfig.getoption("rootfs"))
    tree = tmp_path_factory.mktemp("rootfs")
    subprocess.run([REPO / "images/kernels/install.sh", tree, "/usr/bin/python3", "node"], check=True)
    return tree


@pytest.fixture(scope="session")
def zygote(tmp_path_factory, pytestconfig):
    """zygote(flavour): the address of a preloaded Python driver that forks kernels, made when first asked for."""
    with contextlib.ExitStack() as stack:
        addresses = {}

        def start_zygote(flavour):
            if flavour in addresses:
                return addresses[flavour]
            tree = tmp_path_factory.mktemp("zygote")
            for source in (REPO / "images/kernels/python").glob("*.py"):
                shutil.copy(source, tree)
            shutil.copy(REPO / "tests/kernels/forking.py", tree / "zygote.py")
            argv = ["/usr/bin/python3", "-I", "-S", "-X", "utf8", str(tree / "kernel.py"), "zygote", flavour]
            if rootfs := pytestconfig.getoption("rootfs"):
                argv = [*inside(rootfs, tree), *argv]
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            addresses[flavour] = str(tree / "socket")
            listener.bind(addresses[flavour])
            listener.listen()
            process = subprocess.Popen(
                ["/bin/bash", "-c", 'exec 3<&0 </dev/null; exec env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 "$@"', "bash", *argv],
                stdin=listener.fileno(), stdout=subprocess.PIPE)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout.readline() == b"ready\n"
            return addresses[flavour]

        yield start_zygote


@pytest.fixture
def start(installed, zygote, tmp_path, pytestconfig):
    started = []

    def start_kernel(language, env=None, born=None, configure=True, options=()):
        """`options` are the interpreter's."""
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        born = born or (pytestconfig.getoption("born") if language == "python" else "exec")
        full = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **(env or {})}
        starter = Fork(zygote(born)) if born != "exec" else Program(program(installed, language, work, pytestconfig, options))
        kernel = Kernel(starter, work, full, configure)
        started.append(kernel)
        return kernel

    yield start_kernel
    for kernel in started:
        kernel.close()


def program(installed, language, work, pytestconfig, options):
    if language == "other":
        return shlex.split(pytestconfig.getoption("driver"))
    base = installed / "opt/codespace/kernels"
    interpreter, *argv = (base / language / "argv").read_text().splitlines()
    argv = [interpreter, *options, *argv]
    if rootfs := pytestconfig.getoption("rootfs"):
        return [*inside(rootfs, work), *argv]
    return [a.replace("/opt/codespace/kernels", str(base)) for a in argv]


@pytest.fixture
def python(start):
    return start("python")


@pytest.fixture
def javascript(start):
    return start("javascript")


@pytest.fixture
def phrases(language, pytestconfig):
    """The programs that test_conformance.py says to a driver of the language."""
    known = pathlib.Path(__file__).parent / f"phrases/{language}.toml"
    return tomllib.loads(pathlib.Path(pytestconfig.getoption("phrases") or known).read_text())


def pytest_generate_tests(metafunc):
    if "language" in metafunc.fixturenames:
        metafunc.parametrize("language", ["other"] if metafunc.config.getoption("driver") else ["python", "javascript"])
    if "flavour" in metafunc.fixturenames:
        # The libraries of the flavour data are in the image only.
        metafunc.parametrize("flavour", ["min", "data"] if metafunc.config.getoption("rootfs") else ["min"])


def pytest_ignore_collect(collection_path, config):
    # These need numpy, pandas, matplotlib and IPython, which only the image is sure to have.
    return collection_path.name in ("test_libraries.py", "test_ipython.py", "test_walk.py") and not config.getoption("rootfs") or None
