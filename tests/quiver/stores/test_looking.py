"""What is asked of a bucket that is looked at again and again, counted; and that each look sees what is there."""

from collections.abc import Callable
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import AccessDeniedError, UnavailableError
from gravswell.quiver.reader import EntryInfo, RepositoryReader
from gravswell.quiver.stores import BucketStore, Content, LocalStore, open_store
from gravswell.quiver.stores.looking import looked_at

from ..versions import put_versions
from .memory_objects import Memory, MemoryObjects

Affine = Callable[..., Any]


class WatchedObjects(MemoryObjects):
    """A bucket in memory that notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.asked: list[str] = []
        self.refusal: UnavailableError | None = None

    def list(self, prefix: str) -> Any:
        self.asked.append("list")
        return super().list(prefix)

    def get(self, key: str) -> Content:
        self.asked.append(key)
        if self.refusal is not None:
            raise self.refusal
        return super().get(key)


@pytest.fixture
def objects() -> WatchedObjects:
    return WatchedObjects()


@pytest.fixture
def repo(objects: WatchedObjects, monkeypatch: pytest.MonkeyPatch, affine: Affine) -> qv.ModelRepository:
    """Two entries of two versions each, one of them with an alias."""
    monkeypatch.setattr("gravswell.quiver.stores._objects", lambda *_: objects)
    repo = qv.ModelRepository("gs://memory/zoo")
    for name in ("a", "b"):
        entry = repo.add(name)
        entry.export_version(affine())
        entry.export_version(affine(scale=3.0))
    repo.models["a"].promote(1, "champion")
    return repo


def look(objects: WatchedObjects, known: dict[str, Content]) -> tuple[dict[str, EntryInfo], list[str]]:
    """What is seen, and what was asked for it."""
    objects.asked.clear()
    reader = RepositoryReader(looked_at(BucketStore(objects, "zoo"), known))
    found = reader.survey()
    reader.check_present(list(found), [])
    return found, sorted(objects.asked)


def test_a_look_lists_once_and_reads_what_changed_since_the_last_one(
    repo: qv.ModelRepository, objects: WatchedObjects, affine: Affine
):
    known: dict[str, Content] = {}
    first, asked = look(objects, known)
    assert [info.number for info in first["a"].versions] == [2, 1]
    assert first["a"].aliases == {"champion": 1}
    assert asked.count("list") == 1
    assert len(set(asked)) == len(asked)

    second, asked = look(objects, known)
    assert (second, asked) == (first, ["list"])

    repo.models["b"].export_version(affine(scale=4.0))
    repo.models["a"].promote(2, "champion")
    third, asked = look(objects, known)
    assert asked == ["list", "zoo/.a.gravswell.json", "zoo/b/3/.manifest.json"]
    assert third["a"].aliases == {"champion": 2}
    assert [info.number for info in third["b"].versions] == [3, 2, 1]

    repo.models["b"].remove_version(1)
    repo.remove("a")
    last, _ = look(objects, known)
    assert [info.number for info in last["b"].versions] == [3, 2]
    assert "a" not in last
    assert not [key for key in known if key.startswith("a/")], "what is gone is forgotten"


def test_a_manifest_that_somebody_replaced_is_read_again(repo: qv.ModelRepository, objects: WatchedObjects):
    known: dict[str, Content] = {}
    first, _ = look(objects, known)
    key = "zoo/a/2/.manifest.json"
    data = objects.get(key).data
    objects.delete([key])
    objects.put(key, data + b"\n", qv.stores.Create())
    second, asked = look(objects, known)
    assert asked == ["list", key]
    assert second["a"].versions[0].digest != first["a"].versions[0].digest


@pytest.mark.parametrize(
    ("refusal", "asks"), [(UnavailableError("the network is cut"), 1), (AccessDeniedError("not for you"), 5)]
)
def test_a_bucket_that_stops_answering_costs_one_wait(
    repo: qv.ModelRepository,
    objects: WatchedObjects,
    monkeypatch: pytest.MonkeyPatch,
    refusal: UnavailableError,
    asks: int,
):
    monkeypatch.setattr(BucketStore, "in_parallel", lambda _, work, items: [work(item) for item in items])
    objects.refusal = refusal
    found, asked = look(objects, {})
    assert {info.error for info in found.values()} == {refusal}
    assert len(asked) - asked.count("list") == asks


def test_a_folder_is_itself(tmp_path: Any):
    store = open_store(tmp_path)
    assert isinstance(store, LocalStore)
    assert looked_at(store, {}) is store


def test_a_second_look_reads_nothing_on_a_server_of_each_kind(bucket: str, monkeypatch: pytest.MonkeyPatch):
    """What it lists and what it sends with an object name a content alike, or all would be read again."""
    store = open_store(bucket)
    assert isinstance(store, BucketStore)
    qv.ModelRepository(bucket).add("m")
    put_versions(store, "m", [1, 2])
    qv.ModelRepository.open(bucket).models["m"].promote(1, "champion", verify=False)
    known: dict[str, Content] = {}
    first = RepositoryReader(looked_at(store, known)).survey()
    assert first["m"].aliases == {"champion": 1}
    assert len(known) == 3
    monkeypatch.setattr(store.objects, "get", lambda key: pytest.fail(f"{key} is read again"))
    assert RepositoryReader(looked_at(store, known)).survey() == first
