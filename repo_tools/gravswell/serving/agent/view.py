"""What one Triton says of itself: whether it answers, and what it serves under which name."""

import logging
from collections.abc import Collection, Container

from gravswell.errors import GravswellError
from gravswell.names import MEMBER_PREFIX
from gravswell.serving.agent.loadconfig import Loaded, read_loaded
from gravswell.serving.agent.startup import now
from gravswell.serving.agent.triton import (
    TritonBusyError,
    TritonControl,
    TritonRefusedError,
    TritonSilentError,
    TritonUnavailableError,
)
from gravswell.serving.agent.work import Serving
from gravswell.serving.contracts import PRIVATE_PREFIX

log = logging.getLogger(__name__)

ASK_SECONDS = 1.0
"""For Triton's word on whether it still has what it had: whoever asks that is waited for by a probe."""

SILENCES = 3
"""Looks in a row that a Triton may leave without an answer before it counts as gone."""


class View:
    """The last look at a Triton."""

    def __init__(self, triton: TritonControl) -> None:
        self.serving: dict[str, Serving] = {}
        """What it serves, by name."""
        self.version = ""
        """Its version; empty while it does not answer."""
        self.members: frozenset[str] = frozenset()
        """Names of the pipelines' members that are there, in whatever state."""
        self.settled = False
        """Nothing is being loaded or unloaded."""
        self.problem = "Triton was not asked yet"
        """Why it does not answer; empty while it does."""
        self._triton = triton
        self._silences = 0

    async def look(self, *, at_work: Container[str], proofs: Container[str]) -> bool:
        """Look again; True when it has come or gone.

        Names ``at_work`` are left alone, for whoever works on them knows better; private names that no proof in
        ``proofs`` uses were left by an agent that was killed, and are unloaded.
        """
        before = self.version
        try:
            version = await self._triton.version()
            index = await self._triton.index()
            self.settled = not any(row.state in ("LOADING", "UNLOADING") for row in index)
            self.members = frozenset(
                row.name for row in index if row.state != "UNAVAILABLE" and row.name.startswith(MEMBER_PREFIX)
            )
            ready = {row.name: row.version for row in index if row.state == "READY" and row.name not in self.members}
            for name in set(ready) | set(self.serving):
                if name.startswith(PRIVATE_PREFIX):
                    if name not in proofs:
                        await self._unload_leftover(name)
                elif name not in at_work:
                    known = self.serving.get(name)
                    if known is None or known.loaded.version != ready.get(name):
                        await self.observe(name)
        except (TritonSilentError, TritonBusyError) as error:
            # Once or twice: a server that is very busy, and its clients had better not be turned away.
            self._silences += 1
            log.warning("%s", error)
            if self._silences >= SILENCES:
                self._gone(error)
        except (TritonUnavailableError, TritonRefusedError) as error:
            self._gone(error)
        else:
            self.version, self.problem, self._silences = version, "", 0
            if version != before:
                log.info("Triton %s answers", version)
        return self.version != before

    async def still_has(self, names: Collection[str]) -> bool:
        """Whether Triton, which had models of all these ``names`` at the last look, has any of them now.

        One that is too busy to say so has not lost them.
        """
        try:
            index = await self._triton.index(limit=ASK_SECONDS)
        except (TritonSilentError, TritonBusyError):
            return True
        except (TritonUnavailableError, TritonRefusedError):
            return False
        return any(row.state == "READY" and row.name in names for row in index)

    async def observe(self, name: str) -> Loaded | None:
        """What it serves under ``name`` now."""
        asked = now()  # before: a Triton that restarts in between must not seem to be the one that answered
        try:
            config = await self._triton.config(name)
        except TritonRefusedError:  # it has no such model, or no version of it that is ready
            self.serving.pop(name, None)
            return None
        versions = config.get("version_policy", {}).get("specific", {}).get("versions") or [0]
        loaded = read_loaded(int(versions[0]), config)
        known = self.serving.get(name)
        if known is None or known.loaded != loaded:
            # A roll-out that goes well makes no pod unready: all replicas may be at it at once.
            self.serving[name] = Serving(loaded, asked, trusted=known is not None and known.good)
        return loaded

    async def _unload_leftover(self, name: str) -> None:
        """Ask only: what still runs there may never end, and it says nothing of what serves."""
        try:
            await self._triton.ask_unload(name)
        except (TritonRefusedError, TritonBusyError) as error:
            log.warning("the private model %s of an earlier proof cannot be unloaded: %s", name, error)

    def _gone(self, error: GravswellError) -> None:
        if str(error) != self.problem:
            log.warning("%s", error)
        self.version, self.problem = "", str(error)
        self.serving.clear()
        self.members, self.settled = frozenset(), False
