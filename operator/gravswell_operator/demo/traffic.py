"""Steady requests while something changes: which version answered when, and whether any request failed."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from gravswell.errors import UnavailableError
from gravswell_operator.demo.asking import connect
from gravswell_operator.demo.digits import Floats

PAUSE = 0.005
"""Seconds between two requests: a steady client, not a flood."""


@dataclass
class Traffic:
    """What the requests saw so far."""

    answers: Counter[int] = field(default_factory=Counter)
    """Answers by the version that gave them."""
    failures: list[str] = field(default_factory=list)
    """What each failed request said."""
    first_seen: dict[int, float] = field(default_factory=dict)
    """Monotonic time of the first answer of each version."""

    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, version: int) -> None:
        """Count one answer."""
        self.answers[version] += 1
        if version not in self.first_seen:
            self.first_seen[version] = time.monotonic()
            self._news.set()

    def account(self) -> str:
        """Whose answers came so far, in words; :class:`UnavailableError` if any request failed."""
        if self.failures:
            raise UnavailableError(f"{len(self.failures)} requests failed, the first with: {self.failures[0]}")
        counts = ", ".join(f"version {version}: {count}" for version, count in sorted(self.answers.items()))
        return f"no request failed ({counts})"

    async def first_answer(self, version: int) -> float:
        """Wait until ``version`` answers; return when it first did (monotonic)."""
        while version not in self.first_seen:
            self._news.clear()
            await self._news.wait()
        return self.first_seen[version]


@contextlib.asynccontextmanager
async def traffic(address: str, model: str, input_name: str, images: Floats) -> AsyncIterator[Traffic]:
    """Send ``images`` (n, 64), eight at a time and over and over, to ``model`` at ``address`` while the block runs."""
    seen = Traffic()
    task = asyncio.create_task(_send(seen, address, model, input_name, images))
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _send(seen: Traffic, address: str, model: str, input_name: str, images: Floats) -> None:
    tensor = triton.InferInput(input_name, [8, images.shape[1]], "FP32")
    async with connect(address) as client:
        start = 0
        while True:
            tensor.set_data_from_numpy(images[start : start + 8])
            start = (start + 8) % (len(images) - 8)
            try:
                answer = await client.infer(model, [tensor], client_timeout=10)
            except InferenceServerException as error:
                seen.failures.append(str(error))
            else:
                seen.note(int(answer.get_response().model_version))
            await asyncio.sleep(PAUSE)
