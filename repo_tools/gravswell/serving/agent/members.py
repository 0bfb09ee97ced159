"""The members of pipelines in one Triton: each loaded once, under a private name, for as long as a pipeline calls it.

A member's name is made of its digest, so what is loaded under one is never another version, and pipelines with the same
version of an entry share it; those that were given devices of their own have copies of their own there. Which pipeline
calls which is read from what Triton runs: an agent that restarts knows it.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Collection
from typing import Any

from gravswell.errors import GravswellError
from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.config import config_to_json, format_config
from gravswell.serving.agent import supply
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.failures import ModelFailure, full_disk_told, load_told, told_of_member
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.gpumemory import require_gpu_memory
from gravswell.serving.agent.loadconfig import for_member, load_key, read_loaded
from gravswell.serving.agent.triton import TritonControl, TritonRefusedError
from gravswell.serving.contracts import DesiredModel, Reason
from gravswell.serving.members import member_name, renamed

log = logging.getLogger(__name__)

RELEASE_SECONDS = 10.0
"""How long a member stays that nobody calls any more: Python of a replaced pipeline may be about to call it."""


class PipelineMembers:
    """The members in one Triton, of pipelines in one models folder. ``key`` makes their names secret."""

    def __init__(self, triton: TritonControl, folder: ModelFolder, *, cpu_only: bool, key: str = "") -> None:
        self._triton = triton
        self._folder = folder
        self._cpu_only = cpu_only
        self._key = key
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        """What each version is called here, on any devices."""
        self.doubted: set[str] = set()
        """Names under which files were loaded that turned out damaged. An agent that restarts has to be told them."""
        self._idle_since: dict[str, float] = {}

    async def ready(self, model: DesiredModel, config: Any, *, again: bool = False) -> Any:
        """Load what ``model`` is made of, where it is not yet; return its ``config`` with the names of that.

        The config of a model that is no pipeline comes back as it is. ``again`` loads all of it anew. Raises
        :class:`ModelFailure`, naming the member.
        """
        names = {}
        for member in self._folder.members_of(model):
            placed = member.model_copy(update={"gpus": model.gpus})
            name = self._name(member, model)
            async with self._locks[name]:  # of two pipelines that want it, one loads it
                with told_of_member(member):
                    await self._ready(placed, name, again=again)
            names[member.name, member.version] = name
        return renamed(config, names) if names else config

    def doubt(self, member: DesiredModel, of: DesiredModel) -> None:
        """Take what is loaded of ``member`` for damaged, also by an agent before this one for the pipeline ``of``: the
        next pipeline that wants it loads it anew.
        """
        self._name(member, of)
        self.doubted |= self._names[identity(member)]

    def _name(self, member: DesiredModel, of: DesiredModel) -> str:
        key = self._key if of.gpus is None else f"{self._key}\n{of.gpus}"
        name = member_name(member.name, identity(member), key)
        self._names[identity(member)].add(name)
        return name

    async def release(self, there: Collection[str], used: Collection[str], *, settled: bool) -> None:
        """Unload, of the members that are ``there`` in Triton, those that are not ``used`` and were not for a while.

        Nothing is unloaded before Triton is ``settled``: an earlier version of a pipeline may still be answering. What
        is shown to Triton and not there any more is withdrawn. To be called while no model is worked on.
        """
        now = time.monotonic()
        idle = set(there) - set(used)
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        for name in sorted(idle):
            if settled and now - self._idle_since[name] >= RELEASE_SECONDS:
                log.info("unloading the member %s, which no pipeline calls any more", name)
                await self._unload(name)
        for name in self._folder.exposed - set(there) - set(used):
            # Asked again: a pipeline that failed since the look may have loaded it, and Triton's index does not show
            # what it runs once its folder is gone: it would stay for ever.
            if name.startswith(MEMBER_PREFIX) and not await self._triton.is_there(name):
                await asyncio.to_thread(self._folder.withdraw, name)
                self.doubted.discard(name)

    async def _unload(self, name: str) -> None:
        """Ask only: the next look sees whether it has gone."""
        try:
            await self._triton.ask_unload(name)
        except GravswellError as error:
            log.info("the member %s is not unloaded yet: %s", name, error)

    async def _ready(self, member: DesiredModel, name: str, *, again: bool) -> None:
        if await self._triton.is_loading(name):
            raise ModelFailure(Reason.NO_ANSWER, "an earlier load of it is still at work in Triton")
        stale = name in self.doubted
        if not again and not stale and await self._is_loaded(member, name):
            return
        source = self._folder.find(member)
        if source is None:
            raise ModelFailure(Reason.LOAD_FAILED, "its files are not on this machine")
        nonce = str(time.time_ns()) if again or stale else ""
        published = supply.servable_config(source, member.name)
        config = for_member(published, name, member, cpu_only=self._cpu_only, again=nonce)
        await require_gpu_memory(self._triton, member, config_to_json(config), source)
        with full_disk_told(member):
            # Triton reads this text, too, whenever it loads an ensemble that calls the member.
            await asyncio.to_thread(self._folder.expose, source, name, member.version, format_config(config))
        with load_told(member, "it"):
            await self._triton.load(name, config_to_json(config))
        self.doubted.discard(name)

    async def _is_loaded(self, member: DesiredModel, name: str) -> bool:
        try:
            loaded = read_loaded(member.version, await self._triton.config(name))
        except TritonRefusedError:
            return False
        return loaded.key == load_key(member, cpu_only=self._cpu_only)
