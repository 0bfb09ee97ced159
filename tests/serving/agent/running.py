"""Running agents in tests: the one home of what starts, feeds and awaits them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.program import AgentOptions, running_agent
from gravswell.serving.agent.reconciler import Reconciler
from gravswell.serving.agent.server import AgentServer
from gravswell.serving.contracts import Desired, DesiredModel, ModelReport, ModelState
from gravswell.serving.triton import EmbeddedTriton

KEY = "key-of-this-test"
PATIENCE = 90.0
"""Seconds until a wait gives up: the machine may be very busy."""


async def until(condition: Callable[[], object], what: str, *, in_thread: bool = False) -> None:
    """Wait for ``condition``; one that blocks is to be asked ``in_thread``, so that the agent goes on meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while not (await asyncio.to_thread(condition) if in_thread else condition()):
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE:g} s"
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

    @property
    def ledger(self) -> Ledger:
        """What it has noted."""
        return self.reconciler.ledger

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


def start_triton(models: Path, **options: object) -> EmbeddedTriton:
    """A Triton in explicit mode on ``models``, whose control APIs want :data:`KEY`; to be entered."""
    return EmbeddedTriton(models, model_control="explicit", key=KEY, exit_timeout=5, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def running(options: AgentOptions) -> AsyncIterator[tuple[Reconciler, AgentServer]]:
    """An agent of which no part ends before the block does."""
    async with running_agent(options) as (reconciler, server, failed):
        watch = asyncio.ensure_future(failed)
        yield reconciler, server
        assert not watch.done(), f"a part of the agent ended: {watch}"
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
