"""A provider of others' in a thread of its own: what blocks there holds up its own passes, and nobody else's work.

In our event loop it would cost the Lease. Its own is asked now and then whether it still goes round. Where it does not
for seconds, the log says at which line; where it does not for longer than a pass may take, so do the conditions of its
pools, and nothing more is given to it until it does.
"""

import asyncio
import importlib.metadata
import logging
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from gravswell.errors import UnavailableError
from gravswell_operator.providers.base import CALL_SECONDS, Ask, Cloud, CloudState
from gravswell_operator.providers.passes import without_exit

LOAD_SECONDS = 30.0
"""How long a provider may take to be made."""
BEAT_SECONDS = 1.0
"""Between the questions whether its event loop goes round, while something waits for it."""
TOLD_SECONDS = 5.0
"""A loop that stands for this long is told in the log: half of what would have cost the Lease."""

_HERE = str(Path(__file__).parent)
_LOOP = asyncio.events.__file__
_IMPORTS = ("<frozen importlib", importlib.metadata.__file__)
"""What calls a provider: we, the event loop where it has tasks of its own, and the import of its package."""

log = logging.getLogger(__name__)


class Apart:
    """What ``make`` makes, with an event loop and a thread of its own, in which it is made as well."""

    def __init__(self, name: str, make: Callable[[], Cloud]) -> None:
        """Raises what ``make`` raises, and :class:`UnavailableError` where it does not end in time."""
        self._name = name
        self._asked: float | None = None
        """Since when its loop was asked and has not answered, on the monotonic clock."""
        self._told = False
        self._loop = asyncio.new_event_loop()
        # A daemon: nothing ends a thread that blocks, and the process must end without it.
        self._thread = threading.Thread(target=self._live, name=f"provider {name}", daemon=True)
        self._thread.start()
        try:
            self._cloud = self._made(make)
        except BaseException:
            self._loop.call_soon_threadsafe(self._loop.stop)
            raise

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.close()

    def _made(self, make: Callable[[], Cloud]) -> Cloud:
        async def in_its_loop() -> Cloud:
            return make()

        making = asyncio.run_coroutine_threadsafe(without_exit(in_its_loop), self._loop)
        try:
            return making.result(LOAD_SECONDS)
        except TimeoutError:
            if making.done():  # its own
                raise
            raise UnavailableError(
                f"it was not made within {LOAD_SECONDS:.0f} s, and stands at {self._where()}"
            ) from None

    async def reconcile(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.reconcile`. Raises :class:`UnavailableError` where the provider blocks."""
        return await self._passed(lambda: self._cloud.reconcile(ask))

    async def release(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.release`. Raises as :meth:`reconcile`."""
        return await self._passed(lambda: self._cloud.release(ask))

    async def _passed(self, step: Callable[[], Awaitable[CloudState]]) -> CloudState:
        self._check()  # else its loop would find them all when it goes on
        call = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(without_exit(step), self._loop))
        try:
            while not call.done():
                await asyncio.wait([call], timeout=BEAT_SECONDS)
                self._check()
            return call.result()
        finally:
            call.cancel()

    def _check(self) -> None:
        """Ask its loop whether it goes round, and tell where it does not answer."""
        asked = self._asked  # once: its own thread may answer meanwhile
        if asked is None:
            self._told, self._asked = False, time.monotonic()
            self._loop.call_soon_threadsafe(self._answer)
            return
        stands = time.monotonic() - asked
        if stands >= TOLD_SECONDS and not self._told:
            self._told = True
            stack = "".join(traceback.format_list(self._stack()))
            log.warning(
                "the provider %s blocks for %.0f s, and with that all of its pools; what blocks belongs into a thread "
                "(asyncio.to_thread). It stands at:\n%s",
                self._name,
                stands,
                stack.rstrip(),
            )
        if stands >= CALL_SECONDS:
            raise UnavailableError(
                f"it blocks at {self._where()}: what blocks belongs into a thread (asyncio.to_thread); its pools wait "
                "until that ends, or the operator is started again"
            )

    def _answer(self) -> None:
        self._asked = None

    def _stack(self) -> traceback.StackSummary:
        """What its thread does, from the first call of the provider's own on."""
        frame = sys._current_frames().get(self._thread.ident or 0)
        calls: list[traceback.FrameSummary] = traceback.extract_stack(frame) if frame is not None else []
        for passing_on in (_HERE, _LOOP, _IMPORTS):
            ours = [at for at, call in enumerate(calls) if call.filename.startswith(passing_on)]
            calls = calls[ours[-1] + 1 :] if ours else calls
        return traceback.StackSummary.from_list(calls)

    def _where(self) -> str:
        """The provider's own line; the file without its folder."""
        stack = self._stack()
        if not stack:
            return "an unknown place"
        return f"{stack[0].filename.rpartition('/')[2]}, line {stack[0].lineno}, in {stack[0].name}"
