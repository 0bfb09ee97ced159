"""From the repository into the models folder: the one place where versions come from. Blocking; run it in a thread."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from gravswell.errors import (
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
    VerificationError,
)
from gravswell.names import why_reserved
from gravswell.quiver.config import parse_config, unknown_fields
from gravswell.quiver.disk import sha256_of
from gravswell.quiver.fetching import Progress
from gravswell.quiver.layout import is_readable_name, version_folder
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, Manifest, digest_of
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.agent import memory
from gravswell.serving.agent.decide import identity
from gravswell.serving.agent.failures import (
    ModelFailure,
    full_disk_told,
    repository_failure,
    require_wanted,
    told_of_member,
)
from gravswell.serving.agent.folder import ModelFolder, members_in
from gravswell.serving.agent.nodecache import NodeCache, Published
from gravswell.serving.contracts import DesiredModel, Reason, Verification
from gravswell.serving.triton.modelnames import why_unservable

SOURCE = ".gravswell-source.json"
"""Beside the files of a version of others: what the repository showed of it before it was copied."""

SPARE_BYTES = 16 << 20
"""Room that a download leaves free."""


def fetch(
    repository: str,
    model: DesiredModel,
    folder: ModelFolder,
    *,
    wanted: Callable[[], bool],
    memory_limit: int | None = None,
    cache: NodeCache | None = None,
) -> int:
    """Stage in ``folder`` what is not there of ``model``: its version, and of a pipeline's what that is made of.

    Returns the bytes of what was not there.

    What the ``cache`` holds is taken from there, and the repository is not asked for it. ``wanted`` is asked while
    bytes flow; ``memory_limit`` is Triton's, in bytes. Nothing is copied before all of it is seen to fit. Raises
    :class:`ModelFailure` with its reason, :class:`~.failures.SupersededError` when it is no longer wanted.
    """
    origin = Origin(repository, cache)
    own = origin.look(model, folder)
    parts = [(model, own.size)]
    for member in own.members:
        with told_of_member(member):
            parts.append((member, origin.look(member, folder).size))
    missing = [part for part, _ in parts if folder.find(part) is None]
    coming = sum(size for part, size in parts if part in missing)
    _check_room(model, coming, folder)
    _check_memory(model, sum(size for _, size in parts), memory_limit)

    def progress(_done: int, _total: int) -> None:
        require_wanted(model, wanted=wanted())

    for part in missing:  # the pipeline first: while it is here, its members are not taken for left over
        with nullcontext() if part is model else told_of_member(part):
            _stage(origin, part, folder, progress)
    return coming


class Look(NamedTuple):
    """What is known of a version before it is copied."""

    size: int
    """Bytes."""
    members: tuple[DesiredModel, ...] = ()
    """What it is made of, if it is a pipeline."""


class Origin:
    """Where versions come from: this node's cache, or else a repository, which is opened when it is first asked."""

    def __init__(self, repository: str, cache: NodeCache | None) -> None:
        self._repository = repository
        self._cache = cache
        self._reader: RepositoryReader | None = None

    def reader(self, model: DesiredModel) -> RepositoryReader:
        """The repository, for ``model``; :class:`ModelFailure` if it cannot be had."""
        if self._reader is None:
            try:
                self._reader = RepositoryReader(self._repository)
            except (InvalidInputError, UnsupportedError) as error:
                raise ModelFailure(Reason.NOT_A_REPOSITORY, str(error)) from None
            except NotFoundError as error:
                raise ModelFailure(Reason.REPOSITORY_NOT_FOUND, str(error)) from None
            except UnavailableError as error:
                raise repository_failure(error, model) from None
        return self._reader

    def look(self, model: DesiredModel, folder: ModelFolder) -> Look:
        """Look at a version where it is, which may be here already, and hold it against what is desired."""
        if folder.find(model) is not None:
            return Look(folder.size(model), folder.members_of(model))
        if why_reserved(model.name) or not is_readable_name(model.name):
            raise ModelFailure(Reason.VERSION_NOT_FOUND, f"{model.name!r} cannot be the name of an entry")
        if unservable := why_unservable(model.name):
            raise ModelFailure(Reason.LOAD_FAILED, f"{model.name!r} cannot be served: {unservable}; rename the entry")
        if self._cache is not None and (held := self._cache.find(model)) is not None:
            return _seen(held)
        return _check_version(self.reader(model), model)

    def take(self, model: DesiredModel, target: Path, staging: Path, progress: Progress) -> bool:
        """Copy the version from the cache; False where it is not there, or not any more."""
        if self._cache is None:
            return False
        held = self._cache.find(model)
        return held is not None and self._cache.take(held, target, staging, progress)


