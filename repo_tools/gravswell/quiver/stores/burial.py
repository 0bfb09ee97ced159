"""How versions and entries of a bucket end: by tombstones, and by what they stand for until they may go.

See :mod:`gravswell.quiver.stores.bucket` for the order in which, and why.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

from gravswell.errors import ConflictError, NotFoundError, VerificationError
from gravswell.quiver.layout import CLAIM, CONFIG, version_numbers
from gravswell.quiver.manifest import MANIFEST, Manifest
from gravswell.quiver.stores.base import Create, Overwrite
from gravswell.quiver.stores.bucket_files import BucketFiles
from gravswell.quiver.stores.claims import EXPIRY, is_copy, take_over
from gravswell.quiver.stores.listing import Listing
from gravswell.quiver.stores.memory import begin_anew, end_beginning, remember_numbers
from gravswell.quiver.stores.objects import ObjectInfo

TOMBSTONES_STAY = timedelta(days=1)
"""How long a number whose writer may only be asleep stays closed to it, by the store's clock."""

COPIES_STAY = timedelta(days=7)
"""How long a copy that was interrupted may be gone on with. After that it is cleared away, and its number is free."""

_TOMBSTONE = b""
_TRIES = 50


def remove_entry(bucket: BucketFiles, entry: str) -> None:
    """Take an entry away with all that is in it. ConflictError where others export into it all the time."""
    config = f"{entry}/{CONFIG}"
    for attempt in range(_TRIES):
        view = bucket.view(entry)
        if attempt and config in view.visible:
            return  # added anew by somebody else
        if not view.visible:
            return
        numbers = numbers_in(view)
        if numbers:
            remember_numbers(bucket, entry, max(numbers) + 1)
        bucket.delete_all(key for key in (config,) if key in view.visible)
        bury(bucket, view, entry, [n for n in numbers if f"{entry}/{n}" not in view.buried])
        bucket.delete_all(key for key in _beside(view, numbers) if key != config)
    raise ConflictError(f"{bucket.location(entry)}: others export into it faster than it can be removed; try again")


def end_replaced(bucket: BucketFiles, entry: str, *, keep: str) -> None:
    """Take away what the entry held before its file ``keep`` was written, which replaced it."""
    since = begin_anew(bucket, entry, max(numbers_in(bucket.view(entry)), default=0) + 1)
    view = bucket.view(entry)
    numbers = numbers_in(view)
    bucket.delete_all(key for key in _beside(view, numbers) if key != keep)
    _bury_below(bucket, view, entry, since)
    uploads = uploads_in(view, entry)
    gone: set[int] = set()
    for number in (n for n in numbers if n >= since):
        if str(number) in uploads:
            abandon(bucket, entry, number)
        parent = _parent(bucket, entry, number)
        if parent is not None and (parent < since or parent in gone):
            gone.add(number)
            bury(bucket, bucket.view(entry), entry, [number])
    end_beginning(bucket, entry, since)


def complete_replacement(bucket: BucketFiles, view: Listing, entry: str, since: int) -> None:
    """Do the rest for a writer who may have died in the middle of a replacement."""
    _bury_below(bucket, view, entry, since)
    end_beginning(bucket, entry, since)


def _bury_below(bucket: BucketFiles, view: Listing, entry: str, since: int) -> None:
    bury(bucket, view, entry, [n for n in numbers_in(view) if n < since and f"{entry}/{n}" not in view.buried])


def _parent(bucket: BucketFiles, entry: str, number: int) -> int | None:
    """The version that ``number`` was made after; None where it has none, is gone, or is not ours to judge."""
    key = f"{entry}/{number}/{MANIFEST}"
    try:
        return Manifest.from_bytes(bucket.read(key).data, where=bucket.location(key)).parent
    except (NotFoundError, VerificationError):
        return None


