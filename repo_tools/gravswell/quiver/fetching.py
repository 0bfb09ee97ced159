"""Copying a version out of a store: every hash checked on the way, and the copy in sight only when it is complete."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gravswell.errors import (
    ConflictError,
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from gravswell.quiver.disk import sync_folder, told
from gravswell.quiver.layout import check_key
from gravswell.quiver.manifest import MANIFEST, FileRecord, Manifest
from gravswell.quiver.stores import Counter, Progress, Store

__all__ = ["Progress", "check_files", "copy_version"]

_CHUNK = 1 << 20


def copy_version(
    store: Store,
    folder: str,
    published: tuple[Manifest, bytes] | None,
    destination: Path,
    staging: Path | None,
    *,
    progress: Progress | None = None,
) -> None:
    """Copy ``folder`` of the store to ``destination``, which appears by one rename.

    :param published: its manifest, parsed and as it stands; None for an unverified version, of which all is copied.
    :param staging: where the copy grows until then; on the same file system, by default ``destination``'s parent.
    """
    if published is None:
        found = store.walk(folder)
        files: dict[str, FileRecord | None] = {f.path: None for f in found}
        total = sum(f.size for f in found)
    else:
        files = dict(published[0].files)
        total = len(published[1]) + sum(record.size for record in published[0].files.values())
    _check_paths(store.location(folder), files)
    copied = Counter(progress, total)
    with _appearing(destination, staging) as partial:
        for path, record in files.items():
            target = partial / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _copy(store, folder, path, record, target=target, copied=copied)
        if published is not None:
            _write(partial / MANIFEST, published[1])
            copied.add(len(published[1]))


def check_files(
    store: Store, folder: str, published: tuple[Manifest, bytes], *, progress: Progress | None = None
) -> None:
    """Hash every file of a published version where it lies. VerificationError names what differs from the manifest."""
    files = published[0].files
    _check_paths(store.location(folder), files)
    read = Counter(progress, sum(record.size for record in files.values()))
    for path, record in files.items():
        try:
            with store.open(f"{folder}/{path}") as source:
                size, sha256 = _pump(source, None, read, record.size)
        except NotFoundError:
            raise _missing(store, folder, path, record) from None
        except OSError as error:
            raise UnavailableError(f"reading {store.location(f'{folder}/{path}')}: {told(error)}") from error
        _check_record(store.location(f"{folder}/{path}"), record, size, sha256)


def _check_paths(where: str, paths: Collection[str]) -> None:
    """They lead to files inside the folder, beside the manifest, and none of them to a folder of another."""
    for path in paths:
        try:
            check_key(path)
        except InvalidInputError:
            raise VerificationError(f"{where} names a file {path!r} that lies outside of it") from None
    for path in paths:
        clash = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in paths), None)
        if clash is not None or path == MANIFEST or path.startswith(f"{MANIFEST}/"):
            raise VerificationError(f"{where} names {path!r} and {clash or MANIFEST!r}, which cannot both be files")


def _copy(store: Store, folder: str, path: str, record: FileRecord | None, *, target: Path, copied: Counter) -> None:
    where = store.location(f"{folder}/{path}")
    limit = None if record is None else record.size
    try:
        with store.open(f"{folder}/{path}") as source, target.open("xb") as sink:
            size, sha256 = _pump(source, sink, copied, limit)
            sink.flush()
            os.fsync(sink.fileno())
    except NotFoundError:
        raise _missing(store, folder, path, record) from None
    except OSError as error:
        raise UnavailableError(f"copying {where} to {target}: {told(error)}") from error
    if record is not None:
        _check_record(where, record, size, sha256)


def _check_record(where: str, record: FileRecord, size: int, sha256: str) -> None:
    if size != record.size:
        more = "more than" if size > record.size else f"{size} of"
        raise VerificationError(f"{where} has {more} the {record.size} bytes in the manifest: the version is damaged")
    if sha256 != record.sha256:
        raise VerificationError(
            f"{where} has sha256 {sha256[:12]}…, the manifest says {record.sha256[:12]}…: "
            f"it was changed after publication; restore it or remove the version"
        )


def _missing(store: Store, folder: str, path: str, record: FileRecord | None) -> GravswellError:
    if record is None or not _is_published(store, folder):
        return NotFoundError(f"{store.location(folder)} was removed while it was read")
    where = store.location(f"{folder}/{path}")
    return VerificationError(f"{where} is missing, though the manifest names it: the version is damaged")


def _is_published(store: Store, folder: str) -> bool:
    """A removal takes the manifest first, or everything at once."""
    try:
        store.read(f"{folder}/{MANIFEST}")
    except NotFoundError:
        return False
    return True


@contextmanager
def _appearing(destination: Path, staging: Path | None) -> Iterator[Path]:
    """A folder that is filled out of sight and then renamed to ``destination``."""
    if destination.exists():
        raise ConflictError(f"{destination} exists already: a version is fetched into a folder of its own")
    parent = staging or destination.parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=parent, prefix=f".{destination.name}.partial-"))
    except OSError as error:
        raise UnavailableError(f"{parent}: {told(error, 'check its mode')}") from error
    try:
        yield partial
        try:
            partial.chmod(0o755)
            destination.parent.mkdir(parents=True, exist_ok=True)
            # The rename is the commit: all that it makes visible must be on the disk before it, and it soon after.
            for folder, _folders, _files in os.walk(partial):
                sync_folder(Path(folder))
            partial.rename(destination)
            sync_folder(destination.parent)
        except OSError as error:
            raise UnavailableError(f"{destination} cannot be put in place: {told(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
    except OSError as error:
        raise UnavailableError(f"{path}: {told(error, 'check its mode')}") from error


def _pump(source: BinaryIO, sink: BinaryIO | None, copied: Counter, limit: int | None) -> tuple[int, str]:
    """Copy and hash; stop soon after ``limit``, so a file that grew cannot fill the disk. Returns size and sha256."""
    size, sha256 = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK):
        if sink is not None:
            sink.write(chunk)
        sha256.update(chunk)
        size += len(chunk)
        copied.add(len(chunk))
        if limit is not None and size > limit:
            break
    return size, sha256.hexdigest()