def _stage(origin: Origin, model: DesiredModel, folder: ModelFolder, progress: Progress) -> None:
    with folder.claimed(model, waiting=lambda: progress(0, 0)):
        if folder.find(model) is None:
            _copy(origin, model, folder, progress)


def _copy(origin: Origin, model: DesiredModel, folder: ModelFolder, progress: Progress) -> None:
    name = identity(model)
    target = folder.staged_path(name)
    folder.drop_stage(name)  # what is staged and not in the inventory was never finished
    try:
        with full_disk_told(model):
            if not origin.take(model, target, folder.incoming, progress):
                _download(origin.reader(model), model, target, folder.incoming, progress)
        folder.adopt_stage(model)
    except VerificationError as error:
        raise ModelFailure(Reason.HASH_MISMATCH, str(error)) from None
    except NotFoundError as error:
        raise ModelFailure(Reason.VERSION_NOT_FOUND, str(error)) from None
    except UnavailableError as error:
        raise repository_failure(error, model) from None
    finally:
        if name not in folder.staged:
            folder.drop_stage(name)
    if model.digest is not None and digest_of((target / MANIFEST).read_bytes()) != model.digest:
        folder.drop_stage(name)  # replaced between the look and the copy
        raise ModelFailure(Reason.DIGEST_MISMATCH, f"version {model.version} of '{model.name}' changed while copied")


def _download(reader: RepositoryReader, model: DesiredModel, target: Path, staging: Path, progress: Progress) -> None:
    source = None if model.digest is not None else _source(reader, model)
    reader.fetch(model.name, model.version, target, progress=progress, staging=staging)
    if source is not None:
        _complete(reader, model, target, source)


def is_damaged(repository: str, model: DesiredModel, folder: Path) -> bool:
    """Whether the copy in ``folder`` is surely not, or no longer, what was published.

    A version of others has no hashes: its copy is held against what the repository shows now, if that can be read.
    """
    if model.digest is not None:
        return not _has_its_hashes(folder, model.digest)
    try:
        now = _source(RepositoryReader(repository), model)
    except GravswellError:
        return False
    try:
        return (folder / SOURCE).read_text() != now
    except OSError:
        return True


def published_config(folder: Path, model: str) -> Any:
    """The ``ModelConfig`` that the version in ``folder`` was published with."""
    path = folder / VERSION_CONFIG
    try:
        return parse_config(path.read_text(), where=str(path))
    except FileNotFoundError:
        raise ModelFailure(
            Reason.LOAD_FAILED, f"'{model}' has no {VERSION_CONFIG} in its version and no config.pbtxt; add one"
        ) from None
    except (InvalidInputError, UnicodeDecodeError) as error:
        raise ModelFailure(Reason.LOAD_FAILED, str(error)) from None


def servable_config(folder: Path, model: str) -> Any:
    """:func:`published_config`, refused where a part of it would be lost on its way into Triton."""
    config = published_config(folder, model)
    path = folder / VERSION_CONFIG
    if lost := unknown_fields(path.read_text(), where=str(path)):
        raise ModelFailure(
            Reason.LOAD_FAILED,
            f"the config of '{model}' says something that this agent's Triton client does not know, in "
            f"{', '.join(lost)}; publish a version without it, or upgrade gravswell",
        )
    return config


