"""Aliases: promotion by compare-and-swap, the way back, and what is remembered of both."""

import json
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import MOVES_OF_AN_ALIAS, MOVES_OF_AN_ENTRY, EntryState
from gravswell.quiver.stores import memory, open_store

from .versions import put_versions


@pytest.fixture
def entry(root: Path, entry: qv.Entry) -> qv.Entry:
    """``my-model`` with the versions 1 to 5."""
    put_versions(open_store(root), "my-model", range(1, 6))
    return entry


def remembered(root: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((root / ".my-model.gravswell.json").read_text())
    return found


def test_a_promotion_and_what_is_remembered_of_it(root: Path, entry: qv.Entry) -> None:
    assert entry.aliases == {}
    assert entry.history() == []
    move = entry.promote(3, "champion", reason="beats the old one by 2 %")
    assert move is not None
    assert (move.alias, move.version, move.previous, move.action) == ("champion", 3, None, "promote")
    assert move.by == memory.whoami()
    assert "@" in move.by
    moved = entry.promote(4, "champion", by="release-bot")
    assert moved is not None
    assert (moved.previous, moved.by) == (3, "release-bot")
    entry.promote(5, "canary")
    assert entry.aliases == RepositoryReader(root).aliases("my-model") == {"champion": 4, "canary": 5}
    assert entry.history("champion") == [move, moved]
    assert [m.version for m in entry.history()] == [3, 4, 5]


def test_a_promotion_that_is_made_already_writes_nothing(root: Path, entry: qv.Entry) -> None:
    entry.promote(3, "champion")
    before = remembered(root)
    assert entry.promote(3, "champion") is None
    assert entry.promote(3, "champion", expect=2) is None, "as the answer to a promotion that was tried again"
    assert remembered(root) == before


def test_compare_and_swap(entry: qv.Entry) -> None:
    entry.promote(3, "champion", expect=None, by="alice@laptop", reason="first")
    with pytest.raises(
        ConflictError, match=r"champion of my-model is at 3, and it should not exist: alice@laptop moved"
    ):
        entry.promote(4, "champion", expect=None)
    with pytest.raises(ConflictError, match=r"is at 3, and it should be at 2: .* on 20.* UTC \(first\)"):
        entry.promote(4, "champion", expect=2)
    with pytest.raises(ConflictError, match="does not exist, and it should be at 2; look"):
        entry.promote(4, "canary", expect=2)
    entry.promote(4, "champion", expect=3)
    for refused in (entry.rollback, entry.unalias):
        with pytest.raises(ConflictError, match="is at 4"):
            refused("champion", expect=3)
    entry.unalias("champion", expect=4, by="bob@desk")
    with pytest.raises(ConflictError, match="does not exist, and it should be at 4: bob@desk took it away"):
        entry.promote(5, "champion", expect=4)
    assert entry.aliases == {}


def test_what_is_promoted_exists_and_is_whole(root: Path, entry: qv.Entry) -> None:
    with pytest.raises(NotFoundError, match="no version 9; its versions: 5, 4, 3, 2, 1"):
        entry.promote(9, "champion")
    with pytest.raises(InvalidInputError, match="from 1 on"):
        entry.promote(0, "champion")
    (root / "my-model/3/model.onnx").write_bytes(b"model 4")
    with pytest.raises(VerificationError, match=r"model\.onnx has sha256"):
        entry.promote(3, "champion")
    (root / "my-model/3/model.onnx").unlink()
    with pytest.raises(VerificationError, match=r"model\.onnx is missing"):
        entry.promote(3, "champion")
    (root / "my-model/7").mkdir()
    (root / "my-model/7/model.onnx").write_bytes(b"theirs")
    with pytest.raises(VerificationError, match=r"no manifest, so nothing of it can be verified"):
        entry.promote(7, "champion")
    assert entry.aliases == {}
    seen: list[tuple[int, int]] = []
    entry.promote(2, "canary", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (7, 7)
    entry.promote(3, "champion", verify=False)
    entry.promote(7, "theirs", verify=False)
    assert entry.aliases == {"canary": 2, "champion": 3, "theirs": 7}
    with pytest.raises(NotFoundError, match="entries: my-model"):
        qv.Entry(open_store(root), "other").promote(1, "champion")


@pytest.mark.parametrize("alias", ["latest", "", "Champion", "1st", "a_b", "-a", "a b", "a/b", "ä", "a" * 64, "a\n"])
def test_what_is_no_alias(root: Path, entry: qv.Entry, alias: str) -> None:
    with pytest.raises(InvalidInputError, match="is no alias"):
        entry.promote(1, alias)
    assert not (root / ".my-model.gravswell.json").exists()
    entry.promote(1, "a" * 63)


@pytest.mark.parametrize("text", ["two\nlines", "x" * 501, "\x1b[31m"])
def test_texts_are_one_line(entry: qv.Entry, text: str) -> None:
    for given in ({"reason": text}, {"by": text}):
        with pytest.raises(InvalidInputError, match="one line"):
            entry.promote(1, "champion", **given)  # type: ignore[arg-type]


def test_rollbacks_undo_one_move_after_the_other(entry: qv.Entry) -> None:
    for number in (3, 4, 5):
        entry.promote(number, "champion")
    entry.promote(1, "canary")  # in between, and nothing to do with it
    first = entry.rollback("champion", reason="5 is slow")
    assert (first.version, first.previous, first.action, first.reason) == (4, 5, "rollback", "5 is slow")
    assert entry.rollback("champion").version == 3, "and not forth to the 5 that was wrong"
    with pytest.raises(NotFoundError, match="is at 3 and was nowhere before"):
        entry.rollback("champion")
    entry.promote(5, "champion")  # undoes the rollbacks
    assert entry.rollback("champion").version == 3
    entry.promote(4, "champion")
    assert entry.rollback("champion").version == 3, "what was rolled back is on no way back"
    assert [(m.action, m.version) for m in entry.history("champion")][-3:] == [
        ("rollback", 3),
        ("promote", 4),
        ("rollback", 3),
    ]
    assert entry.aliases == {"canary": 1, "champion": 3}


def test_a_rollback_over_several_moves(entry: qv.Entry) -> None:
    for number in (1, 2, 3, 2, 4, 5):
        entry.promote(number, "champion")
    with pytest.raises(NotFoundError, match="was at 1, 2, 3, 2, 4 before: it cannot go back 6 moves"):
        entry.rollback("champion", steps=6)
    with pytest.raises(NotFoundError, match="not at 7"):
        entry.rollback("champion", to=7)
    for wrong in ({"steps": 0}, {"steps": True}, {"steps": 2, "to": 3}):
        with pytest.raises(InvalidInputError, match="steps"):
            entry.rollback("champion", **wrong)  # type: ignore[arg-type]
    assert entry.rollback("champion", to=2).version == 2
    assert entry.rollback("champion").version == 3, "to leads to where it was last"
    assert entry.rollback("champion", steps=2).version == 1


def test_a_rollback_over_a_version_that_was_removed(root: Path, entry: qv.Entry) -> None:
    for number in (2, 3, 4):
        entry.promote(number, "champion")
    entry.remove_version(3)
    with pytest.raises(NotFoundError, match=r"champion cannot go back to 3: .* has no version 3.*; to=2 goes further"):
        entry.rollback("champion")
    assert entry.aliases == {"champion": 4}
    (root / "my-model/2/model.onnx").write_bytes(b"changed")
    with pytest.raises(VerificationError):
        entry.rollback("champion", to=2, verify=True)
    assert entry.rollback("champion", to=2).version == 2


def test_an_alias_is_taken_away(entry: qv.Entry) -> None:
    for number in (3, 4):
        entry.promote(number, "champion")
    gone = entry.unalias("champion", reason="renamed")
    assert (gone.version, gone.previous, gone.action) == (None, 4, "remove")
    assert entry.history("champion")[-1] == gone
    for refused in (entry.unalias, entry.rollback):
        with pytest.raises(NotFoundError, match=r"no alias 'champion' any more: .* from 4 on .*; its aliases: none"):
            refused("champion")
    with pytest.raises(NotFoundError, match=r"no alias 'canary'; its aliases: none"):
        entry.unalias("canary")
    with pytest.raises(NotFoundError, match=r"no alias 'canary'"):
        entry.history("canary")
    entry.promote(5, "champion")
    with pytest.raises(NotFoundError, match="nowhere before"):
        entry.rollback("champion")
    assert [m.version for m in entry.history("champion")] == [3, 4, None, 5]


def test_a_removed_entry_takes_its_way_back_along(repo: qv.ModelRepository, root: Path, entry: qv.Entry) -> None:
    entry.promote(3, "champion")
    entry.promote(4, "champion")
    entry = repo.add("my-model", force=True)
    put_versions(open_store(root), "my-model", [6])
    assert entry.aliases == {}
    entry.promote(6, "champion")
    with pytest.raises(NotFoundError, match="nowhere before"):
        entry.rollback("champion")
    assert [(m.version, m.reason) for m in entry.history()] == [
        (3, ""),
        (4, ""),
        (None, "the entry was removed"),
        (6, ""),
    ]


def test_aliases_of_a_file_that_was_edited_by_hand(root: Path, entry: qv.Entry) -> None:
    """Or by a release that keeps no history: the first move remembers where it came from."""
    (root / ".my-model.gravswell.json").write_text('{"aliases": {"champion": 1}, "fromTheFuture": [1]}')
    with pytest.raises(NotFoundError, match="nowhere before"):
        entry.rollback("champion")
    entry.promote(2, "champion")
    entry.promote(3, "champion")
    state = remembered(root)
    assert state["fromTheFuture"] == [1]
    (root / ".my-model.gravswell.json").write_text(json.dumps({**state, "aliases": {"champion": 4}}))
    assert [entry.rollback("champion").version for _ in range(3)] == [3, 2, 1]


def test_the_memory_is_bounded_for_each_alias(root: Path, entry: qv.Entry) -> None:
    """A busy alias crowds out its own past, and never another's way back."""
    entry.promote(1, "champion")
    entry.promote(2, "champion")
    for turn in range(MOVES_OF_AN_ALIAS + 10):
        entry.promote(4 + turn % 2, "canary", verify=False)
    assert len(entry.history("canary")) == MOVES_OF_AN_ALIAS
    assert entry.rollback("champion").version == 1
    state = EntryState.from_bytes((root / ".my-model.gravswell.json").read_bytes(), where="")
    last = state.history[-1]
    for number in range(MOVES_OF_AN_ENTRY):
        state = state.moved(last.model_copy(update={"alias": f"a{number}"}))
    assert len(state.history) == MOVES_OF_AN_ENTRY


def test_a_promotion_whose_answer_was_lost_is_made_once(
    root: Path, entry: qv.Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store took the write and the network dropped the answer: what is tried again meets its own work."""
    for number in (3, 4, 5):
        entry.promote(number, "champion")
    write, lost = type(entry._store).write, [True]

    def losing(*arguments: object) -> str:
        etag: str = write(*arguments)  # type: ignore[arg-type]
        if lost.pop():
            lost.append(False)
            raise ConflictError("the content is not what was read: it is ours")
        lost.append(False)
        return etag

    monkeypatch.setattr(type(entry._store), "write", losing)
    assert entry.rollback("champion").version == 4
    assert len(entry.history("champion")) == 4
    assert entry.aliases == {"champion": 4}


def test_a_hundred_aliases_are_enough(entry: qv.Entry) -> None:
    for number in range(100):
        entry.promote(1, f"a{number}", verify=False)
    with pytest.raises(InvalidInputError, match="100 aliases already"):
        entry.promote(1, "champion")
    entry.promote(2, "a7")
