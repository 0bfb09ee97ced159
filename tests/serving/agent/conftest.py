"""The agent beside the real Triton.

``repository``  an empty repository folder
``models``      an empty models folder
``triton``      a Triton in explicit mode on ``models``, whose control APIs want a key
``ports``       for Tritons that come one after the other in the same place
``agent``       ``async with agent() as running``: an agent of that Triton, fed from a file; see :class:`.Running`
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gravswell.serving.agent.program import AgentOptions
from gravswell.serving.agent.work import Pace
from gravswell.serving.triton import EmbeddedTriton, Ports
from gravswell.serving.triton.ports import ANY_FREE, held_ports

from .running import KEY, MakeAgent, Running, running, start_triton


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    return path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


@pytest.fixture
def triton(models: Path) -> Iterator[EmbeddedTriton]:
    with start_triton(models) as server:
        yield server


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Held also while no server is there: somebody else would be given them meanwhile."""
    with held_ports("127.0.0.1", ANY_FREE) as held:
        yield held


@pytest.fixture
def agent(tmp_path: Path, repository: Path, models: Path, triton: EmbeddedTriton) -> MakeAgent:
    key_file = tmp_path / "key"
    key_file.write_text(KEY)
    desired_file = tmp_path / "desired.json"
    options = AgentOptions(
        repository=str(repository),
        models=models,
        listen="127.0.0.1:0",
        triton_http=triton.http_address,
        triton_grpc=triton.grpc_address,
        key_file=key_file,
        desired_file=desired_file,
        interval=0.1,
        cpu_only=True,
        pace=Pace(tick=0.5, probe=1.0, suspect=0.3, first_retry=0.5, longest_retry=2.0),
    )

    @asynccontextmanager
    async def make(**changes: object) -> AsyncIterator[Running]:
        async with running(replace(options, **changes)) as (reconciler, server):  # type: ignore[arg-type]
            yield Running(reconciler, server, desired_file, repository)

    return make
