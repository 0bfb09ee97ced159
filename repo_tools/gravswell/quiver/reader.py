"""The read side of a repository, as agents and listers use it. Its law: no ONNX, no framework, no lock, no write there.

What exists for a reader: a version folder with a manifest; and one that somebody else wrote, without manifest or claim,
as *unverified*. A claim without a manifest is an upload under way, or dead, and stays hidden.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from gravswell.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from gravswell.quiver.layout import (
    CLAIM,
    CONFIG,
    check_key,
    check_version,
    config_key,
    is_readable_name,
    parse_version,
    state_key,
    version_folder,
)
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, FileRecord, Manifest, digest_of
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores import Content, Store, open_store

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version as a listing shows it."""

    number: int
    digest: str | None
    """sha256 of the manifest; None for an unverified version, which has none."""
    size: int
    """Bytes of all its files."""
    created: datetime | None


class RepositoryReader:
    """Reads the repository at a URL or in an opened store; see the module for what exists in it."""

    def __init__(self, repository: str | Path | Store) -> None:
        self.store = repository if isinstance(repository, Store) else open_store(repository)

    @property
    def url(self) -> str:
        """The repository's URL."""
        return self.store.url

    def entries(self) -> list[str]:
        """Names of the entries, sorted: folders that hold a ``config.pbtxt`` or a version of a model."""
        return [name for name in self.store.children().folders if is_readable_name(name) and self._is_entry(name)]

    def has(self, entry: str) -> bool:
        """Whether there is an entry of that name."""
        return is_readable_name(entry) and self._is_entry(entry)

    def numbers(self, entry: str) -> list[int]:
        """Numbers of the entry's version folders, newest first, whatever is in them. NotFoundError without entry."""
        return sorted((n for n in map(parse_version, self._children(entry)) if n is not None), reverse=True)

    def versions(self, entry: str) -> list[VersionInfo]:
        """The entry's versions, newest first. NotFoundError if there is no such entry."""
        found = (self._version(entry, number) for number in self.numbers(entry))
        return [info for info in found if info is not None]

    def version(self, entry: str, number: int) -> VersionInfo:
        """One version. NotFoundError, naming those that exist, if it does not."""
        info = self._version(entry, check_version(number))
        if info is None:
            known = ", ".join(str(v.number) for v in self.versions(entry)) or "none"
            raise NotFoundError(f"{entry} has no version {number}; its versions: {known}")
        return info

    def aliases(self, entry: str) -> dict[str, int]:
        """Names that point at versions of the entry."""
        return dict(self.state(entry)[0].aliases)

    def state(self, entry: str) -> tuple[EntryState, str | None]:
        """What is remembered of the entry, and the etag to replace it by; None when there is no file yet."""
        key = state_key(entry)
        content = self._read(key)
        if content is None:
            return EntryState(), None
        return EntryState.from_bytes(content.data, where=self.store.location(key)), content.etag

    def manifest(self, entry: str, number: int) -> tuple[Manifest, bytes]:
        """A version's manifest, parsed and as it stands. NotFoundError without one, VerificationError when damaged."""
        key = f"{version_folder(entry, check_version(number))}/{MANIFEST}"
        data = self.store.read(key).data
        return self._parse(entry, number, data), data

    def config(self, entry: str) -> str | None:
        """The entry's working ``config.pbtxt`` as text; None if it has none, between a first version and its config."""
        content = self._read(config_key(entry))
        return None if content is None else self._text(content, config_key(entry))

    def version_config(self, entry: str, number: int) -> str | None:
        """The configuration a version is served with: its own, or for an unverified version the entry's."""
        key = f"{version_folder(entry, check_version(number))}/{VERSION_CONFIG}"
        content = self._read(key)
        return self.config(entry) if content is None else self._text(content, key)

    def fetch(
        self,
        entry: str,
        number: int,
        destination: Path,
        *,
        progress: Progress | None = None,
        staging: Path | None = None,
    ) -> Manifest | None:
        """Copy a version into the folder ``destination``, which must not exist yet; None for an unverified version.

        Hashes are checked while copying, and ``destination`` appears by one rename: complete or not at all. Until then
        the copy grows in a hidden folder inside ``staging`` (``destination``'s parent by default), which must be on the
        same file system. VerificationError names the file that is missing, cut short or changed.
        """
        info = self.version(entry, number)
        folder = version_folder(entry, number)
        manifest: Manifest | None = None
        raw = b""
        if info.digest is None:
            files: dict[str, FileRecord | None] = {f.path: None for f in self.store.walk(folder)}
        else:
            manifest, raw = self.manifest(entry, number)
            files = dict(manifest.files)
        self._check_paths(folder, files)
        copied = _Counter(progress, info.size)
        with _appearing(destination, staging) as partial:
            for path, record in files.items():
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                self._copy(f"{folder}/{path}", record, target, copied)
            if manifest is not None:
                _write(partial / MANIFEST, raw)
                copied.add(len(raw))
        return manifest

    # -- inside

    def _children(self, entry: str) -> tuple[str, ...]:
        if not is_readable_name(entry):
            raise NotFoundError(f"there is no entry {entry!r} in {self.store.location('')}")
        try:
            return self.store.children(entry).folders
        except NotFoundError:
            known = ", ".join(self.entries()) or "none"
            raise NotFoundError(f"there is no entry {entry!r} in {self.store.location('')}; entries: {known}") from None

    def _is_entry(self, name: str) -> bool:
        try:
            children = self.store.children(name)
        except (NotFoundError, AccessDeniedError):
            return False  # removed while we looked; or none of ours, as a volume's lost+found
        if CONFIG in children.files:
            return True
        return any(parse_version(f) is not None and self._is_version(f"{name}/{f}") for f in children.folders)

    def _is_version(self, folder: str) -> bool:
        """Whether a numbered folder holds a model of ours or of Triton's: many things are kept in numbered folders."""
        try:
            children = self.store.children(folder)
        except NotFoundError:
            return False
        return bool({MANIFEST, CLAIM}.intersection(children.files)) or any(
            name.startswith("model.") for name in (*children.files, *children.folders)
        )

    def _version(self, entry: str, number: int) -> VersionInfo | None:
        folder = version_folder(entry, number)
        content = self._read(f"{folder}/{MANIFEST}")
        try:
            if content is None:
                files = self.store.walk(folder)
                if not files or any(f.path == CLAIM for f in files):
                    return None
                return VersionInfo(number, None, sum(f.size for f in files), max(f.modified for f in files))
            digest = digest_of(content.data)
            try:
                manifest = self._parse(entry, number, content.data)
            except VerificationError:
                # The listing shows that it is there; whoever fetches it reads why it cannot be used.
                return VersionInfo(number, digest, sum(f.size for f in self.store.walk(folder)), None)
        except NotFoundError:
            return None
        size = len(content.data) + sum(record.size for record in manifest.files.values())
        return VersionInfo(number, digest, size, manifest.created)

    def _parse(self, entry: str, number: int, data: bytes) -> Manifest:
        where = self.store.location(f"{version_folder(entry, number)}/{MANIFEST}")
        manifest = Manifest.from_bytes(data, where=where)
        if manifest.version != number or manifest.model != entry:
            raise VerificationError(
                f"{where} belongs to version {manifest.version} of {manifest.model}: "
                f"the folder was copied or renamed by hand; export the model anew instead"
            )
        return manifest

    def _read(self, key: str) -> Content | None:
        try:
            return self.store.read(key)
        except NotFoundError:
            return None

    def _text(self, content: Content, key: str) -> str:
        try:
            return content.data.decode()
        except UnicodeDecodeError:
            raise VerificationError(f"{self.store.location(key)} is not UTF-8 text: restore it") from None

    def _check_paths(self, folder: str, paths: Collection[str]) -> None:
        """They lead to files inside the folder, beside the manifest, and none of them to a folder of another."""
        where = self.store.location(folder)
        for path in paths:
            try:
                check_key(path)
            except InvalidInputError:
                raise VerificationError(f"{where} names a file {path!r} that lies outside of it") from None
        for path in paths:
            clash = next((str(parent) for parent in PurePosixPath(path).parents if str(parent) in paths), None)
            if clash is not None or path == MANIFEST or path.startswith(f"{MANIFEST}/"):
                raise VerificationError(f"{where} names {path!r} and {clash or MANIFEST!r}, which cannot both be files")

    def _copy(self, key: str, record: FileRecord | None, target: Path, copied: "_Counter") -> None:
        where = self.store.location(key)
        limit = None if record is None else record.size
        try:
            with self.store.open(key) as source, target.open("xb") as sink:
                size, sha256 = _pump(source, sink, copied, limit)
                sink.flush()
                os.fsync(sink.fileno())
        except NotFoundError:
            if record is None:
                raise
            raise VerificationError(
                f"{where} is missing, though the manifest names it: the version is damaged"
            ) from None
        except OSError as error:
            raise UnavailableError(f"copying {where} to {target}: {error.strerror or error}") from error
        if record is not None and size != record.size:
            more = "more than" if size > record.size else f"{size} of"
            raise VerificationError(
                f"{where} has {more} the {record.size} bytes in the manifest: the version is damaged"
            )
        if record is not None and sha256 != record.sha256:
            raise VerificationError(
                f"{where} has sha256 {sha256[:12]}…, the manifest says {record.sha256[:12]}…: "
                f"it was changed after publication; restore it or remove the version"
            )


