"""A registry of images on the node's machine, so that a kubelet pulls them as it does elsewhere. It is read-only."""

import hashlib
import http.server
import json
import re
import shutil
import tarfile
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from gravswell_operator.devcluster.realnode.machine import ADDRESS

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<reference>[^/?]+)")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class _Blob:
    """A file of an image, by its digest."""

    path: Path
    digest: str
    media_type: str

    @property
    def descriptor(self) -> dict[str, object]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.path.stat().st_size}


class Registry:
    """Serves images by the distribution protocol, without TLS and to whoever asks: a context manager.

    Make it in the machine's network, where it listens from then on. Layers are compressed when an image is added, as
    registries hold them.

    Args:
        directory: an absent or empty folder for what it serves.
        address: where it listens, at a port of its own.
    """

    def __init__(self, directory: Path, *, address: str = ADDRESS) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.sent = 0
        """Bytes of images that were asked for so far, those on their way included."""
        self._directory = directory
        self._counting = threading.Lock()
        self._blobs: dict[str, _Blob] = {}
        self._tags: dict[tuple[str, str], _Blob] = {}
        self._server = http.server.ThreadingHTTPServer((address, 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="registry", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def size(self) -> int:
        """Bytes of the images that it holds."""
        return sum(blob.path.stat().st_size for blob in self._blobs.values())

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def add(self, archive: Path, image: str) -> None:
        """Serve the one image of a docker archive as ``image``, ``REGISTRY/NAME:TAG``, whose registry is left out."""
        _registry, _, rest = image.partition("/")
        name, _, tag = rest.rpartition(":")
        with tarfile.open(archive) as tar:
            (listed,) = json.load(_member(tar, "manifest.json"))
            config = self._keep(_member(tar, listed["Config"]), _CONFIG, compress=False)
            layers = [self._keep(_member(tar, layer), _LAYER, compress=True) for layer in listed["Layers"]]
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": config.descriptor,
            "layers": [layer.descriptor for layer in layers],
        }
        path = self._directory / f"{tag}.json"
        path.write_text(json.dumps(manifest))
        with path.open("rb") as content:
            self._tags[name, tag] = self._keep(content, _MANIFEST, compress=False)

    def _keep(self, content: IO[bytes], media_type: str, *, compress: bool) -> _Blob:
        packed = self._directory / "incoming"
        digest = hashlib.sha256()
        packer = zlib.compressobj(wbits=31) if compress else None  # gzip's format
        with packed.open("wb") as target:

            def write(data: bytes) -> None:
                digest.update(data)
                target.write(data)

            while block := content.read(_BLOCK):
                write(packer.compress(block) if packer is not None else block)
            if packer is not None:
                write(packer.flush())
        blob = _Blob(self._directory / digest.hexdigest(), f"sha256:{digest.hexdigest()}", media_type)
        packed.replace(blob.path)
        self._blobs[blob.digest] = blob
        return blob

    def _find(self, path: str) -> _Blob | None:
        asked = _PATH.match(path)
        if asked is None:
            return None
        return self._blobs.get(asked["reference"]) or self._tags.get((asked["name"], asked["reference"]))

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._head(registry._find(self.path))

            def do_GET(self) -> None:
                blob = registry._find(self.path)
                self._head(blob)
                if blob is not None:
                    with registry._counting:
                        registry.sent += blob.path.stat().st_size
                    with blob.path.open("rb") as content:
                        shutil.copyfileobj(content, self.wfile, _BLOCK)

            def _head(self, blob: _Blob | None) -> None:
                headers: Mapping[str, str] = {"Content-Length": "0"}
                if blob is not None:
                    headers = {
                        "Content-Length": str(blob.path.stat().st_size),
                        "Content-Type": blob.media_type,
                        "Docker-Content-Digest": blob.digest,
                    }
                self.send_response(404 if blob is None else 200)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        return Handler


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    if found is None:
        raise ValueError(f"{tar.name!r} has no file {name}: it is no archive of an image")
    return found


__all__ = ["Registry"]
