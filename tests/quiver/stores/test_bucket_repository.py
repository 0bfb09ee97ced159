"""The whole library on a bucket of each kind: what a user does with it, and what other writers and deaths do to it."""

import logging
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, Children, Create, burial, claims, open_store
from gravswell.quiver.stores.objects import Objects
from gravswell.quiver.verification import verify_version

from ..crowds import LIMIT, crowd
from .emulators import PAGE, Server

EXPORTER = Path(__file__).with_name("exporting.py")
Affine = Callable[..., Any]


@pytest.fixture
def repo(bucket: str) -> qv.ModelRepository:
    return qv.ModelRepository(f"{bucket}/my repo")


def keys(url: str) -> list[str]:
    """Every object under the URL, as its store lists them."""
    store = open_store(url)
    assert isinstance(store, BucketStore)
    return sorted(info.key for info in store.objects.list(store.prefix))


def test_a_user_s_day(bucket: str, tmp_path: Path, affine: Affine) -> None:
    """The notebook's bucket cells, then the rest of a version's life."""
    repo = qv.ModelRepository(bucket)
    entry = repo.add("my-model", platform=qv.Platform.ONNX)
    entry.config.add_instance_group(count=4)
    assert entry.export_version(affine()) == f"{bucket}/my-model/1/model.onnx"
    store = open_store(bucket)
    assert store.children("my-model") == Children(("1",), ("config.pbtxt",))
    assert "count: 4" in str(qv.ModelRepository.open(bucket).models["my-model"].config)

    entry.export_version(affine(scale=3.0))
    assert entry.versions == [1, 2]
    assert entry.version(2).manifest.parent == 1
    assert not [key for key in keys(bucket) if key.endswith(".claim.json")]
    with pytest.raises(InvalidInputError, match="signature"):
        entry.export_version(affine(3))
    with pytest.raises(ConflictError, match="3 or more"):
        entry.export_version(affine(), version=1)
    reader = RepositoryReader(bucket)
    reader.fetch("my-model", 2, tmp_path / "fetched")
    assert (tmp_path / "fetched/model.onnx").read_bytes() == store.read("my-model/2/model.onnx").data
    verify_version(reader, "my-model", 2)

    with pytest.raises(ConflictError, match="exists already"):
        repo.add("my-model")
    entry.remove_version(2)
    entry.export_version(affine())
    assert entry.versions == [1, 3]
    repo.add("other")
    entry = repo.add("my-model", force=True)
    assert entry.versions == []
    entry.export_version(affine(3))
    assert entry.versions == [4]
    repo.remove("my-model")
    with pytest.raises(NotFoundError, match="was removed"):
        str(entry.config)
    assert list(qv.ModelRepository.open(bucket).models) == ["other"]
    repo.delete()
    assert keys(bucket) == []


def test_delete_takes_no_more_than_the_repository(bucket: str) -> None:
    theirs = open_store(bucket)
    for key in ("my-repo-2/m/config.pbtxt", "my-repo", "notes.txt"):
        theirs.write(key, b"theirs", Create())
    repo = qv.ModelRepository(f"{bucket}/my-repo")
    repo.add("m")
    repo.delete()
    assert keys(bucket) == ["my-repo", "my-repo-2/m/config.pbtxt", "notes.txt"]


def test_a_bucket_with_other_things_is_refused(bucket: str) -> None:
    open_store(bucket).write("photos/cat.jpg", b"", Create())
    with pytest.raises(InvalidInputError, match="photos"):
        qv.ModelRepository(bucket)


class Counted:
    """Counts the calls to a bucket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: BucketStore) -> None:
        self.calls: Counter[str] = Counter()
        self._objects: Objects = store.objects
        for name in ("pages", "get", "stat", "delete"):
            monkeypatch.setattr(self._objects, name, self._counting(name, getattr(self._objects, name)))

    def _counting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            self.calls[name] += 1
            return call(*args)

        return counted


def test_more_entries_than_an_answer_to_a_listing_holds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened with one flat listing of three pages; nothing is read before it is asked for."""
    monkeypatch.setattr("gravswell.quiver.stores.google._PAGE", PAGE)
    count = 2 * PAGE + 70  # and more than one request for deletions takes, where that is Azure's 256
    store = open_store(f"{bucket}/r")
    assert isinstance(store, BucketStore)
    config = b'platform: "onnxruntime_onnx"\n'
    store.in_parallel(lambda i: store.write(f"m{i}/config.pbtxt", config, Create()), range(count))
    counted = Counted(monkeypatch, store)
    monkeypatch.setattr("gravswell.quiver.repository.open_store", lambda url, **_: store)
    repo = qv.ModelRepository(f"{bucket}/r")
    assert counted.calls == {"pages": 1}
    assert len(repo.models) == count
    assert counted.calls == {"pages": 2}
    assert repo.models["m7"].platform is qv.Platform.ONNX
    repo.delete()
    assert keys(bucket) == []


