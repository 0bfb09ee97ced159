"""The lock by which the writers of one folder exclude each other."""

import errno
import fcntl
import os
import threading
from contextlib import suppress
from pathlib import Path

LOCK_FILE = ".gravswell.lock"
"""At the root of a repository on a file system that cannot lock a folder."""


class FolderLock:
    """``flock`` on a folder, re-entrant within a thread and exclusive between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = threading.RLock()
        self._depth = 0
        self._fd = -1

    def acquire(self) -> bool:
        """Wait for the lock; whether this is the outermost of nested calls. FileNotFoundError if the folder is gone."""
        self._thread.acquire()
        try:
            if self._depth == 0:
                self._fd = self._locked()
            self._depth += 1
        except BaseException:
            self._thread.release()
            raise
        return self._depth == 1

    def release(self) -> None:
        """Give it up, once for each :meth:`acquire`."""
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)
        self._thread.release()

    def _locked(self) -> int:
        try:
            return _flocked(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        # NFS locks only what is open for writing, which a folder cannot be: a hidden file in it then
        return _flocked(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT)


def _flocked(path: Path, flags: int) -> int:
    """A descriptor of ``path`` that holds its lock.

    Whoever held it before may have removed the path, and others may have made it anew: a lock on what is no longer
    there keeps nobody out, so it is taken again.
    """
    while True:
        fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), path.stat()):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
