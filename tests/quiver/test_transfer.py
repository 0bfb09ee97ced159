"""Copies between folders: what moves, what is in the way, what goes along."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores.memory import remember_numbers
from gravswell.quiver.transfer import AliasMove, Step, Transfer
from gravswell.quiver.verification import verify_version

Affine = Callable[..., Any]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return tmp_path / "there"


@pytest.fixture
def two(entry: qv.Entry, affine: Affine) -> qv.Entry:
    """An entry with two versions, and a configuration that was edited since."""
    entry.export_version(affine())
    entry.export_version(affine(scale=3.0))
    entry.config.add_instance_group(count=4)
    return entry


def _tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _actions(plan: Any) -> list[str]:
    return [f"{step.action} {step}" for step in plan.steps]


def test_a_copy_is_the_same_to_the_byte(two: qv.Entry, root: Path, there: Path) -> None:
    seen: list[tuple[str, str]] = []
    sizes: list[tuple[int, int]] = []
    plan = Transfer(root, there).run(
        on_step=lambda step, what: seen.append((str(step), what)), progress=lambda *done: sizes.append(done)
    )
    assert _tree(there) == _tree(root)
    assert _actions(plan) == ["copy my-model", "copy my-model/1", "copy my-model/2"]
    assert seen[:2] == [("my-model/1", "fetching"), ("my-model/1", "publishing")]
    assert sizes[-1][0] == sizes[-1][1] == two.versions[1].size
    assert verify_version(RepositoryReader(there), "my-model", 2).samples == 3
    assert [path.name for path in there.parent.iterdir() if "staging" in path.name] == []
    again = Transfer(root, there).run()
    assert _actions(again) == ["same my-model", "same my-model/1", "same my-model/2"]
    assert again.size == 0


def test_only_what_is_wanted_moves(two: qv.Entry, repo: qv.ModelRepository, root: Path, there: Path) -> None:
    repo.add("other")
    Transfer(root, there, {"my-model": [2]}).run()
    assert RepositoryReader(there).numbers("my-model") == [2]
    plan = Transfer(root, there).plan()
    assert _actions(plan) == ["same my-model", "copy my-model/1", "same my-model/2", "copy other"]
    Transfer(root, there).run()
    assert _tree(there) == _tree(root)
    with pytest.raises(NotFoundError, match="its versions: 2, 1"):
        Transfer(root, there, {"my-model": [9]}).plan()
    with pytest.raises(NotFoundError, match="entries: my-model, other"):
        Transfer(root, there, {"none": None}).plan()


def test_conflicts_are_all_told_before_anything_moves(
    two: qv.Entry, repo: qv.ModelRepository, root: Path, there: Path, affine: Affine
) -> None:
    repo.add("another").export_version(affine())
    strange = qv.ModelRepository(there).add("my-model")
    strange.export_version(affine(scale=5.0))
    (there / "my-model/2").mkdir()
    (there / "my-model/2/model.onnx").write_bytes(b"somebody's")
    before = _tree(there)
    with pytest.raises(ConflictError, match=r"my-model/1 is in .* my-model/2 is in .*unverified"):
        Transfer(root, there).run()
    assert _tree(there) == before
    with pytest.raises(InvalidInputError, match="both source and destination"):
        Transfer(root, root).run()


def test_a_number_that_was_removed_there_does_not_come_back(
    two: qv.Entry, root: Path, there: Path, affine: Affine
) -> None:
    """And is in the way of nothing else: a mirror that is pruned stays a mirror."""
    Transfer(root, there).run()
    qv.ModelRepository(there).models["my-model"].remove_version(1)
    two.export_version(affine(scale=9.0))
    before = _tree(there)
    with pytest.raises(ConflictError, match=r"my-model/1 is below the next number in the destination \(2\)"):
        Transfer(root, there, {"my-model": [1, 3]}).run()
    assert _tree(there) == before
    plan = Transfer(root, there).run()
    assert _actions(plan) == ["same my-model", "skip my-model/1", "same my-model/2", "copy my-model/3"]
    assert "below the next number" in plan.of("skip")[0].reason
    assert RepositoryReader(there).numbers("my-model") == [3, 2]


def test_a_number_that_is_used_while_others_are_copied_does_not_come_back(
    two: qv.Entry, root: Path, there: Path, affine: Affine
) -> None:
    def used(step: Step, what: str) -> None:
        if (step.number, what) == (2, "publishing"):
            theirs = qv.ModelRepository(there).models["my-model"]
            theirs.export_version(affine(scale=7.0))
            theirs.remove_version(2)

    with pytest.raises(ConflictError, match=r"my-model/2 was used since .* the next one there is 3"):
        Transfer(root, there).run(on_step=used)
    assert RepositoryReader(there).numbers("my-model") == [1]
    assert _actions(Transfer(root, there).run())[-1] == "skip my-model/2"


def test_a_damaged_version_is_not_copied(two: qv.Entry, root: Path, there: Path) -> None:
    (root / "my-model/2/model.onnx").write_bytes(b"damaged")
    with pytest.raises(VerificationError, match="damaged"):
        Transfer(root, there).run()
    assert RepositoryReader(there).numbers("my-model") == [1]  # and the next run goes on there


def test_what_nobody_recorded_is_skipped(two: qv.Entry, root: Path, there: Path) -> None:
    (root / "my-model/3").mkdir()
    (root / "my-model/3/model.onnx").write_bytes(b"somebody's")
    assert _actions(Transfer(root, there).run())[-1] == "skip my-model/3"
    assert RepositoryReader(there).numbers("my-model") == [2, 1]


def test_another_name_is_another_digest_that_names_its_source(two: qv.Entry, root: Path, there: Path) -> None:
    for destination in (there, root):
        Transfer(root, destination, {"my-model": None}, rename="copy").run()
        reader = RepositoryReader(destination)
        manifest, raw = reader.manifest("copy", 2)
        assert manifest.source is not None
        assert (manifest.source.model, manifest.source.version) == ("my-model", 2)
        assert manifest.source.digest == two.version(2).digest
        assert 'name: "copy"' in str(qv.ModelRepository(destination).models["copy"].config)
        assert verify_version(reader, "copy", 2).samples == 3
        again = Transfer(root, destination, {"my-model": None}, rename="copy").plan()
        assert {step.action for step in again.steps} == {"same"}
    assert raw == (there / "copy/2" / MANIFEST).read_bytes()  # whoever makes it
    assert b'"source"' not in (root / "my-model/2" / MANIFEST).read_bytes()
    with pytest.raises(InvalidInputError, match="own name"):
        Transfer(root, root, {"my-model": None}, rename="my-model").run()
    with pytest.raises(InvalidInputError, match="one entry"):
        Transfer(root, there, rename="copy").run()


def test_delete_takes_what_the_source_does_not_have(
    two: qv.Entry, repo: qv.ModelRepository, root: Path, there: Path, affine: Affine
) -> None:
    Transfer(root, there).run()
    theirs = qv.ModelRepository(there)
    theirs.models["my-model"].export_version(affine(scale=4.0))
    theirs.add("gone").export_version(affine())
    theirs.models["my-model"].promote(3, "champion")
    with pytest.raises(ConflictError, match="my-model/3 would be deleted, and champion needs it"):
        Transfer(root, there, delete=True).run()
    theirs.models["my-model"].promote(2, "champion")
    plan = Transfer(root, there, {"my-model": None}, delete=True).plan()
    assert [str(step) for step in plan.of("delete")] == ["my-model/3"]  # other entries are not looked at
    plan = Transfer(root, there, delete=True).run()
    assert [str(step) for step in plan.of("delete")] == ["my-model/3", "gone/1", "gone"]
    reader = RepositoryReader(there)
    assert (reader.entries(), reader.numbers("my-model")) == (["my-model"], [2, 1])


def test_delete_takes_what_was_agreed_and_nothing_else(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    Transfer(root, there).run()
    theirs = qv.ModelRepository(there)
    theirs.models["my-model"].export_version(affine(scale=4.0))
    for name in ("gone", "busy"):
        theirs.add(name).export_version(affine())
    work = Transfer(root, there, delete=True)
    agreed = work.plan()
    assert [str(step) for step in agreed.of("delete")] == ["my-model/3", "busy/1", "busy", "gone/1", "gone"]
    theirs.models["my-model"].export_version(affine(scale=5.0))  # both while the question stands
    theirs.models["busy"].export_version(affine())
    (there / "gone/1" / MANIFEST).write_bytes((there / "busy/2" / MANIFEST).read_bytes())
    done = work.run(agreed)
    assert [str(step) for step in done.of("delete")] == ["my-model/3", "busy/1"]
    assert {str(step): step.reason for step in done.of("skip")} == {
        "busy": "holds what is not in the plan: 2",
        "gone/1": "became another version since the plan was made",
        "gone": "holds what is not in the plan: 1",
    }
    reader = RepositoryReader(there)
    assert {name: reader.numbers(name) for name in reader.entries()} == {
        "busy": [2],
        "gone": [1],
        "my-model": [4, 2, 1],
    }


def test_delete_of_what_is_gone_already(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    theirs = qv.ModelRepository(there)
    for name in ("one", "two"):
        theirs.add(name).export_version(affine())
    work = Transfer(root, there, delete=True)
    agreed = work.plan()
    theirs.remove("one")
    theirs.models["two"].remove_version(1)
    assert work.run(agreed) == agreed
    assert RepositoryReader(there).entries() == ["my-model"]


def test_delete_is_not_for_a_source_that_holds_nothing(two: qv.Entry, root: Path, tmp_path: Path) -> None:
    """A volume that is not mounted, or a name that is wrong."""
    (tmp_path / "mount").mkdir()
    before = _tree(root)
    with pytest.raises(NotFoundError, match="mount holds no entry"):
        Transfer(tmp_path / "mount", root, delete=True).run()
    assert _tree(root) == before
    assert Transfer(tmp_path / "mount", root).run().steps == ()


def test_an_entry_that_is_needed_is_not_deleted(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    other = qv.ModelRepository(there).add("other")
    other.export_version(affine())
    other.promote(1, "champion")
    with pytest.raises(ConflictError, match="other/1 would be deleted, and champion needs it; take its alias away"):
        Transfer(root, there, delete=True).run()
    assert RepositoryReader(there).entries() == ["other"]


def test_the_state_goes_along_by_choice(two: qv.Entry, root: Path, there: Path) -> None:
    two.promote(1, "champion")
    two.promote(2, "champion")
    two.promote(1, "canary")
    remember_numbers(RepositoryReader(root).store, "my-model", 8)
    Transfer(root, there, {"my-model": [2]}).run()
    reader = RepositoryReader(there)
    assert reader.aliases("my-model") == {}
    Transfer(root, there, {"my-model": [2]}, state=True).run()
    assert reader.aliases("my-model") == {"champion": 2}  # canary's version is not there
    assert reader.state("my-model")[0].next_version == 1  # for version 1 may follow
    Transfer(root, there, state=True).run()
    state = reader.state("my-model")[0]
    assert state.aliases == {"champion": 2, "canary": 1}
    assert state.next_version == 8
    assert state.trail("champion") == [2]  # for 1 was not there when its history was taken
    two.promote(2, "canary")
    Transfer(root, there, state=True).run()
    last = reader.state("my-model")[0].last_move("canary")
    assert last is not None
    assert (last.version, last.previous) == (2, 1)
    assert "copied" in last.reason


def test_an_alias_never_comes_to_name_another_version(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    """The numbers are the same in both, the versions are not."""
    two.promote(1, "champion")
    two.promote(2, "champion")
    two.promote(1, "canary")
    two.promote(2, "canary")
    two.promote(1, "stable")
    theirs = qv.ModelRepository(there).add("my-model")
    theirs.export_version(affine(scale=11.0))
    Transfer(root, there, {"my-model": [2]}, state=True).run()
    state = RepositoryReader(there).state("my-model")[0]
    assert state.aliases == {"canary": 2, "champion": 2}
    assert (state.trail("canary"), state.trail("champion")) == ([2], [2])  # a rollback has nowhere to go
    theirs.promote(1, "champion")
    two.promote(1, "champion")
    two.export_version(affine(scale=9.0))
    plan = Transfer(root, there, {"my-model": [3]}, state=True).run()
    assert plan.moves == []  # the source's champion is 1, which is another one here
    assert RepositoryReader(there).aliases("my-model") == {"canary": 2, "champion": 1}


def test_moves_of_aliases_are_in_the_plan(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    two.promote(1, "champion")
    two.promote(2, "champion")
    remember_numbers(RepositoryReader(root).store, "my-model", 8)
    work = Transfer(root, there, state=True)
    assert work.plan().moves == [AliasMove("my-model", "champion", 2, None)]
    assert work.run().moves == [AliasMove("my-model", "champion", 2, None)]
    assert work.plan().moves == []
    assert RepositoryReader(there).state("my-model")[0].trail("champion") == [1, 2]
    theirs = qv.ModelRepository(there).models["my-model"]
    theirs.export_version(affine(scale=4.0))  # 8
    theirs.promote(8, "champion")
    work = Transfer(root, there, state=True, delete=True)  # what champion names may go, for champion moves
    agreed = work.plan()
    assert [str(move) for move in agreed.moves] == ["champion to my-model/2 from my-model/8"]
    theirs.promote(1, "champion")  # while the question stands
    done = work.run(agreed)
    assert done.moves == []
    assert [str(step) for step in done.of("delete")] == ["my-model/8"]
    assert theirs.aliases == {"champion": 1}


def test_the_next_number_is_of_the_time_before_the_versions_were_listed(
    two: qv.Entry, root: Path, there: Path, affine: Affine
) -> None:
    """What is exported while a copy runs is not passed over by it: it comes with the next one."""
    work = Transfer(root, there, state=True)
    agreed = work.plan()
    for _ in range(2):
        two.export_version(affine(scale=9.0))
    two.remove_version(4)  # from now on the source's next number is 5
    work.run(agreed)
    work.run()
    assert RepositoryReader(there).numbers("my-model") == [3, 2, 1]


def test_the_configuration_follows_unless_it_was_edited_there(
    two: qv.Entry, root: Path, there: Path, affine: Affine
) -> None:
    Transfer(root, there).run()
    two.export_version(affine(scale=7.0))  # published with the edit: now it is no edit any more
    Transfer(root, there).run()
    two.config.add_instance_group(count=1, kind="cpu")
    Transfer(root, there).run()
    assert _tree(there) == _tree(root)
    theirs = qv.ModelRepository(there).models["my-model"]
    theirs.config.max_batch_size = 0
    theirs.config.add_instance_group(count=9, kind="cpu")
    Transfer(root, there).run()
    assert "count: 9" in (there / "my-model/config.pbtxt").read_text()


def test_a_version_of_other_tensors_comes_into_no_entry(two: qv.Entry, root: Path, there: Path, affine: Affine) -> None:
    """Clients of the entry would break, as with an export. An entry whose versions all go has none."""
    theirs = qv.ModelRepository(there).add("my-model")
    theirs.export_version(affine(3))
    theirs.export_version(affine(3))
    two.export_version(affine())  # 3, which is free there
    before = _tree(there)
    with pytest.raises(ConflictError, match=r"my-model/3: the model's signature is not that of my-model: .*another"):
        Transfer(root, there, {"my-model": [3]}).run()
    assert _tree(there) == before
    for number in (1, 2):
        two.remove_version(number)
    plan = Transfer(root, there, delete=True).run()
    assert _actions(plan) == ["same my-model", "copy my-model/3", "delete my-model/1", "delete my-model/2"]
    assert verify_version(RepositoryReader(there), "my-model", 3).samples == 3
