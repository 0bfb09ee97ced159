"""What a command on one entry asks of a bucket, counted: it does not depend on what else is in the bucket."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.quiver import stores
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, Create, open_store
from gravswell.quiver.stores.base import Content, PutMode
from gravswell.quiver.stores.objects import ObjectInfo

from ...commands import Run, run
from ..versions import put_versions
from .memory_objects import PAGE, Memory, MemoryObjects

__all__ = ["run"]

URL = "gs://memory/r"


class CountedObjects(MemoryObjects):
    """Counts what is asked of a bucket in memory."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._end, self._pair, self._met = "", threading.Barrier(2), itertools.count()

    def hold_two(self, end: str) -> None:
        """Answer the first two reads of keys with that end once both are asked for; one alone breaks the barrier."""
        self._end, self._pair, self._met = end, threading.Barrier(2), itertools.count()

    def _count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.asked[what] += number

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        for page in super().pages(prefix):
            self._count("list")
            yield page

    def get(self, key: str) -> Content:
        self._count("get")
        if self._end and key.endswith(self._end) and next(self._met) < 2:
            self._pair.wait(60)
        return super().get(key)

    def stat(self, key: str) -> ObjectInfo:
        self._count("stat")
        return super().stat(key)

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        self._count("range")
        return super().get_range(key, start, stop, etag)

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        self._count("put")
        return super()._put(key, data, mode, stamp)

    def delete(self, keys: Sequence[str]) -> None:
        self._count("delete", len(keys))
        super().delete(keys)


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> CountedObjects:
    """The bucket of :data:`URL`."""
    objects = CountedObjects(Memory())
    monkeypatch.setattr(stores, "_objects", lambda *_: objects)
    return objects


def _fill(entries: int) -> None:
    """Other entries, before and behind ``m``, of five objects each."""
    store = open_store(URL)
    for name in (f"{'al'[k % 2]}{k:05}" for k in range(entries)):
        for key in (
            f".{name}.gravswell.json",
            *(f"{name}/{n}" for n in ("config.pbtxt", "1/a", "1/b", "1/model.onnx")),
        ):
            store.write(key, b"theirs", Create())


def _asked(run: Run, objects: CountedObjects, model: Path) -> dict[str, Counter[str]]:
    """By command on ``m``: what it asked."""
    found: dict[str, Counter[str]] = {}
    for command in (
        ("add", URL, "m"),
        ("export", URL, "m", model),
        ("export", URL, "m", model, "--version", 2),
        ("show", URL, "m"),
        ("show", URL, "m/1"),
        ("ls", URL, "m"),
        ("verify", URL, "m"),
        ("verify", URL, "m/1"),
        ("promote", URL, "m", "1", "champion"),
        ("promote", URL, "m", "latest", "champion"),
        ("rollback", URL, "m", "champion"),
        ("aliases", URL, "m"),
        ("history", URL, "m"),
        ("unalias", URL, "m", "champion"),
        ("diff", URL, "m", "1", "2"),
        ("prune", URL, "m", "--keep", 1, "--dry-run"),
        ("lint", URL, "m"),
        ("copy", URL, "m/2", URL, "--as", "copied"),
        ("add", URL, "m", "--force", "-y"),
        ("export", URL, "m", model, "--version", 7),
        ("rm", URL, "m/7", "-y"),
        ("rm", URL, "m", "-y"),
    ):
        objects.asked.clear()
        done = run(*command)
        assert done.code == 0, done
        found[" ".join(map(str, command[:4]))] = Counter(objects.asked)
    return found


def test_a_command_on_one_entry_asks_nothing_of_the_others(objects: CountedObjects, run: Run, given: Path) -> None:
    """Beside one entry as beside 2,000, with 10,000 objects."""
    _fill(1)
    alone = _asked(run, objects, given)
    objects._memory.held.clear()
    _fill(2000)
    assert len(objects._memory.held) == 10_000
    crowded = _asked(run, objects, given)
    assert crowded == alone
    assert max(asked.total() for asked in alone.values()) < 60, alone


