"""Where the official Python SDK is installed, unmodified: an environment of its own, made anew when its requirements change."""
import hashlib
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSTALL_BOUND_S = 600


def python_environment():
    requirements = ROOT / "tests/sdk/python/requirements.txt"
    made = ROOT / "build/sdk" / ("python-" + hashlib.sha256(requirements.read_bytes()).hexdigest()[:16])
    if not (made / "complete").exists():
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--clear", made], check=True, timeout=INSTALL_BOUND_S)
        subprocess.run([made / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements], check=True, timeout=INSTALL_BOUND_S)
        (made / "complete").touch()
    return made
