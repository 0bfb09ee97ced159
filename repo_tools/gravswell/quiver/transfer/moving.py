"""One entry, one version, one config at a time: out of a store, through a stage, into the other."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from gravswell.errors import ConflictError, NotFoundError, VerificationError
from gravswell.quiver.composition.holding import check_members, noted
from gravswell.quiver.config import ConfigText
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.layout import CONFIG, config_key, version_folder
from gravswell.quiver.manifest import (
    MANIFEST,
    VERSION_CONFIG,
    FileRecord,
    Manifest,
    SourceRecord,
    digest_of,
)
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Create, Progress, PutMode, Update
from gravswell.quiver.transfer.planning import Step


def begin_entry(source: RepositoryReader, destination: RepositoryReader, step: Step) -> None:
    """Make the entry with the source's configuration; nothing if somebody has made it meanwhile."""
    make_entry(destination, step.name, _entry_config(source, step))


def make_entry(destination: RepositoryReader, name: str, text: str) -> None:
    """Make an entry with that configuration; nothing if somebody has made it meanwhile."""
    with destination.store.staging() as stage:
        with refusals_told(stage):
            (stage / CONFIG).write_text(text)
        try:
            destination.store.publish(stage, name)
        except ConflictError:
            if not destination.has(name):
                raise


def _entry_config(source: RepositoryReader, step: Step) -> str:
    text = source.config(step.entry)
    if text is None:  # between a first version and its config; the version's own heals it
        newest = next((v.number for v in source.versions(step.entry) if v.digest is not None), None)
        text = None if newest is None else source.version_config(step.entry, newest)
    if text is None:
        raise NotFoundError(f"{source.store.location(config_key(step.entry))} is not there, and no version has one")
    return renamed(text, step)


def renamed(text: str, step: Step) -> str:
    """The configuration under the name that the copy has."""
    if step.name == step.entry:
        return text
    config = ConfigText(text, where=config_key(step.entry))
    config.message.name = step.name
    return config.render()


def move_version(
    source: RepositoryReader,
    destination: RepositoryReader,
    step: Step,
    *,
    on_step: Callable[[Step, str], None],
    progress: Progress | None,
) -> None:
    """Move one version. VerificationError if it is not what its manifest says, or changed since it was planned;
    ConflictError if its number was used in the destination since.
    """

    def check() -> None:
        """A number that was used and is free again is seen in nothing but what is remembered."""
        following = destination.state(step.name)[0].next_version
        if step.number < following:
            raise ConflictError(
                f"{destination.store.location(version_folder(step.name, step.number))} was used since the plan was "
                f"made, and no number is used twice: the next one there is {following}"
            )
        check_members(destination, members)

    with destination.store.staging() as stage:
        copy = stage / str(step.number)
        on_step(step, "fetching")
        source.fetch(step.entry, step.number, copy, progress=progress)
        raw = (copy / MANIFEST).read_bytes() if (copy / MANIFEST).is_file() else b""
        if digest_of(raw) != step.digest:
            raise VerificationError(
                f"{step} in {source.store.location('')} was replaced while it was copied: try again"
            )
        members = Manifest.from_bytes(raw, where=MANIFEST).members
        if step.name != step.entry:
            with refusals_told(stage):
                raw = _rename(copy, step, raw)
        on_step(step, "publishing")
        folder = version_folder(step.name, step.number)
        with noted(destination, step.name, members):
            destination.store.publish(copy, folder, copy_of=digest_of(raw), check=check, progress=progress)


def _rename(copy: Path, step: Step, raw: bytes) -> bytes:
    """Give the staged version its new name; the same copy gets the same manifest, whoever makes it."""
    manifest = Manifest.from_bytes(raw, where=MANIFEST)
    files = dict(manifest.files)
    if VERSION_CONFIG in files:
        path = copy / VERSION_CONFIG
        data = renamed(path.read_text(), step).encode()
        path.write_bytes(data)
        files[VERSION_CONFIG] = FileRecord(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    origin = SourceRecord(model=step.entry, version=step.number, digest=digest_of(raw))
    made = manifest.model_copy(update={"model": step.name, "files": files, "source": origin}).to_bytes()
    (copy / MANIFEST).write_bytes(made)
    return made


def settle_config(source: RepositoryReader, destination: RepositoryReader, step: Step) -> Callable[[], None]:
    """Look at an entry's configuration before versions arrive; what is returned brings it up to the source's after.

    One that was edited in the destination since its newest version is left as it is.
    """
    before = destination.config(step.name)
    newest = next((v.number for v in destination.versions(step.name) if v.digest is not None), None)
    edited = newest is not None and before != destination.version_config(step.name, newest)

    def settle() -> None:
        wanted = _entry_config(source, step)
        if edited or wanted == before:
            return
        key = config_key(step.name)
        mode: PutMode = Create()
        if before is not None:
            content = destination.store.read(key)
            if content.data != before.encode():
                return  # edited while the versions were on their way
            mode = Update(content.etag)
        destination.store.write(key, wanted.encode(), mode)

    return settle
