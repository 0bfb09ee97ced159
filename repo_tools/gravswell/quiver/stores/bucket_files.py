"""The files of a repository in a bucket: listed, read, and written one by one."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO

from gravswell.errors import GravswellError, NotFoundError
from gravswell.quiver.layout import check_key
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores import ranges
from gravswell.quiver.stores.base import Children, Content, FileInfo, PutMode, R, Store, T, View
from gravswell.quiver.stores.listing import Listing
from gravswell.quiver.stores.objects import ObjectInfo, Objects

_WORKERS = 8

_log = logging.getLogger(__name__)


class BucketFiles(Store):
    """The objects of a bucket whose keys start with ``prefix`` and a slash; all of them where it is empty.

    What makes a version of files, and an entry of versions, is in the modules that are given one of these.
    """

    def __init__(self, objects: Objects, prefix: str = "") -> None:
        self.objects = objects
        self.prefix = f"{prefix}/" if prefix else ""

    @property
    def url(self) -> str:
        """``gs://bucket/prefix``."""
        return self.objects.at(self.prefix.rstrip("/"))

    def location(self, key: str) -> str:
        """The URL of ``key``."""
        return f"{self.url}/{key}" if key else self.url

    # -- reading

    def view(self, folder: str = "") -> Listing:
        """See :meth:`Store.view`. One list call for each thousand objects."""
        return self.listing(self.objects.list(self.prefix + (f"{check_key(folder)}/" if folder else "")))

    def children(self, folder: str = "") -> Children:
        """See :meth:`Store.children`."""
        return self.view(folder).children(folder)

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`Store.walk`."""
        return self.view(folder).walk(folder)

    def has_file(self, key: str) -> bool:
        """See :meth:`Store.has_file`."""
        try:
            found = self.objects.stat(self.key(key))
        except NotFoundError:
            return False
        return found.size > 0 or not key.endswith(f"/{MANIFEST}")

    def parts(self) -> Iterator[View]:
        """See :meth:`Store.parts`."""
        return map(self.listing, self.objects.pages(self.prefix))

    def read(self, key: str) -> Content:
        """See :meth:`Store.read`."""
        content = self.objects.get(self.key(key))
        if not content.data and key.endswith(f"/{MANIFEST}"):
            raise NotFoundError(f"{self.location(key)} is not there: the version was removed, or never completed")
        return content

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See :meth:`Store.open`."""
        with ranges.opened(self.objects, self.objects.stat(self.key(key))) as stream:
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
        return self.objects.put(self.key(key), data, mode)

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        self.objects.delete([self.key(key)])

    # -- for the modules beside this one

    def key(self, key: str) -> str:
        """The whole key of a file of the repository."""
        return self.prefix + check_key(key)

    def delete_all(self, keys: Iterable[str]) -> None:
        """Remove these files, in no order."""
        whole = [self.key(key) for key in keys]
        if whole:
            self.objects.delete(whole)

    def listing(self, objects: Iterable[ObjectInfo]) -> Listing:
        """What was listed, by keys of the repository."""
        cut = len(self.prefix)
        return Listing(
            (ObjectInfo(o.key[cut:], o.size, o.modified, o.etag) for o in objects if o.key[cut:]), url=self.url
        )

    def quietly(self, work: Callable[[], R]) -> R | None:
        """Clear up without hiding what is under way; the next export into the entry clears what is left."""
        try:
            return work()
        except GravswellError as error:
            _log.warning("%s: left for the next export to clear away: %s", self.url, error)
            return None
