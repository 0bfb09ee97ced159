"""A repository in a bucket, or under a prefix in one. Its law: no rename, no lock, no clock but the store's.

How a version appears (:meth:`BucketStore.publish`):

1. ``N/.claim.json`` is created if absent, which takes the number (:mod:`gravswell.quiver.stores.claims`).
2. Only then is it looked whether N is really free: no other object in it, no memory of it, the entry still there; and
   whoever publishes looks whether the entry is still what the version was made for. Who removes or replaces an entry
   deletes or writes first and lists afterwards, so one of the two always sees the other.
3. The files are uploaded, the claim is confirmed, and ``N/.manifest.json`` is created if absent: the one write that
   makes the version exist. The claim is deleted; readers take a version with both for published.

A copy of a version that has its number elsewhere, with the same bytes, does not give that number up when it fails: its
claim stays, names the digest, and the next copy of the same goes on with it (:data:`COPIES_STAY`).

How one ends: a *tombstone*, an empty ``N/.manifest.json`` (:mod:`gravswell.quiver.stores.listing`), hides it in one
write. Where an upload may still be going on, the tombstone is created if absent, so that exactly one of writer and
cleaner wins, and it stays for :data:`TOMBSTONES_STAY`. The number is remembered before its last object goes.

How an entry ends: its number is remembered, ``config.pbtxt`` is deleted, then its versions get their tombstones, oldest
first, so that what is ``latest`` does not go back; it vanishes for readers with the last of them. Then it is listed
again for versions that were being uploaded meanwhile; a ``config.pbtxt`` found then is somebody's new entry, and stays.

How an entry is replaced: the new ``config.pbtxt`` is written, then it is remembered from which number on versions
belong to it (``since``), above all that are there. What is below goes as above; the next publication goes on with that
if we die. What is above was claimed since, and its writer may have seen the new entry: a version up there goes only if
it descends from one below. An upload that is not complete is refused, for nobody can see what it was made for; its
writer begins again, and makes it for the new entry. What is claimed after that can be made for nothing else.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO

from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.layout import CLAIM, CONFIG, check_key, parse_version
from gravswell.quiver.manifest import MANIFEST, Manifest
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores import ranges
from gravswell.quiver.stores.base import (
    Children,
    Content,
    Create,
    FileInfo,
    Overwrite,
    PutMode,
    R,
    Store,
    T,
    Upload,
    View,
)
from gravswell.quiver.stores.claims import EXPIRY, Claim, is_copy, take_over, upload_of
from gravswell.quiver.stores.listing import Listing
from gravswell.quiver.stores.memory import begin_anew, read_state, remember_numbers
from gravswell.quiver.stores.objects import ObjectInfo, Objects
from gravswell.quiver.stores.progress import Counter, Progress
from gravswell.quiver.stores.temporary import temporary_stage

TOMBSTONES_STAY = timedelta(days=1)
"""How long a number whose writer may only be asleep stays closed to it, by the store's clock."""

COPIES_STAY = timedelta(days=7)
"""How long a copy that was interrupted may be gone on with, before its number is closed and its files cleared away."""

_TOMBSTONE = b""
_WORKERS = 8
_LARGE = 8 << 20
_TRIES = 50

_log = logging.getLogger(__name__)


