"""Copies of pipelines into a repository in which some were pruned with their members."""

from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError

from .conftest import fill
from .functions import six

ENTRIES = ("six", "double", "triple")


@pytest.fixture
def mirror(repo: qv.ModelRepository, tmp_path: Path) -> qv.ModelRepository:
    """``six/2`` with its members ``double/2`` and ``triple/2``; the source has the first versions, too."""
    entry = repo.add("six", qv.Platform.PIPELINE)
    entry.export_version(six)
    fill(repo, "double", "triple")
    entry.export_version(six)
    qv.Transfer(repo.location, tmp_path / "mirror", {"six": None}).run()
    mirror = qv.ModelRepository.open(tmp_path / "mirror")
    for name in ENTRIES:
        assert mirror.models[name].prune(keep=1, grace="0s", dry_run=False).going == [1]
    return mirror


def numbers(repository: qv.ModelRepository) -> dict[str, list[int]]:
    return {name: [int(version) for version in repository.models[name].versions] for name in ENTRIES}


@pytest.mark.parametrize("delete", [False, True])
def test_a_pruned_copy_gets_what_follows(repo: qv.ModelRepository, mirror: qv.ModelRepository, delete: bool) -> None:
    transfer = qv.Transfer(repo.location, mirror.location, {"six": None}, delete=delete)
    steps = {f"{step}": step.action for step in transfer.plan().steps if step.number}
    assert steps == {"six/1": "skip", "six/2": "same", "double/2": "same", "triple/2": "same"}
    fill(repo, "double")
    repo.models["six"].export_version(six)
    transfer.run()
    assert numbers(mirror) == {"six": [2, 3], "double": [2, 3], "triple": [2]}


def test_what_is_named_is_in_the_way_and_so_is_a_member_that_is_gone(
    repo: qv.ModelRepository, mirror: qv.ModelRepository
) -> None:
    for wanted in ({"six": [1]}, {"six": None, "double": [1]}):
        with pytest.raises(ConflictError, match=r"/1 is below the next number in the destination \(2\)"):
            qv.Transfer(repo.location, mirror.location, wanted).plan()
    # A version that does come needs a member that was removed there: told, and not skipped in silence.
    other = repo.add("other", qv.Platform.PIPELINE)
    other.export_version(qv.Pipeline(six.function, output_names=["z"], members={"double": "double/1"}))
    with pytest.raises(ConflictError, match=r"other/1 needs double/1, which is skipped \(is below the next number"):
        qv.Transfer(repo.location, mirror.location, {"other": None}).plan()
