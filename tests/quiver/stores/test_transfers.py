"""What goes over the network when versions are published and read: checksums, parts, progress, requests."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell.quiver.manifest import MANIFEST
from gravswell.quiver.stores import BucketStore, Create, open_store
from gravswell.quiver.stores import amazon as amazons
from gravswell.quiver.stores import azure as azures
from gravswell.quiver.stores import google as googles

from .emulators import PAGE, Server
from .proxy import GOOGLES_OWN, Proxy, proxied

LARGE = 40_000_001
"""Bytes: several parts of every store's."""


@pytest.fixture
def proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Between us and the server."""
    with proxied(server.endpoint) as proxy:
        for variable, value in server.behind(proxy.endpoint).items():
            monkeypatch.setenv(variable, value)
        yield proxy


def opened(url: str) -> BucketStore:
    store = open_store(url)
    assert isinstance(store, BucketStore)
    return store


def published(store: BucketStore, folder: Path, **keywords: Any) -> bytes:
    """Publish a version with a large file in it, and return that."""
    data = random.Random(1).randbytes(LARGE)
    folder.mkdir()
    (folder / "model.onnx").write_bytes(data)
    (folder / "small").write_bytes(b"small")
    (folder / MANIFEST).write_bytes(b"{}")
    store.write("m/config.pbtxt", b"c", Create())
    store.publish(folder, "m/1", **keywords)
    return data


def test_a_large_file_goes_up_in_parts(bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    """Each with a checksum, and told when it is there; nothing but the version stays."""
    assert amazons._PART >= 5 << 20, "S3 takes no smaller part but the last"
    store = opened(bucket)
    told: list[tuple[int, int]] = []
    data = published(store, tmp_path / "stage", progress=lambda done, total: told.append((done, total)))
    lengths = [int(found[1]) for head in proxy.heads if (found := re.search(r"(?i)\ncontent-length: (\d+)", head))]
    assert sum(length > 1_000_000 for length in lengths) >= 3
    assert told == sorted(told)
    assert len(told) >= 2
    assert told[-1] == (LARGE + 5, LARGE + 5)
    assert {f.path for f in store.walk("m/1")} == {"model.onnx", "small", MANIFEST}
    with store.open("m/1/model.onnx") as stream:
        assert stream.read() == data


def test_damage_on_the_way_up_is_found(server: Server, bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    """The store compares; moto does not, and there it is seen that the checksum was sent."""
    proxy.damages = 1
    if server.scheme == "s3":
        published(opened(bucket), tmp_path / "stage")
        parts = [head for head in proxy.heads if "partNumber=" in head]
        assert len(parts) >= 3
        assert all(re.search(r"(?i)\nx-amz-checksum-sha256: \S{44}", head) for head in parts)
    else:
        with pytest.raises(UnavailableError, match=bucket):
            published(opened(bucket), tmp_path / "stage")
        assert opened(bucket).children("m").folders in ((), ("1",))
        assert opened(bucket).view("m").children("m").files == ("config.pbtxt",)
    assert proxy.damages == 0


def test_parts_of_parts(google: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Google's store makes one object of 32 at most, so a larger file takes several steps."""
    for variable, value in google.environment.items():
        monkeypatch.setenv(variable, value)
    google.make_bucket("parts-of-parts")
    monkeypatch.setattr(googles, "_PART", 1000)
    monkeypatch.setattr(googles, "_COMPOSED", 3)
    store = opened("gs://parts-of-parts")
    data = random.Random(1).randbytes(11_001)  # 12 parts, then 4, then 2
    (tmp_path / "file").write_bytes(data)
    store.objects.put_file("a/file", tmp_path / "file", lambda _: None)
    assert [info.key for info in store.objects.list("a/")] == ["a/file"]
    with store.open("a/file") as stream:
        assert stream.read() == data


def test_damage_on_the_way_down_is_found(google: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a version that names no hashes, where the store keeps a checksum."""
    for variable, value in google.environment.items():
        monkeypatch.setenv(variable, value)
    google.make_bucket("damaged")
    store = opened("gs://damaged")
    store.write("m/config.pbtxt", b"some text", Create())
    whole = store.objects.get_range
    monkeypatch.setattr(store.objects, "get_range", lambda *a: whole(*a)[:-1] + b"?")
    with store.open("m/config.pbtxt") as stream, pytest.raises(UnavailableError, match=r"gs://damaged.*crc32c differs"):
        stream.read()


def test_requests_of_opening_a_repository(bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted on the wire: one list request to see that it is one, then one for each page, and nothing read; a
    configuration when asked for."""
    for module in (amazons, azures, googles):
        monkeypatch.setattr(module, "_PAGE", PAGE)
    store = opened(bucket)
    config = b'platform: "onnxruntime_onnx"\ninput { name: "x" data_type: TYPE_FP32 dims: 1 }\n'
    store.in_parallel(lambda i: store.write(f"m{i}/config.pbtxt", config, Create()), range(2 * PAGE + 1))
    proxy.heads.clear()
    repo = qv.ModelRepository.open(bucket)
    assert len(repo.models) == 2 * PAGE + 1
    lists = [head for head in proxy.heads if re.match(r"GET /\S*(list-type=2|comp=list|/o\?)", head)]
    assert len(lists) == 1 + 3, lists
    assert not [head for head in proxy.heads if re.match(r"GET /\S*config.pbtxt[? ]", head)]
    proxy.heads.clear()
    assert repo.models["m7"].platform is qv.Platform.ONNX
    read = [head.partition(" HTTP")[0] for head in proxy.heads if not GOOGLES_OWN.match(head)]
    assert len(read) == 1, read
    assert re.search(r"m7(/|%2F)config.pbtxt", read[0])
