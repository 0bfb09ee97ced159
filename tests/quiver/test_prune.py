"""Pruning: what goes, what stays and why, and that nothing goes which somebody may name."""

import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Pin
from gravswell.quiver.stores import memory, open_store
from gravswell.quiver.stores.local import LocalStore

from .versions import put_versions

DAYS = timedelta(days=1)
OLD = datetime.now(UTC) - 100 * DAYS


def age(root: Path, number: int, days: float) -> None:
    """Let the version have appeared so long ago."""
    moment = time.time() - days * 86_400
    os.utime(root / f"my-model/{number}/.manifest.json", (moment, moment))


@pytest.fixture
def entry(root: Path, entry: qv.Entry) -> qv.Entry:
    """``my-model`` with versions 1 to 8, which were made and appeared 8 days ago and more: 1 is 80 days old."""
    for number in range(1, 9):
        put_versions(open_store(root), "my-model", [number], created=datetime.now(UTC) - (9 - number) * 10 * DAYS)
        age(root, number, (9 - number) * 10)
    return entry


def reasons(pruning: qv.Pruning) -> dict[int, str]:
    return {verdict.version: "; ".join(verdict.reasons) for verdict in pruning.verdicts}


def test_every_version_has_its_reason(root: Path, entry: qv.Entry) -> None:
    for number in (1, 3):
        entry.promote(number, "champion")
    entry.promote(3, "canary")
    entry.pin("prod", [2])
    shutil.copytree(root / "my-model/4", root / "my-model/9", ignore=shutil.ignore_patterns(".*"))
    (root / "my-model/5/.manifest.json").write_text("{")
    digest = entry.version(6).digest
    assert digest is not None
    pruning = entry.prune(keep=1, served={digest: ["prod/web", "prod/batch"]})
    assert reasons(pruning) == {
        9: "the newest; not ours: something else wrote it",
        8: "the newest of ours; among the newest 1",
        7: "beyond the newest 1",
        6: "served by prod/web, prod/batch",
        5: "its manifest is damaged: look at it with verify",
        4: "beyond the newest 1",
        3: "canary; champion",
        2: "served by prod",
        1: "rollback of champion goes there",
    }
    assert pruning.dry_run
    assert pruning.going == [4, 7]
    assert pruning.freed == sum(entry.version(number).size for number in (4, 7))
    assert entry.versions == [1, 2, 3, 4, 5, 6, 7, 8, 9], "it was only asked"


def test_what_goes_is_gone_and_its_numbers_with_it(root: Path, entry: qv.Entry) -> None:
    removed: list[int] = []
    pruning = entry.prune(keep=3, dry_run=False, on_removed=removed.append)
    assert removed == pruning.going == [1, 2, 3, 4, 5]
    assert entry.versions == [6, 7, 8]
    assert not entry.prune(keep=3, dry_run=False).going
    state = EntryState.from_bytes((root / ".my-model.gravswell.json").read_bytes(), where="")
    assert state.removing == ()
    assert list(root.parent.iterdir()) == [root]


