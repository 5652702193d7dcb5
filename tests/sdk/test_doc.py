"""The recipes of docs/sdk.md, as written there, in an empty directory with an empty environment."""
import os
import pathlib
import re
import subprocess

import pytest

from conftest import exports

ROOT = pathlib.Path(__file__).parents[2]
BOUND_S = 900


def blocks(heading):
    """{language: text} of the code blocks below a heading."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", (ROOT / "docs/sdk.md").read_text(), re.M | re.S)[1]
    return dict(re.findall(r"^```(\w+)\n(.*?)^```", section, re.M | re.S))


@pytest.fixture
def home(deployment, tmp_path):
    """A directory as quickstart leaves it."""
    (tmp_path / ".codespace").mkdir()
    (tmp_path / ".codespace/env").write_text("".join(f"export {name}='{value}'\n" for name, value in exports(deployment).items()))
    return tmp_path


def follow(recipe, home, **variables):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(["bash", "-euc", recipe], cwd=home, env={**kept, **variables}, capture_output=True, text=True, timeout=BOUND_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python(home):
    recipe = blocks("Python")
    assert len(recipe["sh"].splitlines()) < 10
    (home / "hello.py").write_text(recipe["python"])
    assert follow(recipe["sh"], home) == "Hello from CodeSpace!\n\n"
    version = re.search(r"wuying-agentbay-sdk==(\S+)", recipe["sh"])[0]
    assert version in (ROOT / "tests/sdk/python/requirements.txt").read_text()


def test_java(home):
    recipe = blocks("Java")
    assert len(recipe["sh"].splitlines()) < 10
    (home / "Hello.java").write_text(recipe["java"])
    pom = ROOT / "tests/sdk/java/pom.xml"
    resolve = f"mvn -q -B -ntp -Dsdk.build={home}/target -f {pom} org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath -DincludeScope=compile -Dmdep.outputFile={home}/classpath"
    follow(resolve, home)
    assert follow(recipe["sh"], home, CLASSPATH=(home / "classpath").read_text()) == "Hello from CodeSpace!\n\n"


def test_every_language_has_a_section_and_every_test_named_exists():
    assert blocks("Python") and blocks("Java")
    names = re.findall(r"`(test_\w+)`", (ROOT / "docs/compatibility.md").read_text())
    known = "".join(p.read_text() for p in (ROOT / "tests/sdk").rglob("*.py"))
    assert len(set(names)) > 40 and [n for n in names if f"def {n}(" not in known] == []
    java = re.findall(r"`CallsTest\.(\w+)`", (ROOT / "docs/compatibility.md").read_text())
    calls = (ROOT / "tests/sdk/java/src/test/java/codespace/CallsTest.java").read_text()
    assert java and [n for n in java if f"void {n}(" not in calls] == []
