"""A temporary folder for one server, that also goes when its owner was killed: the next server's start sweeps it."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gravswell.serving.triton.process import clear_left_segments
from gravswell.serving.triton.support import require_plain_path

PREFIX: Final = "gravswell-triton-"

KEEP_LOGS_SECONDS: Final = 24 * 3600.0
"""How long the log of a start that failed is kept."""


@dataclass(frozen=True)
class Workspace:
    """A folder that this process holds a lock on; the kernel frees the lock however the process ends."""

    path: Path
    _lock: int

    @classmethod
    def create(cls) -> Self:
        """Sweep what dead owners left, shared memory too, and make a new one in the system's temporary folder."""
        require_plain_path(Path(tempfile.gettempdir()), "let TMPDIR name another folder")
        for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/"):
            _remove_if_left(left)
        for log in Path(tempfile.gettempdir()).glob(f"{PREFIX}*.log"):
            _remove_if_old(log)
        clear_left_segments()
        while True:
            path = Path(tempfile.mkdtemp(prefix=PREFIX))
            try:
                lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue  # another's sweep took it
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_dir():  # a sweep may have taken it before the lock
                return cls(path, lock)
            os.close(lock)

    def remove(self) -> None:
        """Remove the folder and everything in it."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def _remove_if_left(path: Path) -> None:
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # another user's, or gone
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # its owner lives
    else:
        shutil.rmtree(path, ignore_errors=True)  # two sweeps may meet
    finally:
        os.close(lock)


def _remove_if_old(log: Path) -> None:
    """The log of a start that failed: whoever was told where it is has read it by now."""
    with suppress(OSError):  # another user's, or gone
        if log.stat().st_mtime < time.time() - KEEP_LOGS_SECONDS:
            log.unlink()
