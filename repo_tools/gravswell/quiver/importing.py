"""Repositories that others wrote, made into verified ones. Its law: nothing in the source is changed or believed.

Each version of an ONNX model is proved as an export is: run in ONNX Runtime, at several batch sizes, with inputs of the
user's or at random, the optimized graph against the plain one. ONNX Runtime itself is the reference, and the manifest's
``verification.reference`` says so: the framework that the model came from is not there to be asked. Numbers are kept.

The configuration comes along as its author wrote it, ``KIND_GPU`` and unknown fields too; what it leaves out is stated
from the graph. ``max_batch_size`` is not guessed: without one, clients' batches reach the model as they are.

An ensemble becomes a pipeline of the versions that are there once its members are imported; its own numbers say
nothing, since it has one configuration for all, and it comes in the newest.

What is not imported, and told: models of other backends, which nothing here can run to verify, and ensembles of such;
configurations that name files beside the versions, which a version does not hold.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.quiver.checks.backends import PLATFORMS, is_ensemble
from gravswell.quiver.composition.foreign import ForeignEnsemble
from gravswell.quiver.config import ConfigText, parse_config
from gravswell.quiver.disk import refusals_told, sha256_of
from gravswell.quiver.entry import Entry
from gravswell.quiver.fetching import copy_version
from gravswell.quiver.layout import check_name, config_key, version_folder
from gravswell.quiver.manifest import MODEL_FILE
from gravswell.quiver.platform import Platform
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.request import Samples, Shapes
from gravswell.quiver.stores import Progress, Store
from gravswell.quiver.transfer.moving import make_entry
from gravswell.targets import DEFAULT_TARGET, Target, target_of

Result = Literal["imported", "same", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one version, or with number 0 of a whole entry."""

    entry: str
    version: int
    result: Result
    """``same`` was imported before; ``skipped`` has a manifest already; ``failed`` is not there, and why."""
    digest: str | None = None
    message: str = ""
    error: GravswellError | None = None


def import_repository(
    source: str | Path,
    destination: str | Path,
    entries: Collection[str] | None = None,
    *,
    input_shapes: Mapping[str, Shapes] | None = None,
    sample_inputs: Mapping[str, Samples] | None = None,
    target: str | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    on_version: Callable[[Imported], None] = lambda _: None,
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Progress | None = None,
) -> list[Imported]:
    """Import every entry of ``source``, or those named, and return of each version what became of it.

    What fails ends its entry there, for later numbers would close its own, and no other entry: a model that cannot be
    proved, and a number that is taken in the destination by something else. An import that was interrupted is begun
    again: what is there already is recognised.

    :param destination: made if it is a folder that is not there.
    :param input_shapes: for each entry, as of :meth:`~gravswell.quiver.entry.Entry.export_version`, of which these are
        all: sizes to prove it at.
    :param sample_inputs: for each entry, batches to prove it with in place of random ones.
    :param target: tag of the oldest Triton that is to run them, as of an export.
    :param rtol: tolerances of every proof.
    :param on_version: called with each version as soon as it is known what became of it.
    :param on_stage: called with what is being done.
    :param on_progress: called with the bytes that are fetched or published of a version, and the bytes in all.
    :raises NotFoundError: an entry is not in the source; told before anything is written.
    :raises InvalidInputError: ``source`` is no repository, or the destination itself.
    """
    reader = RepositoryReader(source)
    names = reader.entries() if entries is None else list(entries)
    if not names:
        ModelRepository.open(source)  # says so of a folder that holds other things
    shapes, samples = input_shapes or {}, sample_inputs or {}
    for name in (*names, *shapes, *samples):
        if not reader.has(name):
            raise NotFoundError(f"there is no entry {name!r} in {source}; entries: {', '.join(reader.entries())}")
    repository = ModelRepository(destination)
    if reader.url == repository.url:
        raise InvalidInputError(f"{source} is both source and destination: import into a repository of its own")
    oldest = DEFAULT_TARGET if target is None else target_of(target)
    prove = partial(
        Entry.export_version, target=target, rtol=rtol, atol=atol, on_stage=on_stage, on_progress=on_progress
    )
    found: list[Imported] = []
    for name in sorted(names, key=partial(_is_ensemble, reader)):  # after what they are made of
        on_stage(f"looking at {name}")
        given = partial(prove, input_shapes=shapes.get(name), sample_inputs=samples.get(name))
        for version in _import(reader, name, repository, prove=given, target=oldest, progress=on_progress):
            found.append(version)
            on_version(version)
    return found


