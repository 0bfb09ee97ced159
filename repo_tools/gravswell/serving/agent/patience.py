"""Waits for a Triton that may never answer: what they hold up is bounded, and they end with what they were for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gravswell.serving.agent.failures import SupersededError
from gravswell.serving.contracts import DesiredModel

LOAD_OVERDUE_SECONDS = 120.0
"""After which a load no longer holds up other models, nor the pod's readiness. Building an engine may take longer."""


class Place:
    """One of a few places, given up once: at the end, or early by who takes too long."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free: asyncio.Semaphore | None = free

    @classmethod
    async def taken(cls, free: asyncio.Semaphore) -> "Place":
        """Wait for a place, and take it."""
        await free.acquire()
        return cls(free)

    def give_up(self) -> None:
        """Leave it to others; harmless when that is done already."""
        if self._free is not None:
            self._free.release()
            self._free = None


async def while_wanted(work: Awaitable[None], model: DesiredModel, unwanted: asyncio.Event) -> None:
    """Await ``work`` for ``model``, until ``unwanted`` is set: then it is given up with :class:`SupersededError`."""
    waits = working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(unwanted.wait())
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise SupersededError(
                f"version {model.version} of '{model.name}' is no longer wanted: the wait for it is given up"
            )
        working.result()
    finally:
        await _ended(working, leaving)


async def loaded(
    load: Awaitable[None], model: DesiredModel, *, unwanted: asyncio.Event, overdue: Callable[[], None]
) -> None:
    """Await ``load`` of ``model``; after :data:`LOAD_OVERDUE_SECONDS` call ``overdue``, and go on while it is wanted.

    Until then it is awaited though it is unwanted: Triton goes on with it in any case, and the model's next version
    can only be loaded after it.
    """
    loading = asyncio.ensure_future(load)
    try:
        await asyncio.wait({loading}, timeout=LOAD_OVERDUE_SECONDS)
        if loading.done():
            loading.result()
        else:
            overdue()
            await while_wanted(loading, model, unwanted)
    finally:
        await _ended(loading)


async def _ended(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
