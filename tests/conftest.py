"""The fixtures of the integration and security suites: one running CodeSpace for all tests
of a pytest process, and fresh sessions on it. What the suites start is stopped at the end,
and the last thing the fixture does is to look whether anything was left on the machine."""
import os
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    group = parser.getgroup("codespace")
    group.addoption("--build", default=str(ROOT / "build/release"), help="build directory with bin/codespaced in it")
    group.addoption("--images", default=str(ROOT / "build/images"), help="image store (images/*/build.sh fill it)")
    group.addoption("--image", default="code_latest", help="image the sessions of the tests use")


@pytest.fixture(scope="session")
def deployment(request):
    """Launcher and gateway, started for this pytest process alone."""
    from deployment import Deployment

    assert os.geteuid() == 0, "these tests start namespaces, control groups and service users: run them as root"
    made = Deployment(request.config.getoption("--build"), request.config.getoption("--images"),
                      request.config.getoption("--image"))
    try:
        made.start()
        yield made
    finally:
        left = made.finish()
    assert not left, "left on the machine after the end:\n" + "\n".join(left)


@pytest.fixture(scope="session")
def image(request):
    return request.config.getoption("--image")


@pytest.fixture
def api(deployment):
    """A client with the first key, on a connection of its own."""
    client = deployment.client()
    yield client
    client.close()
    deployment.assert_alive()


@pytest.fixture
def make_session(deployment, api, image):
    """Makes sessions; all of them are deleted after the test."""
    from client import Session

    made = []

    def make(**fields):
        session = Session.create(api, image=fields.pop("image", image), **fields)
        made.append(session)
        return session

    yield make
    deployment.assert_alive()
    for session in made:
        session.delete()


@pytest.fixture
def session(make_session):
    """A fresh session with default limits."""
    return make_session()


@pytest.fixture(scope="session")
def second_key(deployment):
    """Key of another caller."""
    return deployment.second_key()


@pytest.fixture
def stranger(deployment, second_key):
    """A client with another caller's key."""
    client = deployment.client(second_key)
    yield client
    client.close()
