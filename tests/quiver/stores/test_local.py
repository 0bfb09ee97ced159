"""The local store: the common contract, and what only a folder can do wrong."""

import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from gravswell.errors import AccessDeniedError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.quiver.stores import Create, LocalStore, Store, open_store
from gravswell.quiver.stores.testing import LockContract, StoreContract


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "my-repo"


class TestLocalStore(StoreContract, LockContract):
    @pytest.fixture
    def store(self, root: Path) -> Store:
        return open_store(root, create=True)


def test_opening_makes_nothing(root: Path) -> None:
    with pytest.raises(NotFoundError, match="gravswell init"):
        open_store(root)
    assert not root.exists()


def test_a_file_is_no_repository(root: Path) -> None:
    root.write_text("")
    for create in (True, False):
        with pytest.raises(InvalidInputError, match="file"):
            open_store(root, create=create)
    with pytest.raises(InvalidInputError, match="file"):
        open_store(root / "below", create=True)


@pytest.mark.parametrize("url", ["pvc://claim/path", "http://host/x"])
def test_other_kinds_are_refused_by_name(url: str) -> None:
    with pytest.raises(UnsupportedError, match=url):
        open_store(url)


@pytest.mark.parametrize("url", ["", "file://host/path", "file://relative"])
def test_bad_urls(url: str) -> None:
    with pytest.raises(InvalidInputError):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "meant"),
    [("gs:/bucket/x", "gs://bucket/x"), ("s3:bucket", "s3://bucket"), ("file:/models", "file:///models")],
)
def test_a_url_that_lacks_slashes_is_no_folder(
    url: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=f"write {meant}, or ./{url}"):
        open_store(url, create=True)
    assert not list(tmp_path.iterdir())
    open_store(f"./{url}", create=True)
    assert Path(url).is_dir()


def test_url_with_a_space_and_a_chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("my repo", create=True)
    assert store.location("a/b") == "my repo/a/b"
    monkeypatch.chdir("/")
    store.write("a", b"1", Create())
    assert (tmp_path / "my repo" / "a").read_bytes() == b"1"
    assert open_store(store.url).read("a").data == b"1"


def test_nothing_is_left_beside_or_inside(root: Path) -> None:
    store = open_store(root, create=True)
    store.write("a", b"1", Create())
    with store.staging() as stage:
        assert stage.parent.parent == root.parent, "staged on the same file system, outside of what Triton sees"
        assert list(root.iterdir()) == [root / "a"]
    store.remove_folder("nothing")
    assert list(root.parent.iterdir()) == [root]


