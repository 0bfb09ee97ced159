"""The checksum that Google's buckets keep of every object, by the library that came with theirs."""

import base64
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20


class Crc32c:
    """The crc32c of what was added so far."""

    def __init__(self) -> None:
        import google_crc32c  # noqa: PLC0415 - only where such a bucket is used

        self._library: Any = google_crc32c
        self._value = 0

    def add(self, data: bytes) -> None:
        """So much more."""
        self._value = self._library.extend(self._value, data)

    @property
    def text(self) -> str:
        """As the store writes it: base64 of its four bytes, the highest first."""
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


def crc32c_of(path: Path) -> str:
    """The crc32c of a file, as the store writes it."""
    checksum = Crc32c()
    with path.open("rb") as source:
        while data := source.read(_CHUNK):
            checksum.add(data)
    return checksum.text