def bury(bucket: BucketFiles, view: Listing, entry: str, numbers: list[int]) -> None:
    """Take versions out of sight, the newest last, then away."""
    uploads = uploads_in(view, entry)

    def hide(number: int) -> bool:
        """Whether its tombstone may go again at once, as nobody can be writing there."""
        key = bucket.key(f"{entry}/{number}/{MANIFEST}")
        if str(number) in uploads:
            try:
                bucket.objects.put(key, _TOMBSTONE, Create())
            except ConflictError:
                pass  # it was completed meanwhile
            else:
                return False
        bucket.objects.put(key, _TOMBSTONE, Overwrite())
        return True

    ordered = sorted(numbers)
    passing = {
        n
        for part in (ordered[:-1], ordered[-1:])
        for n, may_go in zip(part, bucket.in_parallel(hide, part), strict=True)
        if may_go
    }
    folders = {f"{entry}/{number}" for number in numbers}
    files = [k for k in view.objects if "/".join(k.split("/", 2)[:2]) in folders]
    bucket.delete_all(key for key in files if not key.endswith(f"/{MANIFEST}"))
    bucket.delete_all(f"{entry}/{number}/{MANIFEST}" for number in passing)


def abandon(bucket: BucketFiles, entry: str, number: int) -> None:
    """Close a number whose upload ended or died, and clear its files away; nothing if it is published after all."""
    folder = f"{entry}/{number}"
    try:
        bucket.objects.put(bucket.key(f"{folder}/{MANIFEST}"), _TOMBSTONE, Create())
    except ConflictError:
        if bucket.objects.get(bucket.key(f"{folder}/{MANIFEST}")).data:
            return
    remember_numbers(bucket, entry, number + 1)
    bucket.delete_all(key for key in bucket.view(folder).objects if not key.endswith(f"/{MANIFEST}"))


def _free(bucket: BucketFiles, folder: str, claim: str) -> None:
    """Clear away a copy that nobody went on with, with its claim, which is ours under the etag ``claim``.

    Its number is nobody's then, and a copy of that version may have it. It needs no tombstone: its writer has been
    silent for much longer than one would stay.
    """
    key = f"{folder}/{CLAIM}"
    bucket.delete_all(k for k in bucket.view(folder).objects if k != key)
    bucket.objects.delete_exact(bucket.key(key), claim)


def sweep(bucket: BucketFiles, view: Listing, entry: str, *, now: datetime, own: int) -> None:
    """Clear away what dead writers left in the entry beside our ``own`` number. ``now`` is by the store's clock."""
    for number in numbers_in(view):
        if number != own:
            bucket.quietly(partial(_sweep_version, bucket, view, entry, number, now))


def _sweep_version(bucket: BucketFiles, view: Listing, entry: str, number: int, now: datetime) -> None:
    folder = f"{entry}/{number}"
    mark, claim = view.objects.get(f"{folder}/{MANIFEST}"), view.objects.get(f"{folder}/{CLAIM}")
    if mark is not None and mark.size == 0:
        _clear(bucket, view, folder, mark, now)
    elif claim is not None and now - claim.modified >= EXPIRY:
        if mark is not None:
            bucket.delete_all([claim.key])
        elif not is_copy(bucket.objects, bucket.key(claim.key)):
            if take_over(bucket.objects, bucket.key(claim.key), now=now):
                abandon(bucket, entry, number)
        elif now - claim.modified >= COPIES_STAY:
            etag = take_over(bucket.objects, bucket.key(claim.key), now=now)
            if etag is not None:
                _free(bucket, folder, etag)


def _clear(bucket: BucketFiles, view: Listing, folder: str, tombstone: ObjectInfo, now: datetime) -> None:
    bucket.delete_all(key for key in view.objects if key.startswith(f"{folder}/") and key != tombstone.key)
    if now - tombstone.modified >= TOMBSTONES_STAY:
        entry, _, number = folder.partition("/")
        remember_numbers(bucket, entry, int(number) + 1)
        bucket.delete_all([tombstone.key])


def _beside(view: Listing, numbers: Iterable[int]) -> list[str]:
    """Keys of what lies in the entry outside of the folders of these versions."""
    versions = {str(number) for number in numbers}
    return [key for key in view.visible if key.split("/")[1] not in versions]


def numbers_in(view: Listing) -> list[int]:
    """The numbers of the entry's version folders, tombstones too, ascending."""
    return version_numbers({key.split("/")[1] for key in view.objects if key.count("/") > 1})


def uploads_in(view: Listing, entry: str) -> set[str]:
    """Names of the folders that have a claim and nothing to say that they are complete."""
    claimed = {key.split("/")[1] for key in view.objects if key.endswith(f"/{CLAIM}") and key.count("/") == 2}
    return {name for name in claimed if f"{entry}/{name}/{MANIFEST}" not in view.objects}
