"""Two writers of one repository in a bucket: between any two requests of the one the whole of the other.

What they leave is what they would have left one after the other, or one of them is told that it lost.
"""

import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError
from gravswell.quiver import publication, stores
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import Create, open_store

from .faults import found_in, trapped
from .stores.memory_objects import Memory, MemoryObjects

T = TypeVar("T")
Affine = Callable[..., Any]
Act = Callable[[qv.ModelRepository], object]
URL = "gs://memory/r"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """The bucket behind :data:`URL`. Its etags are hashes, which say least: what changed back passes for unchanged."""
    memory = Memory(hashed=True)
    monkeypatch.setattr(stores, "_objects", lambda *_: MemoryObjects(memory))
    monkeypatch.setattr(publication, "_PATIENCE", timedelta(0))  # the other is not going to move while we wait
    return memory


class Outcome:
    """How each of the two ended: None, or the error that told it that it lost."""

    def __init__(self, at: int, first: GravswellError | None, second: GravswellError | None) -> None:
        self.at, self.first, self.second = at, first, second

    def __repr__(self) -> str:
        return f"{self.first!r} and {self.second!r}, at {self.at}"


def interleaved(memory: Memory, first: Act, second: Act, check: Callable[[Outcome], None]) -> None:
    """Do ``second`` before each request of ``first`` in turn, each time from the same beginning."""
    beginning = dict(memory.held)
    for at in itertools.count():
        memory.held = dict(beginning)
        repo, other = (qv.ModelRepository.open(URL) for _ in range(2))
        for handle in (repo, other):
            handle.models.get("m")  # from here on it is known, whatever the other does
        ends: list[GravswellError | None] = []

        def between() -> None:
            ends.append(_ended(lambda: second(other)))  # noqa: B023 - called in this round

        steps = itertools.count()

        def step(work: Callable[[], T]) -> T:
            if next(steps) == at:  # noqa: B023 - likewise
                between()
            return work()

        trapped(repo, step)
        end = _ended(lambda: first(repo))  # noqa: B023 - likewise
        if not ends:
            assert at > 3, end
            memory.held = beginning
            return
        check(Outcome(at, end, ends[0]))


def _ended(act: Callable[[], object]) -> GravswellError | None:
    try:
        act()
    except (ConflictError, InvalidInputError, NotFoundError) as error:
        return error
    return None


def signatures() -> dict[int, tuple[int, ...]]:
    """Of each visible version of ``m``: the dims of its input."""
    reader = RepositoryReader(URL)
    numbers = found_in(URL).get("m", ())
    return {number: reader.manifest("m", number)[0].signature.inputs[0].dims for number in numbers}


def exporting(model: Any) -> Act:
    return lambda repo: repo.models["m"].export_version(model)


def test_two_first_versions_with_different_tensors(memory: Memory, affine: Affine) -> None:
    qv.ModelRepository(URL).add("m")

    def check(outcome: Outcome) -> None:
        made = signatures()
        assert len(made) == 1, outcome
        (dims,) = made.values()
        winner, loser = (outcome.first, outcome.second) if dims == (-1, 4) else (outcome.second, outcome.first)
        assert winner is None, outcome
        assert isinstance(loser, ConflictError | InvalidInputError), outcome
        assert "other tensors" in str(loser) or "signature" in str(loser)
        assert qv.ModelRepository.open(URL).models["m"].inputs["x"].dims == dims, outcome

    interleaved(memory, exporting(affine(4)), exporting(affine(3)), check)


def test_two_first_versions_of_their_own_numbers(memory: Memory, affine: Affine) -> None:
    """Where the second takes a number below the first's, neither may have seen the other when it took it."""
    qv.ModelRepository(URL).add("m")

    def check(outcome: Outcome) -> None:
        assert len(signatures()) <= 1, outcome
        assert outcome.first or outcome.second, outcome

    def numbered(model: Any, number: int) -> Act:
        return lambda repo: repo.models["m"].export_version(model, version=number)

    interleaved(memory, numbered(affine(4), 5), numbered(affine(3), 2), check)
    interleaved(memory, numbered(affine(4), 2), numbered(affine(3), 5), check)


def test_first_versions_with_the_same_tensors_are_all_published(memory: Memory, prebuilt: Path) -> None:
    qv.ModelRepository(URL).add("m")

    def check(outcome: Outcome) -> None:
        assert outcome.first is outcome.second is None, outcome
        assert len(signatures()) == 2, outcome

    interleaved(memory, exporting(prebuilt), exporting(prebuilt), check)


@pytest.mark.parametrize("versions", [0, 1])
def test_an_entry_is_replaced_during_an_export(memory: Memory, prebuilt: Path, affine: Affine, versions: int) -> None:
    """An export that took its tensors from the old entry never lands in the new one."""
    entry = qv.ModelRepository(URL).add("m")
    for _ in range(versions):
        entry.export_version(prebuilt)

    def replace(repo: qv.ModelRepository) -> None:
        repo.add("m", force=True).export_version(affine(3))

    def check(outcome: Outcome) -> None:
        assert outcome.second is None, outcome
        assert set(signatures().values()) == {(-1, 3)}, outcome
        assert max(signatures()) > versions
        assert qv.ModelRepository.open(URL).models["m"].inputs["x"].dims == (-1, 3), outcome
        if versions and outcome.first is not None:
            assert any(word in str(outcome.first) for word in ("replaced", "signature", "other tensors")), outcome

    interleaved(memory, exporting(prebuilt), replace, check)


