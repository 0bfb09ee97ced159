"""The contract of :class:`Store` as a test suite, to be run by every store against a real server of its kind.

Subclass :class:`StoreContract` in a test module, :class:`LockContract` too for a store that can lock, and provide the
fixture ``store``: an empty store. Needs pytest.
"""

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores import Create, Overwrite, Store, Update, open_store


def _stage(store: Store, folder: str, files: dict[str, bytes]) -> None:
    with store.staging() as stage:
        for name, data in files.items():
            path = stage / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store.publish(stage, folder)


def _at_once(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
        _stage(store, "m/1", {"model.onnx": b"first", MANIFEST: b"{}"})
        with pytest.raises(ConflictError):
            _stage(store, "m/1", {"model.onnx": b"second", MANIFEST: b"{}", "more": b""})
        assert [f.path for f in store.walk("m/1")] == [MANIFEST, "model.onnx"]
        assert store.read("m/1/model.onnx").data == b"first"

    def test_publish_into_what_was_removed(self, store: Store) -> None:
        """A version of an entry that is gone does not bring it back."""
        with pytest.raises(NotFoundError):
            _stage(store, "gone/1", {"model.onnx": b"", MANIFEST: b"{}"})
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
            _stage(store, f"{name}/1", {"model.onnx": b"", MANIFEST: b"{}"})
        assert store.children("my-model").files == ("config.pbtxt",)
        store.remove_folder("my-model")
        assert store.children().folders == ("my-model-2",)
        assert [f.path for f in store.walk("my-model-2")] == [f"1/{MANIFEST}", "1/model.onnx", "config.pbtxt"]

    def test_removing_what_is_gone_is_fine(self, store: Store) -> None:
        """Deletion always ends."""
        store.delete("a")
        store.remove_folder("m")
        assert store.children().files == ()

    def test_a_removed_version_is_gone_and_its_neighbours_stay(self, store: Store) -> None:
        """``m/1`` is not ``m/10``."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        for number in (1, 2, 10):
            _stage(store, f"m/{number}", {"model.onnx": b"", "sub/data": b"d", MANIFEST: b"{}"})
        store.remove_folder("m/1")
        assert store.children("m").folders == ("10", "2")
        with pytest.raises(NotFoundError):
            store.walk("m/1")
        with pytest.raises(NotFoundError):
            store.read(f"m/1/{MANIFEST}")

    def test_a_removed_entry_is_gone(self, store: Store) -> None:
        """With all in it, and it can be made again."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        for number in (1, 2):
            _stage(store, f"m/{number}", {"model.onnx": b"", "sub/data": b"d", MANIFEST: b"{}"})
        store.remove_folder("m")
        assert store.children().folders == ()
        _stage(store, "m", {"config.pbtxt": b"d"})
        assert store.read("m/config.pbtxt").data == b"d"
        assert store.children("m").folders == ()

    def test_an_entry_is_replaced(self, store: Store) -> None:
        """What was in the old one is gone with it."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        _stage(store, "m/1", {"model.onnx": b"", MANIFEST: b"{}"})
        with store.staging() as stage:
            (stage / "config.pbtxt").write_bytes(b"d")
            store.publish(stage, "m", replace=True)
        assert [f.path for f in store.walk("m")] == ["config.pbtxt"]
        assert store.read("m/config.pbtxt").data == b"d"

    def test_one_of_many_publications_wins(self, store: Store) -> None:
        """Eight threads want one number; the version is one's own, whole."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        won: list[int] = []

        def publish(writer: int) -> None:
            try:
                _stage(open_store(store.url), "m/1", {"model.onnx": b"%d" % writer, MANIFEST: b'{"w": %d}' % writer})
            except ConflictError:
                return
            won.append(writer)

        _at_once(publish, 8)
        assert len(won) == 1
        assert store.read("m/1/model.onnx").data == b"%d" % won[0]
        assert store.read(f"m/1/{MANIFEST}").data == b'{"w": %d}' % won[0]

    def test_one_of_many_creations_wins(self, store: Store) -> None:
        """Also of an entry, and also where they would write the same."""
        won: list[int] = []

        def add(writer: int) -> None:
            try:
                _stage(open_store(store.url), "m", {"config.pbtxt": b"c"})
            except ConflictError:
                return
            won.append(writer)

        _at_once(add, 8)
        assert len(won) == 1

    @pytest.mark.parametrize("name", ["a b", "100%", "%20", "ümläut-模型", "a+b&c=d", "..dots", "#1?"])
    def test_keys_are_kept_as_they_are(self, store: Store, name: str) -> None:
        """Names that others gave, with what a URL would escape."""
        _stage(store, name, {"config.pbtxt": b"c"})
        store.write(f"{name}/.{name}", b"1", Create())
        assert store.children().folders == (name,)
        assert store.children(name).files == tuple(sorted((f".{name}", "config.pbtxt")))
        assert store.read(f"{name}/.{name}").data == b"1"
        store.delete(f"{name}/.{name}")
        assert store.children(name).files == ("config.pbtxt",)

    def test_a_large_file_is_streamed_whole(self, store: Store) -> None:
        """In several parts, both ways, with an odd number of bytes."""
        data = random.Random(1).randbytes(20_000_001)  # noqa: S311 - must only not repeat
        _stage(store, "m", {"config.pbtxt": b"c"})
        _stage(store, "m/1", {"model.onnx": data, MANIFEST: b"{}"})
        with store.open("m/1/model.onnx") as stream:
            assert stream.read(3) == data[:3]
            assert stream.read() == data[3:]
        with store.open("m/1/model.onnx") as stream:
            assert stream.read(10) == data[:10]  # and nobody waits for the rest

    def test_a_view_answers_as_the_store_does(self, store: Store) -> None:
        """At the moment when it was taken."""
        _stage(store, "m", {"config.pbtxt": b"c"})
        _stage(store, "m/1", {"model.onnx": b"", MANIFEST: b"{}"})
        for view in (store.view(), store.view("m")):
            assert view.children("m") == store.children("m")
            assert view.walk("m") == store.walk("m")
            assert view.walk("m/1") == store.walk("m/1")
            with pytest.raises(NotFoundError):
                view.children("m/2")

    def test_exclusive_is_reentrant(self, store: Store) -> None:
        """Writes inside it, and inside it again."""
        with store.exclusive(), store.exclusive():
            store.write("a", b"1", Create())
            _stage(store, "m", {"config.pbtxt": b""})
        assert store.children().files == ("a",)
        assert store.children().folders == ("m",)

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


class LockContract:
    """What a store must do beyond that if it can lock."""

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
