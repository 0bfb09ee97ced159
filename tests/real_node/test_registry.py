"""The registry that a node pulls from: an archive's image, by the distribution protocol."""

import gzip
import hashlib
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from gravswell_operator.devcluster.realnode import Registry, static_image

IMAGE = "registry.test/tools/hello:7"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "hello"
    path.write_bytes(b"a program " * 10_000)
    return path


@pytest.fixture
def registry(tmp_path: Path, program: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", address="127.0.0.1") as registry:
        registry.add(static_image(tmp_path / "hello.tar", "elsewhere/hello:1", program), IMAGE)
        yield registry


def get(registry: Registry, path: str, method: str = "GET") -> tuple[dict[str, str], bytes]:
    request = urllib.request.Request(f"{registry.url}/v2/tools/hello/{path}", method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(answer.headers), answer.read()


def test_an_image_is_found_by_its_tag_and_what_is_in_it_by_digests(registry, program):
    headers, body = get(registry, "manifests/7")
    digest = headers["Docker-Content-Digest"]
    assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert get(registry, f"manifests/{digest}")[1] == body
    manifest = json.loads(body)
    assert headers["Content-Type"] == manifest["mediaType"]
    config = json.loads(get(registry, f"blobs/{manifest['config']['digest']}")[1])
    (layer,) = manifest["layers"]
    packed = get(registry, f"blobs/{layer['digest']}")[1]
    assert len(packed) == layer["size"] < program.stat().st_size
    content = gzip.decompress(packed)
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]
    with tarfile.open(fileobj=BytesIO(content)) as tar:
        assert tar.getnames() == ["hello"]


def test_what_was_asked_for_is_counted_and_a_head_is_not(registry):
    headers, body = get(registry, "manifests/7", "HEAD")
    assert (int(headers["Content-Length"]) > 0, body, registry.sent) == (True, b"", 0)
    _, body = get(registry, "manifests/7")
    assert registry.sent == len(body) < registry.size


@pytest.mark.parametrize("path", ["manifests/8", "blobs/sha256:0", "tags/list"])
def test_what_is_not_there_is_not_found(registry, path):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(registry, path)