def test_an_export_into_an_entry_that_is_being_replaced(memory: Memory, prebuilt: Path) -> None:
    qv.ModelRepository(URL).add("m").export_version(prebuilt)

    def check(outcome: Outcome) -> None:
        assert outcome.first is None, outcome
        assert set(signatures()) <= {2, 3}, outcome

    interleaved(memory, lambda repo: repo.add("m", force=True), exporting(prebuilt), check)


def test_a_version_of_the_new_entry_stays(memory: Memory, prebuilt: Path, affine: Affine) -> None:
    """Once it is said to be published with tensors that only the new entry takes, who replaces does not bury it."""
    qv.ModelRepository(URL).add("m").export_version(prebuilt)
    published = []

    def check(outcome: Outcome) -> None:
        assert outcome.first is None, outcome
        published.append(outcome.second is None)
        assert set(signatures().values()) == ({(-1, 3)} if published[-1] else set()), outcome
        assert published[-1] or "signature" in str(outcome.second), outcome

    interleaved(memory, lambda repo: repo.add("m", force=True), exporting(affine(3)), check)
    assert published[0] is False
    assert published[-1] is True
    assert sum(published) > 2, "while it was being replaced"


def test_what_is_put_back_by_hand_after_a_replacement_stays(memory: Memory, prebuilt: Path) -> None:
    repo = qv.ModelRepository(URL)
    repo.add("m").export_version(prebuilt)
    kept = {key: held for key, held in memory.held.items() if "/m/1/" in key}
    entry = repo.add("m", force=True)
    assert found_in(URL) == {"m": ()}
    memory.held.update(kept)
    entry.export_version(prebuilt)
    assert found_in(URL) == {"m": (1, 2)}


def test_an_entry_is_replaced_twice_at_once(memory: Memory, prebuilt: Path) -> None:
    """Whoever replaces never hears that there is an entry already."""

    def check(outcome: Outcome) -> None:
        assert outcome.first is outcome.second is None, outcome
        assert found_in(URL) == {"m": ()}, outcome
        assert qv.ModelRepository.open(URL).models["m"].export_version(prebuilt)

    def replace(repo: qv.ModelRepository) -> None:
        repo.add("m", force=True)

    qv.ModelRepository(URL)
    interleaved(memory, replace, replace, check)
    qv.ModelRepository(URL).add("m", force=True).export_version(prebuilt)
    interleaved(memory, replace, replace, check)


def test_an_entry_is_removed_during_an_export(memory: Memory, prebuilt: Path) -> None:
    qv.ModelRepository(URL).add("m").export_version(prebuilt)

    def check(outcome: Outcome) -> None:
        assert outcome.second is None, outcome
        assert found_in(URL) == {}, outcome
        assert outcome.first is None or isinstance(outcome.first, NotFoundError), outcome
        assert qv.ModelRepository.open(URL).add("m").export_version(prebuilt) >= f"{URL}/m/2"

    interleaved(memory, exporting(prebuilt), lambda repo: repo.remove("m"), check)


def test_an_entry_is_exported_into_while_it_is_removed(memory: Memory, prebuilt: Path) -> None:
    qv.ModelRepository(URL).add("m").export_version(prebuilt)

    def check(outcome: Outcome) -> None:
        assert outcome.first is None, outcome
        assert found_in(URL) == {}, outcome

    interleaved(memory, lambda repo: repo.remove("m"), exporting(prebuilt), check)


def test_an_entry_is_pinned_while_it_is_removed(memory: Memory, prebuilt: Path) -> None:
    """Up to the write that remembers its numbers, the pin is seen; what comes later finds it decided."""
    qv.ModelRepository(URL).add("m").export_version(prebuilt)
    refused = []

    def check(outcome: Outcome) -> None:
        assert outcome.second is None, outcome
        refused.append(outcome.first is not None)
        assert outcome.first is None or isinstance(outcome.first, ConflictError), outcome
        assert found_in(URL) == ({"m": (1,)} if outcome.first else {}), outcome

    interleaved(memory, lambda repo: repo.remove("m"), lambda repo: repo.models["m"].pin("prod", [1]), check)
    assert refused[0] is True
    assert refused[-1] is False
    assert refused == sorted(refused, reverse=True)


def test_the_repository_is_deleted_during_an_export(memory: Memory, prebuilt: Path) -> None:
    qv.ModelRepository(URL).add("m").export_version(prebuilt)

    def check(outcome: Outcome) -> None:
        assert outcome.second is None, outcome
        assert found_in(URL) == {}, outcome

    interleaved(memory, exporting(prebuilt), lambda repo: repo.delete(), check)


def test_a_version_is_promoted_and_removed(memory: Memory, prebuilt: Path) -> None:
    """One of the two is refused: no alias ever names a version that is gone."""
    entry = qv.ModelRepository(URL).add("m")
    for _ in range(2):
        entry.export_version(prebuilt)

    def promote(repo: qv.ModelRepository) -> None:
        repo.models["m"].promote(1, "champion")

    def remove(repo: qv.ModelRepository) -> None:
        repo.models["m"].remove_version(1)

    def check(outcome: Outcome) -> None:
        assert (outcome.first is None) != (outcome.second is None), outcome
        assert found_in(URL)["m"] in ((1, 2), (2,))

    interleaved(memory, promote, remove, check)
    interleaved(memory, remove, promote, check)


def test_a_state_that_is_damaged_does_not_keep_a_repository(memory: Memory, prebuilt: Path) -> None:
    repo = qv.ModelRepository(URL)
    repo.add("m").export_version(prebuilt)
    open_store(URL).write(".m.gravswell.json", b"{", Create())
    repo.delete()
    assert memory.held == {}
