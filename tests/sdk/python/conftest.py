"""Runs inside the SDK's own environment: only the SDK, pytest and what a caller's shell has.
AGENTBAY_ENDPOINT, AGENTBAY_API_KEY and SSL_CERT_FILE come from outside, as `codespaced env` prints them."""
import os

import pytest
from agentbay import AgentBay, CreateSessionParams


@pytest.fixture(scope="session")
def agent_bay():
    return AgentBay(api_key=os.environ["AGENTBAY_API_KEY"])


@pytest.fixture
def make_session(agent_bay):
    """make(**params): a session that is gone after the test."""
    made = []

    def make(**params):
        params.setdefault("image_id", "code_latest")
        result = agent_bay.create(CreateSessionParams(**params))
        assert result.success, result.error_message
        made.append(result.session)
        return result.session

    yield make
    for session in made:
        agent_bay.delete(session)


@pytest.fixture(scope="module")
def session(agent_bay):
    """One for the tests of a file that do not end it."""
    result = agent_bay.create(CreateSessionParams(image_id="code_latest"))
    assert result.success, result.error_message
    yield result.session
    assert agent_bay.delete(result.session).success
