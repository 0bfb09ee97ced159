"""What the operator says of what is served: the lister pins it in the repository, where pruning finds it."""

import asyncio
import logging
from pathlib import Path

import onnx
import pytest

from gravswell import quiver as qv
from gravswell.errors import AccessDeniedError
from gravswell.quiver import ModelRepository
from gravswell.quiver.stores.local import LocalStore
from gravswell.serving.agent import pinning
from gravswell.serving.agent.configmaps import Snapshot
from gravswell.serving.agent.pinning import Pinning
from gravswell.serving.contracts import SERVED_KEY, Served

from ...pipelines.serving import functions
from .test_lister import MemoryConfigMap, listing
from .versions import publish, scaling_graph

URL = "pvc://claim/zoo"
CLUSTER = "vision/zoo (0123abcd)"


class OperatorsConfigMap(MemoryConfigMap):
    """With what the operator says, and the names of the real one."""

    namespace, name = "vision", "zoo-listing"

    async def read(self) -> Snapshot:
        return (await super().read())._replace(uid="0123abcd-4567")

    def serve(self, url: str = URL, **entries: tuple[int, ...]) -> None:
        self.data[SERVED_KEY] = Served(repository=url, entries=entries).to_json()


def pins(repository: Path, entry: str = "m") -> dict[str, tuple[int, ...]]:
    reader = ModelRepository.open(repository).models[entry]._reader
    return {cluster: pin.versions for cluster, pin in reader.state(entry)[0].pins.items()}


@pytest.fixture
def repository(repository: Path) -> Path:
    """With two entries, ``m`` and ``n``."""
    for number in (1, 2):
        publish(repository, "m", number, float(number))
    publish(repository, "n", 1, 1.0)
    return repository


async def until_pinned(repository: Path, **wanted: tuple[int, ...]) -> None:
    async with asyncio.timeout(60):
        while pins(repository) != ({CLUSTER: wanted["m"]} if wanted else {}):  # noqa: ASYNC110  another program, really
            await asyncio.sleep(0.02)


async def test_what_is_served_is_pinned_and_stays(repository: Path) -> None:
    configmap = OperatorsConfigMap()
    configmap.serve(m=(1,))
    async with listing(repository, configmap, known_as=URL):
        await until_pinned(repository, m=(1,))
        assert pins(repository, "n") == {}
        assert not (repository / ".n.gravswell.json").exists(), "there is nothing to remember of it"
        configmap.serve(m=(1, 2))
        await until_pinned(repository, m=(1, 2))
        verdicts = ModelRepository.open(repository).models["m"].prune(keep=1, grace="0s").verdicts
        assert [verdict.reasons for verdict in verdicts][1] == (f"served by {CLUSTER}",)
        configmap.serve("pvc://other/zoo")
        await asyncio.sleep(0.3)
        assert pins(repository) == {CLUSTER: (1, 2)}, "that is of another repository"
        configmap.serve()
        await until_pinned(repository)


def test_what_a_served_pipeline_is_made_of_stays_with_it(tmp_path: Path) -> None:
    """Only the pipeline is pinned: while it stays, it keeps its members."""
    repo = qv.ModelRepository(tmp_path / "pipelines")
    double, four = repo.add("double"), repo.add("four", qv.Platform.PIPELINE)
    for factor in (2.0, 3.0):
        double.export_version(onnx.load_from_string(scaling_graph(factor)))
        four.export_version(functions.four)
    names = ["double", "four"]
    Pinning(str(tmp_path / "pipelines")).keep(CLUSTER, Served(repository=URL, entries={"four": (1,)}), names)
    assert four.prune(keep=1, grace="0s", dry_run=False).going == []
    verdicts = double.prune(keep=1, grace="0s").verdicts
    assert [verdict.reasons for verdict in verdicts if verdict.version == 1] == [("member of four/1",)]


def test_a_repository_that_may_only_be_read(
    repository: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, and tried again after a while: by a patch, for root may write everywhere."""
    write, tries = LocalStore.write, []

    def refused(store: LocalStore, key: str, *_: object) -> str:
        tries.append(key)
        raise AccessDeniedError(f"{key}: Read-only file system")

    monkeypatch.setattr(LocalStore, "write", refused)
    ours, served = Pinning(str(repository)), Served(repository=URL, entries={"m": (1,), "n": (1,)})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            ours.keep(CLUSTER, served, ["m", "n"])
        assert tries == [".m.gravswell.json"]
        monkeypatch.setattr(pinning, "RETRY_SECONDS", 0.0)
        again = Pinning(str(repository))
        for _ in range(3):
            again.keep(CLUSTER, served, ["m", "n"])
        assert len(tries) == 4
    told = [record.message for record in caplog.records if record.name == pinning.__name__]
    assert [line.count("prune this repository only with --context") for line in told] == [1, 1]
    monkeypatch.setattr(LocalStore, "write", write)
    again.keep(CLUSTER, served, ["m", "n"])
    assert pins(repository, "n") == {CLUSTER: (1,)}


def test_a_damaged_memory_hides_no_other_entry(repository: Path, caplog: pytest.LogCaptureFixture) -> None:
    (repository / ".m.gravswell.json").write_text("{")
    ours = Pinning(str(repository))
    ours.keep(CLUSTER, Served(repository=URL, entries={"m": (1,), "n": (1,)}), ["m", "n"])
    assert pins(repository, "n") == {CLUSTER: (1,)}
    assert "is damaged" in caplog.text
