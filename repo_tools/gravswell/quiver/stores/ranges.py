"""A large object as a stream: ranges of it are fetched in parallel, a few ahead of the reader, in bounded memory.

A cut connection costs one range, not the whole file; an object that is replaced meanwhile is an error, not a mixture.
Where the store keeps a checksum of the whole, what was read to its end is compared with that.
"""

import io
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import BinaryIO, cast

from gravswell.errors import UnavailableError
from gravswell.quiver.stores.checksum import Crc32c
from gravswell.quiver.stores.objects import ObjectInfo, Objects

PART = 8 << 20
"""Bytes of one range."""

AHEAD = 4
"""Ranges in flight or waiting to be read: with :data:`PART`, 32 MiB of memory for each open stream."""


@contextmanager
def opened(objects: Objects, info: ObjectInfo) -> Iterator[BinaryIO]:
    """The object as it was when ``info`` was taken, as a stream."""
    with ThreadPoolExecutor(AHEAD, thread_name_prefix="gravswell-read") as pool:
        raw = _Ranges(objects, info, pool)
        try:
            yield cast(BinaryIO, io.BufferedReader(raw, 1 << 20))
        finally:
            raw.cancel()


class _Ranges(io.RawIOBase):
    def __init__(self, objects: Objects, info: ObjectInfo, pool: ThreadPoolExecutor) -> None:
        self._objects, self._info, self._pool = objects, info, pool
        self._waiting: deque[Future[bytes]] = deque()
        self._asked = 0
        self._rest = memoryview(b"")
        self._checksum = Crc32c() if info.crc32c else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(cast(bytearray, buffer)).cast("B")
        while not self._rest:
            while self._asked < self._info.size and len(self._waiting) < AHEAD:
                stop = min(self._asked + PART, self._info.size)
                self._waiting.append(
                    self._pool.submit(self._objects.get_range, self._info.key, self._asked, stop, self._info.etag)
                )
                self._asked = stop
            if not self._waiting:
                self._check()
                return 0
            data = self._waiting.popleft().result()
            if self._checksum is not None:
                self._checksum.add(data)
            self._rest = memoryview(data)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _check(self) -> None:
        if self._checksum is not None and self._checksum.text != self._info.crc32c:
            raise UnavailableError(
                f"{self._objects.at(self._info.key)} did not arrive as the store has it (its crc32c differs): repeat"
            )

    def cancel(self) -> None:
        """Forget what nobody will read."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
