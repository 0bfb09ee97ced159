"""How a version appears in a bucket: claimed, uploaded, and made to exist by its last file.

See :mod:`gravswell.quiver.stores.bucket` for the order in which, and why.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from gravswell.errors import ConflictError, GravswellError, NotFoundError
from gravswell.quiver.layout import CLAIM
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores.base import Create
from gravswell.quiver.stores.bucket_files import BucketFiles
from gravswell.quiver.stores.burial import abandon, complete_replacement, sweep, uploads_in
from gravswell.quiver.stores.checksum import crc32c_of
from gravswell.quiver.stores.claims import Claim
from gravswell.quiver.stores.listing import Listing
from gravswell.quiver.stores.memory import read_state
from gravswell.quiver.stores.progress import Counter, Progress

_LARGE = 8 << 20


def publish_version(
    bucket: BucketFiles,
    entry: str,
    number: int,
    files: dict[str, Path],
    mark: str,
    *,
    claim: Claim,
    check: Callable[[], None],
    progress: Progress | None,
) -> None:
    """Publish ``files`` as a version; ``mark`` is the one of them that makes it exist. See :meth:`Store.publish`.

    The ``claim`` is not held yet.
    """
    folder = f"{entry}/{number}"
    with claim:
        try:
            view = bucket.view(entry)
            state = _require_free(bucket, view, entry, number, resumed=claim.resumed)
            sweep(bucket, view, entry, now=view.objects[f"{folder}/{CLAIM}"].modified, own=number)
            if state.since is not None:
                bucket.quietly(partial(complete_replacement, bucket, view, entry, state.since))
            check()
        except BaseException:
            bucket.quietly(claim.leave if claim.resumed else claim.drop)
            raise
        try:
            _upload(bucket, folder, {name: path for name, path in files.items() if name != mark}, claim, progress)
            claim.confirm()
        except BaseException:
            bucket.quietly(claim.leave if claim.copy_of else lambda: abandon(bucket, entry, number))
            raise
        _complete(bucket, entry, number, f"{folder}/{mark}", files[mark].read_bytes())
        if bucket.quietly(claim.stands) is False:
            _require_whole(bucket, folder, files, mark)
        bucket.quietly(claim.drop)  # a reader takes a version with both for published


def _upload(bucket: BucketFiles, folder: str, files: dict[str, Path], claim: Claim, progress: Progress | None) -> None:
    """Small files side by side; large ones, whose parts are, one after the other, which bounds the memory.

    Of a copy that is gone on with, a large file that an earlier one sent is not sent again, and parts that it left go.
    None of the version's files do: the earlier one may be asleep just before the last of them.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    sent = Counter(progress, sum(sizes.values()))

    def put(name: str) -> None:
        bucket.objects.put_file(bucket.key(f"{folder}/{name}"), files[name], sent.add, claim.copy_of)

    large = sorted(name for name, size in sizes.items() if size >= _LARGE)
    there: set[str] = set()
    if claim.resumed:
        there = {name for name in large if _arrived(bucket, f"{folder}/{name}", files[name], claim.copy_of)}
        own = {f"{folder}/{name}" for name in (*files, CLAIM, MANIFEST)}
        bucket.delete_all(key for key in bucket.view(folder).objects if key not in own)
    bucket.in_parallel(put, [name for name, size in sizes.items() if size < _LARGE])
    for name in large:
        if name in there:
            sent.add(sizes[name])
        else:
            put(name)


def _arrived(bucket: BucketFiles, key: str, path: Path, digest: str) -> bool:
    """Whether a copy of that version has sent this file: an object appears whole, and bears the digest of its version.

    Where the store gives a checksum of the whole that is compared too, for that copy may have died before it did so.
    """
    try:
        found = bucket.objects.stat(bucket.key(key))
    except NotFoundError:
        return False
    if found.stamp != digest or found.size != path.stat().st_size:
        return False
    return found.crc32c is None or found.crc32c == crc32c_of(path)


def _require_free(bucket: BucketFiles, view: Listing, entry: str, number: int, *, resumed: bool) -> EntryState:
    """Now that the claim is ours: nothing else there, the number not used before, and the entry there."""
    folder = f"{entry}/{number}"
    there = {key for key in view.objects if key.startswith(f"{folder}/")}
    if f"{folder}/{MANIFEST}" in there or (there != {f"{folder}/{CLAIM}"} and not resumed):
        raise ConflictError(f"{bucket.location(folder)} exists already, or was removed this moment")
    uploads = uploads_in(view, entry)
    if not any(key.split("/")[1] not in uploads for key in view.visible):
        raise NotFoundError(f"{bucket.location(entry)} is not there")
    state = read_state(bucket, entry)[0]
    if state.next_version > number:
        raise ConflictError(f"{bucket.location(folder)} was in use before, and no number is used twice")
    return state


def _complete(bucket: BucketFiles, entry: str, number: int, key: str, data: bytes) -> None:
    """Write the file that makes the version exist."""
    try:
        bucket.objects.put(bucket.key(key), data, Create())
    except ConflictError:
        bucket.quietly(lambda: abandon(bucket, entry, number))
        raise ConflictError(f"{bucket.location(key)}: the upload was taken for dead and cleared away") from None
    except GravswellError:
        # It may have arrived all the same. If so it is published; if not, the claim ends as a dead writer's does.
        if bucket.quietly(lambda: bucket.objects.get(bucket.key(key)).data == data) is True:
            return
        raise


def _require_whole(bucket: BucketFiles, folder: str, files: Iterable[str], mark: str) -> None:
    """Where the repository was deleted, tombstones and all, just before ``mark`` was written, take that back."""
    there = bucket.view(folder).objects
    found = there.get(f"{folder}/{mark}")
    if found is not None and found.size and not all(f"{folder}/{name}" in there for name in files):
        bucket.delete_all([f"{folder}/{mark}"])
        raise NotFoundError(f"{bucket.location(folder)} was removed while it was published")