def test_everything_is_listed_once_and_read_in_parallel(objects: CountedObjects, run: Run) -> None:
    """Two list calls at most for each thousand objects, and no more reads than there is to read."""
    store = open_store(URL)
    assert isinstance(store, BucketStore)
    names = [f"m{k}" for k in range(20)]
    for name in names:
        store.write(f"{name}/config.pbtxt", b'platform: "onnxruntime_onnx"\n', Create())
        put_versions(store, name, [1, 2])
    qv.ModelRepository.open(URL).models["m3"].promote(2, "champion")

    objects.asked.clear()
    assert len(qv.ModelRepository.open(URL).models) == len(names)
    assert objects.asked == {"list": 2}, "one page to see that it is a repository, and one listing"

    objects.asked.clear()
    objects.hold_two("/.manifest.json")
    listed = run("ls", URL, "-o", "json").data
    assert [row["aliases"] for row in listed["m3"]] == [["champion"], []]
    assert objects.asked == {"list": 2, "get": 1 + 2 * len(names)}, "the one state that there is, and each manifest"

    objects.asked.clear()
    objects.hold_two("/config.pbtxt")
    assert run("lint", URL, "-o", "json").code in (0, 5)
    assert objects.asked["list"] == 1


def test_configs_are_read_in_parallel(objects: CountedObjects) -> None:
    """When they are asked for, each once."""
    store = open_store(URL)
    config = b'platform: "onnxruntime_onnx"\ninput { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    names = [f"m{k:02}" for k in range(20)]
    for name in names:
        store.write(f"{name}/config.pbtxt", config, Create())
    objects.asked.clear()
    objects.hold_two("/config.pbtxt")
    repo = qv.ModelRepository.open(URL)
    configs = repo.configs()
    assert objects.asked == {"list": 2, "get": len(names)}
    assert list(configs) == names
    assert configs["m07"].input[0].name == "x"
    objects.hold_two("/config.pbtxt")
    some = repo.configs(["m07", "m03"])
    assert list(some) == ["m07", "m03"]
    some["m03"].add_instance_group(count=3)
    assert configs["m03"].instance_group[0].count == 3, "the entry's own"
    with pytest.raises(KeyError, match="m99"):
        repo.configs(["m07", "m99"])


def test_the_newest_version_is_found_without_the_older_ones(objects: CountedObjects) -> None:
    """Nor is one whose upload is under way taken for it."""
    store = open_store(URL)
    store.write("m/config.pbtxt", b'platform: "onnxruntime_onnx"\n', Create())
    put_versions(store, "m", list(range(1, 51)))
    store.write("m/51/.claim.json", b"{}", Create())
    entry = qv.ModelRepository.open(URL).models["m"]
    objects.asked.clear()
    assert entry.version() == 50
    assert objects.asked == {"list": 2, "get": 2}, "the folders; and of the upload that it has no manifest"


def test_more_pages_are_listed_page_by_page(objects: CountedObjects) -> None:
    """Where the first has no entry, and no further than to the first that has one."""
    store = open_store(URL)
    for k in range(PAGE + 10):
        store.write(f"a{k:05}/photo.jpg", b"theirs", Create())
    for k in range(2 * PAGE):
        store.write(f"m{k:05}/config.pbtxt", b"c", Create())
    objects.asked.clear()
    repo = qv.ModelRepository.open(URL)
    assert objects.asked == {"list": 2}
    assert len(repo.models) == 2 * PAGE
    assert objects.asked == {"list": 2 + 4}


def test_what_others_wrote_is_listed_with_all_else(objects: CountedObjects) -> None:
    """Versions without a manifest, on their way, or removed, cost no listing of their own."""
    store = open_store(URL)
    assert isinstance(store, BucketStore)
    for name in ("a", "b"):
        store.write(f"{name}/config.pbtxt", b'platform: "onnxruntime_onnx"\n', Create())
        store.write(f"{name}/1/model.onnx", b"theirs", Create())
        store.write(f"{name}/2/.claim.json", b"{}", Create())
        store.write(f"{name}/3/.manifest.json", b"", Create())
        store.write(f"{name}/4/.manifest.json", b"damaged", Create())
    objects.asked.clear()
    survey = RepositoryReader(URL).survey()
    assert objects.asked == {"list": 1, "get": 8}
    for name, seen in survey.items():
        assert seen == RepositoryReader(URL).look(name)
        assert [(info.number, info.size) for info in seen.versions] == [(4, 7), (1, 6)]
