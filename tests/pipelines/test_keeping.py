"""Members stay while a pipeline needs them, and go where it goes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver.composition import holding
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import Expected, Hold
from gravswell.quiver.stores.memory import change_state

from .conftest import fill, scaled
from .functions import repeated, six

NOW = {"keep": 1, "grace": "0s", "dry_run": False}


@pytest.fixture
def piped(repo: qv.ModelRepository) -> qv.ModelRepository:
    """``six/1`` of ``double/1`` and ``triple/1``, and one version more of ``double``."""
    repo.add("six", qv.Platform.PIPELINE).export_version(six)
    return fill(repo, "double")


def test_what_a_pipeline_needs_is_not_removed(piped: qv.ModelRepository) -> None:
    double = piped.models["double"]
    with pytest.raises(ConflictError, match=r"double/1 is a member of six/1: remove that first"):
        double.remove_version(1)
    with pytest.raises(ConflictError, match=r"double/1 is a member of six/1"):
        piped.remove("double")
    with pytest.raises(ConflictError, match=r"double/1 is a member of six/1"):
        piped.add("double", force=True)
    fill(piped, "double")
    reasons = {verdict.version: verdict.reasons for verdict in double.prune(1, grace="0s").verdicts}
    assert reasons[1] == ("member of six/1",)
    assert [*double.prune(**NOW).going, *map(int, double.versions)] == [2, 1, 3]


@pytest.mark.parametrize("newer", [False, True])
def test_a_pipeline_whose_manifest_cannot_be_read_keeps_its_members(
    piped: qv.ModelRepository, root: Path, newer: bool
) -> None:
    piped.add("repeated", qv.Platform.PIPELINE).export_version(repeated)  # Python, of double/2 and triple/1
    fill(piped, "double")
    double = piped.models["double"]
    kept = {}
    for name in ("six", "repeated"):
        path = root / name / "1/.manifest.json"
        kept[path] = path.read_text()
        path.write_text(kept[path].replace("manifest/v1", "manifest/v2") if newer else kept[path][:-30])
    assert double.prune(**NOW).going == []
    with pytest.raises(ConflictError, match=r"double/1 is a member of six/1: remove that first"):
        double.remove_version(1)
    with pytest.raises(ConflictError, match=r"double/2 is a member of repeated/1"):
        piped.remove("double")
    for path, text in kept.items():
        path.write_text(text)
    assert qv.verify_version(RepositoryReader(root), "six", 1).samples == 3


def test_a_pipeline_of_which_nothing_can_be_read_keeps_all_that_it_may_need(
    piped: qv.ModelRepository, root: Path
) -> None:
    for name in (".manifest.json", ".config.pbtxt"):
        (root / "six/1" / name).write_text("{")
    double = piped.models["double"]
    assert double.prune(**NOW).going == []
    told = r"a member of six/1 \(perhaps: its manifest and configuration cannot be read\): remove that first"
    with pytest.raises(ConflictError, match=f"double/2 is {told}"):
        double.remove_version(2)
    (root / "six/1/.config.pbtxt").unlink()
    with pytest.raises(ConflictError, match=told):
        piped.remove("double")
    piped.remove("six")
    double.remove_version(1)


def test_they_are_pruned_together(piped: qv.ModelRepository) -> None:
    entry, double = piped.models["six"], piped.models["double"]
    entry.export_version(six)
    assert [member.version for member in entry.version(2).manifest.members] == [2, 1]
    assert entry.prune(**NOW).going == [1]
    assert double.prune(**NOW).going == [1]
    piped.remove("six")
    piped.remove("triple")
    double.remove_version(2)
    assert list(piped.models) == ["double"]


def test_the_whole_repository_goes(piped: qv.ModelRepository, root: Path) -> None:
    piped.delete()
    assert not root.exists()


def test_a_pipeline_on_its_way_holds_and_one_that_died_does_not_for_ever(
    piped: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, double = RepositoryReader(piped.url), piped.models["double"]
    seen: list[str] = []
    real = holding.check_members

    def meanwhile(*given: Any) -> None:
        real(*given)
        with pytest.raises(ConflictError) as refused:
            double.remove_version(2)
        seen.append(str(refused.value))

    monkeypatch.setattr("gravswell.quiver.publication.check_members", meanwhile)
    piped.models["six"].export_version(six)
    assert seen == ["double/2 is a member of six, a version of which is on its way: remove that first"]
    monkeypatch.undo()
    assert reader.state("double")[0].pipelines == {"six": Hold()}
    for age, held in ((timedelta(minutes=1), True), (holding.UNDER_WAY, False)):
        died = Hold(expected={"writer": Expected(versions=(2,), noted=datetime.now(UTC) - age)})
        change_state(reader.store, "double", lambda s, died=died: s.model_copy(update={"pipelines": {"dead": died}}))
        assert (2 in holding.pipelines_of(reader, "double", reader.state("double")[0])) == held


def test_a_member_that_goes_meanwhile_is_told_and_nothing_is_published(
    piped: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = piped.models["six"]

    def going(reader: RepositoryReader, *members: Any) -> None:
        change_state(reader.store, "double", lambda s: s.model_copy(update={"removing": (2,)}))
        real(reader, *members)

    real = holding.check_members
    monkeypatch.setattr("gravswell.quiver.publication.check_members", going)
    with pytest.raises(ConflictError, match="double/2, a member of the pipeline, is being removed, and nothing was"):
        entry.export_version(six)
    assert list(map(int, entry.versions)) == [1]


def test_a_copy_brings_its_members(piped: qv.ModelRepository, tmp_path: Path) -> None:
    there = tmp_path / "there"
    transfer = qv.Transfer(piped.location, there, {"six": None}, state=True)
    steps = [str(step) for step in transfer.plan().of("copy") if step.number]
    assert steps == ["double/1", "triple/1", "six/1"]
    transfer.run()
    copied = qv.ModelRepository.open(there)
    assert [list(map(int, copied.models[name].versions)) for name in ("double", "six", "triple")] == [[1], [1], [1]]
    assert qv.verify_version(RepositoryReader(there), "six", 1).samples == 3
    with pytest.raises(ConflictError, match=r"double/1 is a member of six/1"):
        copied.models["double"].remove_version(1)
    assert not transfer.plan().of("copy")
    fill(piped, "double", "triple")
    assert not qv.Transfer(piped.location, there, {"six": None}, delete=True).plan().of("delete")


def test_a_copy_under_another_name(piped: qv.ModelRepository, tmp_path: Path) -> None:
    qv.Transfer(piped.location, tmp_path / "there", {"six": [1]}, rename="half-a-dozen").run()
    reader = RepositoryReader(tmp_path / "there")
    assert reader.entries() == ["double", "half-a-dozen", "triple"]
    assert qv.verify_version(reader, "half-a-dozen", 1).samples == 3


def test_a_mirror_loses_a_pipeline_with_its_members(piped: qv.ModelRepository, tmp_path: Path) -> None:
    there = tmp_path / "there"
    qv.Transfer(piped.location, there).run()
    piped.remove("six")
    piped.models["double"].remove_version(1)
    piped.remove("triple")
    mirror = qv.Transfer(piped.location, there, delete=True)
    gone = [str(step) for step in mirror.plan().of("delete")]
    assert gone == ["six/1", "six", "double/1", "triple/1", "triple"]
    mirror.run()
    assert RepositoryReader(there).entries() == ["double"]


def test_a_pipeline_without_a_member_is_not_copied(piped: qv.ModelRepository, root: Path, tmp_path: Path) -> None:
    (root / "triple/1/.manifest.json").unlink()  # somebody's own version, by now
    with pytest.raises(ConflictError, match=r"six/1 needs triple/1, which is skipped"):
        qv.Transfer(piped.location, tmp_path / "there").plan()
    for path in (root / "triple/1").iterdir():
        path.unlink()
    with pytest.raises(NotFoundError, match="triple has no version 1"):
        qv.Transfer(piped.location, tmp_path / "there", {"six": None}).plan()


def test_what_differs_between_two_versions(piped: qv.ModelRepository) -> None:
    entry, reader = piped.models["six"], RepositoryReader(piped.url)
    piped.models["double"].export_version(scaled(20.0))
    entry.export_version(six)
    piped.add("repeated", qv.Platform.PIPELINE).export_version(repeated)
    found = qv.compare_versions(qv.Side(reader, "six", 1), qv.Side(reader, "six", 2))
    assert [(m.alias, m.old, m.new) for m in found.members] == [("double", "double/1", "double/3")]
    assert [field.path for field in found.config] == ["ensemble_scheduling.step[0].model_version"]
    assert (found.breaking, found.weights, found.graph.operators) == (False, (), {})
    assert found.outputs[0].max_abs
    to_python = qv.compare_versions(qv.Side(reader, "six", 2), qv.Side(reader, "repeated", 1))
    assert to_python.breaking
    assert "source/pipeline_source.py" in to_python.files
