"""The per-user cache: one folder for everything that gravswell downloads or builds once.

Its law: what stands under its final name is complete. Writers stage beside it, hold :func:`locked` while they work and
rename at the end, so a killed process leaves something to resume and never something that looks finished.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from gravswell.errors import UnavailableError

CACHE_ENV = "GRAVSWELL_CACHE"
"""Environment variable that names another cache folder."""


def cache_dir() -> Path:
    """Return the cache folder, made if it was absent: ``$GRAVSWELL_CACHE``, else the platform's user cache."""
    named = os.environ.get(CACHE_ENV)
    path = Path(named).expanduser().absolute() if named else platformdirs.user_cache_path("gravswell")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(
            f"the cache folder {path} cannot be made: {error.strerror}; set {CACHE_ENV} to a folder you can write"
        ) from error
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path`` against every other process and thread of this user, waiting for as long as it takes.

    The lock is a file ``.<name>.lock`` beside ``path`` and belongs to the open file, so the kernel frees it when its
    holder dies. The file stays: removing it would let two holders in.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def require_free_space(path: Path, needed: int) -> None:
    """Raise :class:`UnavailableError` unless the file system that holds ``path`` has ``needed`` bytes free.

    ``path`` need not exist yet; its nearest existing parent is asked.
    """
    existing = path
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UnavailableError(
            f"{path} needs {_megabytes(needed)} and its disk has {_megabytes(free)} free; "
            f"make room, or set {CACHE_ENV} to a folder on a larger disk"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
