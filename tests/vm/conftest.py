"""The machine of these tests: one, with the package installed, in the order the tests are written."""
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

from machine import Disks, Machine, run

ROOT = pathlib.Path(__file__).resolve().parents[2]
NEXT_VERSION = "0.1.1"


def make_package(build, directory, version=None):
    """The .deb of the build; of another version if one is named: the same programs under another number."""
    run(["cmake", "--build", build, "--target", "package_files"])
    options = ["-D", f"CPACK_PACKAGE_VERSION={version}"] if version else []
    run(["cpack", "-G", "DEB", "-B", directory, *options], cwd=build)
    (made,) = pathlib.Path(directory).glob(f"codespace_{version or ''}*.deb")
    return made


@pytest.fixture(scope="session")
def packages(request, tmp_path_factory):
    build = pathlib.Path(request.config.getoption("--build")).resolve()
    made = tmp_path_factory.mktemp("packages")
    return make_package(build, made / "now"), make_package(build, made / "next", NEXT_VERSION)


@pytest.fixture(scope="session")
def machine(request, packages, capsys_off):
    for tool in ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mke2fs", "ssh"):
        assert shutil.which(tool), f"{tool} is missing; the test of the installed service needs a virtual machine. deploy/packages.txt names what to install"
    store = pathlib.Path(request.config.getoption("--images")).resolve()
    assert (store / "code_latest").exists(), f"image code_latest is not in {store}: run images/code_latest/build.sh {store}"
    began = time.monotonic()
    disks = Disks(ROOT / "build/vm", packages[0], store)
    made_in = time.monotonic() - began
    # A short path: a socket of ssh lies in it.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="codespace-vm-", dir="/tmp"))
    made = Machine(disks, directory)
    try:
        seconds = made.boot()
        capsys_off(f"disks made in {made_in:.0f} s, booted in {seconds:.0f} s")
        yield made
    finally:
        made.power_cut()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def capsys_off(request):
    """Prints past pytest's capture."""
    manager = request.config.pluginmanager.getplugin("capturemanager")

    def say(text):
        with manager.global_and_fixture_disabled():
            print(f"\n{text}", flush=True)
    return say


@pytest.fixture(scope="session")
def offline():
    """What systemd says of a unit file, without a machine."""
    def score(unit):
        out = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True, check=False).stdout
        return float(out.split("Overall exposure level for")[1].split(":")[1].split()[0])
    return score