def test_a_linked_entry_is_unlinked_not_emptied(root: Path, tmp_path: Path) -> None:
    store = open_store(root, create=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    (root / "m").symlink_to(outside)
    store.remove_folder("m")
    assert not (root / "m").exists()
    assert (outside / "precious").exists()


_HOLD = """
import sys
from gravswell.quiver.stores import open_store
with open_store(sys.argv[1]).staging() as stage:
    (stage / "model.onnx").write_bytes(b"half")
    print(stage, flush=True)
    sys.stdin.read()
"""


def test_the_next_writer_cleans_up_after_a_killed_one_and_spares_a_living_one(root: Path) -> None:
    store = LocalStore(root, create=True)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    dead, living = writers
    try:
        stages = []
        for writer in writers:
            assert writer.stdout is not None
            stages.append(Path(writer.stdout.readline().strip()))
        dead.send_signal(signal.SIGKILL)
        dead.wait(30)
        assert stages[0].exists()
        with store.staging():
            assert not stages[0].exists()
            assert stages[1].exists()
        assert living.stdin is not None
        living.stdin.close()
        assert living.wait(30) == 0
    finally:
        for writer in writers:
            writer.kill()
            writer.wait(30)
            for pipe in (writer.stdin, writer.stdout):
                if pipe is not None:
                    pipe.close()
    assert list(root.parent.iterdir()) == [root]


def test_denied_reads_as_denied(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(root, create=True)

    def denied(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(AccessDeniedError, match="owner and mode"):
        store.read("a")


def test_a_file_system_that_cannot_lock_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As NFS: only what is open for writing can be locked."""
    real = fcntl.flock

    def flock(file: int | IO[str], operation: int) -> None:
        if isinstance(file, int) and stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    store = open_store(root, create=True)
    store.write("a", b"1", Create())
    with store.staging():
        pass
    assert sorted(p.name for p in root.iterdir()) == [".gravswell.lock", "a"]
    store.delete("a")
    assert store.remove_root()
    assert list(root.parent.iterdir()) == []


def test_a_root_that_holds_something_keeps_its_lock_file(root: Path) -> None:
    store = open_store(root, create=True)
    for name in (".gravswell.lock", "theirs"):
        (root / name).write_text("")
    assert not store.remove_root()
    assert sorted(p.name for p in root.iterdir()) == [".gravswell.lock", "theirs"]


def test_a_linked_entry_is_replaced_not_emptied(root: Path, tmp_path: Path) -> None:
    store = open_store(root, create=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("")
    (root / "m").symlink_to(outside)
    with store.staging() as stage:
        store.publish(stage, "m", replace=True)
    assert not (root / "m").is_symlink()
    assert (outside / "precious").exists()
    assert sorted(tmp_path.iterdir()) == [root, outside]


def test_a_stage_that_cannot_be_cleaned_up_hides_no_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(root, create=True)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def fail() -> None:
        with monkeypatch.context() as patch, store.staging():
            patch.setattr(fcntl, "flock", refuse)
            raise ValueError("the first")

    with pytest.raises(ValueError, match="the first"):
        fail()
    with store.staging():
        pass
    assert list(root.parent.iterdir()) == [root], "the next writer takes what was left"


def test_a_lock_on_a_root_that_was_made_anew_keeps_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited for the lock of a root that was removed meanwhile has to wait for that of the new one."""
    old, waiting = (LocalStore(root, create=True) for _ in range(2))
    order: list[str] = []
    opened = threading.Semaphore(0)
    """Released each time that who waits has opened what it is about to lock."""
    real = fcntl.flock

    def flock(file: int | IO[str], operation: int) -> None:
        if threading.current_thread() is thread:
            opened.release()
        real(file, operation)

    def wait() -> None:
        with waiting.exclusive():
            order.append("waited")

    monkeypatch.setattr(fcntl, "flock", flock)
    thread = threading.Thread(target=wait)
    with old.exclusive():
        thread.start()
        assert opened.acquire(timeout=60)
        assert old.remove_root()
        new = LocalStore(root, create=True)
        new_lock = new.exclusive()
        new_lock.__enter__()
    assert opened.acquire(timeout=60)
    order.append("new")
    new_lock.__exit__(None, None, None)
    thread.join(60)
    assert order == ["new", "waited"]


_DIE_REPLACING = """
import os, signal, sys
from pathlib import Path
from gravswell.quiver.stores import open_store

store, point, rename, done = open_store(sys.argv[1]), int(sys.argv[2]), Path.rename, []
def counted(self, target):
    if len(done) == point:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(target)
    return rename(self, target)
Path.rename = counted
with store.staging() as stage:
    (stage / "new").write_bytes(b"")
    store.publish(stage, "m", replace=True)
"""


@pytest.mark.parametrize(("renames", "found"), [(0, "old"), (1, "old"), (2, "new")])
def test_a_replacement_that_dies_leaves_the_old_or_the_new(root: Path, renames: int, found: str) -> None:
    store = LocalStore(root, create=True)
    with store.staging() as stage:
        (stage / "old").write_bytes(b"")
        store.publish(stage, "m")
    killed = subprocess.run([sys.executable, "-c", _DIE_REPLACING, str(root), str(renames)], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    with store.exclusive():  # whatever the next writer does
        assert store.children("m").files == (found,)
    store.remove_folder("m")
    with store.staging():
        pass
    assert list(root.parent.iterdir()) == [root]
    assert list(root.iterdir()) == [], "what was removed after it does not come back"
