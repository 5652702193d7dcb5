"""The unmodified Java SDK against our server: Maven fetches it, and runs the programs of the guide
and the calls in java/, with nothing set but what docs/sdk.md says."""
import os
import pathlib
import re
import subprocess

from conftest import exports

HERE = pathlib.Path(__file__).parent
BOUND_S = 900
TESTS = 30


def test_the_java_sdk(deployment, tmp_path):
    variables = exports(deployment)
    subprocess.run(["keytool", "-importcert", "-noprompt", "-alias", "codespace", "-file", deployment.state / "tls/ca.pem",
                    "-keystore", tmp_path / "trust.p12", "-storetype", "PKCS12", "-storepass", "changeit"], check=True, capture_output=True, timeout=60)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "JAVA_HOME") if name in os.environ}
    done = subprocess.run(["mvn", "-B", "-ntp", f"-Dsdk.build={tmp_path / 'target'}", f"-Dtrust.store={tmp_path / 'trust.p12'}", "-f", HERE / "java/pom.xml", "test"],
                          env={**kept, **variables}, cwd=tmp_path, capture_output=True, text=True, timeout=BOUND_S)
    print(done.stdout[-20_000:], done.stderr[-2_000:])
    assert done.returncode == 0
    counts = re.findall(r"Tests run: (\d+), Failures: 0, Errors: 0, Skipped: 0$", done.stdout, re.M)
    assert counts == [str(TESTS)], "not every test ran"
