"""The unmodified Python SDK against our server: installed into an environment of its own, it runs
every program of the guide and the tests in python/, with nothing set but what `codespaced env` prints."""
import os
import pathlib
import re
import subprocess

import pytest

from conftest import exports
from sdk_environment import python_environment

HERE = pathlib.Path(__file__).parent
RUN_BOUND_S = 900


@pytest.fixture(scope="session")
def environment():
    return python_environment()


def test_the_python_sdk(deployment, environment, tmp_path):
    variables = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [environment / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", HERE / "python", "--confcutdir", HERE / "python",
         "--tb=short", "--show-capture=no", HERE / "python"],
        env={**variables, **exports(deployment), "PYTHONDONTWRITEBYTECODE": "1", "AGENTBAY_LOG_LEVEL": "ERROR"}, cwd=tmp_path, capture_output=True, text=True, timeout=RUN_BOUND_S)
    print(done.stdout[-20_000:], done.stderr[-2_000:])
    assert done.returncode == 0
    assert re.search(r"^\d+ passed", done.stdout, re.M), "the SDK's tests did not run"
