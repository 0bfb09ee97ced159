"""Where a version for a bucket is built: in the system's folder for temporary files (``TMPDIR``).

``gravswell-<user>`` there is the user's own. Who begins a stage in it first removes those whose writers died, however
they did: they hold no lock any more (:mod:`gravswell.quiver.stores.staging`).
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gravswell.errors import AccessDeniedError, UnavailableError
from gravswell.quiver.stores.locking import FolderLock
from gravswell.quiver.stores.staging import StagingFolder, discard


@contextmanager
def temporary_stage() -> Iterator[Path]:
    """An empty folder that is gone afterwards, or when the next one begins. UnavailableError where there is no room."""
    try:
        root = _own_folder() / "stages"
        root.mkdir(exist_ok=True)
        staging, folder = StagingFolder(root), FolderLock(root)
        folder.acquire()
        try:
            stage, lock = staging.begin()
            staging.sweep()
        finally:
            folder.release()
    except OSError as error:
        raise UnavailableError(
            f"{tempfile.gettempdir()}: {error.strerror}; free some space, or point TMPDIR at a larger disk"
        ) from error
    with lock:
        try:
            yield stage
        finally:
            discard(stage)
            discard(Path(lock.name))


def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"gravswell-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise AccessDeniedError(f"{folder} belongs to somebody else: remove it, or point TMPDIR elsewhere")
    return folder
