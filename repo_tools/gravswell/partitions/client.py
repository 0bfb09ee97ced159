"""One model on many servers, a rank on each: the same inputs to all, their answers put together here."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.partitions.records import PLAN_FILE, PUBLISHED_FILE, PartRecord, Plan, Published, read
from gravswell.partitions.records import Tensor as PlannedTensor
from gravswell.quiver.exporters.base import Inputs, Outputs
from gravswell.quiver.exporters.proof import open_session, run
from gravswell.serving.client import Client
from gravswell.serving.client.model import Model, Tensor

_PAUSE_SECONDS = 0.25
"""Between two questions for a part that a server does not have again yet."""


class RankedClient:
    """A partitioned model whose ranks are served by a Triton each.

    >>> with RankedClient("parts", ["rank-0:8000", "rank-1:8000"]) as client:
    ...     outputs = client.infer({"x": rows})

    :param folder: where ``gravswell partition --folder`` wrote the parts: what puts the ranks' answers together is
        computed here, in ONNX Runtime, and what is sent to whom is in ``partition.json``.
    :param servers: the address of each rank, in their order; several addresses of one rank are replicas of it. Ranks
        may share a server.
    :param name: what the model is called on the servers, whose entries are ``<name>-rank-0`` and so on; the
        partition's own name by default.
    :param versions: the version of each entry to ask for, by its name, as ``Published.parts`` has them. By default
        those in the folder's ``published.json``, which is there where the partition was published too. One of the two
        must be: a server's newest version may be of another partition, whose answers must not be put together with
        these.
    :param retry_for: seconds for which a rank is waited for that does not answer, or whose server had its part and does
        not have it now: it may have been started again, and load it. 0 fails at once.
    :param options: the others of :class:`~gravswell.serving.client.Client`.

    A call is answered by all ranks or fails, and the error names the ranks that did not answer. A rank that is back is
    asked again by the next call. Threads may share it.
    """

    def __init__(
        self,
        folder: str | Path,
        servers: Sequence[str | Sequence[str]],
        *,
        name: str | None = None,
        versions: Mapping[str, int] | None = None,
        retry_for: float = 30.0,
        **options: Any,
    ) -> None:
        path = Path(folder)
        self.plan = read(Plan, path / PLAN_FILE)
        if isinstance(servers, str) or len(servers) != self.plan.ranks:
            given = 1 if isinstance(servers, str) else len(servers)
            raise InvalidInputError(
                f"{self.plan.model} has {self.plan.ranks} ranks, and {given} servers are named: name that of each rank"
            )
        self._name = name or self.plan.model
        self._model = Model(self.plan.model, (), tuple(map(_taken, self.plan.inputs)), (), None)
        self._versions = self._pinned(path, versions)
        self._servers = list(servers)
        self._combine = {part.name: open_session(path / part.file) for part in self.plan.parts if part.rank is None}
        self._retry_for = retry_for
        self._clients = [Client(addresses, retry_for=retry_for, **options) for addresses in servers]
        self._answered: set[str] = set()
        """The parts that have."""
        self._closed = threading.Event()
        self._threads = ThreadPoolExecutor(self.plan.ranks, thread_name_prefix="gravswell-rank")

    def infer(self, inputs: Any) -> Outputs:
        """The whole model's outputs, by name, for one batch of inputs by name, or one array where there is one input.

        :raises InvalidInputError: inputs that the model does not take.
        :raises UnavailableError: a rank does not answer for as long as ``retry_for``.
        :raises NotFoundError: a rank's server does not have its part. At once where it never answered here: the name,
            the version or the order of the servers may be wrong.
        """
        known: Inputs = self._model.tensors(inputs)
        for stage in range(1, self.plan.stages + 1):
            parts = [part for part in self.plan.parts if part.stage == stage]
            known |= self._asked([part for part in parts if part.rank is not None], known)
            for part in parts:
                if part.rank is None:
                    known |= run(self._combine[part.name], known)
        return {output.name: known[output.name] for output in self.plan.outputs}

    def close(self) -> None:
        """End what is under way and close the connections; harmless when that was done."""
        self._closed.set()
        self._threads.shutdown(cancel_futures=True)
        for client in self._clients:
            client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pinned(self, folder: Path, versions: Mapping[str, int] | None) -> dict[str, int]:
        """The version of each part of a rank, by the part's name.

        InvalidInputError where nothing says it: what the servers have newest may be of another partition than the
        folder's, and of two while they go over to one.
        """
        ranked = {part.name: f"{self._name}-{part.name}" for part in self.plan.parts if part.rank is not None}
        if versions is None:
            file = folder / PUBLISHED_FILE
            published = read(Published, file) if file.is_file() else None
            if published is None or published.entry != self._name:
                known = f"it was published as {published.entry}" if published else f"{folder} has no {PUBLISHED_FILE}"
                raise InvalidInputError(
                    f"which versions of {self._name} are this partition is not known ({known}): name them (versions=), "
                    f"as publish returns them (parts), or save and publish it together (--folder and --repository)"
                )
            versions = published.parts
        if missing := [entry for entry in ranked.values() if entry not in versions]:
            raise InvalidInputError(
                f"the versions of {self.plan.model} lack {', '.join(missing)}: name that of each rank's entry, as "
                f"publish returns them (parts)"
            )
        return {part: versions[entry] for part, entry in ranked.items()}

    def _asked(self, parts: Sequence[PartRecord], known: Inputs) -> Outputs:
        """The answers of the ranks at one stage, all asked at once."""
        futures = [self._threads.submit(self._ask(part, known)) for part in parts]
        failures: list[tuple[PartRecord, GravswellError]] = []
        answers: Outputs = {}
        for part, future in zip(parts, futures, strict=True):
            try:
                answers |= future.result()
            except GravswellError as error:
                failures.append((part, error))
        if failures:
            raise self._failed(failures)
        return answers

    def _ask(self, part: PartRecord, known: Inputs) -> Callable[[], Outputs]:
        assert part.rank is not None
        client, inputs = self._clients[part.rank], {one.name: known[one.name] for one in part.inputs}
        version, until = self._versions[part.name], time.monotonic() + self._retry_for

        def ask() -> Outputs:
            while True:
                try:
                    outputs = client.request(f"{self._name}-{part.name}", inputs, version=version).outputs
                except NotFoundError:
                    left = until - time.monotonic()
                    if part.name not in self._answered or left <= 0 or self._closed.wait(min(left, _PAUSE_SECONDS)):
                        raise
                else:
                    self._answered.add(part.name)
                    return outputs

        return ask

    def _failed(self, failures: Sequence[tuple[PartRecord, GravswellError]]) -> GravswellError:
        """One error for all ranks that failed: of the kind of the first, an unavailable one before others."""
        ordered = sorted(failures, key=lambda one: not isinstance(one[1], UnavailableError))
        kind = type(ordered[0][1])
        told = "; ".join(f"rank {part.rank} ({self._servers[part.rank or 0]}): {error}" for part, error in ordered)
        return kind(
            f"{self.plan.model} needs all its {self.plan.ranks} ranks, and {len(failures)} did not answer: {told}"
        )


def _taken(tensor: PlannedTensor) -> Tensor:
    """An input of the whole as the client knows those of served models."""
    kind = tensor.data_type.removeprefix("TYPE_")
    return Tensor(tensor.name, "BYTES" if kind == "STRING" else kind, tensor.dims)