class _Counter:
    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def add(self, count: int) -> None:
        self._done += count
        if self._report is not None:
            self._report(self._done, self._total)


class _appearing:  # noqa: N801 - used as a with-statement's verb
    """A folder that is filled out of sight and then renamed to ``destination``."""

    def __init__(self, destination: Path, staging: Path | None) -> None:
        self._destination = destination
        self._parent = staging or destination.parent

    def __enter__(self) -> Path:
        if self._destination.exists():
            raise ConflictError(f"{self._destination} exists already: a version is fetched into a folder of its own")
        try:
            self._parent.mkdir(parents=True, exist_ok=True)
            self._partial = Path(tempfile.mkdtemp(dir=self._parent, prefix=f".{self._destination.name}.partial-"))
        except OSError as error:
            raise UnavailableError(f"{self._parent}: {error.strerror}; free some space or check its mode") from error
        return self._partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._partial.chmod(0o755)
                self._destination.parent.mkdir(parents=True, exist_ok=True)
                # The rename is the commit: all that it makes visible must be on the disk before it, and it soon after.
                for folder, _folders, _files in os.walk(self._partial):
                    _sync_folder(Path(folder))
                self._partial.rename(self._destination)
                _sync_folder(self._destination.parent)
        except OSError as error:
            raise UnavailableError(f"{self._destination} cannot be put in place: {error.strerror}") from error
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror}; free some space or check its mode") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pump(source: BinaryIO, sink: BinaryIO, copied: _Counter, limit: int | None) -> tuple[int, str]:
    """Copy and hash; stop soon after ``limit``, so a file that grew cannot fill the disk. Returns size and sha256."""
    size, sha256 = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK):
        sink.write(chunk)
        sha256.update(chunk)
        size += len(chunk)
        copied.add(len(chunk))
        if limit is not None and size > limit:
            break
    return size, sha256.hexdigest()
