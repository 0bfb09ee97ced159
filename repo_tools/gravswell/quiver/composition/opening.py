"""A published version, run on this machine: a graph in ONNX Runtime, a pipeline with its members there.

The same for whoever writes a pipeline and for whoever verifies a published one.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell.errors import ExportError, InvalidInputError, NotFoundError, UnavailableError, VerificationError
from gravswell.quiver.composition.ensemble import run_ensemble
from gravswell.quiver.composition.fresh import FreshInterpreter
from gravswell.quiver.composition.requirements import absent_here
from gravswell.quiver.config import parse_config
from gravswell.quiver.fetching import Progress
from gravswell.quiver.golden import Array
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import (
    MODEL_FILE,
    PYTHON_FILE,
    REQUIREMENTS_FILE,
    VERSION_CONFIG,
    Manifest,
    MemberRecord,
    TensorRecord,
)
from gravswell.quiver.reader import RepositoryReader

if TYPE_CHECKING:
    from gravswell.quiver.exporters import Runner

Arrays = dict[str, Array]


@dataclass(frozen=True, slots=True)
class MemberVersion:
    """A version that a pipeline has as a member, and what it must know of it."""

    record: MemberRecord
    inputs: tuple[TensorRecord, ...]
    """With the batch dim, as for :attr:`outputs`."""
    outputs: tuple[TensorRecord, ...]
    max_batch_size: int
    """Most rows that a server gives it at once; 0: the client's batches reach it as they are."""
    opset: int
    ir_version: int

    @property
    def model(self) -> str:
        """Its entry."""
        return self.record.model

    @property
    def told(self) -> str:
        """What messages call it: ``denoise (noise-removal/3)``."""
        what = f"{self.record.model}/{self.record.version}"
        return what if self.record.alias == self.record.model else f"{self.record.alias} ({what})"

    @property
    def leads_with_rows(self) -> bool:
        """Whether every input and output leads with the same rows."""
        return all(record.dims[:1] == (-1,) for record in (*self.inputs, *self.outputs))


def member_version(reader: RepositoryReader, alias: str, model: str, number: int) -> MemberVersion:
    """What is known of version ``number`` of the entry ``model``. NotFoundError without it.

    InvalidInputError for one that cannot be a member: it is unverified, is itself a pipeline, or takes sequences.
    """
    info = reader.version(model, number)
    what = f"{model}/{number}"
    if info.digest is None:
        raise InvalidInputError(
            f"{what} is unverified, so nothing can be proved of a pipeline that calls it: export it with gravswell, or "
            f"import its repository"
        )
    manifest, _ = reader.manifest(model, number)
    if manifest.members or manifest.main_file != MODEL_FILE:
        raise InvalidInputError(f"{what} is itself a pipeline, and a pipeline calls models only: call its members here")
    config = parse_config(reader.version_config(model, number) or "", where=f"{what}/{VERSION_CONFIG}")
    if config.HasField("sequence_batching"):
        raise InvalidInputError(
            f"{what} takes sequences of requests, which a pipeline does not pass on: let clients call it themselves"
        )
    record = MemberRecord(alias=alias, model=model, version=number, digest=info.digest)
    return MemberVersion(
        record,
        manifest.signature.inputs,
        manifest.signature.outputs,
        config.max_batch_size,
        manifest.opset,
        manifest.ir_version,
    )


def check_batches(members: Iterable[MemberVersion], max_batch_size: int) -> None:
    """InvalidInputError for a member that takes fewer rows at once than an ensemble of it lets a request have."""
    for member in members:
        if 0 < member.max_batch_size < max_batch_size:
            limit = member.max_batch_size
            raise InvalidInputError(
                f"the pipeline is to take batches of {max_batch_size} rows, and its member {member.told} takes up to "
                f"{limit}: export the member with --max-batch-size {max_batch_size}, or the pipeline with {limit}"
            )