@pytest.mark.parametrize(
    ("keep", "older_than", "stays"),
    [
        (None, "35d", [6, 7, 8]),
        (None, timedelta(days=35), [6, 7, 8]),
        (2, "35d", [6, 7, 8]),
        (5, "35d", [4, 5, 6, 7, 8]),
        (1, "1h30m", [8]),
        (None, "0s", [8]),
        (20, None, [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_both_limits_must_be_passed(
    entry: qv.Entry, keep: int | None, older_than: str | timedelta | None, stays: list[int]
) -> None:
    entry.prune(keep, older_than, dry_run=False)
    assert entry.versions == stays


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing says what may go"),
        ({"keep": 0}, "from 1 on"),
        ({"keep": True}, "from 1 on"),
        ({"older_than": "3w"}, "write 30d, 12h or 1h30m"),
        ({"older_than": ""}, "write 30d"),
        ({"keep": 1, "grace": timedelta(days=-1)}, "negative"),
    ],
)
def test_what_cannot_be_meant(entry: qv.Entry, given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        entry.prune(**given, dry_run=False)  # type: ignore[arg-type]
    assert len(entry.versions) == 8


def test_a_grace_time_for_what_came_just_now(root: Path, entry: qv.Entry) -> None:
    """By when it appeared here: what was copied from elsewhere brings its old date along."""
    put_versions(open_store(root), "my-model", [9, 10], created=OLD)
    assert reasons(entry.prune(keep=1))[9] == "younger than 1d"
    assert reasons(entry.prune(keep=1, older_than="20d"))[9] == "younger than 1d"
    assert reasons(entry.prune(keep=1, older_than="20d"))[8] == "younger than 20d"
    age(root, 9, 2)
    assert reasons(entry.prune(keep=1))[9] == "beyond the newest 1"
    assert reasons(entry.prune(keep=1, grace="7d"))[9] == "younger than 7d"


def test_only_what_was_agreed_to(entry: qv.Entry) -> None:
    shown = entry.prune(keep=6).going
    assert shown == [1, 2]
    pruning = entry.prune(keep=1, only=shown, dry_run=False)
    assert pruning.going == shown
    assert reasons(pruning)[3] == "nobody agreed to its removal"
    assert entry.versions == [3, 4, 5, 6, 7, 8]


def test_pins_hold_for_a_while(root: Path, entry: qv.Entry) -> None:
    entry.pin("prod", [1, 2])
    entry.pin("dev", [2])
    with pytest.raises(ConflictError, match="dev, prod serves my-model/2"):
        entry.remove_version(2)
    entry.remove_version(2, even_served=True)
    file = root / ".my-model.gravswell.json"
    written = file.read_bytes()
    entry.pin("prod", [2, 1])
    assert file.read_bytes() == written, "no news"
    entry.pin("dev", [])
    state = EntryState.from_bytes(file.read_bytes(), where="")
    assert set(state.pins) == {"prod"}
    pin = state.pins["prod"]

    def seen(ago: timedelta) -> None:
        old = state.model_copy(update={"pins": {"prod": Pin(versions=pin.versions, seen=pin.seen - ago)}})
        file.write_bytes(old.to_bytes())

    seen(6 * DAYS)
    assert reasons(entry.prune(keep=1))[1] == "served by prod"
    assert reasons(entry.prune(keep=1, pins_within="5d"))[1] == "beyond the newest 1"
    seen(timedelta(hours=2))
    entry.pin("prod", [1, 2])
    assert EntryState.from_bytes(file.read_bytes(), where="").pins["prod"].seen > pin.seen - timedelta(hours=1)
    seen(8 * DAYS)
    entry.remove_version(1)


def test_a_removal_that_died_is_completed(
    root: Path, entry: qv.Entry, affine: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, left = LocalStore.remove_folder, [2]

    def dying(store: LocalStore, folder: str) -> None:
        if not left[0]:
            raise UnavailableError("the network is gone")
        left[0] -= 1
        remove(store, folder)

    monkeypatch.setattr(LocalStore, "remove_folder", dying)
    with pytest.raises(UnavailableError):
        entry.prune(keep=4, dry_run=False)
    assert entry.versions == [3, 4, 5, 6, 7, 8]
    for number in (3, 4):
        with pytest.raises(ConflictError, match=f"my-model/{number} is being removed"):
            entry.promote(number, "champion")
    assert reasons(entry.prune(keep=8))[3] == "its removal was begun"
    monkeypatch.undo()
    entry.remove_version(3)
    assert entry.prune(keep=8, dry_run=False).going == [4]
    assert entry.versions == [5, 6, 7, 8]
    with pytest.raises(NotFoundError, match="no version 4"):
        entry.promote(4, "champion")


def test_a_promotion_beside_a_prune(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever is written first counts: at every moment of a prune at which another writer can come in."""
    other = RepositoryReader(entry._store)
    write, outcomes = LocalStore.write, []

    def interrupted(store: LocalStore, key: str, data: bytes, mode: object) -> str:
        monkeypatch.setattr(LocalStore, "write", write)
        entry.promote(1, "champion", by="somebody")
        monkeypatch.setattr(LocalStore, "write", interrupted)
        outcomes.append(entry.aliases)
        return write(store, key, data, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "write", interrupted)
    pruning = entry.prune(keep=7, dry_run=False)
    monkeypatch.undo()
    assert outcomes[0] == {"champion": 1}, "it came before the decision was written"
    assert (pruning.going, reasons(pruning)[1]) == ([], "champion")
    assert other.version("my-model", entry.aliases["champion"]).number == 1


def test_a_promotion_across_a_whole_removal(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked before the removal and writes after it, when what is remembered says the same again as before."""
    entry.remove_version(8)
    read = memory.read_state
    looked: list[EntryState] = []

    def slow(store: LocalStore, name: str) -> object:
        found = read(store, name)
        if not looked:
            looked.append(found[0])
            monkeypatch.setattr(RepositoryReader, "version", absent_minded)
        return found

    version = RepositoryReader.version

    def absent_minded(reader: RepositoryReader, name: str, number: int) -> object:
        info = version(reader, name, number)
        monkeypatch.setattr(RepositoryReader, "version", version)
        entry.remove_version(number)
        return info

    monkeypatch.setattr(memory, "read_state", slow)
    with pytest.raises(NotFoundError, match="no version 3"):
        entry.promote(3, "champion", verify=False)
    after = read(entry._store, "my-model")[0]
    assert after.model_copy(update={"revision": 0}) == looked[0].model_copy(update={"revision": 0})
    assert entry.aliases == {}


def test_the_newest_that_stays_is_looked_up_again(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody removes the newest version while the others are pruned: one is left."""
    write = LocalStore.write

    def interrupted(store: LocalStore, key: str, data: bytes, mode: object) -> str:
        monkeypatch.setattr(LocalStore, "write", write)
        entry.remove_version(8)
        return write(store, key, data, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalStore, "write", interrupted)
    entry.prune(keep=1, dry_run=False)
    assert entry.versions == [7]


def test_a_removal_beside_a_prune(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version goes while its age is asked for."""
    versions = RepositoryReader.versions

    def listed(reader: RepositoryReader, name: str) -> object:
        found = versions(reader, name)
        monkeypatch.setattr(RepositoryReader, "versions", versions)
        entry.remove_version(1)
        return found

    monkeypatch.setattr(RepositoryReader, "versions", listed)
    assert entry.prune(keep=6, dry_run=False).going == [2]
    assert entry.versions == [3, 4, 5, 6, 7, 8]
