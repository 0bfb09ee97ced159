"""The read side of a repository, as agents and listers use it. Its law: no ONNX, no framework, no lock, no write there.

What exists for a reader: a version folder with a manifest; and one that somebody else wrote, without manifest or claim,
as *unverified*. A claim without a manifest is an upload under way, or dead, and stays hidden.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from gravswell.errors import AccessDeniedError, GravswellError, NotFoundError, VerificationError
from gravswell.quiver.fetching import Progress, check_files, copy_version
from gravswell.quiver.layout import (
    CLAIM,
    check_version,
    config_key,
    is_readable_name,
    is_state_key,
    parse_version,
    state_key,
    version_folder,
    version_numbers,
)
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, Manifest, MemberRecord, digest_of
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores import Content, Store, View, open_store

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version as a listing shows it."""

    number: int
    digest: str | None
    """sha256 of the manifest; None for an unverified version, which has none."""
    size: int
    """Bytes of all its files."""
    created: datetime | None
    members: tuple[MemberRecord, ...] = ()
    """Of a pipeline."""
    opset: int = 0
    """Of ONNX's own operators; 0 where there is no manifest, or no graph, as in a pipeline."""
    ir_version: int = 0
    """Likewise."""


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """One entry as a listing of all shows it."""

    versions: tuple[VersionInfo, ...] = ()
    """Newest first."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Those that name one of its versions."""
    state: EntryState = field(default_factory=EntryState)
    """What is remembered of it, such as what clusters serve."""
    error: GravswellError | None = None
    """Why something of it could not be read, and is not here."""


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
        return _entries(self.store.view())

    def has(self, entry: str) -> bool:
        """Whether there is an entry of that name. No other is looked at."""
        if not is_readable_name(entry):
            return False
        return self.store.has_file(config_key(entry)) or _is_entry(self.store.view(entry), entry)

    def look(self, entry: str) -> EntryInfo:
        """One entry. NotFoundError without it; what cannot be read of its state is told in ``error``."""
        state, failed = EntryState(), None
        try:
            state, _ = self.state(entry)  # first: what is exported and promoted meanwhile is seen whole, or not yet
        except GravswellError as error:
            failed = error
        versions = tuple(self.versions(entry))
        return EntryInfo(versions, _aliases(state, versions), state, failed)

    def is_one(self) -> bool:
        """Whether it is a repository: it has an entry, or remembers one. Looks no further than to the first."""
        return any(
            any(map(is_state_key, part.children().files)) or any(_is_entry(part, name) for name in _names(part))
            for part in self.store.parts()
        )

    def survey(self) -> dict[str, EntryInfo]:
        """Every entry with its versions and aliases, from one look at what there is.

        A bucket is listed once, and what is read of it then is read in parallel. An entry that cannot be read, whole or
        in part, hides no other: its ``error`` says why.
        """
        view = self.store.view()
        found: dict[str, list[int]] = {}
        closed: dict[str, EntryInfo] = {}
        for name in _entries(view):
            try:
                found[name] = _numbers(view, name)
            except AccessDeniedError as error:
                closed[name] = EntryInfo(error=error)
        remembering = set(view.children().files)
        states = self._each(lambda name: self.state(name)[0], [n for n in found if state_key(n) in remembering])
        # An alias may have come to name a version that was made since: it is looked at as those that were listed are.
        for name, state in states.items():
            if isinstance(state, EntryState):
                found[name] = sorted({*found[name], *state.aliases.values()}, reverse=True)
        wanted = [(name, number) for name, numbers in found.items() for number in numbers]
        infos = self._each(lambda one: self._version(*one, view), wanted)
        seen = {name: self._surveyed(name, numbers, infos, states.get(name)) for name, numbers in found.items()}
        return dict(sorted((seen | closed).items()))

    def check_present(self, found: Collection[str], known: Collection[str]) -> None:
        """NotFoundError where the repository is away: for whoever is about to conclude that entries were removed.

        ``found`` are the entries that are there, and ``known`` those that had versions when last seen. A removal
        leaves the numbers of what it removed. Where all that was known is gone without them, nobody removed it: that is
        the mount point of a volume that is away, or a bucket that was emptied.
        """
        left = self.store.children().files  # raises if the root itself went
        if known and not found and not any(state_key(name) in left for name in known):
            raise NotFoundError(
                f"{self.store.location('')} holds no entry any more, and held {', '.join(sorted(known)[:3])}"
                f"{'…' if len(known) > 3 else ''}: is its volume mounted?"
            )

    def numbers(self, entry: str) -> list[int]:
        """Numbers of the entry's version folders, newest first, whatever is in them. NotFoundError without entry."""
        return version_numbers(self._children(entry))[::-1]

    def versions(self, entry: str) -> list[VersionInfo]:
        """The entry's versions, newest first. NotFoundError if there is no such entry."""
        found = self.store.in_parallel(lambda number: self._version(entry, number), self.numbers(entry))
        return [info for info in found if info is not None]

    def newest(self, entry: str) -> VersionInfo | None:
        """The entry's newest version; no older one is read. None without any, NotFoundError without the entry."""
        found = (self._version(entry, number) for number in self.numbers(entry))
        return next((info for info in found if info is not None), None)

    def version(self, entry: str, number: int) -> VersionInfo:
        """One version. NotFoundError, naming those that exist, if it does not."""
        info = self._version(entry, check_version(number))
        if info is None:
            known = ", ".join(str(v.number) for v in self.versions(entry)) or "none"
            raise NotFoundError(f"{entry} has no version {number}; its versions: {known}")
        return info

    def aliases(self, entry: str) -> dict[str, int]:
        """Names that point at versions of the entry.

        Not those of versions that are gone: who replaces an entry and dies in the middle leaves the old one's aliases.
        """
        state, _ = self.state(entry)
        numbers = sorted(set(state.aliases.values()))
        found = self.store.in_parallel(lambda number: self._version(entry, number), numbers) if numbers else []
        return _aliases(state, [info for info in found if info is not None])

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
        same file system. VerificationError names the file that is missing, cut short or changed; NotFoundError when
        the version was removed meanwhile.
        """
        info = self.version(entry, number)
        folder = version_folder(entry, number)
        if info.digest is None:
            copy_version(self.store, folder, None, destination, staging, progress=progress)
            return None
        manifest, raw = self.manifest(entry, number)
        copy_version(self.store, folder, (manifest, raw), destination, staging, progress=progress)
        return manifest

    def check(self, entry: str, number: int, *, progress: Progress | None = None) -> Manifest | None:
        """Hash every file of a version where it lies; None for an unverified version, which names no hashes.

        Raises as :meth:`fetch`, and needs no room on this machine.
        """
        if self.version(entry, number).digest is None:
            return None
        published = self.manifest(entry, number)
        check_files(self.store, version_folder(entry, number), published, progress=progress)
        return published[0]

    # -- inside

    def _each(self, work: Callable[[T], R], items: Sequence[T]) -> dict[T, R | GravswellError]:
        """What ``work`` makes of each item, or the error that it ends with."""

        def attempt(item: T) -> R | GravswellError:
            try:
                return work(item)
            except GravswellError as error:
                return error

        return dict(zip(items, self.store.in_parallel(attempt, items), strict=True)) if items else {}

    @staticmethod
    def _surveyed(
        entry: str,
        numbers: Sequence[int],
        infos: Mapping[tuple[str, int], VersionInfo | GravswellError | None],
        state: EntryState | GravswellError | None,
    ) -> EntryInfo:
        found = [infos[entry, number] for number in numbers]
        versions = tuple(info for info in found if isinstance(info, VersionInfo))
        known = state if isinstance(state, EntryState) else EntryState()
        error = next((e for e in (*found, state) if isinstance(e, GravswellError)), None)
        return EntryInfo(versions, _aliases(known, versions), known, error)

    def _children(self, entry: str) -> tuple[str, ...]:
        if not is_readable_name(entry):
            raise NotFoundError(f"there is no entry {entry!r} in {self.store.location('')}")
        try:
            return self.store.children(entry).folders
        except NotFoundError:
            known = ", ".join(self.entries()) or "none"
            raise NotFoundError(f"there is no entry {entry!r} in {self.store.location('')}; entries: {known}") from None

    def _version(self, entry: str, number: int, view: View | None = None) -> VersionInfo | None:
        folder, view = version_folder(entry, number), view or self.store
        try:
            content = self._read(f"{folder}/{MANIFEST}")
            if content is None:
                files = view.walk(folder)
                names = {f.path for f in files}
                if not files or CLAIM in names:
                    return None
                if MANIFEST not in names:
                    return VersionInfo(number, None, sum(f.size for f in files), max(f.modified for f in files))
                content = self.store.read(f"{folder}/{MANIFEST}")  # it was published while we looked
            digest = digest_of(content.data)
            try:
                manifest = self._parse(entry, number, content.data)
            except VerificationError:
                # The listing shows that it is there; whoever fetches it reads why it cannot be used.
                return VersionInfo(number, digest, sum(f.size for f in view.walk(folder)), None)
        except NotFoundError:
            return None
        size = len(content.data) + sum(record.size for record in manifest.files.values())
        return VersionInfo(
            number, digest, size, manifest.created, manifest.members, manifest.opset, manifest.ir_version
        )

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


def _aliases(state: EntryState, versions: Collection[VersionInfo]) -> dict[str, int]:
    """Those that name one of the versions."""
    there = {info.number for info in versions}
    return {alias: number for alias, number in state.aliases.items() if number in there}


def _names(view: View) -> list[str]:
    return list(filter(is_readable_name, view.children().folders))


def _entries(view: View) -> list[str]:
    return [name for name in _names(view) if _is_entry(view, name)]


def _numbers(view: View, entry: str) -> list[int]:
    """Newest first; none where the entry went while we looked."""
    try:
        folders = view.children(entry).folders
    except NotFoundError:
        return []
    return version_numbers(folders)[::-1]


def _is_entry(view: View, name: str) -> bool:
    if view.has_file(config_key(name)):
        return True
    try:
        children = view.children(name)
    except (NotFoundError, AccessDeniedError):
        return False  # removed while we looked; or none of ours, as a volume's lost+found
    return any(parse_version(f) is not None and _is_version(view, f"{name}/{f}") for f in children.folders)


def _is_version(view: View, folder: str) -> bool:
    """Whether a numbered folder holds a model of ours or of Triton's: many things are kept in numbered folders."""
    try:
        children = view.children(folder)
    except (NotFoundError, AccessDeniedError):
        return False
    return bool({MANIFEST, CLAIM}.intersection(children.files)) or any(
        name.startswith("model.") for name in (*children.files, *children.folders)
    )