def test_more_deletions_than_one_request_takes(amazon: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 takes a thousand keys; those that are not there cost little."""
    for variable, value in amazon.environment.items():
        monkeypatch.setenv(variable, value)
    amazon.make_bucket("deletions")
    store = open_store("s3://deletions")
    assert isinstance(store, BucketStore)
    for key in ("first", "last"):
        store.write(key, b"", Create())
    store.objects.delete(["first", *(f"absent/{i}" for i in range(1000)), "last"])
    assert keys("s3://deletions") == []


def test_folder_markers_are_no_entries(google: Any, monkeypatch: pytest.MonkeyPatch, affine: Affine) -> None:
    """As a cloud's console makes them when a person makes a folder."""
    for variable, value in google.environment.items():
        monkeypatch.setenv(variable, value)
    google.make_bucket("markers")
    store = open_store("gs://markers/r")
    assert isinstance(store, BucketStore)
    for key in ("r/", "r/m/", "r/m/1/", "r/empty/"):
        store.objects.put(key, b"", Create())
    repo = qv.ModelRepository("gs://markers/r")
    assert list(repo.models) == []
    entry = repo.add("m")
    entry.export_version(affine())
    assert entry.versions == [1]
    repo.delete()
    assert [key for key in keys("gs://markers") if not key.endswith("/")] == []


def _claimed(store: BucketStore, folder: str) -> None:
    """What a writer leaves that dies in mid-upload."""
    store.write(f"{folder}/.claim.json", b"{}", Create())
    store.write(f"{folder}/model.onnx", b"half", Create())


def test_a_living_upload_is_hidden_and_left_alone(repo: qv.ModelRepository, affine: Affine) -> None:
    entry = repo.add("m")
    store = open_store(repo.url)
    assert isinstance(store, BucketStore)
    entry.export_version(affine())
    _claimed(store, "m/2")
    entry.export_version(affine())
    assert entry.versions == [1, 3]
    assert [f.path for f in store.walk("m/2")] == [".claim.json", "model.onnx"]


def test_a_dead_upload_is_cleared_away(
    repo: qv.ModelRepository, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number stays closed: first by a tombstone, then, once that is old, by what is remembered."""
    entry = repo.add("m")
    store = open_store(repo.url)
    assert isinstance(store, BucketStore)
    _claimed(store, "m/1")
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    entry.export_version(affine())
    assert entry.versions == [2]
    assert [key for key in keys(repo.url) if "/m/1/" in key] == ["my repo/m/1/.manifest.json"]
    with pytest.raises(ConflictError):
        store.write("m/1/.manifest.json", b"{}", Create())
    with pytest.raises(NotFoundError):
        store.walk("m/1")
    monkeypatch.setattr(burial, "TOMBSTONES_STAY", timedelta(0))
    entry.export_version(affine())
    assert [key for key in keys(repo.url) if "/m/1/" in key] == []
    entry.remove_version(2)
    entry.remove_version(3)
    entry.export_version(affine())
    assert entry.versions == [4]


def test_a_writer_that_was_taken_for_dead_starts_over(
    repo: qv.ModelRepository, affine: Affine, caplog: pytest.LogCaptureFixture
) -> None:
    """It stood still after its upload; a cleaner closes its number; it wakes up, and its version gets the next one."""
    entry = repo.add("m")
    confirm = claims.Claim.confirm
    asleep = pytest.MonkeyPatch()  # its own, for it ends before the test does
    asleep.setattr(claims, "BEAT", timedelta(hours=1))

    def sleep_through(claim: claims.Claim) -> None:
        asleep.setattr(claims.Claim, "confirm", confirm)
        store = open_store(repo.url)
        assert isinstance(store, BucketStore)
        asleep.setattr(claims, "EXPIRY", timedelta(0))
        asleep.setattr(burial, "EXPIRY", timedelta(0))
        now = store.view("m").objects["m/1/.claim.json"].modified
        burial.sweep(store, store.view("m"), "m", now=now, own=2)
        asleep.undo()
        confirm(claim)

    asleep.setattr(claims.Claim, "confirm", sleep_through)
    with caplog.at_level(logging.WARNING):
        try:
            entry.export_version(affine())
        finally:
            asleep.undo()
    assert entry.versions == [2]
    assert [key for key in keys(repo.url) if "/m/1/" in key] == ["my repo/m/1/.manifest.json"]


def _exporter(url: str, count: int, log: Path, model: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, EXPORTER, url, str(count), log, model], stderr=log.with_suffix(".err").open("wb")
    )


@pytest.fixture
def model(tmp_path: Path, affine: Affine) -> Path:
    path = tmp_path / "affine.onnx"
    path.write_bytes(affine().SerializeToString())
    return path


@pytest.mark.timeout(LIMIT + 60)
def test_a_crowd_loses_nothing(repo: qv.ModelRepository, tmp_path: Path, model: Path) -> None:
    """Four processes export to one model while a reader reads: every version is there, whole, and no reader fails."""
    crowd(repo.url, model, tmp_path / "logs", each=6)
    assert not [key for key in keys(repo.url) if key.endswith(".claim.json")]


def test_a_killed_exporter_leaves_what_was_and_a_way_on(
    repo: qv.ModelRepository, tmp_path: Path, model: Path, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at random moments: what it said is there, what is there is whole, and the next export clears the rest."""
    entry = repo.add("m")
    rng = random.Random(4)
    said: list[int] = []
    for kill in range(4):
        log = tmp_path / f"{kill}.log"
        process = _exporter(repo.url, 1000, log, model)
        try:
            end = time.monotonic() + 120
            while not (log.exists() and log.read_text()):
                assert process.poll() is None, log.with_suffix(".err").read_text()
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(rng.uniform(0, 0.4))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        said += [int(line) for line in log.read_text().split()]
        reader = RepositoryReader(repo.url)
        versions = {info.number for info in reader.versions("m")}
        assert versions >= set(said)
        assert len(versions) <= len(said) + kill + 1
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    monkeypatch.setattr(burial, "TOMBSTONES_STAY", timedelta(0))
    for _ in range(2):
        entry.export_version(affine())
    assert not [key for key in keys(repo.url) if key.endswith(".claim.json")]
    store = open_store(repo.url)
    for number in entry.versions:
        files = set(entry.version(number).manifest.files) | {".manifest.json"}
        assert {f.path for f in store.walk(f"m/{number}")} == files
        verify_version(reader, "m", number)
    assert {int(n) for n in store.children("m").folders} == set(entry.versions)


def test_removal_races_exports(repo: qv.ModelRepository, tmp_path: Path, model: Path) -> None:
    """An export that is under way never brings a removed entry back, and no number is used twice."""
    repo.add("m")
    process = _exporter(repo.url, 1000, tmp_path / "0.log", model)
    try:
        end = time.monotonic() + 120
        while not ((tmp_path / "0.log").exists() and (tmp_path / "0.log").read_text()):
            assert process.poll() is None, (tmp_path / "0.err").read_text()
            assert time.monotonic() < end
            time.sleep(0.02)
        qv.ModelRepository.open(repo.url).remove("m")
        assert process.wait(120) != 0
    finally:
        process.kill()
        process.wait()
    assert "NotFoundError" in (tmp_path / "0.err").read_text()
    said = [int(line) for line in (tmp_path / "0.log").read_text().split()]
    assert list(qv.ModelRepository.open(repo.url).models) == []
    entry = repo.add("m")
    entry.export_version(model)
    assert entry.versions[0] > max(said)


def test_the_command_line_takes_the_url(bucket: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From an empty bucket to a verified version and back; only Triton on this machine needs a folder."""

    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "gravswell", *arguments], capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    url = f"{bucket}/r"
    for arguments in (["init", url], ["add", url, "m"], ["export", url, "m", str(model)], ["verify", url]):
        code, output = run(*arguments)
        assert code == 0, output
    code, output = run("ls", url, "--output", "json")
    assert code == 0
    assert '"m"' in output
    code, output = run("serve", url)
    assert code == 9
    assert f"`gravswell sync {url} FOLDER` makes one of it" in output
