"""Partitions in a repository that others write to as well: what is published, and what is undone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.partitions import Partition, partition
from gravswell.quiver.entry import Entry

from .graphs import mlp


@pytest.fixture(scope="module")
def net() -> Iterator[Partition]:
    """``net`` of two ranks by row."""
    with partition(mlp(16, 32, 4), 2, "row", name="net") as made:
        yield made


@pytest.fixture
def repo(tmp_path: Path) -> qv.ModelRepository:
    """An empty one."""
    return qv.ModelRepository(tmp_path / "repo")


def numbers(repo: qv.ModelRepository) -> dict[str, list[int]]:
    """The versions of each entry, as another reader sees them."""
    return {name: list(map(int, entry.versions)) for name, entry in qv.ModelRepository(repo.url).models.items()}


def others_export(
    monkeypatch: pytest.MonkeyPatch, repo: qv.ModelRepository, net: Partition, *, fail_at: str = ""
) -> None:
    """Another writer exports to ``net-rank-0`` right after each export to it; one to ``fail_at`` fails."""
    export = Entry.export_version

    def raced(entry: Entry, model: Any, *args: Any, **options: Any) -> str:
        if entry.name == fail_at:
            raise UnavailableError(f"no room for {entry.name}")
        path = export(entry, model, *args, **options)
        if entry.name == "net-rank-0":
            export(qv.ModelRepository(repo.url).models["net-rank-0"], net.folder / "rank-0/model.onnx")
        return path

    monkeypatch.setattr(Entry, "export_version", raced)


def test_the_versions_are_those_that_were_exported(
    net: Partition, repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    others_export(monkeypatch, repo, net)
    published = net.publish(repo)
    assert published.parts == {"net-rank-0": 1, "net-rank-1": 1, "net-combine": 1}
    members = repo.models["net"].version(published.version).manifest.members
    assert {member.model: member.version for member in members} == published.parts
    assert numbers(repo)["net-rank-0"] == [1, 2]  # the second is the other's


@pytest.mark.parametrize("before", [0, 1], ids=["first", "again"])
def test_what_others_exported_stays_when_it_fails(
    net: Partition, repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    for _ in range(before):
        net.publish(repo)
    had = numbers(repo)
    others_export(monkeypatch, repo, net, fail_at="net-combine")
    with pytest.raises(UnavailableError, match="no room for net-combine"):
        net.publish(repo)
    assert numbers(repo) == had | {"net-rank-0": [*had.get("net-rank-0", []), before + 2]}


def groups(repo: qv.ModelRepository) -> list[tuple[list[int], int]]:
    """GPUs and count of the instance group of each rank's entry, as it is written."""
    models = qv.ModelRepository(repo.url).models
    found = [models[f"net-rank-{rank}"].config.message.instance_group for rank in range(2)]
    return [(list(one.gpus), one.count) for [one] in found]


def test_devices_are_taken_at_every_publication(
    net: Partition, repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.publish(repo)
    assert groups(repo) == [([], 1), ([], 1)]
    net.publish(repo, devices=[2, 3])
    assert groups(repo) == [([2], 1), ([3], 1)]
    repo.models["net-rank-0"].config.scale_instance_group(4)
    net.publish(repo, devices=[0, 1])
    assert groups(repo) == [([0], 4), ([1], 1)]
    net.publish(repo)
    assert groups(repo) == [([0], 4), ([1], 1)]
    others_export(monkeypatch, repo, net, fail_at="net")
    with pytest.raises(UnavailableError):
        net.publish(repo, devices=[6, 7])
    assert groups(repo) == [([0], 4), ([1], 1)]


@pytest.mark.parametrize("devices", ["01", [0], [0, -1]])
def test_devices_that_are_none_for_these_ranks_are_refused(
    net: Partition, repo: qv.ModelRepository, devices: Any
) -> None:
    with pytest.raises(InvalidInputError, match="for 2 ranks: name one GPU for each rank, numbered from 0 on"):
        net.publish(repo, devices=devices)
    assert not repo.models


def test_a_rank_that_keeps_to_the_cpu_takes_no_device(net: Partition, repo: qv.ModelRepository) -> None:
    net.publish(repo)
    repo.models["net-rank-1"].config.set({"instance_group[0].kind": "KIND_CPU"})
    had = numbers(repo)
    with pytest.raises(InvalidInputError, match=r"net-rank-1 does not run on GPU 3: .*KIND_GPU\), or name no devices"):
        net.publish(repo, devices=[2, 3])
    assert (numbers(repo), groups(repo)) == (had, [([], 1), ([], 1)])
