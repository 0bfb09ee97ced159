"""The folder beside a repository through which everything passes that appears in it, or goes, by one rename."""

import fcntl
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO

from gravswell.errors import UnsupportedError


class StagingFolder:
    """``.<root>.gravswell-staging``, on the repository's own file system and out of every server's sight.

    What lies in it says by its suffix what becomes of it when its writer dies: ``<id>.lock`` and the stage ``<id>``
    belong to whoever holds ``flock`` on the former; ``.file`` and ``.removed`` are rubbish; what ``.replaced`` holds
    goes back unless something has taken its place. Every method is called with the root's lock held, but for
    :func:`discard`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root.parent / f".{root.name}.gravswell-staging"

    def make(self) -> None:
        """Make it if it is not there. UnsupportedError where that would be another file system."""
        if self._root.stat().st_dev != self._root.parent.stat().st_dev:
            raise UnsupportedError(
                f"{self._root} is the root of a file system, and nothing can be staged beside it: "
                f"use a folder inside it as the repository"
            )
        self.path.mkdir(exist_ok=True)

    def drop(self) -> None:
        """Remove it if nothing is left in it."""
        with suppress(OSError):  # others still stage there
            self.path.rmdir()

    def begin(self) -> tuple[Path, IO[str]]:
        """A new stage, and the file whose lock says that its writer lives.

        The kernel drops that lock when the process ends in any way, so there is no pid to be reused and no clock to
        disagree on.
        """
        name = uuid.uuid4().hex
        while True:
            self.make()
            with suppress(
                FileNotFoundError
            ):  # a writer whose repository is gone holds no lock, and may have dropped it
                lock = (self.path / f"{name}.lock").open("x")
                break
        stage = self.path / name
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stage.mkdir()
        except BaseException:
            with lock:
                discard(Path(lock.name))
            raise
        return stage, lock

    def file(self) -> Path:
        """Where to write a small file before it is renamed into place."""
        self.make()
        return self._new("file")

    def grave(self) -> Path:
        """Where to rename what is to be removed."""
        self.make()
        return self._new("removed")

    def replace(self, staged: Path, target: Path) -> Path:
        """Put ``staged`` in the place of ``target``, a folder or link at the root, and return the grave of that.

        Two renames: whoever takes the root's lock after a writer that died between them puts the old one back.
        """
        aside = self._new("replaced")
        aside.mkdir()
        try:
            target.rename(aside / target.name)
            staged.rename(target)
        except BaseException:
            self._put_back(aside)
            raise
        return aside.rename(aside.with_suffix(".removed"))

    def recover(self) -> None:
        """End the replacement in which a writer died, before anything else is done under the lock."""
        with suppress(FileNotFoundError):
            for item in [item for item in self.path.iterdir() if item.suffix == ".replaced"]:
                self._put_back(item)

    def sweep(self) -> None:
        """Remove what dead writers left."""
        for item in self.path.iterdir():
            if item.suffix in (".file", ".removed"):
                discard(item)
            elif item.suffix == ".lock":
                with suppress(FileNotFoundError), item.open("r") as lock:  # its writer may be done with it just now
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue  # its writer lives
                    discard(item.with_suffix(""))
                    discard(item)

    def _new(self, suffix: str) -> Path:
        return self.path / f"{uuid.uuid4().hex}.{suffix}"

    def _put_back(self, aside: Path) -> None:
        for item in aside.iterdir():
            if not os.path.lexists(self._root / item.name):
                item.rename(self._root / item.name)
        discard(aside)


def discard(path: Path) -> None:
    """Remove a file, a link or a folder out of sight, as far as it goes; the next sweep takes what is left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
