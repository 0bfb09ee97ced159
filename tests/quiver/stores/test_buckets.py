"""The three kinds of bucket: the common contract, at a bucket's root and under a prefix, on a server of each kind.

And that of the tests' own, in memory, which stands for them where thousands of runs are needed.
"""

from collections.abc import Callable

import pytest

from gravswell.quiver import stores
from gravswell.quiver.stores import BucketStore, Create, Overwrite, Store, open_store
from gravswell.quiver.stores.objects import ObjectInfo
from gravswell.quiver.stores.testing import StoreContract

from .memory_objects import Memory, MemoryObjects


class TestBucket(StoreContract):
    @pytest.fixture
    def store(self, bucket: str) -> Store:
        return open_store(bucket, create=True)


class TestPrefix(StoreContract):
    """Beside neighbours whose names start alike."""

    @pytest.fixture
    def store(self, bucket: str) -> Store:
        for neighbour in ("my", "my/repo-2", "my/rep"):
            other = open_store(f"{bucket}/{neighbour}")
            other.write("config.pbtxt", b"theirs", Overwrite())
        return open_store(f"{bucket}/my/repo", create=True)


@pytest.mark.parametrize("hashed", [True, False])
class TestInMemory(StoreContract):
    @pytest.fixture
    def store(self, hashed: bool, monkeypatch: pytest.MonkeyPatch) -> Store:
        memory = Memory(hashed)
        monkeypatch.setattr(stores, "_objects", lambda *_: MemoryObjects(memory))
        return open_store("gs://memory/r")


def test_the_root_goes_with_what_was_judged_only() -> None:
    """What another process puts there once it was found empty is neither seen nor deleted."""
    objects = MemoryObjects(Memory())
    store = BucketStore(objects, "r")
    store.write("m/1/.manifest.json", b"", Create())
    store.write("m/1/model.onnx", b"left by an upload", Create())
    listed = _followed(objects.list, lambda: store.write("n/config.pbtxt", b"theirs", Create()))
    objects.list = listed  # type: ignore[method-assign]
    assert store.remove_root()
    assert [o.key for o in objects.list("")] == ["r/n/config.pbtxt"]
    assert not store.remove_root()


def test_a_tombstone_is_that_of_a_version() -> None:
    """An empty file of that name is somebody's own anywhere else, and hides nothing from the look for what is left."""
    for key in (".manifest.json", "app/.manifest.json", "photos/2024/may/.manifest.json", "photos/may/.manifest.json"):
        objects = MemoryObjects(Memory())
        store = BucketStore(objects)
        beside = key.replace(".manifest.json", "index.html")
        for written in (key, beside):
            store.write(written, b"" if written == key else b"theirs", Create())
        assert not store.remove_root()
        assert sorted(o.key for o in objects.list("")) == sorted([key, beside])
        assert beside in store.view().visible


def _followed(call: Callable[[str], list[ObjectInfo]], then: Callable[[], object]) -> Callable[[str], list[ObjectInfo]]:
    """``call``, with ``then`` once after it."""
    left = [then]

    def called(prefix: str) -> list[ObjectInfo]:
        found = call(prefix)
        if left:
            left.pop()()
        return found

    return called
