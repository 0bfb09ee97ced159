"""The three kinds of bucket: the common contract, at a bucket's root and under a prefix, on a server of each kind.

And that of the tests' own, in memory, which stands for them where thousands of runs are needed.
"""

import pytest

from gravswell.quiver import stores
from gravswell.quiver.stores import Overwrite, Store, open_store
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
