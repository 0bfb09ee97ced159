"""Golden proofs before any traffic: a version is loaded under a private name, asked, and unloaded.

A version may never load, and a graph may never answer. Its proof then costs the others nothing: once it is overdue it
goes on without one of the few places, it is given up when its version is no longer desired, and it is never begun again
beside itself.
"""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gravswell.errors import VerificationError
from gravswell.quiver.manifest import MANIFEST, Manifest
from gravswell.quiver.signature import without_sequences
from gravswell.serving.agent import supply
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.failures import ModelFailure, full_disk_told, load_told
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.gpumemory import require_gpu_memory
from gravswell.serving.agent.loadconfig import for_proof
from gravswell.serving.agent.members import PipelineMembers
from gravswell.serving.agent.patience import Place, loaded, while_wanted
from gravswell.serving.agent.prove import golden_of, prove
from gravswell.serving.agent.triton import (
    TritonBusyError,
    TritonControl,
    TritonRefusedError,
    TritonUnavailableError,
)
from gravswell.serving.contracts import PRIVATE_PREFIX, DesiredModel, Reason
from gravswell.serving.golden import Golden

log = logging.getLogger(__name__)

PARALLEL_PROOFS = 2
"""Each holds a second copy of its model in memory."""

OVERDUE_SECONDS = 10.0
"""After which golden inferences no longer hold up other models, nor the pod's readiness."""

PROOF_SECONDS = 300.0
"""For one golden inference before traffic: the first on a device may compile kernels."""

END_SECONDS = 10.0
"""For a private model to go after its proof; one whose inference never ends is left behind, and seen later."""


class PrivateProofs:
    """The proofs on one Triton, of versions in one models folder; pipelines are proved with their ``members``."""

    def __init__(self, triton: TritonControl, folder: ModelFolder, members: PipelineMembers, *, cpu_only: bool) -> None:
        self.under_way: set[str] = set()
        """Private names in use."""
        self._triton = triton
        self._folder = folder
        self._members = members
        self._cpu_only = cpu_only
        self._free_places = asyncio.Semaphore(PARALLEL_PROOFS)

    async def verify(
        self,
        model: DesiredModel,
        *,
        unwanted: asyncio.Event,
        overdue: Callable[[], None],
        is_loaded: Callable[[], None] = lambda: None,
    ) -> None:
        """Reproduce the golden tensors of ``model``, which is placed or staged, under a private name.

        ``is_loaded`` is called when it is, and is about to be asked. ``overdue`` is called if the load or the answers
        take long, and ``unwanted``, when it is set, ends the wait for them with :class:`~.failures.SupersededError`.
        Raises :class:`ModelFailure` for a version that fails its proof.
        """
        source = self._folder.find(model)
        if source is None:
            raise RuntimeError(f"{model.name}/{model.version} is to be verified and is not here")
        golden = await asyncio.to_thread(golden_of, model, source)
        if golden is None:
            raise ModelFailure(
                Reason.UNVERIFIED,
                f"version {model.version} of '{model.name}' has no golden tensors and the model demands verification "
                f"Golden; export it with gravswell, or set verification to Hashes",
            )
        config = alone(supply.servable_config(source, model.name), source)
        if not self._cpu_only:
            golden = golden.on(config)
        private = PRIVATE_PREFIX + identity(model)[:16]
        place = await Place.taken(self._free_places)

        def too_slow() -> None:
            place.give_up()
            overdue()

        try:
            if not await self._is_free(private):
                raise ModelFailure(
                    Reason.NO_ANSWER,
                    f"an earlier golden proof of version {model.version} is still at work in Triton and is not "
                    f"repeated before it ends; if it never ends, publish another version and restart the pod",
                )
            self.under_way.add(private)
            try:
                await loaded(self._load(private, model, source, config), model, unwanted=unwanted, overdue=too_slow)
                is_loaded()
                timer = asyncio.get_running_loop().call_later(OVERDUE_SECONDS, too_slow)
                try:
                    await while_wanted(self._ask(private, model, config, golden), model, unwanted)
                finally:
                    timer.cancel()
            finally:
                await self._end(private)
        finally:
            place.give_up()

    async def clear_leftovers(self) -> None:
        """Withdraw what ended proofs had exposed and Triton has let go of by now."""
        for private in sorted(self._folder.exposed - self.under_way):
            if private.startswith(PRIVATE_PREFIX) and not await self._triton.is_there(private):
                await asyncio.to_thread(self._folder.withdraw, private)

    async def _load(self, private: str, model: DesiredModel, source: Path, config: Any) -> None:
        config = await self._members.ready(model, config)
        text = for_proof(config, private, model.version, cpu_only=self._cpu_only, gpus=model.gpus)
        await require_gpu_memory(self._triton, model, text, source)
        with full_disk_told(model):
            await asyncio.to_thread(self._folder.expose, source, private, model.version)
        with load_told(model, f"version {model.version}"):
            await self._triton.load(private, text)

    async def _ask(self, private: str, model: DesiredModel, config: Any, golden: Golden) -> None:
        try:
            await prove(self._triton, config, private, model.version, golden, limit=PROOF_SECONDS)
        except VerificationError as error:
            raise ModelFailure(Reason.GOLDEN_MISMATCH, str(error)) from None
        except TritonRefusedError as error:
            raise ModelFailure(Reason.INFERENCE_FAILED, str(error)) from None
        except TritonBusyError:
            raise ModelFailure(
                Reason.NO_ANSWER,
                f"version {model.version} gave no answer to its golden inputs within {PROOF_SECONDS:g} s: its graph "
                f"never ends, or Triton is too busy",
            ) from None

    async def _end(self, private: str) -> None:
        try:
            if await self._triton.is_loading(private):  # an unload would wait for it, for ever
                log.info("the private model %s is still being loaded, and left to a later look", private)
                return
            await self._triton.unload(private, limit=END_SECONDS)
        except TritonRefusedError as error:
            log.debug("the private model %s was not loaded: %s", private, error)
        except (TritonUnavailableError, TritonBusyError) as error:
            # Its folder stays: Triton's index does not show what runs and has none.
            log.info("the private model %s is left to a later look: %s", private, error)
            return
        finally:
            self.under_way.discard(private)
        await asyncio.to_thread(self._folder.withdraw, private)

    async def _is_free(self, private: str) -> bool:
        """Whether nothing is left of an earlier proof, which may be at work for ever: there are never two."""
        if await self._triton.is_loading(private):
            return False
        if await self._triton.is_there(private):
            try:
                await self._triton.unload(private, limit=END_SECONDS)
            except (TritonBusyError, TritonRefusedError):
                return False
        return True


def alone(config: Any, folder: Path) -> Any:
    """The config under which the graph in ``folder`` answers its golden inputs, which hold all that it takes: also what
    the server would fill in for a sequence."""
    if not config.HasField("sequence_batching") or not (folder / MANIFEST).is_file():
        return config
    manifest = Manifest.from_bytes((folder / MANIFEST).read_bytes(), where=str(folder / MANIFEST))
    return without_sequences(config, manifest.signature)
