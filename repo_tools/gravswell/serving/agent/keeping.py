"""What serves here goes into the node cache, and what is wanted here stays in it."""

import asyncio
import logging
from collections.abc import Iterator

from gravswell.serving.agent.failures import SupersededError
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.nodecache import WANTED_SECONDS, NodeCache
from gravswell.serving.contracts import DesiredModel

log = logging.getLogger(__name__)

DEBOUNCE_SECONDS = 1.0
"""A version that comes to serve changes several things at once."""


class CacheKeeper:
    """Keeps a node cache true to what one agent serves and wants."""

    def __init__(self, cache: NodeCache, ledger: Ledger, folder: ModelFolder) -> None:
        self._cache = cache
        self._ledger = ledger
        self._folder = folder
        self._changed = asyncio.Event()
        self._stopped = False

    def changed(self) -> None:
        """Something else may serve."""
        self._changed.set()

    async def run(self) -> None:
        """Go on until cancelled."""
        try:
            while True:
                self._changed.clear()
                await self._turn()
                try:
                    async with asyncio.timeout(WANTED_SECONDS / 4):
                        await self._changed.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(DEBOUNCE_SECONDS)
        finally:
            self._stopped = True  # a copy in a thread sees this and ends

    async def _turn(self) -> None:
        wanted = [part.digest for work in self._ledger.works.values() for part in self._parts(work.model)]
        await asyncio.to_thread(self._cache.want, [digest for digest in wanted if digest is not None])
        for part in list(self._serving()):
            source = self._folder.find(part)
            if source is not None:
                await asyncio.to_thread(self._cache.keep, part, source, self._go_on)

    def _serving(self) -> Iterator[DesiredModel]:
        """What serves as desired, and answers rightly: another version need not outlive this pod."""
        for name, work in self._ledger.works.items():
            if self._ledger.is_loaded(work.model) and self._ledger.serving[name].good:
                yield from self._parts(work.model)

    def _parts(self, model: DesiredModel) -> tuple[DesiredModel, ...]:
        return (model, *self._folder.members_of(model))

    def _go_on(self) -> None:
        if self._stopped:
            raise SupersededError("the agent stops")
