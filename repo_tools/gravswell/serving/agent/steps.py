"""The single steps of a model, each whole or not at all: fetch, verify, load, infer. Others decide what comes next."""

import asyncio
import time
from collections.abc import Callable

from gravswell.errors import VerificationError
from gravswell.serving.agent import supply
from gravswell.serving.agent.failures import ModelFailure, full_disk_told, load_told, require_wanted
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.gpumemory import require_gpu_memory
from gravswell.serving.agent.loadconfig import for_traffic
from gravswell.serving.agent.members import PipelineMembers
from gravswell.serving.agent.nodecache import NodeCache
from gravswell.serving.agent.patience import Place, loaded
from gravswell.serving.agent.private import PrivateProofs
from gravswell.serving.agent.prove import golden_of, prove
from gravswell.serving.agent.triton import TritonControl, TritonRefusedError
from gravswell.serving.agent.work import Serving
from gravswell.serving.contracts import DesiredModel, Reason, Verification

PARALLEL_FETCHES = 2
PARALLEL_LOADS = 2

PROBE_SECONDS = 15.0
"""For one golden inference on what serves; longer means busy, and proves nothing."""


class Steps:
    """Carries out steps against one repository, one folder and one Triton. All raise :class:`ModelFailure`."""

    def __init__(
        self,
        *,
        repository: str,
        folder: ModelFolder,
        triton: TritonControl,
        cpu_only: bool,
        memory_limit: int | None = None,
        key: str = "",
        cache: NodeCache | None = None,
    ) -> None:
        self.repository = repository
        self.folder = folder
        self.triton = triton
        self.cpu_only = cpu_only
        self.memory_limit = memory_limit
        """Of Triton, in bytes, where it has one."""
        self.cache = cache
        self.members = PipelineMembers(triton, folder, cpu_only=cpu_only, key=key)
        self.proofs = PrivateProofs(triton, folder, self.members, cpu_only=cpu_only)
        self._fetches = asyncio.Semaphore(PARALLEL_FETCHES)
        self._loads = asyncio.Semaphore(PARALLEL_LOADS)

    async def fetch(self, model: DesiredModel, unwanted: asyncio.Event) -> int:
        """Bring the version here; the bytes that came. Raises :class:`~.failures.SupersededError` once ``unwanted`` is
        set."""
        async with self._fetches:
            return await asyncio.to_thread(
                supply.fetch,
                self.repository,
                model,
                self.folder,
                wanted=lambda: not unwanted.is_set(),
                memory_limit=self.memory_limit,
                cache=self.cache,
            )

    async def verify(
        self, model: DesiredModel, *, unwanted: asyncio.Event, overdue: Callable[[], None], loaded: Callable[[], None]
    ) -> None:
        """Reproduce the golden tensors under a private name; see :meth:`.PrivateProofs.verify`."""
        await self.proofs.verify(model, unwanted=unwanted, overdue=overdue, is_loaded=loaded)

    async def load(
        self, model: DesiredModel, *, unwanted: asyncio.Event, overdue: Callable[[], None], again: bool = False
    ) -> None:
        """Load for traffic; what served before goes on until this does, and also if this fails.

        ``overdue`` is called if it takes long; from then on it holds up nobody, and ``unwanted`` ends the wait for it.

        ``again`` loads what is loaded anew. It takes the place of unloading first: Triton waits for ever on a dead
        process's good-bye, and where one of several instances lives, clients are served meanwhile.
        """
        place = await Place.taken(self._loads)

        def too_slow() -> None:
            place.give_up()
            overdue()

        try:
            require_wanted(model, wanted=not unwanted.is_set())  # it may have changed during the wait for a place
            if await self.triton.is_loading(model.name):
                raise ModelFailure(
                    Reason.NO_ANSWER,
                    f"an earlier load of '{model.name}' is still at work in Triton, and version {model.version} is not "
                    f"loaded before it ends; if it never ends, restart the pod",
                )
            await loaded(self._load(model, again=again), model, unwanted=unwanted, overdue=too_slow)
        finally:
            place.give_up()

    async def _load(self, model: DesiredModel, *, again: bool) -> None:
        with full_disk_told(model):
            source = await asyncio.to_thread(self.folder.place, model)
        config = await self.members.ready(model, supply.servable_config(source, model.name), again=again)
        nonce = str(time.time_ns()) if again else ""
        text = for_traffic(config, model, cpu_only=self.cpu_only, again=nonce)
        await require_gpu_memory(self.triton, model, text, source)
        with load_told(model, f"version {model.version}"):
            await self.triton.load(model.name, text)

    async def drop_if_damaged(self, model: DesiredModel) -> bool:
        """After a failure that damaged files explain: look at them again, and forget the copies here that are."""
        found = False
        for part in (model, *self.folder.members_of(model)):
            source = self.folder.find(part)
            if source is None or not await asyncio.to_thread(supply.is_damaged, self.repository, part, source):
                continue
            await asyncio.to_thread(self.folder.distrust, part)
            if part is not model:
                self.members.doubt(part, model)
            found = True
        return found

    async def infer(self, model: DesiredModel, serving: Serving) -> None:
        """One golden inference on what serves under the model's name, whichever version that is.

        Where it has no golden tensors, Triton's own word must do.
        """
        version = serving.loaded.version
        source = self.folder.version_path(model.name, version)
        config = supply.published_config(source, model.name)
        if serving.golden is None:
            golden = await asyncio.to_thread(golden_of, model, source)
            if golden is None:
                return
            serving.golden = (golden if self.cpu_only else golden.on(config)).smallest()
        exact = model.verification is Verification.GOLDEN
        try:
            await prove(self.triton, config, model.name, version, serving.golden, limit=PROBE_SECONDS, exact=exact)
        except (TritonRefusedError, VerificationError) as error:
            wrong = isinstance(error, VerificationError)
            raise ModelFailure(
                Reason.GOLDEN_MISMATCH if wrong else Reason.INFERENCE_FAILED,
                f"version {version} is loaded and fails its golden tensors: {error}",
            ) from None
        serving.health.answered(await self.triton.counts(model.name, version))
