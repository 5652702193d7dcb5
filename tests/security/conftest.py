"""Compiles the probes once, and gives the modules here a session with the program in it."""
import pathlib
import subprocess

import pytest

PROBES = pathlib.Path(__file__).resolve().parent / "probes"


@pytest.fixture(scope="session")
def probe_program(tmp_path_factory):
    """Static, so that the same bytes run on the host and in any image."""
    program = tmp_path_factory.mktemp("probes") / "probe"
    sources = sorted(str(source) for source in PROBES.glob("*.c"))
    subprocess.run(["gcc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-static", "-o", program, *sources], check=True)
    program.parent.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def armed(deployment, image, probe_program):
    """A session that holds the probe program; one for all tests of a module."""
    from client import Session

    api = deployment.client()
    made = Session.create(api, image=image)
    made.put("/workspace/probe", probe_program.read_bytes()).ok(201)
    made.shell("chmod 755 /workspace/probe")
    yield made
    made.delete()
    api.close()
