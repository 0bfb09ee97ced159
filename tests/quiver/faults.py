"""What may be done to a repository, and what must hold whenever one of it ended in the middle; for the tests beside it.

An operation meets its end at a *step*: a request to a bucket, or a change of a disk. Which one is counted.
"""

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gravswell import quiver as qv
from gravswell.errors import NotFoundError
from gravswell.quiver.layout import CLAIM
from gravswell.quiver.manifest import MANIFEST, FileRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore
from gravswell.quiver.stores.base import Content, PutMode
from gravswell.quiver.stores.objects import ObjectInfo, Objects

T = TypeVar("T")
Versions = dict[str, tuple[int, ...]]
"""Of each entry."""
Aliases = dict[str, int]
"""Of ``m``."""

BEFORE: Versions = {"m": (1, 2), "empty": ()}
"""What :func:`prepare` makes."""


@dataclass(frozen=True)
class Operation:
    """Something that a user does, and what is there afterwards; ``between`` is what may be there until it is done."""

    act: Callable[[qv.ModelRepository, Path], object]
    after: Versions
    between: Sequence[Versions] = ()
    aliases: Aliases = field(default_factory=dict)
    """Afterwards; before there are none."""

    def allows(self, found: Versions, aliases: Aliases) -> bool:
        """Whether this may be found when it ended anywhere."""
        return found in (BEFORE, self.after, *self.between) and aliases in ({}, self.aliases)


OPERATIONS = {
    "export": Operation(lambda repo, model: repo.models["m"].export_version(model), {**BEFORE, "m": (1, 2, 3)}),
    "export a first": Operation(
        lambda repo, model: repo.models["empty"].export_version(model), {**BEFORE, "empty": (1,)}
    ),
    "add": Operation(lambda repo, _: repo.add("new"), {**BEFORE, "new": ()}),
    "replace": Operation(
        lambda repo, _: repo.add("m", force=True), {**BEFORE, "m": ()}, between=[{**BEFORE, "m": (2,)}]
    ),
    "remove": Operation(lambda repo, _: repo.remove("m"), {"empty": ()}, between=[{**BEFORE, "m": (2,)}]),
    "remove a version": Operation(lambda repo, _: repo.models["m"].remove_version(1), {**BEFORE, "m": (2,)}),
    "remove the newest": Operation(lambda repo, _: repo.models["m"].remove_version(2), {**BEFORE, "m": (1,)}),
    "promote": Operation(lambda repo, _: repo.models["m"].promote(1, "champion"), BEFORE, aliases={"champion": 1}),
    "prune": Operation(
        lambda repo, _: repo.models["m"].prune(1, grace=timedelta(0), dry_run=False), {**BEFORE, "m": (2,)}
    ),
    "edit": Operation(lambda repo, _: repo.models["m"].config.add_instance_group(count=3), BEFORE),
    "delete": Operation(
        lambda repo, _: repo.delete(),
        {},
        between=[{"m": (1, 2)}, {"m": (2,)}, {"m": ()}, {**BEFORE, "m": (2,)}],  # entry by entry
    ),
}


def prepare(url: str | Path, model: Path) -> None:
    """Make the repository that the operations are done to."""
    repo = qv.ModelRepository(url)
    repo.add("empty")
    entry = repo.add("m")
    for _ in BEFORE["m"]:
        entry.export_version(model)


def found_in(url: str | Path) -> Versions:
    """What a reader finds; empty where there is no repository. Fails unless every version is whole."""
    try:
        reader = RepositoryReader(url)
        found = {name: tuple(info.number for info in reversed(reader.versions(name))) for name in reader.entries()}
        qv.ModelRepository.open(url)
    except NotFoundError:
        return {}
    for name, numbers in found.items():
        for number in numbers:
            _check_whole(reader, name, number)
        assert set(reader.aliases(name).values()) <= set(numbers), f"an alias of {name} dangles"
    return found


def aliases_in(url: str | Path) -> Aliases:
    """The aliases of ``m`` that a reader finds; none where it is not there."""
    try:
        return RepositoryReader(url).aliases("m")
    except NotFoundError:
        return {}


def _check_whole(reader: RepositoryReader, name: str, number: int) -> None:
    """As ``verify_version`` does, but in memory, and without running the model: it is what was proved."""
    manifest, _ = reader.manifest(name, number)
    paths = {f.path for f in reader.store.walk(f"{name}/{number}")} - {CLAIM}
    assert paths == {*manifest.files, MANIFEST}, f"{name}/{number} holds {paths}"
    for path, record in manifest.files.items():
        data = reader.store.read(f"{name}/{number}/{path}").data
        assert FileRecord(sha256=hashlib.sha256(data).hexdigest(), size=len(data)) == record, f"{name}/{number}/{path}"