def _import(
    reader: RepositoryReader,
    name: str,
    repository: ModelRepository,
    *,
    prove: Callable[..., str],
    target: Target,
    progress: Progress | None,
) -> Iterator[Imported]:
    try:
        model = (_Ensemble if _is_ensemble(reader, name) else _Model)(reader, name, target)
    except GravswellError as error:
        yield Imported(name, 0, "failed", message=str(error), error=error)
    else:
        yield from model.into(repository, prove, progress)


def _is_ensemble(reader: RepositoryReader, name: str) -> bool:
    try:
        return is_ensemble(parse_config(reader.config(name) or "", where=name))
    except GravswellError:
        return False  # told when it is imported


class _Model:
    """An entry of the source, of which it is known that it can be imported."""

    def __init__(self, reader: RepositoryReader, name: str, target: Target) -> None:
        self.reader, self.name, self.target = reader, check_name(name), target
        self.config = ConfigText(reader.config(name) or "", where=reader.store.location(config_key(name)))
        self.file = self.config.message.default_model_filename or MODEL_FILE
        self._check()

    def _check(self) -> None:
        config = self.config.message
        backend = config.backend or PLATFORMS.get(config.platform, config.platform)
        if backend not in ("", "onnxruntime"):
            raise UnsupportedError(
                f"{self.name} is a model of the {backend} backend, which nothing here can run to verify it: serve it "
                f"from its own repository, or export the model to ONNX"
            )
        files = [output.label_filename for output in config.output]
        files += [v.input_data_file for warmup in config.model_warmup for v in warmup.inputs.values()]
        beside = ", ".join(file for file in files if file)
        if beside:
            raise UnsupportedError(
                f"{self.config.where} names {beside}, which lies beside the versions and in none of them: take it out "
                f"(label_filename, model_warmup), or warm up with zero_data or random_data"
            )

    def into(
        self, repository: ModelRepository, prove: Callable[..., str], progress: Progress | None
    ) -> Iterator[Imported]:
        """Import its versions, ascending."""
        entry = repository.models.get(self.name)
        known = {int(version): version.digest for version in entry.versions} if entry else {}
        for info in reversed(self.reader.versions(self.name)):
            number = info.number
            if info.digest is not None:
                told = f"it is verified already: gravswell copy {self.reader.store.location('')} {self.name}/{number}"
                yield Imported(self.name, number, "skipped", info.digest, told)
                continue
            try:
                with self._on_disk(number, progress) as path:
                    if entry is not None and number in known:
                        self._require_same(entry, number, path)
                        yield Imported(self.name, number, "same", known[number])
                        continue
                    with repository.present(self.name, partial(_begin, repository, self.name, self.config)) as entry:
                        prove(entry, path, version=number)
                    left = self._left_out(path)
                made = entry.version(number).digest
            except GravswellError as error:
                yield Imported(self.name, number, "failed", message=str(error), error=error)
                return
            message = f"without {', '.join(left)}, which Triton does not read" if left else ""
            yield Imported(self.name, number, "imported", made, message)

    def _left_out(self, path: Path) -> list[str]:
        from gravswell.quiver.exporters.weights import data_files, skim  # noqa: PLC0415 - imports ONNX

        read = {path.name, *(PurePosixPath(location).as_posix() for _, location in data_files(skim(path)))}
        files = (file.relative_to(path.parent).as_posix() for file in path.parent.rglob("*") if file.is_file())
        return sorted(file for file in files if file not in read)

    @contextmanager
    def _on_disk(self, number: int, progress: Progress | None) -> Iterator[Path]:
        """The version's model file; from a bucket, in a copy for as long as it is needed."""
        store, folder = self.reader.store, version_folder(self.name, number)
        with tempfile.TemporaryDirectory(prefix="gravswell-import-") as temporary:
            here = _local(store, folder)
            if here is None:
                here = Path(temporary) / str(number)
                copy_version(store, folder, None, here, None, progress=progress)
            path = here / self.file
            if path.is_dir():  # a folder holds the graph beside its data
                path /= MODEL_FILE
            if not path.is_file():
                raise NotFoundError(f"{store.location(folder)} holds no {self.file}, which Triton would load")
            yield path

    def _require_same(self, entry: Entry, number: int, path: Path) -> None:
        from gravswell.quiver.exporters import InputSpec  # noqa: PLC0415 - imports ONNX

        manifest = entry.version(number).manifest
        shapes = {record.name: InputSpec.of(record).shape for record in manifest.signature.inputs}
        if {name: file.sha256 for name, file in manifest.files.items() if not name.startswith(".")} != _as_published(
            path, self.target, shapes
        ):
            raise ConflictError(
                f"{entry.version(number).location} is another model: import into another repository, or remove it there"
            )


