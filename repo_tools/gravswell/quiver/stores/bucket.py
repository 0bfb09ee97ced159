"""A repository in a bucket, or under a prefix in one. Its law: no rename, no lock, no clock but the store's.

What is told here is done by :mod:`~gravswell.quiver.stores.uploading` and :mod:`~gravswell.quiver.stores.burial`.

How a version appears:

1. ``N/.claim.json`` is created if absent, which takes the number (:mod:`gravswell.quiver.stores.claims`).
2. Only then is it looked whether N is really free: no other object in it, no memory of it, the entry still there; and
   whoever publishes looks whether the entry is still what the version was made for. Who removes or replaces an entry
   deletes or writes first and lists afterwards, so one of the two always sees the other.
3. The files are uploaded, the claim is confirmed, and ``N/.manifest.json`` is created if absent: the one write that
   makes the version exist. The claim is deleted; readers take a version with both for published.

A copy of a version that has its number elsewhere, with the same bytes, does not give that number up when it fails: its
claim stays, names the digest, and the next copy of the same goes on with it, for as long as ``COPIES_STAY``.

How one ends: a *tombstone*, an empty ``N/.manifest.json`` (:mod:`gravswell.quiver.stores.listing`), hides it in one
write. Where an upload may still be going on, the tombstone is created if absent, so that exactly one of writer and
cleaner wins, and it stays for ``TOMBSTONES_STAY``. The number is remembered before its last object goes.

How an entry ends: its number is remembered, ``config.pbtxt`` is deleted, then its versions get their tombstones, oldest
first, so that what is ``latest`` does not go back; it vanishes for readers with the last of them. Then it is listed
again for versions that were being uploaded meanwhile; a ``config.pbtxt`` found then is somebody's new entry, and stays.

How an entry is replaced: the new ``config.pbtxt`` is written, then it is remembered from which number on versions
belong to it (``since``), above all that are there, until what is below is gone. That goes as above; the next
publication goes on with it if we die. What is above was claimed since, and its writer may have seen the new entry: a
version up there goes only if it descends from one below. An upload that is not complete is refused, for nobody can see
what it was made for; its writer begins again, and makes it for the new entry. What is claimed after that can be made
for nothing else.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from gravswell.errors import ConflictError, InvalidInputError
from gravswell.quiver.layout import CLAIM, check_key, parse_version, version_numbers
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores.base import Create, Overwrite, Upload
from gravswell.quiver.stores.bucket_files import BucketFiles
from gravswell.quiver.stores.burial import bury, end_replaced, numbers_in, remove_entry, uploads_in
from gravswell.quiver.stores.claims import Claim, upload_of
from gravswell.quiver.stores.memory import remember_numbers
from gravswell.quiver.stores.progress import Progress
from gravswell.quiver.stores.temporary import temporary_stage
from gravswell.quiver.stores.uploading import publish_version


class BucketStore(BucketFiles):
    """A repository in a bucket. See the module."""

    def remove_folder(self, folder: str) -> None:
        """See :meth:`Store.remove_folder`, and the module."""
        entry, _, rest = check_key(folder).partition("/")
        if not rest:
            remove_entry(self, entry)
        elif parse_version(rest) is None:
            self.delete_all(self.view(folder).objects)
        else:
            view = self.view(entry)
            if int(rest) in numbers_in(view):
                if int(rest) == max(numbers_in(view)):
                    remember_numbers(self, entry, int(rest) + 1)
                bury(self, view, entry, [int(rest)])

    def remove_root(self) -> bool:
        """See :meth:`Store.remove_root`. Tombstones go too: a writer that slept through it finds its claim gone."""
        left = self.objects.list(self.prefix)  # once: what others put here since is not ours to judge
        if self.listing(left).visible:
            return False
        if left:
            self.objects.delete([o.key for o in left])
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
            claim = Claim(self.objects, self.key(f"{folder}/{CLAIM}"), label, copy_of)
            publish_version(self, entry, int(rest), files, mark, claim=claim, check=check, progress=progress)
        elif rest:
            raise InvalidInputError(f"{self.location(folder)}: only entries and their versions are published")
        else:
            self._publish_entry(entry, files[mark], mark, replace=replace)

    def uploads(self, entry: str) -> list[Upload]:
        """See :meth:`Store.uploads`."""
        numbers = version_numbers(uploads_in(self.view(entry), entry))
        found = [upload_of(self.objects, self.key(f"{entry}/{number}/{CLAIM}"), number) for number in numbers]
        return [upload for upload in found if upload is not None]

    def exclusive(self) -> AbstractContextManager[None]:
        """See :meth:`Store.exclusive`: a bucket has no lock."""
        return _nothing()

    def _publish_entry(self, entry: str, path: Path, name: str, *, replace: bool) -> None:
        key = self.key(f"{entry}/{name}")
        if replace:
            self.objects.put(key, path.read_bytes(), Overwrite())
            end_replaced(self, entry, keep=f"{entry}/{name}")
        elif self.view(entry).visible:
            raise ConflictError(f"{self.location(entry)} exists already")
        else:
            self.objects.put(key, path.read_bytes(), Create())


@contextmanager
def _nothing() -> Iterator[None]:
    yield
