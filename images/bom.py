"""A bill of materials of an image's root file system: Debian's packages and Python's, as CycloneDX 1.6."""

from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name


def bill_of_materials(root: Path, image: str) -> dict[str, Any]:
    """Return the document for the file system at ``root`` of ``image`` (``name:tag``)."""
    components = sorted((*_debian(root), *_python(root)), key=lambda component: str(component["purl"]))
    name, _, tag = image.rpartition(":")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": image, "name": name, "version": tag}},
        "components": list({component["purl"]: component for component in components}.values()),
    }


def _debian(root: Path) -> Iterator[dict[str, Any]]:
    status = root / "var/lib/dpkg/status"
    if not status.exists():
        return
    for paragraph in status.read_text().strip().split("\n\n"):
        fields = HeaderParser().parsestr(paragraph)
        name, version, machine = fields["Package"], fields["Version"], fields["Architecture"]
        if not _is_there(root, name, machine):
            continue
        purl = f"pkg:deb/debian/{quote(name, safe='')}@{quote(version, safe='')}?arch={machine}"
        yield _component(name, version, purl)


def _is_there(root: Path, name: str, machine: str) -> bool:
    """Whether anything of a package is in the image but words on it: a Containerfile removes what dpkg still knows."""
    lists = root / "var/lib/dpkg/info"
    known = next((path for path in (lists / f"{name}.list", lists / f"{name}:{machine}.list") if path.exists()), None)
    paths = [root / line.lstrip("/") for line in known.read_text().splitlines()] if known is not None else []
    files = [path for path in paths if root / "usr/share/doc" not in path.parents and not path.is_dir()]
    return not files or any(path.is_symlink() or path.exists() for path in files)


def _python(root: Path) -> Iterator[dict[str, Any]]:
    for metadata in root.glob("opt/**/*.dist-info/METADATA"):
        fields = HeaderParser().parsestr(metadata.read_text(errors="replace"), headersonly=True)
        name = canonicalize_name(fields["Name"])
        yield _component(name, fields["Version"], f"pkg:pypi/{name}@{quote(fields['Version'], safe='')}")


def _component(name: str, version: str, purl: str) -> dict[str, Any]:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
