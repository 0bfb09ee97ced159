"""The one interface that every kind of store implements, and the conditional write as a type.

A store holds files under keys (``my-model/1/model.onnx``). It knows nothing of models: which number a version gets,
which file makes it exist and what is in it are decided above. What it guarantees:

- a reader sees a file whole, in its old or in its new form, never a mixture;
- :class:`Create` and :class:`Update` let exactly one of several concurrent writers win;
- :meth:`Store.publish` makes a folder appear complete or not at all, and never over another one.

A folder of a disk does the last by a rename, and can lock; a bucket has neither, and does it by conditional writes
alone (:mod:`gravswell.quiver.stores.bucket`). What must be right on every store is therefore written so that it is
right without :meth:`Store.exclusive`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from gravswell.quiver.stores.progress import Progress

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Create:
    """Write only if nothing is there."""


@dataclass(frozen=True, slots=True)
class Update:
    """Write only if what is there is still what was read."""

    etag: str


@dataclass(frozen=True, slots=True)
class Overwrite:
    """Write whatever is there."""


PutMode = Create | Update | Overwrite


@dataclass(frozen=True, slots=True)
class Content:
    """A small file as it was read. ``etag`` names exactly these bytes to :class:`Update`."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file: its path relative to the listed folder, its size in bytes, its last modification."""

    path: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class Children:
    """What lies directly in a folder, as sorted names."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upload:
    """A version that is being uploaded, or whose writer died: its number, who writes it, and the writer's label."""

    number: int
    writer: str
    label: str


class View(Protocol):
    """What lay in a store at one moment, for several questions in a row. See :meth:`Store.view`."""

    def children(self, folder: str = "") -> Children:
        """See :meth:`Store.children`."""

    def walk(self, folder: str) -> list[FileInfo]:
        """See :meth:`Store.walk`."""

    def has_file(self, key: str) -> bool:
        """See :meth:`Store.has_file`."""


class Store(ABC):
    """Files under keys, at one root.

    Every method raises :class:`~gravswell.errors.AccessDeniedError` or
    :class:`~gravswell.errors.UnavailableError` when the store refuses or does not answer.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """The root's URL; :func:`~gravswell.quiver.stores.open_store` takes it back."""

    @property
    def path(self) -> Path | None:
        """The root's own folder, where it is one on this machine; None for a bucket."""
        return None

    @abstractmethod
    def location(self, key: str) -> str:
        """The path or URL by which a user finds ``key``."""

    @abstractmethod
    def children(self, folder: str = "") -> Children:
        """What lies directly in ``folder`` (the root by default). NotFoundError if there is no such folder."""

    @abstractmethod
    def walk(self, folder: str) -> list[FileInfo]:
        """Every file under ``folder``, hidden ones too, sorted by path. NotFoundError if there is no such folder."""

    @abstractmethod
    def has_file(self, key: str) -> bool:
        """Whether there is a file at ``key``, without a look at what lies beside it."""

    def view(self, folder: str = "") -> View:  # noqa: ARG002 - a disk is asked when it is asked
        """What lies in ``folder`` and below it, to be asked several things; nothing is known of the rest.

        A bucket lists it once, a thousand objects a call. Not to be kept: it grows stale.
        """
        return self

    def parts(self) -> Iterator[View]:
        """What lies in the store, a part at a time, for whoever looks for something and may stop there.

        A bucket is asked for the next thousand objects when that is taken; a folder may be in two parts.
        """
        yield self

    def in_parallel(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """What ``work`` makes of each item, in their order; several at a time on a store behind a network."""
        return [work(item) for item in items]

    @abstractmethod
    def read(self, key: str) -> Content:
        """A small file, whole. NotFoundError if it is not there."""

    @abstractmethod
    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A file of any size as a stream. NotFoundError if it is not there."""

    @abstractmethod
    def write(self, key: str, data: bytes, mode: PutMode) -> str:
        """Write a small file and return its etag. ConflictError if the condition of ``mode`` does not hold.

        The folder of ``key`` must exist, where the store knows folders: NotFoundError otherwise.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove a file; one that is not there counts as removed."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Remove a folder and all in it; one that is not there counts as removed.

        A version vanishes for readers at once. An entry does where the store can rename; on a bucket its versions
        vanish one by one, the newest last, and no export that is under way can bring it back.
        """

    @abstractmethod
    def remove_root(self) -> bool:
        """Remove the root if nothing is left in it, and say whether it is gone. A bucket is never removed."""

    @abstractmethod
    def staging(self) -> AbstractContextManager[Path]:
        """An empty local folder in which a version is built; gone afterwards unless it was published.

        Entering also cleans up what writers that died have left on this machine; what they left in a bucket,
        :meth:`publish` does.
        """

    @abstractmethod
    def publish(
        self,
        staged: Path,
        folder: str,
        *,
        replace: bool = False,
        label: str = "",
        copy_of: str = "",
        check: Callable[[], None] = lambda: None,
        progress: Progress | None = None,
    ) -> None:
        """Make the staged folder appear as ``folder``. ConflictError if something is there already.

        With ``replace`` it takes the place of what is there, which stays if that fails; on a bucket, as far as it was
        not yet replaced. There a folder of several files needs a ``.manifest.json``, which is what makes it appear.

        :param label: what :meth:`uploads` shows of a version until it appears.
        :param copy_of: the version's digest, where it is a copy of one that has this number elsewhere: a bucket keeps
            the number of a copy that was interrupted, for the next copy of the same to go on with.
        :param check: called for a version once its number is taken, and before it can appear: whoever takes another
            number later sees this one, whoever took one earlier is seen. What it raises ends the publication, and
            frees the number.
        :param progress: told what of it a bucket has; a rename has no parts.
        """

    def uploads(self, entry: str) -> list[Upload]:  # noqa: ARG002 - for those that have them
        """The versions of ``entry`` that are on their way, by number; none where one appears by a rename."""
        return []

    @abstractmethod
    def exclusive(self) -> AbstractContextManager[None]:
        """Keep out other writers of this repository, for a few quick writes that belong together. Re-entrant.

        A bucket cannot, and does not: there it is for conditional writes to find out that another writer was faster.
        """
