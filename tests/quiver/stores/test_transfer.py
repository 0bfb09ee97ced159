"""Copies to, from and between buckets of each kind, and what an interruption leaves."""

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import ConflictError, UnavailableError
from gravswell.quiver.layout import CLAIM
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import BucketStore, Create, burial, claims, objects, open_store
from gravswell.quiver.stores.claims import Claim
from gravswell.quiver.transfer import Transfer
from gravswell.quiver.verification import verify_version
from gravswell_operator.devcluster.processes import wait_until

from ..versions import put_versions
from .emulators import Server
from .proxy import Proxy, proxied

Affine = Callable[..., Any]


@pytest.fixture
def local(tmp_path: Path, affine: Affine) -> Path:
    entry = qv.ModelRepository(tmp_path / "local").add("m")
    entry.export_version(affine())
    entry.export_version(affine(scale=3.0))
    entry.promote(2, "champion")
    return tmp_path / "local"


def _digests(url: str | Path) -> dict[int, str | None]:
    return {version.number: version.digest for version in RepositoryReader(url).versions("m")}


def test_there_and_back_again(bucket: str, local: Path, tmp_path: Path) -> None:
    """From a folder to a bucket, to another prefix of it, and to another folder: one digest everywhere."""
    Transfer(local, f"{bucket}/a", state=True).run()
    Transfer(f"{bucket}/a", f"{bucket}/b", state=True).run()
    Transfer(f"{bucket}/b", tmp_path / "back", state=True).run()
    assert _digests(f"{bucket}/b") == _digests(tmp_path / "back") == _digests(local)
    assert (tmp_path / "back/m/config.pbtxt").read_bytes() == (local / "m/config.pbtxt").read_bytes()
    assert RepositoryReader(tmp_path / "back").aliases("m") == {"champion": 2}
    assert verify_version(RepositoryReader(f"{bucket}/b"), "m", 2).samples == 3
    assert {step.action for step in Transfer(local, f"{bucket}/b").run().steps} == {"same"}


def test_delete_takes_whole_entries(bucket: str, local: Path, affine: Affine) -> None:
    Transfer(local, bucket).run()
    theirs = qv.ModelRepository.open(bucket)
    theirs.models["m"].export_version(affine(scale=9.0))
    for name in ("busy", "gone"):
        theirs.add(name).export_version(affine())
    work = Transfer(local, bucket, delete=True)
    agreed = work.plan()
    theirs.models["busy"].export_version(affine())
    done = work.run(agreed)
    assert [str(step) for step in done.of("delete")] == ["m/3", "busy/1", "gone/1", "gone"]
    reader = RepositoryReader(bucket)
    assert {name: reader.numbers(name) for name in reader.entries()} == {"busy": [2], "m": [2, 1]}


