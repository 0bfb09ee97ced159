"""A server of each kind of bucket, and a bucket of its own for each test."""

import uuid
from collections.abc import Iterator

import pytest

from . import emulators
from .emulators import Server


@pytest.fixture(scope="session")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with emulators.google(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture(scope="session")
def amazon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with emulators.amazon(tmp_path_factory.mktemp("amazon")) as server:
        yield server


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with emulators.azure(tmp_path_factory.mktemp("azure")) as server:
        yield server


@pytest.fixture(params=["google", "amazon", "azure"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Each of the three in turn, named by the environment as a user would."""
    found: Server = request.getfixturevalue(request.param)
    for variable, value in found.environment.items():
        monkeypatch.setenv(variable, value)
    return found


@pytest.fixture
def bucket(server: Server) -> str:
    """URL of an empty bucket."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(name)
    return f"{server.scheme}://{name}"
