"""Aliases beside removals on stores that can lock nothing: no alias ever dangles, and no version in use goes."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, open_store

from ..versions import put_versions
from .emulators import Server


def test_a_version_s_life_after_its_export(bucket: str) -> None:
    repo = qv.ModelRepository(f"{bucket}/models")
    entry = repo.add("m")
    put_versions(open_store(repo.url), "m", range(1, 6))
    for number in (2, 3, 4):
        entry.promote(number, "champion", expect=number - 1 if number > 2 else None)
    with pytest.raises(ConflictError, match="champion of m is at 4, and it should be at 3"):
        entry.promote(5, "champion", expect=3)
    assert entry.rollback("champion").version == 3
    entry.pin("prod", [1])
    assert entry.prune(keep=1, grace="1h", dry_run=False).going == []
    assert entry.prune(keep=1, grace="0s", dry_run=False).going == [4]
    assert entry.versions == [1, 2, 3, 5]
    with pytest.raises(ConflictError, match="champion points at m/3"):
        entry.remove_version(3)
    entry.unalias("champion")
    entry.remove_version(3)
    assert [(m.action, m.version) for m in entry.history("champion")][-2:] == [("rollback", 3), ("remove", None)]
    repo.delete()


@pytest.fixture(params=["local", "amazon"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A folder; and S3, which names contents by their hash, so that one which changes back looks unchanged."""
    if request.param == "local":
        return str(tmp_path / "r")
    server: Server = request.getfixturevalue("amazon")
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    server.make_bucket(bucket)
    return f"{server.scheme}://{bucket}/r"


class Interrupted:
    """Does something else once, before call number ``at`` of an entry's store."""

    def __init__(self, entry: qv.Entry, at: int, other: Callable[[], object]) -> None:
        self._left, self._other = at, other
        self.happened = False
        store = entry._store
        target = store.objects if isinstance(store, BucketStore) else store
        names = ("get", "put", "list", "delete") if target is not store else ("read", "write", "children", "walk")
        for name in (*names, *(() if target is not store else ("remove_folder",))):
            setattr(target, name, self._before(getattr(target, name)))

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self._left -= 1
            if self._left < 0 and not self.happened:
                self.happened = True
                self._other()
            return call(*arguments)

        return called


def promote(entry: qv.Entry) -> bool:
    try:
        entry.promote(1, "champion", verify=False)
    except (ConflictError, NotFoundError):
        return False
    return True


def remove(entry: qv.Entry) -> bool:
    try:
        entry.remove_version(1)
    except ConflictError:
        return False
    return True


def prune(entry: qv.Entry) -> bool:
    return entry.prune(keep=1, grace="0s", dry_run=False).going == [1]


Act = Callable[[qv.Entry], bool]


@pytest.mark.parametrize(("act", "other"), [(promote, remove), (prune, promote)])
def test_of_a_promotion_and_a_removal_one_is_refused(url: str, act: Act, other: Act) -> None:
    """Whatever both do, one of them comes in before each call of the other to the store."""
    repo = qv.ModelRepository(url)
    won: set[tuple[bool, bool]] = set()
    for at in range(50):
        name = f"m{at}"
        repo.add(name)
        put_versions(open_store(url), name, [1, 2])
        done: list[bool] = []
        entry, second = (qv.Entry(open_store(url), name) for _ in range(2))
        interrupted = Interrupted(entry, at, lambda second=second, done=done: done.append(other(second)))
        first = act(entry)
        if not interrupted.happened:
            break
        won.add((first, *done))
        reader = RepositoryReader(url)
        named, left = reader.aliases(name), reader.numbers(name)
        promoted = first if act is promote else done[0]
        assert (named, left) == (({"champion": 1}, [2, 1]) if promoted else ({}, [2])), f"interrupted at call {at}"
    else:
        pytest.fail("it never ends")
    last = set() if act is promote else {(True, False)}  # a promotion ends with the write that makes it
    assert won == {(False, True), *last}