def test_between_kinds_of_stores(google: Server, amazon: Server, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (google, amazon):
        for variable, value in server.environment.items():
            monkeypatch.setenv(variable, value)
        server.make_bucket(f"between-{server.scheme}")
    Transfer(local, "gs://between-gs/x").run()
    Transfer("gs://between-gs/x", "s3://between-s3/y").run()
    assert _digests("s3://between-s3/y") == _digests(local)


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=2))
    with proxied(server.endpoint) as proxy:
        for variable, value in server.behind(proxy.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield proxy


def test_a_copy_goes_on_where_it_was_cut(
    bucket: str, server: Server, proxy: Proxy, local: Path, monkeypatch: pytest.MonkeyPatch, affine: Affine
) -> None:
    """The number of a version that was half there is not lost, as an export's would be."""
    Transfer(local, bucket, {"m": [1]}).run()
    done: list[int] = []

    def cut(sent: int, _total: int) -> None:
        done.append(sent)
        if proxy.left is None and publishing:
            proxy.left = 0

    publishing: list[str] = []
    with pytest.raises(UnavailableError):
        Transfer(local, bucket).run(
            on_step=lambda _step, what: publishing.append(what) if what == "publishing" else None, progress=cut
        )
    assert done
    proxy.left = None
    store = open_store(bucket)
    left = {file.path for file in store.walk("m/2")}
    assert CLAIM in left
    assert MANIFEST not in left
    reader = RepositoryReader(bucket)
    assert reader.versions("m") == [reader.version("m", 1)]  # nothing half there
    # exporters come by meanwhile, and when it is old: its number stays its own
    monkeypatch.setattr(burial, "EXPIRY", timedelta(0))
    monkeypatch.setattr(claims, "EXPIRY", timedelta(0))
    qv.ModelRepository.open(bucket).models["m"].export_version(affine(scale=9.0))
    monkeypatch.setattr(claims, "BEAT", timedelta(seconds=0.5))
    Transfer(local, bucket).run()
    assert {number: _digests(bucket)[number] for number in (1, 2)} == _digests(local)
    assert 3 in _digests(bucket)
    assert CLAIM not in {file.path for file in store.walk("m/2")}
    assert verify_version(reader, "m", 2).samples == 3


LARGE = 17 << 20
"""Bytes: more than one part on every kind of store."""


def test_a_large_file_that_arrived_is_not_sent_again(
    bucket: str, server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two, the second is a stranger's by then, of the same size; on Google's store it even bears our mark."""
    qv.ModelRepository(tmp_path / "local").add("m")
    large = {name: random.Random(name).randbytes(LARGE) for name in ("a.bin", "b.bin")}
    put_versions(open_store(tmp_path / "local"), "m", [1], beside=large)
    digest = RepositoryReader(tmp_path / "local").version("m", 1).digest or ""
    publishing: list[str] = []

    def cut(sent: int, _total: int) -> None:
        if publishing and sent > LARGE + 100 and proxy.left is None:  # so some of the second, and all of the first
            proxy.left = 0

    with pytest.raises(UnavailableError):
        Transfer(tmp_path / "local", bucket).run(
            on_step=lambda _step, what: publishing.append(what) if what == "publishing" else None, progress=cut
        )
    proxy.left = None
    monkeypatch.setattr(objects, "PATIENCE", timedelta(seconds=60))
    store = open_store(bucket)
    assert isinstance(store, BucketStore)
    assert {"a.bin", CLAIM} <= {file.path for file in store.walk("m/1")}
    (tmp_path / "theirs").write_bytes(bytes(LARGE))
    stamp = digest if server.scheme == "gs" else ""
    store.objects.put_file("m/1/b.bin", tmp_path / "theirs", lambda _: None, stamp)
    store.write("m/1/.a.bin.part-00001", b"left of an upload", Create())

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(claims, "BEAT", timedelta(seconds=0.5))
    plenty = proxy.left = 1 << 40
    Transfer(tmp_path / "local", bucket).run(progress=lambda *done: told.append(done))
    assert LARGE < plenty - proxy.left < LARGE + (1 << 20), "bytes that went up"
    assert told[-1][0] == told[-1][1] > 2 * LARGE
    assert {file.path for file in store.walk("m/1")} == {"model.onnx", MANIFEST, *large}
    Transfer(bucket, tmp_path / "back").run()  # which compares every hash
    assert _digests(tmp_path / "back") == {1: digest}


def test_a_copy_that_lives_is_not_taken_over(bucket: str, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", timedelta(seconds=0.5))
    resume = Claim._resume

    def watching(watcher: Claim) -> str:
        """Until the other has been renewed, and not for its usual time: on a busy machine a beat may be late."""
        seen = claim._etag
        watcher._ended.wait = lambda *_: wait_until(lambda: claim._etag != seen, what="renewal", timeout=90)  # type: ignore[method-assign,assignment,func-returns-value]
        return resume(watcher)

    Transfer(local, bucket, {"m": [1]}).run()
    store = open_store(bucket)
    assert isinstance(store, BucketStore)
    digest = RepositoryReader(local).version("m", 2).digest or ""
    monkeypatch.setattr(Claim, "_resume", watching)
    for other in ("", "another", digest):  # an export, a copy of something else, and one of the same that goes on
        with (
            Claim(store.objects, "m/2/" + CLAIM, copy_of=other) as claim,
            pytest.raises(ConflictError, match="is writing it"),
        ):
            Transfer(local, bucket).run()
        assert _digests(bucket).keys() == {1}
        claim.drop()
    monkeypatch.setattr(Claim, "_resume", resume)
    with Claim(store.objects, "m/2/" + CLAIM, copy_of=digest) as claim:
        claim.leave()
    Transfer(local, bucket).run()
    assert _digests(bucket) == _digests(local)