def _check_version(reader: RepositoryReader, model: DesiredModel) -> Look:
    """Hold the version against what is desired, before a byte is copied."""
    try:
        if model.digest is None:
            if model.verification is not Verification.NONE:
                raise ModelFailure(
                    Reason.UNVERIFIED,
                    f"version {model.version} of '{model.name}' has no manifest and the model demands verification "
                    f"{model.verification}; publish it with gravswell, or set verification to None",
                )
            return Look(reader.version(model.name, model.version).size)
        manifest, raw = reader.manifest(model.name, model.version)
    except NotFoundError:
        raise ModelFailure(
            Reason.VERSION_NOT_FOUND,
            f"{reader.url} has no published version {model.version} of '{model.name}'; {_known(reader, model.name)}",
        ) from None
    except VerificationError as error:
        raise ModelFailure(Reason.MANIFEST_INVALID, str(error)) from None
    except UnavailableError as error:
        raise repository_failure(error, model) from None
    if digest_of(raw) != model.digest:
        raise ModelFailure(
            Reason.DIGEST_MISMATCH,
            f"version {model.version} of '{model.name}' has digest {digest_of(raw)[:12]}…, and {model.digest[:12]}… is "
            f"desired: the published version was replaced; publish a new one",
        )
    return _seen(Published(manifest, raw))


def _seen(version: Published) -> Look:
    manifest = version.manifest
    try:
        return Look(version.size, members_in(manifest))
    except ValidationError as error:
        raise ModelFailure(
            Reason.MANIFEST_INVALID,
            f"version {manifest.version} of '{manifest.model}' is made of what cannot be served: "
            f"{error.errors()[0]['msg']}; publish it again",
        ) from None


def _check_room(model: DesiredModel, size: int, folder: ModelFolder) -> None:
    free = folder.free_bytes()
    if size + SPARE_BYTES > free:
        raise ModelFailure(
            Reason.NO_SPACE,
            f"version {model.version} of '{model.name}' has {size / 1e6:,.0f} MB and the models folder "
            f"{max(free, 0) / 1e6:,.0f} MB free; give the server more model storage",
        )


def _check_memory(model: DesiredModel, size: int, memory_limit: int | None) -> None:
    most = memory.room(memory_limit)
    if most is not None and size > most:  # the least that it needs: a version is loaded whole
        raise ModelFailure(
            Reason.NO_MEMORY,
            f"version {model.version} of '{model.name}' has {size / 1e6:,.0f} MB and Triton can get "
            f"{most / 1e6:,.0f} MB of memory; give the server more, or take other models off its node",
        )


def _known(reader: RepositoryReader, entry: str) -> str:
    try:
        published = [str(version.number) for version in reader.versions(entry) if version.digest is not None]
    except (NotFoundError, UnavailableError):
        return "it has no such entry"
    return f"published are {', '.join(published[:10]) or 'none'}"


def _complete(reader: RepositoryReader, model: DesiredModel, staged: Path, source: str) -> None:
    """Give a version of others what it lacks: a copy of the entry's config, and the note of what was copied."""
    if not (staged / VERSION_CONFIG).exists():
        text = reader.version_config(model.name, model.version)
        if text is not None:
            (staged / VERSION_CONFIG).write_text(text)
    (staged / SOURCE).write_text(source)


def _source(reader: RepositoryReader, model: DesiredModel) -> str:
    """What a version of others consists of in the repository: it differs when one of its files was written again."""
    files = reader.store.walk(version_folder(model.name, model.version))
    return json.dumps(sorted((file.path, file.size, file.modified.isoformat()) for file in files))


def _has_its_hashes(folder: Path, digest: str) -> bool:
    try:
        raw = (folder / MANIFEST).read_bytes()
        if digest_of(raw) != digest:
            return False
        for path, record in Manifest.from_bytes(raw, where=str(folder / MANIFEST)).files.items():
            if sha256_of(folder / path) != record.sha256:
                return False
    except OSError:
        return False
    return True
