"""A bucket in this process, for what takes thousands of runs; the contract suite holds it to what the real ones do."""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.objects import ObjectInfo, Objects

PAGE = 1000
"""Objects in one answer to a listing."""


@dataclass
class Memory:
    """Objects by key. ``hashed``: an etag is a hash of the content and comes back with it, as on S3."""

    hashed: bool = False
    held: dict[str, tuple[bytes, ObjectInfo]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def copy(self) -> "Memory":
        """Another bucket that holds the same."""
        return replace(self, held=dict(self.held), lock=threading.Lock())


class MemoryObjects(Objects):
    """See the module. ``url`` is that of any bucket."""

    _generations = itertools.count(1)

    def __init__(self, memory: Memory, url: str = "gs://memory") -> None:
        self._memory = memory
        self.url = url
        self.way_to_make = "true"
        self.way_to_log_in = "none is needed"

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        with self._memory.lock:
            keys = sorted(key for key in self._memory.held if key.startswith(prefix))
        for start in range(0, len(keys) or 1, PAGE):
            with self._memory.lock:
                page = [self._memory.held[key][1] for key in keys[start : start + PAGE] if key in self._memory.held]
            yield [replace(info, stamp=None) for info in page]

    def get(self, key: str) -> Content:
        data, info = self._held(key)
        return Content(data, info.etag)

    def stat(self, key: str) -> ObjectInfo:
        return self._held(key)[1]

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        data, info = self._held(key)
        if info.etag != etag:
            raise self._conflict(key)
        return data[start:stop]

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        with self._memory.lock:
            have = self._memory.held.get(key)
            if isinstance(mode, Create) and have is not None:
                raise self._conflict(key, mode)
            if isinstance(mode, Update) and (have is None or have[1].etag != mode.etag):
                raise self._conflict(key, mode)
            etag = hashlib.md5(data).hexdigest() if self._memory.hashed else str(next(self._generations))
            self._memory.held[key] = data, ObjectInfo(key, len(data), datetime.now(UTC), etag, stamp)
            return etag

    def put_file(self, key: str, path: Path, sent: Callable[[int], object] = lambda _: None, stamp: str = "") -> None:
        data = path.read_bytes()
        sent(len(data))
        with self._memory.lock:
            etag = str(next(self._generations))
            self._memory.held[key] = data, ObjectInfo(key, len(data), datetime.now(UTC), etag, stamp or None)

    def delete(self, keys: Sequence[str]) -> None:
        with self._memory.lock:
            for key in keys:
                self._memory.held.pop(key, None)

    def delete_exact(self, key: str, etag: str) -> None:
        if self._memory.hashed:
            super().delete_exact(key, etag)  # as on S3
            return
        with self._memory.lock:
            if key not in self._memory.held or self._memory.held[key][1].etag != etag:
                raise self._conflict(key)
            del self._memory.held[key]

    def _delete(self, key: str) -> None:
        self.delete([key])

    def _held(self, key: str) -> tuple[bytes, ObjectInfo]:
        with self._memory.lock:
            if key not in self._memory.held:
                raise self._missing(key)
            return self._memory.held[key]
