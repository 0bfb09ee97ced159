"""The agent beside the real Triton.

``repository``  an empty repository folder
``models``      an empty models folder
``triton``      a Triton in explicit mode on ``models``, whose control APIs want a key
``agent``       ``async with agent() as running``: an agent of that Triton, fed from a file; see :class:`Running`
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gravswell.serving.agent.program import AgentOptions, running_agent
from gravswell.serving.agent.reconciler import Reconciler
from gravswell.serving.agent.server import AgentServer
from gravswell.serving.agent.work import Pace
from gravswell.serving.contracts import Desired, DesiredModel, ModelReport, ModelState
from gravswell.serving.triton import EmbeddedTriton

KEY = "key-of-this-test"
PATIENCE = 90.0
"""Seconds until a wait gives up: the machine may be very busy."""


async def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.05)


@dataclass
class Running:
    """A running agent."""

    reconciler: Reconciler
    server: AgentServer
    desired_file: Path
    repository: Path
    revision: str = ""
    """Of what was desired last."""

    def desire(self, *models: DesiredModel) -> None:
        """Say what shall be served."""
        partial = self.desired_file.with_suffix(".new")
        desired = Desired(repository=str(self.repository), models=models)
        partial.write_text(desired.to_json())
        self.revision = desired.revision
        partial.replace(self.desired_file)

    def report_of(self, name: str) -> ModelReport | None:
        """What the agent says of one model."""
        return next((model for model in self.server.report().models if model.name == name), None)

    async def settled(self, name: str, version: int) -> ModelReport:
        """Wait until that version of a model serves or has failed."""

        def done() -> bool:
            found = self.report_of(name)
            return (
                found is not None
                and self.server.report().revision == self.revision
                and found.desired_version == version
                and found.state in (ModelState.SERVING, ModelState.FAILED)
            )

        await until(done, f"version {version} of {name} serves or fails")
        found = self.report_of(name)
        assert found is not None
        return found

    async def serves(self, name: str, version: int) -> ModelReport:
        """Wait until that version serves; its failure fails the test."""
        found = await self.settled(name, version)
        assert found.state is ModelState.SERVING, f"{found.reason}: {found.message}"
        assert found.loaded_version == version
        return found


MakeAgent = Callable[..., AbstractAsyncContextManager[Running]]


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


def start_triton(models: Path, **options: object) -> EmbeddedTriton:
    return EmbeddedTriton(models, model_control="explicit", key=KEY, exit_timeout=5, **options)  # type: ignore[arg-type]


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
        async with running_agent(replace(options, **changes)) as (reconciler, server, failed):  # type: ignore[arg-type]
            watch = asyncio.ensure_future(failed)
            yield Running(reconciler, server, desired_file, repository)
            assert not watch.done(), f"a part of the agent ended: {watch}"
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    return make
