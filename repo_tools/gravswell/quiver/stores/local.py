"""A repository in a folder of this machine, or of a mounted volume (POSIX)."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
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
)
from gravswell.quiver.disk import sync_folder, told
from gravswell.quiver.layout import check_key
from gravswell.quiver.stores.base import Children, Content, Create, FileInfo, PutMode, Store, Update
from gravswell.quiver.stores.locking import LOCK_FILE, FolderLock
from gravswell.quiver.stores.progress import Progress
from gravswell.quiver.stores.staging import StagingFolder, discard


class LocalStore(Store):
    """A folder. Writers stage beside it, in ``.<folder>.gravswell-staging``, on the same file system.

    Nothing of ours is ever a folder inside it, because Triton takes every folder there for a model. Writers exclude
    each other by ``flock`` on the root; readers take no lock and need no right to write.
    """

    def __init__(self, root: Path, *, create: bool = False) -> None:
        self._shown = root
        self._root = root.absolute()  # a later chdir must not move the repository
        if create:
            self._make_root()
        else:
            self._check_root()
        self._staging = StagingFolder(self._root)
        self._lock = FolderLock(self._root)

    @property
    def url(self) -> str:
        """``file:///absolute/path``."""
        return self._root.as_uri()

    @property
    def path(self) -> Path:
        """The folder."""
        return self._root

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
                (folders if _is_folder(item) else files).append(item.name)
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

    def has_file(self, key: str) -> bool:
        """See :meth:`Store.has_file`. What we may not look at is not there."""
        return os.path.isfile(f"{self._root}/{check_key(key)}")  # noqa: PTH113 - fast, and raises for no error

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
            temporary = self._staging.file()
            try:
                with temporary.open("xb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                temporary.replace(target)
            finally:
                discard(temporary)
            sync_folder(target.parent)
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
            grave = self._staging.grave()
            with suppress(FileNotFoundError):
                target.rename(grave)
                sync_folder(target.parent)
        self._tidy(grave)

    def remove_root(self) -> bool:
        """See :meth:`Store.remove_root`."""
        try:
            with self.exclusive(), _translated(str(self._shown)):
                if any(item.name != LOCK_FILE for item in self._root.iterdir()):
                    return False  # with its lock file: whoever waits for that would lock one that is no more
                (self._root / LOCK_FILE).unlink(missing_ok=True)
                try:
                    self._root.rmdir()
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    return False
        except NotFoundError:
            return True
        return True

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """See :meth:`Store.staging`."""
        with self.exclusive(), _translated(str(self._staging.path)):
            stage, lock = self._staging.begin()
            self._staging.sweep()
        with lock:
            try:
                yield stage
            finally:
                self._tidy(stage, Path(lock.name))  # the stage is gone if it was published

    def publish(
        self,
        staged: Path,
        folder: str,
        *,
        replace: bool = False,
        label: str = "",  # noqa: ARG002 - nobody sees it on its way
        copy_of: str = "",  # noqa: ARG002 - nothing is left of one that was interrupted
        check: Callable[[], None] = lambda: None,
        progress: Progress | None = None,  # noqa: ARG002 - a rename has no parts
    ) -> None:
        """See :meth:`Store.publish`.

        One rename: POSIX refuses it when the target is a folder that is not empty. The files' bytes, then the folder's
        own entries are forced to disk before and after, so a power cut leaves all of it or nothing.
        """
        target = self._path(folder)
        with self.exclusive(), _translated(self.location(folder)):
            for parent, _, names in os.walk(staged, topdown=False):
                for name in names:
                    _sync_file(Path(parent, name))
                sync_folder(Path(parent))
            if not target.parent.is_dir():
                raise FileNotFoundError
            grave: Path | None = None
            check()
            if not os.path.lexists(target):  # POSIX would replace an empty folder, and refuse a dangling link
                staged.rename(target)
            elif replace:
                grave = self._staging.replace(staged, target)
            else:
                raise ConflictError(f"{self.location(folder)} exists already")
            sync_folder(target.parent)
        if grave is not None:
            self._tidy(grave)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """See :meth:`Store.exclusive`."""
        with _translated(str(self._shown)):
            outermost = self._lock.acquire()
        try:
            if outermost:
                with _translated(str(self._staging.path)):
                    self._staging.recover()
            yield
        finally:
            try:
                if outermost:
                    self._staging.drop()
            finally:
                self._lock.release()

    # -- inside

    # Another process may make the root, or remove it, at any moment: each of these looks once and goes by that.

    def _make_root(self) -> None:
        refused = f"{self._shown} is no repository: it is, or lies under, a file"
        with _translated(str(self._shown)):
            while True:
                try:
                    self._root.mkdir(parents=True, exist_ok=True)
                except NotADirectoryError:
                    raise InvalidInputError(refused) from None
                except FileExistsError:
                    if self._root.is_dir() or not os.path.lexists(self._root):
                        continue  # it was a folder, and went, or is one again
                    raise InvalidInputError(refused) from None
                return

    def _check_root(self) -> None:
        with _translated(str(self._shown)):
            try:
                mode = self._root.stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(
                    f"there is no repository at {self._shown}: `gravswell init {self._shown}` makes one"
                ) from None
        if not stat.S_ISDIR(mode):
            raise InvalidInputError(f"{self._shown} is no repository: it is a file")

    def _tidy(self, *rubbish: Path) -> None:
        """Remove what is out of sight already. Hides no error, and fails for none: the next writer does the rest."""
        for path in rubbish:
            discard(path)
        try:
            with self.exclusive():  # so that nobody is about to stage there; leaving it drops the folder
                pass
        except NotFoundError:
            self._staging.drop()  # the root went meanwhile, and with it all who need the folder
        except GravswellError:
            pass

    def _path(self, key: str) -> Path:
        return self._root / check_key(key) if key else self._root


def _is_folder(item: os.DirEntry[str]) -> bool:
    """A link that leads to itself, or where we may not look, is none, and in the way of nothing beside it."""
    try:
        return item.is_dir()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            return False
        raise


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _raise(error: OSError) -> None:
    raise error


def _sync_file(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


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
        if error.errno == errno.ELOOP:  # a fault of this one thing, and none of the store
            raise InvalidInputError(f"{what} is, or lies under, a link that leads to itself: remove it") from None
        if error.errno == errno.ENAMETOOLONG:
            raise NotFoundError(f"{what} is not there: no name is that long on this file system") from None
        raise UnavailableError(f"{what}: {told(error)}") from error