def go_on(url: str | Path, model: Path, seen: Versions, *, exports: int = 2) -> None:
    """Work in the repository as its next user does: new numbers, and so many exports into an entry clear it of remains.

    ``seen`` are the versions that were visible at any time before. In a bucket the first export closes the number of a
    dead one, and only a later one takes away what keeps it closed.
    """
    repo = qv.ModelRepository(url)
    made: dict[str, set[int]] = {}
    for name in BEFORE:
        entry = repo.models.get(name) or repo.add(name)
        if RepositoryReader(url).config(name) is None:
            with pytest.raises(NotFoundError, match="remove it again"):  # it was to be removed
                entry.export_version(model)
            repo.remove(name)
            entry = repo.add(name)
        numbers = [int(entry.export_version(model).split("/")[-2]) for _ in range(exports)]
        assert numbers[0] > max(seen.get(name, ()), default=0), f"{name}/{numbers[0]} was there before"
        assert list(entry.inputs) == ["x"]
        made[name] = set(numbers)
    found = found_in(url)
    assert all(numbers <= set(found[name]) for name, numbers in made.items()), found


def remains(url: str | Path, keys: Sequence[str]) -> list[str]:
    """Those of ``keys``, relative to the repository, that belong to nothing a reader finds in it."""
    reader = RepositoryReader(url)
    known: set[str] = set()
    for name in reader.entries():
        known |= {f".{name}.gravswell.json", f"{name}/config.pbtxt"}
        for info in reader.versions(name):
            manifest, _ = reader.manifest(name, info.number)
            known |= {f"{name}/{info.number}/{path}" for path in (*manifest.files, ".manifest.json")}
    return sorted(set(keys) - known - {".new.gravswell.json"})


class Killed(BaseException):
    """In place of SIGKILL, where nothing that runs after it can do anything."""


@dataclass
class Trap:
    """Counts steps, and at the ``at``-th raises ``error``: in its place or ``after`` it, and ``for_good`` or once."""

    at: int
    error: Callable[[], BaseException]
    after: bool = False
    for_good: bool = True
    steps: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def sprung(self) -> bool:
        """Whether it came to that."""
        return self.steps > self.at

    def step(self, work: Callable[[], T]) -> T:
        """Do the work of one step, unless this is its end."""
        with self._lock:
            step = self.steps
            self.steps += 1
        if step < self.at or (step > self.at and not self.for_good):
            return work()
        if step == self.at and self.after:
            work()
        raise self.error()


class Disk:
    """The changes of a folder, each a step: a file opened to be written, anything made, renamed or removed."""

    MAKING = frozenset({"open", "os.mkdir", "os.rename"})
    ALL = MAKING | {"os.remove", "os.rmdir"}

    def __init__(self) -> None:
        self._trap: Trap | None = None
        self._folder = ""
        self._changes = self.ALL
        sys.addaudithook(self._see)  # which can never be taken off again

    @contextmanager
    def trapped(self, folder: Path, trap: Trap, changes: frozenset[str] = ALL) -> Iterator[None]:
        """Let every one of these ``changes`` below ``folder`` be a step of ``trap``."""
        self._folder, self._changes, self._trap = str(folder), changes, trap
        try:
            yield
        finally:
            self._trap = None

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        trap = self._trap
        if trap is None or event not in self._changes or not str(arguments[0]).startswith(self._folder):
            return
        if event != "open" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            trap.step(lambda: None)


DISK = Disk()


class TrappedObjects(Objects):
    """A bucket each of whose requests is a step; as many for a deletion as there are objects."""

    def __init__(self, objects: Objects, step: Callable[[Callable[[], Any]], Any]) -> None:
        self._objects = objects
        self._step = step
        self.url, self.way_to_make, self.way_to_log_in = objects.url, objects.way_to_make, objects.way_to_log_in

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        yield self._step(lambda: self._objects.list(prefix))  # which a repository of these tests has one page of

    def get(self, key: str) -> Content:
        content: Content = self._step(lambda: self._objects.get(key))
        return content

    def stat(self, key: str) -> ObjectInfo:
        info: ObjectInfo = self._step(lambda: self._objects.stat(key))
        return info

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        data: bytes = self._step(lambda: self._objects.get_range(key, start, stop, etag))
        return data

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        etag: str = self._step(lambda: self._objects._put(key, data, mode, stamp))
        return etag

    def put_file(self, key: str, path: Path, sent: Callable[[int], object] = lambda _: None, stamp: str = "") -> None:
        self._step(lambda: self._objects.put_file(key, path, sent, stamp))

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:  # in their order, so that a step is the same in every run
            self._delete(key)

    def delete_exact(self, key: str, etag: str) -> None:
        self._step(lambda: self._objects.delete_exact(key, etag))

    def _delete(self, key: str) -> None:
        self._step(lambda: self._objects.delete([key]))


def trapped(repo: qv.ModelRepository, step: Callable[[Callable[[], Any]], Any]) -> None:
    """Let every request that this handle on a repository in a bucket makes from now on be a step."""
    store = repo._store
    assert isinstance(store, BucketStore)
    store.objects = TrappedObjects(store.objects, step)
