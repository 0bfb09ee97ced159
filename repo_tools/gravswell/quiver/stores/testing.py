"""The contract of :class:`Store` as a test suite, to be run by every store against a real server of its kind.

Subclass :class:`StoreContract` in a test module and provide the fixture ``store``: an empty store. Needs pytest.
"""

import threading
from pathlib import Path

import pytest

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError
from gravswell.quiver.stores import Create, Overwrite, Store, Update, open_store


def _stage(store: Store, folder: str, files: dict[str, bytes]) -> None:
    with store.staging() as stage:
        for name, data in files.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store.publish(stage, folder)


class StoreContract:
    """What every store must do."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store."""
        raise NotImplementedError

    def test_url_opens_the_same_store(self, store: Store) -> None:
        """The URL is all that another process needs."""
        store.write("a", b"1", Create())
        assert open_store(store.url).read("a").data == b"1"

    def test_reads_back_what_was_written(self, store: Store) -> None:
        """Whole, and as a stream, with an etag that names it."""
        etag = store.write("a", b"one", Overwrite())
        assert store.read("a").data == b"one"
        assert store.read("a").etag == etag
        with store.open("a") as stream:
            assert stream.read(2) == b"on"

    def test_missing_is_not_found(self, store: Store) -> None:
        """Files and folders, and the message names them."""
        for call in (store.read, store.walk, store.children):
            with pytest.raises(NotFoundError, match="nothing"):
                call("nothing")
        with pytest.raises(NotFoundError, match="nothing"), store.open("nothing"):
            pass

    def test_create_is_exclusive(self, store: Store) -> None:
        """One writer wins, and its bytes stay."""
        store.write("a", b"first", Create())
        with pytest.raises(ConflictError, match="a"):
            store.write("a", b"second", Create())
        assert store.read("a").data == b"first"

    def test_update_needs_what_was_read(self, store: Store) -> None:
        """A stale etag loses; so does an update of what is gone."""
        old = store.write("a", b"1", Create())
        new = store.write("a", b"2", Update(old))
        with pytest.raises(ConflictError):
            store.write("a", b"3", Update(old))
        store.write("a", b"3", Update(new))
        store.delete("a")
        with pytest.raises(ConflictError):
            store.write("a", b"4", Update(new))

    def test_concurrent_updates_lose_nothing(self, store: Store) -> None:
        """Ten threads add one to a number ten times each."""
        store.write("n", b"0", Create())

        def count() -> None:
            own = open_store(store.url)
            for _ in range(10):
                while True:
                    content = own.read("n")
                    try:
                        own.write("n", str(int(content.data) + 1).encode(), Update(content.etag))
                    except ConflictError:
                        continue
                    break

        threads = [threading.Thread(target=count) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.read("n").data == b"100"

    def test_published_folder_appears_whole(self, store: Store) -> None:
        """With hidden files and folders inside."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        _stage(store, "m/1", {"model.onnx": b"model", ".manifest.json": b"{}", "sub/data": b"d"})
        assert [(f.path, f.size) for f in store.walk("m/1")] == [
            (".manifest.json", 2),
            ("model.onnx", 5),
            ("sub/data", 1),
        ]
        assert store.children().folders == ("m",)
        assert store.children("m").folders == ("1",)
        assert store.children("m").files == ("config.pbtxt",)

    def test_publish_never_replaces(self, store: Store) -> None:
        """The second of two loses, and the first stays as it was."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        _stage(store, "m/1", {"model.onnx": b"first"})
        with pytest.raises(ConflictError):
            _stage(store, "m/1", {"model.onnx": b"second", "more": b""})
        assert [f.path for f in store.walk("m/1")] == ["model.onnx"]
        assert store.read("m/1/model.onnx").data == b"first"

    def test_publish_into_what_was_removed(self, store: Store) -> None:
        """A version of an entry that is gone does not bring it back."""
        with pytest.raises(NotFoundError):
            _stage(store, "gone/1", {"model.onnx": b""})
        assert store.children().folders == ()

    def test_abandoned_stage_leaves_nothing(self, store: Store) -> None:
        """Not in the store, and not on the disk."""
        with store.staging() as stage:
            (stage / "model.onnx").write_bytes(b"half")
        assert not stage.exists()
        assert store.children().folders == store.children().files == ()

    def test_neighbours_with_the_same_prefix_are_apart(self, store: Store) -> None:
        """``my-model`` and ``my-model-2`` are two things."""
        for name in ("my-model", "my-model-2"):
            _stage(store, name, {"config.pbtxt": name.encode()})
        assert store.children("my-model").files == ("config.pbtxt",)
        store.remove_folder("my-model")
        assert store.children().folders == ("my-model-2",)

    def test_removing_what_is_gone_is_fine(self, store: Store) -> None:
        """Deletion always ends."""
        store.delete("a")
        store.remove_folder("m")
        assert store.children().files == ()

    def test_exclusive_is_reentrant(self, store: Store) -> None:
        """Writes inside it, and inside it again."""
        with store.exclusive(), store.exclusive():
            store.write("a", b"1", Create())
            _stage(store, "m", {"config.pbtxt": b""})
        assert store.children().files == ("a",)
        assert store.children().folders == ("m",)

    def test_exclusive_keeps_others_out(self, store: Store) -> None:
        """Another handle on the same store waits."""
        order: list[str] = []
        entered = threading.Event()

        def other() -> None:
            entered.set()
            with open_store(store.url).exclusive():
                order.append("other")

        thread = threading.Thread(target=other)
        with store.exclusive():
            thread.start()
            entered.wait(30)
            order.append("own")
        thread.join(60)
        assert order == ["own", "other"]

    @pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\\b", "a\0"])
    def test_keys_stay_inside(self, store: Store, key: str) -> None:
        """No key leads out of the store."""
        for call in (store.read, store.walk, store.children, store.delete, store.remove_folder):
            with pytest.raises(InvalidInputError):
                call(key)

    def test_staging_is_a_local_folder(self, store: Store) -> None:
        """Exporters write files into it by path."""
        with store.staging() as stage:
            assert isinstance(stage, Path)
            assert stage.is_dir()
            assert not list(stage.iterdir())