class _Ensemble:
    """An ensemble of the source."""

    def __init__(self, reader: RepositoryReader, name: str, _: Target) -> None:
        self.reader, self.name = reader, check_name(name)
        self.config = ConfigText(reader.config(name) or "", where=reader.store.location(config_key(name)))
        self.made = ForeignEnsemble(name, self.config.message)

    def into(self, repository: ModelRepository, prove: Callable[..., str], _: Progress | None) -> Iterator[Imported]:
        """Import it, as one version."""
        number = max(self.reader.numbers(self.name), default=1)
        digest = next((v.digest for v in self.reader.versions(self.name) if v.number == number), None)
        if digest is not None:
            told = f"it is verified already: gravswell copy {self.reader.store.location('')} {self.name}/{number}"
            yield Imported(self.name, number, "skipped", digest, told)
            return
        result: Result = "imported"
        try:
            entry = repository.models.get(self.name)
            if entry is not None and number in [int(version) for version in entry.versions]:
                self._require_same(repository, number)
                result = "same"
            else:
                with repository.present(self.name, partial(_begin, repository, self.name, self.config)) as entry:
                    prove(entry, self.made, version=number)
            digest = entry.version(number).digest
        except GravswellError as error:
            yield Imported(self.name, number, "failed", message=str(error), error=error)
        else:
            yield Imported(self.name, number, result, digest)

    def _require_same(self, repository: ModelRepository, number: int) -> None:
        reader = repository.reader
        there = parse_config(reader.version_config(self.name, number) or "", where=self.name)
        if there.ensemble_scheduling != self.made.pinned(reader):
            raise ConflictError(
                f"{self.name}/{number} in {reader.store.location('')} is another ensemble, or of other versions: "
                f"import into another repository, or remove it there"
            )


def _begin(repository: ModelRepository, name: str, text: ConfigText) -> Entry:
    """The entry with its author's configuration, under the name of its folder."""
    config = text.message
    config.name = name
    if not config.backend and not is_ensemble(config):
        config.platform = Platform.ONNX.value
    config.ClearField("default_model_filename")  # a version of ours is a model.onnx
    make_entry(RepositoryReader(repository.url), name, text.render())
    repository.refresh()
    return repository.models[name]


def _local(store: Store, folder: str) -> Path | None:
    return None if store.path is None else store.path / folder


def _as_published(path: Path, target: Target, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, str]:
    """sha256 of each file that an export for that target makes of the model, of inputs that have those ``shapes``."""
    from gravswell.quiver.exporters import files, graph, onnx_model  # noqa: PLC0415 - imports ONNX

    given = files.load(path)
    stated = onnx_model.with_shapes(given, shapes)
    proto, changed = graph.fit_for_serving(stated, target)
    changed = changed or stated is not given
    with tempfile.TemporaryDirectory(prefix="gravswell-import-") as temporary, refusals_told(Path(temporary)):
        files.write(proto, Path(temporary), path, changed=changed)
        return {made.name: sha256_of(made) for made in Path(temporary).iterdir()}
