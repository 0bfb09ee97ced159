"""What a library for object stores must do for us, and no more; one implementation for each library.

Keys are whole: a bucket's prefix is the affair of :class:`~gravswell.quiver.stores.bucket.BucketStore`. Errors come as
gravswell's own and name the URL; every call has been repeated, with growing pauses, for up to a given patience, before
it gives up.
"""

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from gravswell.errors import AccessDeniedError, ConflictError, NotFoundError, UnavailableError
from gravswell.quiver.stores.base import Content, Overwrite, PutMode, Update

PATIENCE = timedelta(seconds=60)
"""How long a request that meets a cut connection, 429 or 5xx is repeated, where nobody says otherwise."""

GONE = b"gone "
"""How the content of an object begins that counts as deleted. See :meth:`Objects.delete_exact`."""

_DELETES = 16

STAMP = "gravswellwrite"
"""The metadata key under which every conditional write bears a number of its own, and a file of a copy the version's
digest; Azure allows no dash in it."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object: its key, size in bytes, last modification by the store's own clock, and etag.

    ``stamp`` says which write made it; None where it was listed, or written without one. ``crc32c``, in base64,
    is the store's own of the whole object; None where it was listed, or the store has none.
    """

    key: str
    size: int
    modified: datetime
    etag: str
    stamp: str | None = None
    crc32c: str | None = None


def parents(key: str) -> Iterator[str]:
    """The folders that a key lies in, the outermost first."""
    end = key.find("/")
    while end != -1:
        yield key[:end]
        end = key.find("/", end + 1)


def delete_each(delete: Callable[[str], None], keys: Sequence[str]) -> None:
    """Call ``delete`` for every key, several at a time."""
    with ThreadPoolExecutor(_DELETES, thread_name_prefix="gravswell-delete") as pool:
        for _ in pool.map(delete, keys):
            pass


class Objects(ABC):
    """The objects of one bucket. ``url`` is the bucket's, without a slash at its end."""

    url: str
    way_to_make: str
    """The command that makes a bucket of this kind; we never make one, as that takes a region, rights and a payer."""
    way_to_log_in: str
    """How this kind of store gets its credentials."""

    @abstractmethod
    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """Every object whose key starts with ``prefix``, which ends in ``/`` or is empty, by its key.

        A request each, of up to a thousand objects, once it is asked for: who has seen enough does not go on.
        """

    def list(self, prefix: str) -> list[ObjectInfo]:
        """All of them at once. See :meth:`pages`."""
        return [info for page in self.pages(prefix) for info in page]

    @abstractmethod
    def get(self, key: str) -> Content:
        """An object, whole. NotFoundError if it is not there."""

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo:
        """What is known of an object, with its ``stamp``. NotFoundError if it is not there."""

    @abstractmethod
    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        """Bytes from ``start`` up to ``stop``. ConflictError if it is no longer the object of that etag."""

    def put(self, key: str, data: bytes, mode: PutMode) -> str:
        """Write an object in one request and return its etag. ConflictError if the condition of ``mode`` fails.

        A request whose answer is lost is sent again, and would then fail on its own first success: the stamp tells.
        """
        stamp = uuid.uuid4().hex
        try:
            return self._put(key, data, mode, stamp)
        except ConflictError:
            try:
                found = self.stat(key)
            except NotFoundError:
                found = None
            if found is None or found.stamp != stamp or isinstance(mode, Overwrite):
                raise
            return found.etag

    @abstractmethod
    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str: ...

    @abstractmethod
    def put_file(self, key: str, path: Path, sent: Callable[[int], None], stamp: str = "") -> None:
        """Upload a file of any size, in bounded memory and whatever was there; it appears when it is complete.

        Every part bears a checksum that the store compares. ``sent`` is called with the bytes of each part, from any
        thread. A ``stamp`` is what :meth:`stat` then says. An upload that fails or dies may leave parts beside ``key``,
        under names that begin with a dot.
        """

    @abstractmethod
    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects, in no order; those that are not there count as removed."""

    def delete_exact(self, key: str, etag: str) -> None:
        """Remove an object if it is still that of the etag. ConflictError if it is another's by now, or gone.

        This is the way of a store whose deletions take no condition, and of one whose protocol is spoken by servers
        that would ignore it and delete whatever is there, as S3's. The object first becomes a :data:`GONE`, which is
        conditional; then that is deleted, in one request that is never repeated: a repetition could come when the key
        is somebody else's. Nobody may put anything in the place of a :data:`GONE` that has to stay.
        """
        self.put(key, GONE + uuid.uuid4().bytes, Update(etag))
        self._delete_once(key)

    def _delete_once(self, key: str) -> None:
        """Delete an object by one request, whatever becomes of it."""
        self.delete([key])

    # -- the errors that all kinds of store have in common

    def at(self, key: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{key}" if key else self.url

    def _missing(self, key: str) -> NotFoundError:
        return NotFoundError(f"{self.at(key)} is not there")

    def _no_bucket(self) -> NotFoundError:
        return NotFoundError(f"there is no bucket {self.url}: check the name, or make it with `{self.way_to_make}`")

    def _conflict(self, key: str, mode: PutMode | None = None) -> ConflictError:
        if mode is not None and not hasattr(mode, "etag"):
            return ConflictError(f"{self.at(key)} exists already")
        return ConflictError(f"{self.at(key)} was changed by another writer: read it again and repeat")

    def _denied(self, key: str, detail: object) -> AccessDeniedError:
        return AccessDeniedError(f"{self.at(key)} was refused to these credentials ({detail}); {self.way_to_log_in}")

    def _no_credentials(self, detail: object) -> AccessDeniedError:
        return AccessDeniedError(f"no credentials for {self.url} were found ({detail}); {self.way_to_log_in}")

    def _unavailable(self, key: str, detail: object) -> UnavailableError:
        return UnavailableError(
            f"{self.at(key)} cannot be reached ({detail}): check the network and the endpoint, and repeat; "
            f"what was published before stays as it is"
        )
