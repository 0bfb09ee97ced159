"""What a disk says that takes no more, told once for all who write to one; how to make it keep what it took; and what
a file is, by its hash."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gravswell.errors import InvalidInputError, UnavailableError

_WAYS_OUT = {
    errno.ENOSPC: "free some space on its file system and repeat",
    errno.EDQUOT: "free some space of your quota on its file system and repeat",
    errno.EFBIG: "raise the limit of a file's size, `ulimit -f` or the file system's own, and repeat",
    errno.EROFS: "mount its file system writable, or take a folder on another one",
    errno.EIO: "the disk is failing: look into the system's log, or take a folder on another one",
}

TAKES_NO_MORE = frozenset(_WAYS_OUT)
"""The numbers of the errors by which a disk says so."""


def told(error: OSError, otherwise: str = "check the file system") -> str:
    """What the system says, and the way out: the one that the error is known to have, or ``otherwise``."""
    return f"{error.strerror or error}; {_WAYS_OUT.get(error.errno or 0, otherwise)}"


def check_folder(path: Path) -> None:
    """Before the work is done whose result goes there: InvalidInputError where ``path`` cannot be made a folder."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    if not there.is_dir():
        raise InvalidInputError(f"{path} is, or lies under, a file: name another folder")


def sha256_of(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def refusals_told(folder: Path) -> Iterator[None]:
    """Raise :class:`UnavailableError`, naming ``folder`` and the way out, where the disk takes no more in the block.

    That is a disk that is full, over its quota, read-only or failing, and a file that is too large for it; other
    errors pass, for a block that calls a user's model raises what that raises.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in TAKES_NO_MORE:
            raise
        raise UnavailableError(f"{folder}: {told(error)}") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` in one step when the block ends well: nobody sees less than all of it.

    It is a hidden name beside it, which is this process's own. What the block raises leaves what was there.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` in one step, as :func:`replacing` does."""
    with replacing(path) as beside:
        beside.write_bytes(data)


def sync_folder(path: Path) -> None:
    """Force the entries of the folder ``path`` to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
