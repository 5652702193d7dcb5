"""Starts kernel drivers for the conformance tests: installed by images/kernels/install.sh into a
temporary tree and run by this machine's own interpreters, or, with --rootfs DIR and as root,
the drivers and interpreters of a built image. No namespaces of ours and no server.
"""
import pathlib
import subprocess

import pytest
from driver import Kernel

REPO = pathlib.Path(__file__).resolve().parents[2]


def pytest_addoption(parser):
    parser.addoption("--rootfs", help="test the drivers and interpreters of this image's rootfs; needs root")


def inside(rootfs, cwd):
    """The words before a command that run it, with the same pid, in an image that sees our temporary files."""
    script = ('mount --rbind /proc "$1/proc"; mount --bind /dev "$1/dev"; mount --bind /tmp "$1/tmp"; dir=$2; '
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


@pytest.fixture
def start(installed, tmp_path, pytestconfig):
    started = []

    def start_kernel(language, env=None):
        base = installed / "opt/codespace/kernels"
        argv = (base / language / "argv").read_text().splitlines()
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        if rootfs := pytestconfig.getoption("rootfs"):
            argv = [*inside(rootfs, work), *argv]
        else:
            argv = [a.replace("/opt/codespace/kernels", str(base)) for a in argv]
        full = {"PATH": "/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **(env or {})}
        kernel = Kernel(argv, work, full)
        started.append(kernel)
        return kernel

    yield start_kernel
    for kernel in started:
        kernel.close()


@pytest.fixture
def python(start):
    return start("python")


@pytest.fixture
def javascript(start):
    return start("javascript")


def pytest_ignore_collect(collection_path, config):
    # These need numpy, pandas, matplotlib and IPython, which only the image is sure to have.
    return collection_path.name == "test_libraries.py" and not config.getoption("rootfs") or None
