"""A release before this one: its chart, and its program as an image.

``earlier/`` has the chart and the wheel of commit 28b75e6. The image is this release's with that wheel's packages in
place of its own: the libraries are those of today.
"""

import hashlib
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

_FOLDER = Path(__file__).parent / "earlier"
CHART = _FOLDER / "gravswell-0.1.0.tgz"
TAG = "earlier"
_WHEEL = _FOLDER / "gravswell-0.1.0-py3-none-any.whl"
_PACKAGES = ("gravswell", "gravswell_operator")
_HIDES_THE_LAYERS_BELOW = ".wh..wh..opq"


def make_image(present: Path, archive: Path, name: str) -> Path:
    """Write the image ``name`` to ``archive``, given the archive of this release's, and return that."""
    with tarfile.open(present) as old, tarfile.open(archive, "w") as new:
        (listed,) = json.loads(_read(old, "manifest.json"))
        layer = _layer(_site_packages(old, listed["Layers"]))
        config = json.loads(_read(old, listed["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        for path in dict.fromkeys(listed["Layers"]):
            new.addfile(old.getmember(path), old.extractfile(path))
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [*listed["Layers"], "earlier.tar"]}]
        _add(new, "earlier.tar", layer)
        _add(new, "config.json", json.dumps(config).encode())
        _add(new, "manifest.json", json.dumps(manifest).encode())
    return archive


def _site_packages(image: tarfile.TarFile, layers: list[str]) -> str:
    for layer in layers:
        with tarfile.open(fileobj=image.extractfile(layer)) as content:
            for entry in content:
                if found := re.match(r"(?:\./)?(.*/site-packages)/gravswell/__init__\.py$", entry.name):
                    return found[1]
    raise AssertionError("the image has no package gravswell")


def _layer(folder: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar, zipfile.ZipFile(_WHEEL) as wheel:
        for package in _PACKAGES:
            _add(tar, f"{folder}/{package}/{_HIDES_THE_LAYERS_BELOW}", b"")
        for name in wheel.namelist():
            _add(tar, f"{folder}/{name}", wheel.read(name))
    return data.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = 0o644, len(content)
    tar.addfile(entry, io.BytesIO(content))


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    found = tar.extractfile(name)
    assert found is not None
    return found.read()