class Sessions:
    """Members in ONNX Runtime, each fetched into ``folder`` and opened when it is first called."""

    def __init__(self, reader: RepositoryReader, folder: Path, progress: Progress | None = None) -> None:
        self._reader = reader
        self._folder = folder
        self._progress = progress
        self._opened: dict[tuple[str, int], tuple[Runner, bool]] = {}
        self._opening = threading.Lock()  # a function may call members from threads

    def call(self, model: str, number: int, feed: Mapping[str, Array]) -> Arrays:
        """What version ``number`` of ``model`` answers. Raises whatever ONNX Runtime raises."""
        return self._open(model, number)[0].run(dict(feed))

    def served(self, model: str, number: int, feed: Mapping[str, Array]) -> Arrays:
        """The same in a server's shapes: a scalar is one element there, and behind a batch that it forms one a row."""
        runner, batched = self._open(model, number)
        ranks = {record.name: len(record.dims) for record in runner.inputs}
        one_more = {n for n, a in feed.items() if a.ndim == ranks[n] + 1 and a.shape[-1] == 1}
        given = {n: a.reshape(a.shape[:-1]) if n in one_more else a for n, a in feed.items()}
        answers = runner.run(given)
        return {n: a.reshape((*a.shape, 1)) if a.ndim == int(batched) else a for n, a in answers.items()}

    def _open(self, model: str, number: int) -> "tuple[Runner, bool]":
        from gravswell.quiver.exporters import Runner, open_session  # noqa: PLC0415 - imports ONNX

        with self._opening:
            if (model, number) not in self._opened:
                copy = self._folder / f"{model}-{number}"
                manifest = self._reader.fetch(model, number, copy, progress=self._progress)
                inputs = manifest.signature.inputs if manifest is not None else ()
                optional = {record.name for record in inputs if record.optional}
                config = parse_config((copy / VERSION_CONFIG).read_text(), where=VERSION_CONFIG)
                runner = Runner.of(open_session(copy / MODEL_FILE, mapped=True), optional)
                self._opened[model, number] = runner, config.max_batch_size > 0
            return self._opened[model, number]


@contextmanager
def opened(
    reader: RepositoryReader, manifest: Manifest, copy: Path, folder: Path, progress: Progress | None = None
) -> Iterator["Runner"]:
    """A version that was fetched to ``copy``, ready to be run; members of a pipeline are fetched into ``folder``.

    VerificationError for a pipeline of which a member is gone, or is not what it was.
    """
    from gravswell.quiver.exporters import Runner, open_session  # noqa: PLC0415 - imports ONNX

    if manifest.main_file == MODEL_FILE:
        yield Runner.of(open_session(copy / MODEL_FILE, mapped=True))
        return
    check_present(reader, manifest)
    sessions = Sessions(reader, folder, progress)
    config = parse_config((copy / VERSION_CONFIG).read_text(), where=VERSION_CONFIG)
    with running(copy, config, manifest.members, sessions) as run:
        signature = manifest.signature
        yield Runner(list(signature.inputs), list(signature.outputs), run, "the published pipeline")


@contextmanager
def running(
    folder: Path, config: Any, members: Sequence[MemberRecord], sessions: Sessions
) -> Iterator[Callable[[Arrays], Arrays]]:
    """The pipeline whose files are in ``folder``, as a server runs it: an ensemble by its steps, Python in an
    interpreter of its own.

    Python that fails is an ExportError; UnavailableError where packages that it asks for are not installed here.
    """
    if not (folder / PYTHON_FILE).is_file():
        yield lambda given: run_ensemble(config, given, sessions.served)
        return
    pinned = {member.alias: member for member in members}

    def call(alias: str, feed: Mapping[str, Array]) -> Arrays:
        return sessions.call(pinned[alias].model, pinned[alias].version, feed)

    try:
        with FreshInterpreter(folder, call) as interpreter:
            yield interpreter.run
    except ExportError as error:
        if absent := absent_here(folder):
            raise UnavailableError(
                f"{error}; of its {REQUIREMENTS_FILE} there is not installed here: {', '.join(absent)}"
            ) from None
        raise


def check_present(reader: RepositoryReader, manifest: Manifest) -> None:
    """VerificationError where a member of the pipeline is gone, or is another version than the one that was proved."""
    for member in manifest.members:
        where = reader.store.location(version_folder(member.model, member.version))
        try:
            digest = reader.version(member.model, member.version).digest
        except NotFoundError:
            raise VerificationError(
                f"{where}, its member {member.alias}, is not there: copy it here, or export the pipeline again"
            ) from None
        if digest != member.digest:
            raise VerificationError(
                f"{where}, its member {member.alias}, is another version than the one that was proved "
                f"({(digest or 'unverified')[:12]}, not {member.digest[:12]}): restore it, or export the pipeline again"
            )