class BucketStore(Store):
    """The objects of a bucket whose keys start with ``prefix`` and a slash; all of them where it is empty."""

    def __init__(self, objects: Objects, prefix: str = "") -> None:
        self._objects = objects
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def url(self) -> str:
        """``gs://bucket/prefix``."""
        return self._objects.at(self._prefix.rstrip("/"))

    def location(self, key: str) -> str:
        """The URL of ``key``."""
        return f"{self.url}/{key}" if key else self.url

    # -- reading

    def view(self, folder: str = "") -> Listing:
        """See :meth:`Store.view`. One list call for each thousand objects."""
        return self._listing(self._objects.list(self._prefix + (f"{check_key(folder)}/" if folder else "")))

    def children(self, folder: str = "") -> Children:
        """See :meth:`Store.children`."""
        return self.view(folder).children(folder)

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`Store.walk`."""
        return self.view(folder).walk(folder)

    def has_file(self, key: str) -> bool:
        """See :meth:`Store.has_file`."""
        try:
            found = self._objects.stat(self._key(key))
        except NotFoundError:
            return False
        return found.size > 0 or not key.endswith(f"/{MANIFEST}")

    def parts(self) -> Iterator[View]:
        """See :meth:`Store.parts`."""
        return map(self._listing, self._objects.pages(self._prefix))

    def read(self, key: str) -> Content:
        """See :meth:`Store.read`."""
        content = self._objects.get(self._key(key))
        if not content.data and key.endswith(f"/{MANIFEST}"):
            raise NotFoundError(f"{self.location(key)} is not there: the version was removed, or never completed")
        return content

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See :meth:`Store.open`."""
        with ranges.opened(self._objects, self._objects.stat(self._key(key))) as stream:
            yield stream

    def in_parallel(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """See :meth:`Store.in_parallel`. After an error nothing more is begun."""
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="gravswell-store") as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    # -- writing

    def write(self, key: str, data: bytes, mode: PutMode) -> str:
        """See :meth:`Store.write`."""
        return self._objects.put(self._key(key), data, mode)

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        self._objects.delete([self._key(key)])

    def remove_folder(self, folder: str) -> None:
        """See :meth:`Store.remove_folder`, and the module."""
        entry, _, rest = check_key(folder).partition("/")
        if not rest:
            self._remove_entry(entry)
        elif parse_version(rest) is None:
            self._delete(self.view(folder).objects)
        else:
            view = self.view(entry)
            if int(rest) in _numbers(view):
                if int(rest) == max(_numbers(view)):
                    remember_numbers(self, entry, int(rest) + 1)
                self._bury(view, entry, [int(rest)])

    def remove_root(self) -> bool:
        """See :meth:`Store.remove_root`. Tombstones go too: a writer that slept through it finds its claim gone."""
        left = self._objects.list(self._prefix)  # once: what others put here since is not ours to judge
        if self._listing(left).visible:
            return False
        if left:
            self._objects.delete([o.key for o in left])
        return True

    def staging(self) -> AbstractContextManager[Path]:
        """See :meth:`Store.staging`: in the system's folder for temporary files (``TMPDIR``)."""
        return temporary_stage()

    def publish(
        self,
        staged: Path,
        folder: str,
        *,
        replace: bool = False,
        label: str = "",
        copy_of: str = "",
        check: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        """See :meth:`Store.publish`, and the module."""
        entry, _, rest = check_key(folder).partition("/")
        files = {path.relative_to(staged).as_posix(): path for path in sorted(staged.rglob("*")) if path.is_file()}
        mark = MANIFEST if MANIFEST in files else next(iter(files), "")
        if mark != MANIFEST and (rest or len(files) != 1):
            raise InvalidInputError(f"{self.location(folder)} would have no {MANIFEST}, which makes a folder appear")
        if parse_version(rest) is not None:
            claim = Claim(self._objects, self._key(f"{folder}/{CLAIM}"), label, copy_of)
            self._publish_version(entry, int(rest), files, mark, claim=claim, check=check, progress=progress)
        elif rest:
            raise InvalidInputError(f"{self.location(folder)}: only entries and their versions are published")
        else:
            self._publish_entry(entry, files[mark], mark, replace=replace)

    def uploads(self, entry: str) -> list[Upload]:
        """See :meth:`Store.uploads`."""
        numbers = sorted(n for n in map(parse_version, _uploads(self.view(entry), entry)) if n is not None)
        found = [upload_of(self._objects, self._key(f"{entry}/{number}/{CLAIM}"), number) for number in numbers]
        return [upload for upload in found if upload is not None]

    def exclusive(self) -> AbstractContextManager[None]:
        """See :meth:`Store.exclusive`: a bucket has no lock."""
        return _nothing()

    # -- versions

    def _publish_entry(self, entry: str, path: Path, name: str, *, replace: bool) -> None:
        key = self._key(f"{entry}/{name}")
        if replace:
            self._objects.put(key, path.read_bytes(), Overwrite())
            self._end_replaced(entry, keep=f"{entry}/{name}")
        elif self.view(entry).visible:
            raise ConflictError(f"{self.location(entry)} exists already")
        else:
            self._objects.put(key, path.read_bytes(), Create())

    def _publish_version(
        self,
        entry: str,
        number: int,
        files: dict[str, Path],
        mark: str,
        *,
        claim: Claim,
        check: Callable[[], None],
        progress: Progress | None,
    ) -> None:
        folder = f"{entry}/{number}"
        with claim:
            try:
                view = self.view(entry)
                state = self._require_free(view, entry, number, resumed=claim.resumed)
                self._sweep(view, entry, now=view.objects[f"{folder}/{CLAIM}"].modified, own=number)
                if state.since is not None:
                    self._quietly(partial(self._bury_below, view, entry, state.since))
                check()
            except BaseException:
                self._quietly(claim.leave if claim.resumed else claim.drop)
                raise
            try:
                self._upload(folder, {name: path for name, path in files.items() if name != mark}, progress)
                claim.confirm()
            except BaseException:
                self._quietly(claim.leave if claim.copy_of else lambda: self._abandon(entry, number))
                raise
            self._complete(entry, number, f"{folder}/{mark}", files[mark].read_bytes())
            if self._quietly(claim.stands) is False:
                self._require_whole(folder, files, mark)
            self._quietly(claim.drop)  # a reader takes a version with both for published

    def _upload(self, folder: str, files: dict[str, Path], progress: Progress | None) -> None:
        """Small files side by side; large ones, whose parts are, one after the other, which bounds the memory."""
        sizes = {name: path.stat().st_size for name, path in files.items()}
        sent = Counter(progress, sum(sizes.values()))

        def put(name: str) -> None:
            self._objects.put_file(self._key(f"{folder}/{name}"), files[name], sent.add)

        self.in_parallel(put, [name for name, size in sizes.items() if size < _LARGE])
        for name in sorted(name for name, size in sizes.items() if size >= _LARGE):
            put(name)

    def _require_free(self, view: Listing, entry: str, number: int, *, resumed: bool) -> EntryState:
        """Now that the claim is ours: nothing else there, the number not used before, and the entry there."""
        folder = f"{entry}/{number}"
        there = {key for key in view.objects if key.startswith(f"{folder}/")}
        if f"{folder}/{MANIFEST}" in there or (there != {f"{folder}/{CLAIM}"} and not resumed):
            raise ConflictError(f"{self.location(folder)} exists already, or was removed this moment")
        uploads = _uploads(view, entry)
        if not any(key.split("/")[1] not in uploads for key in view.visible):
            raise NotFoundError(f"{self.location(entry)} is not there")
        state = read_state(self, entry)[0]
        if state.next_version > number:
            raise ConflictError(f"{self.location(folder)} was in use before, and no number is used twice")
        return state

    def _complete(self, entry: str, number: int, key: str, data: bytes) -> None:
        """Write the file that makes the version exist."""
        try:
            self._objects.put(self._key(key), data, Create())
        except ConflictError:
            self._quietly(lambda: self._abandon(entry, number))
            raise ConflictError(f"{self.location(key)}: the upload was taken for dead and cleared away") from None
        except GravswellError:
            # It may have arrived all the same. If so it is published; if not, the claim ends as a dead writer's does.
            if self._quietly(lambda: self._objects.get(self._key(key)).data == data) is True:
                return
            raise

    def _require_whole(self, folder: str, files: Iterable[str], mark: str) -> None:
        """Where the repository was deleted, tombstones and all, just before ``mark`` was written, take that back."""
        there = self.view(folder).objects
        found = there.get(f"{folder}/{mark}")
        if found is not None and found.size and not all(f"{folder}/{name}" in there for name in files):
            self._delete([f"{folder}/{mark}"])
            raise NotFoundError(f"{self.location(folder)} was removed while it was published")

    def _abandon(self, entry: str, number: int) -> None:
        """Close a number whose upload ended or died, and clear its files away; nothing if it is published after all."""
        folder = f"{entry}/{number}"
        try:
            self._objects.put(self._key(f"{folder}/{MANIFEST}"), _TOMBSTONE, Create())
        except ConflictError:
            if self._objects.get(self._key(f"{folder}/{MANIFEST}")).data:
                return
        remember_numbers(self, entry, number + 1)
        self._delete(key for key in self.view(folder).objects if not key.endswith(f"/{MANIFEST}"))

    def _free(self, folder: str, claim: str) -> None:
        """Clear away a copy that nobody went on with, with its claim, which is ours under the etag ``claim``.

        Its number is nobody's then, and a copy of that version may have it. It needs no tombstone: its writer has been
        silent for much longer than one would stay.
        """
        key = f"{folder}/{CLAIM}"
        self._delete(k for k in self.view(folder).objects if k != key)
        self._objects.delete_exact(self._key(key), claim)

    def _sweep(self, view: Listing, entry: str, *, now: datetime, own: int) -> None:
        """Clear away what dead writers left in the entry beside our ``own`` number. ``now`` is by the store's clock."""
        for number in _numbers(view):
            if number != own:
                self._quietly(partial(self._sweep_version, view, entry, number, now))

    def _sweep_version(self, view: Listing, entry: str, number: int, now: datetime) -> None:
        folder = f"{entry}/{number}"
        mark, claim = view.objects.get(f"{folder}/{MANIFEST}"), view.objects.get(f"{folder}/{CLAIM}")
        if mark is not None and mark.size == 0:
            self._clear(view, folder, mark, now)
        elif claim is not None and now - claim.modified >= EXPIRY:
            if mark is not None:
                self._delete([claim.key])
            elif not is_copy(self._objects, self._key(claim.key)):
                if take_over(self._objects, self._key(claim.key), now=now):
                    self._abandon(entry, number)
            elif now - claim.modified >= COPIES_STAY:
                etag = take_over(self._objects, self._key(claim.key), now=now)
                if etag is not None:
                    self._free(folder, etag)

    def _clear(self, view: Listing, folder: str, tombstone: ObjectInfo, now: datetime) -> None:
        self._delete(key for key in view.objects if key.startswith(f"{folder}/") and key != tombstone.key)
        if now - tombstone.modified >= TOMBSTONES_STAY:
            entry, _, number = folder.partition("/")
            remember_numbers(self, entry, int(number) + 1)
            self._delete([tombstone.key])

    # -- removal

    def _remove_entry(self, entry: str) -> None:
        config = f"{entry}/{CONFIG}"
        for attempt in range(_TRIES):
            view = self.view(entry)
            if attempt and config in view.visible:
                return  # added anew by somebody else
            if not view.visible:
                return
            numbers = _numbers(view)
            if numbers:
                remember_numbers(self, entry, max(numbers) + 1)
            self._delete(key for key in (config,) if key in view.visible)
            self._bury(view, entry, [n for n in numbers if f"{entry}/{n}" not in view.buried])
            self._delete(key for key in _beside(view, numbers) if key != config)
        raise ConflictError(f"{self.location(entry)}: others export into it faster than it can be removed; try again")

    def _end_replaced(self, entry: str, *, keep: str) -> None:
        """Take away what the entry held before it was replaced. See the module."""
        since = begin_anew(self, entry, max(_numbers(self.view(entry)), default=0) + 1)
        view = self.view(entry)
        numbers = _numbers(view)
        self._delete(key for key in _beside(view, numbers) if key != keep)
        self._bury_below(view, entry, since)
        uploads = _uploads(view, entry)
        gone: set[int] = set()
        for number in (n for n in numbers if n >= since):
            if str(number) in uploads:
                self._abandon(entry, number)
            parent = self._parent(entry, number)
            if parent is not None and (parent < since or parent in gone):
                gone.add(number)
                self._bury(self.view(entry), entry, [number])

    def _bury_below(self, view: Listing, entry: str, since: int) -> None:
        self._bury(view, entry, [n for n in _numbers(view) if n < since and f"{entry}/{n}" not in view.buried])

    def _parent(self, entry: str, number: int) -> int | None:
        """The version that ``number`` was made after; None where it has none, is gone, or is not ours to judge."""
        key = f"{entry}/{number}/{MANIFEST}"
        try:
            return Manifest.from_bytes(self.read(key).data, where=self.location(key)).parent
        except (NotFoundError, VerificationError):
            return None

    def _bury(self, view: Listing, entry: str, numbers: list[int]) -> None:
        """Take versions out of sight, the newest last, then away."""
        uploads = _uploads(view, entry)

        def hide(number: int) -> bool:
            """Whether its tombstone may go again at once, as nobody can be writing there."""
            key = self._key(f"{entry}/{number}/{MANIFEST}")
            if str(number) in uploads:
                try:
                    self._objects.put(key, _TOMBSTONE, Create())
                except ConflictError:
                    pass  # it was completed meanwhile
                else:
                    return False
            self._objects.put(key, _TOMBSTONE, Overwrite())
            return True

        ordered = sorted(numbers)
        passing = {
            n
            for part in (ordered[:-1], ordered[-1:])
            for n, may_go in zip(part, self.in_parallel(hide, part), strict=True)
            if may_go
        }
        folders = {f"{entry}/{number}" for number in numbers}
        files = [k for k in view.objects if "/".join(k.split("/", 2)[:2]) in folders]
        self._delete(key for key in files if not key.endswith(f"/{MANIFEST}"))
        self._delete(f"{entry}/{number}/{MANIFEST}" for number in passing)

    # -- inside

    def _listing(self, objects: Iterable[ObjectInfo]) -> Listing:
        cut = len(self._prefix)
        return Listing(
            (ObjectInfo(o.key[cut:], o.size, o.modified, o.etag) for o in objects if o.key[cut:]), url=self.url
        )

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _delete(self, keys: Iterable[str]) -> None:
        whole = [self._key(key) for key in keys]
        if whole:
            self._objects.delete(whole)

    def _quietly(self, work: Callable[[], R]) -> R | None:
        """Clear up without hiding what is under way; the next export into the entry clears what is left."""
        try:
            return work()
        except GravswellError as error:
            _log.warning("%s: left for the next export to clear away: %s", self.url, error)
            return None


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _beside(view: Listing, numbers: Iterable[int]) -> list[str]:
    """Keys of what lies in the entry outside of the folders of these versions."""
    versions = {str(number) for number in numbers}
    return [key for key in view.visible if key.split("/")[1] not in versions]


def _numbers(view: Listing) -> list[int]:
    """The numbers of the entry's version folders, tombstones too, ascending."""
    names = {key.split("/")[1] for key in view.objects if key.count("/") > 1}
    return sorted(number for number in map(parse_version, names) if number is not None)


def _uploads(view: Listing, entry: str) -> set[str]:
    """Names of the folders that have a claim and nothing to say that they are complete."""
    claimed = {key.split("/")[1] for key in view.objects if key.endswith(f"/{CLAIM}") and key.count("/") == 2}
    return {name for name in claimed if f"{entry}/{name}/{MANIFEST}" not in view.objects}
