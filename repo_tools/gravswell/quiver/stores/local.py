"""A repository in a folder of this machine, or of a mounted volume (POSIX)."""

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from gravswell.errors import (
    AccessDeniedError,
    ConflictError,
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from gravswell.quiver.layout import check_key
from gravswell.quiver.stores.base import Children, Content, Create, FileInfo, PutMode, Store, Update

_log = logging.getLogger(__name__)

LOCK_FILE = ".gravswell.lock"
"""At the root of a repository on a file system that cannot lock a folder."""


class LocalStore(Store):
    """A folder. Writers stage beside it, in ``.<folder>.gravswell-staging``, on the same file system.

    Nothing of ours is ever a folder inside it, because Triton takes every folder there for a model. Writers exclude
    each other by ``flock`` on the root; readers take no lock and need no right to write.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self._shown = root
        self._root = root.absolute()  # a later chdir must not move the repository
        if create:
            with _translated(str(root)):
                try:
                    self._root.mkdir(parents=True, exist_ok=True)
                except (FileExistsError, NotADirectoryError):
                    raise InvalidInputError(f"{root} is no repository: it is, or lies under, a file") from None
        elif not self._root.is_dir():
            if self._root.exists():
                raise InvalidInputError(f"{root} is no repository: it is a file")
            raise NotFoundError(f"there is no repository at {root}: `gravswell init {root}` makes one")
        self._staging_root = self._root.parent / f".{self._root.name}.gravswell-staging"
        self._lock = _FolderLock(self._root)

    @property
    def url(self) -> str:
        """``file:///absolute/path``."""
        return self._root.as_uri()

    def location(self, key: str) -> str:
        """The path, relative where the repository was named relatively."""
        return str(self._shown / key) if key else str(self._shown)

    # -- reading

    def children(self, folder: str = "") -> Children:
        """See :meth:`Store.children`."""
        folders: list[str] = []
        files: list[str] = []
        with _translated(self.location(folder)), os.scandir(self._path(folder)) as found:
            for item in found:
                (folders if item.is_dir() else files).append(item.name)
        return Children(tuple(sorted(folders)), tuple(sorted(files)))

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`Store.walk`. Links to folders are not followed."""
        top = self._path(folder)
        found: list[FileInfo] = []
        with _translated(self.location(folder)):
            if not top.is_dir():
                raise FileNotFoundError
            for parent, _, names in os.walk(top, onerror=_raise):
                for name in names:
                    path = Path(parent, name)
                    try:
                        info = path.stat()
                    except FileNotFoundError:
                        continue  # it went while we looked, or is a dangling link: either way not a file
                    modified = datetime.fromtimestamp(info.st_mtime, UTC)
                    found.append(FileInfo(path.relative_to(top).as_posix(), info.st_size, modified))
        return sorted(found, key=lambda f: f.path)

    def read(self, key: str) -> Content:
        """See :meth:`Store.read`."""
        with _translated(self.location(key)):
            data = self._path(key).read_bytes()
        return Content(data, _etag(data))

    @contextmanager
    def open(self, key: str) -> Iterator[BinaryIO]:
        """See :meth:`Store.open`."""
        with _translated(self.location(key)):
            stream = self._path(key).open("rb")
        with stream:
            yield stream

    # -- writing

    def write(self, key: str, data: bytes, mode: PutMode) -> str:
        """See :meth:`Store.write`."""
        target = self._path(key)
        with self.exclusive(), _translated(self.location(key)):
            if not isinstance(mode, Create | Update):
                pass
            elif isinstance(mode, Create):
                if target.exists():
                    raise ConflictError(f"{self.location(key)} exists already")
            elif not target.exists() or _etag(target.read_bytes()) != mode.etag:
                raise ConflictError(f"{self.location(key)} was changed by another writer: read it again and repeat")
            if not target.parent.is_dir():
                raise FileNotFoundError
            with self._staging_folder():
                temporary = self._staging_root / f"{uuid.uuid4().hex}.file"
                try:
                    with temporary.open("xb") as stream:
                        stream.write(data)
                        stream.flush()
                        os.fsync(stream.fileno())
                    temporary.replace(target)
                finally:
                    temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)
        return _etag(data)

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        with self.exclusive(), _translated(self.location(key)):
            self._path(key).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """See :meth:`Store.remove_folder`. It is renamed away first, so no reader sees half of it."""
        target = self._path(folder)
        with self.exclusive(), _translated(self.location(folder)):
            if target.is_symlink():
                target.unlink()  # what it points at is not ours
                return
            self._make_staging_root()
            grave = self._staging_root / f"{uuid.uuid4().hex}.removed"
            with suppress(FileNotFoundError):
                target.rename(grave)
                _sync_folder(target.parent)
        self._bury(grave)

    def remove_root(self) -> bool:
        """See :meth:`Store.remove_root`."""
        with _translated(str(self._shown)):
            try:
                if any(item.name != LOCK_FILE for item in self._root.iterdir()):
                    return False  # with its lock file: whoever waits for that would lock one that is no more
                (self._root / LOCK_FILE).unlink(missing_ok=True)
                self._root.rmdir()
            except FileNotFoundError:
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return False
        return True

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See :meth:`Store.staging`.

        A stage belongs to whoever holds ``flock`` on the ``.lock`` file beside it. The kernel drops that lock when its
        process ends in any way, so there is no pid to be reused and no clock to disagree on.
        """
        name = uuid.uuid4().hex
        with self.exclusive(), _translated(str(self._staging_root)):
            self._make_staging_root()
            self._sweep()
            lock = (self._staging_root / f"{name}.lock").open("x")
            fcntl.flock(lock, fcntl.LOCK_EX)
            stage = self._staging_root / name
            stage.mkdir()
        try:
            yield stage
        finally:
            try:
                with self.exclusive():  # no sweep may meet the half of it
                    self._unstage(stage, lock.name)
            except NotFoundError:  # the root went meanwhile, and every sweep needs it
                self._unstage(stage, lock.name)
            except GravswellError as error:  # must not hide why the export ended; the next sweep takes the stage
                _log.warning("%s stays until the next export: %s", stage, error)
            finally:
                lock.close()

    def publish(self, staged: Path, folder: str, *, replace: bool = False) -> None:
        """See :meth:`Store.publish`.

        One rename: POSIX refuses it when the target is a folder that is not empty. The files' bytes, then the folder's
        own entries are forced to disk before and after, so a power cut leaves all of it or nothing.
        """
        target = self._path(folder)
        with self.exclusive(), _translated(self.location(folder)):
            for parent, _, names in os.walk(staged, topdown=False):
                for name in names:
                    _sync_file(Path(parent, name))
                _sync_folder(Path(parent))
            if not target.parent.is_dir():
                raise FileNotFoundError
            grave: Path | None = None
            if os.path.lexists(target):  # POSIX would replace an empty folder, and refuse a dangling link
                if not replace:
                    raise ConflictError(f"{self.location(folder)} exists already")
                grave = self._staging_root / f"{uuid.uuid4().hex}.removed"
                target.rename(grave)
            try:
                staged.rename(target)
            except BaseException:
                if grave is not None:
                    grave.rename(target)
                raise
            _sync_folder(target.parent)
        if grave is not None:
            self._bury(grave)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """See :meth:`Store.exclusive`."""
        with _translated(str(self._shown)):
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    # -- inside

    def _unstage(self, stage: Path, lock: str) -> None:
        _discard(stage)  # gone if it was published
        _discard(Path(lock))
        self._drop_staging_root()

    def _bury(self, grave: Path) -> None:
        """Remove what is out of sight already; the next sweep takes what is left."""
        _discard(grave)
        self._drop_staging_root()

    def _path(self, key: str) -> Path:
        return self._root / check_key(key) if key else self._root

    def _make_staging_root(self) -> None:
        if self._root.stat().st_dev != self._root.parent.stat().st_dev:
            raise UnsupportedError(
                f"{self._shown} is the root of a file system, and nothing can be staged beside it: "
                f"use a folder inside it as the repository"
            )
        self._staging_root.mkdir(exist_ok=True)

    @contextmanager
    def _staging_folder(self) -> Iterator[None]:
        self._make_staging_root()
        try:
            yield
        finally:
            self._drop_staging_root()

    def _drop_staging_root(self) -> None:
        with suppress(OSError):  # others still stage there
            self._staging_root.rmdir()

    def _sweep(self) -> None:
        """Remove what dead writers left. Called with the root's lock held, under which every lock file is made."""
        for item in self._staging_root.iterdir():
            if item.suffix in (".file", ".removed"):  # made under the lock that we hold, and of no use after it
                _discard(item)
            elif item.suffix == ".lock":
                with item.open("r") as lock:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        continue  # its writer lives
                    shutil.rmtree(item.with_suffix(""), ignore_errors=True)
                    item.unlink()


class _FolderLock:
    """``flock`` on a folder, re-entrant within a thread and exclusive between threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = threading.RLock()
        self._depth = 0
        self._fd = -1

    def acquire(self) -> None:
        self._thread.acquire()
        try:
            if self._depth == 0:
                self._fd = self._locked()
            self._depth += 1
        except BaseException:
            self._thread.release()
            raise

    def _locked(self) -> int:
        try:
            return _flocked(os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY))
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
        # NFS locks only what is open for writing, which a folder cannot be: a hidden file in it then
        return _flocked(os.open(self._folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666))

    def release(self) -> None:
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)
        self._thread.release()


def _flocked(fd: int) -> int:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _discard(path: Path) -> None:
    """Remove a file, a link or a folder, as far as it goes."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _raise(error: OSError) -> None:
    raise error


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Turn the system's errors into ours, naming ``what``."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFoundError(f"{what} is not there") from None
    except PermissionError as error:
        raise AccessDeniedError(f"{what}: {error.strerror}; check its owner and mode") from None
    except OSError as error:
        way_out = (
            "free some space and repeat" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the file system"
        )
        raise UnavailableError(f"{what}: {error.strerror}; {way_out}") from error
