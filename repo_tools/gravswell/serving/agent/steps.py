"""The single steps of a model, each whole or not at all: fetch, verify, load, infer. Others decide what comes next."""

import asyncio
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gravswell.errors import VerificationError
from gravswell.serving.agent import supply
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.folder import ModelFolder
from gravswell.serving.agent.loadconfig import for_proof, for_traffic
from gravswell.serving.agent.prove import Golden, prove, read_golden
from gravswell.serving.agent.supply import ModelFailure
from gravswell.serving.agent.triton import (
    TritonBusyError,
    TritonControl,
    TritonRefusedError,
    TritonSilentError,
    TritonUnavailableError,
)
from gravswell.serving.agent.work import Serving
from gravswell.serving.contracts import PRIVATE_PREFIX, DesiredModel, Reason, Verification
from gravswell.serving.triton.control import tidy_reason

log = logging.getLogger(__name__)

PARALLEL_FETCHES = 2
PARALLEL_LOADS = 2

PROOF_SECONDS = 300.0
"""For one golden inference before traffic: the first on a device may compile kernels."""

END_SECONDS = 10.0
"""For a private model to go after its proof; one whose inference never ends is left behind, and seen later."""

PROBE_SECONDS = 15.0
"""For one on what serves; longer means busy, and proves nothing."""


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
    ) -> None:
        self.repository = repository
        self.folder = folder
        self.triton = triton
        self.cpu_only = cpu_only
        self.memory_limit = memory_limit
        """Of Triton, in bytes, where it has one."""
        self.proofs: set[str] = set()
        """Private names in use."""
        self._fetches = asyncio.Semaphore(PARALLEL_FETCHES)
        self._loads = asyncio.Semaphore(PARALLEL_LOADS)

    async def fetch(self, model: DesiredModel, wanted: Callable[[], bool]) -> None:
        """Bring the version here, as long as it is ``wanted``; raises :class:`~.supply.SupersededError` if not."""
        async with self._fetches:
            await asyncio.to_thread(
                supply.fetch, self.repository, model, self.folder, wanted=wanted, memory_limit=self.memory_limit
            )

    async def verify(self, model: DesiredModel) -> None:
        """Reproduce the golden tensors under a private name."""
        source = self.folder.find(model)
        if source is None:
            raise RuntimeError(f"{model.name}/{model.version} is to be verified and is not here")
        golden = await asyncio.to_thread(_golden, source, model)
        if golden is None:
            raise ModelFailure(
                Reason.UNVERIFIED,
                f"version {model.version} of '{model.name}' has no golden tensors and the model demands verification "
                f"Golden; export it with gravswell, or set verification to Hashes",
            )
        config = supply.servable_config(source, model.name)
        private = PRIVATE_PREFIX + identity(model)[:16]
        async with self._loads:
            if not await self._is_free(private):
                raise ModelFailure(
                    Reason.NO_ANSWER,
                    f"an earlier golden proof of version {model.version} is still at work in Triton and is not "
                    f"repeated before it ends; if its graph never ends, publish another version and restart the pod",
                )
            self.proofs.add(private)
            try:
                await asyncio.to_thread(self.folder.expose, source, private, model.version)
                await self._prove_privately(private, model, config, golden)
            finally:
                await self._end_proof(private)

    async def load(self, model: DesiredModel, *, again: bool = False) -> None:
        """Load for traffic; what served before goes on until this does, and also if this fails.

        ``again`` loads what is loaded anew. It takes the place of unloading first: Triton waits for ever on a dead
        process's good-bye, and where one of several instances lives, clients are served meanwhile.
        """
        async with self._loads:
            source = await asyncio.to_thread(self.folder.place, model)
            config = supply.servable_config(source, model.name)
            try:
                nonce = str(time.time_ns()) if again else ""
                await self.triton.load(model.name, for_traffic(config, model, cpu_only=self.cpu_only, again=nonce))
            except TritonRefusedError as error:
                raise ModelFailure(Reason.LOAD_FAILED, _load_error(error, model.name)) from None
            except (TritonBusyError, TritonSilentError) as error:
                raise ModelFailure(Reason.NO_ANSWER, f"version {model.version} was not loaded: {error}") from None

    async def drop_if_damaged(self, model: DesiredModel) -> bool:
        """After a failure that damaged files explain: look at them again, and forget the copy here if that is so."""
        source = self.folder.find(model)
        if source is None or not await asyncio.to_thread(supply.is_damaged, self.repository, model, source):
            return False
        await asyncio.to_thread(self.folder.distrust, model)
        return True

    async def infer(self, model: DesiredModel, serving: Serving) -> None:
        """One golden inference on what serves under the model's name, whichever version that is.

        Where it has no golden tensors, Triton's own word must do.
        """
        version = serving.loaded.version
        source = self.folder.version_path(model.name, version)
        if serving.golden is None:
            golden = await asyncio.to_thread(_golden, source, model)
            if golden is None:
                return
            serving.golden = golden.smallest()
        config = supply.published_config(source, model.name)
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

    async def _prove_privately(self, private: str, model: DesiredModel, config: Any, golden: Golden) -> None:
        try:
            await self.triton.load(private, for_proof(config, private, model.version, cpu_only=self.cpu_only))
        except TritonRefusedError as error:
            raise ModelFailure(Reason.LOAD_FAILED, _load_error(error, model.name)) from None
        except (TritonBusyError, TritonSilentError) as error:
            raise ModelFailure(Reason.NO_ANSWER, f"version {model.version} was not loaded: {error}") from None
        try:
            await prove(self.triton, config, private, model.version, golden, limit=PROOF_SECONDS)
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

    async def _end_proof(self, private: str) -> None:
        try:
            await self.triton.unload(private, limit=END_SECONDS)
        except TritonRefusedError as error:
            log.debug("the private model %s was not loaded: %s", private, error)
        except (TritonUnavailableError, TritonBusyError) as error:
            # Its folder stays: Triton's index does not show what runs and has none.
            log.info("the private model %s is left to a later look: %s", private, error)
            return
        finally:
            self.proofs.discard(private)
        await asyncio.to_thread(self.folder.withdraw, private)

    async def _is_free(self, private: str) -> bool:
        """Whether nothing is left of an earlier proof, which may be at work for ever: there are never two."""
        if await self.triton.is_there(private):
            try:
                await self.triton.unload(private, limit=END_SECONDS)
            except (TritonBusyError, TritonRefusedError):
                return False
        return True

    async def clear_leftovers(self) -> None:
        """Withdraw what ended proofs had exposed and Triton has let go of by now."""
        for private in sorted(self.folder.exposed - self.proofs):
            if not await self.triton.is_there(private):
                await asyncio.to_thread(self.folder.withdraw, private)


def _load_error(error: TritonRefusedError, model: str) -> str:
    """Triton's reason in the user's terms: without its own preamble, and without the private name's folder."""
    words = re.sub(r"^load failed for model '[^']*': (?:version \d+ is at \w+ state: )?", "", str(error))
    return re.sub(rf"\S*/{PRIVATE_PREFIX}\w+/", f"{model}/", tidy_reason(words)).strip(" ;\n")


def _golden(source: Path, model: DesiredModel) -> Golden | None:
    try:
        return read_golden(source)
    except VerificationError as error:
        raise ModelFailure(Reason.HASH_MISMATCH, f"version {model.version} of '{model.name}': {error}") from None
