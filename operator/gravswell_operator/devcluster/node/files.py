"""Files that change all at once, as a kubelet projects them: data in a new folder, then one link is switched."""

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gravswell.errors import InvalidInputError


@dataclass(frozen=True)
class Projected:
    """The content and mode of one file of a projected volume."""

    content: bytes
    mode: int = 0o644


def project(folder: Path, files: Mapping[str, Projected]) -> bool:
    """Make ``folder`` show exactly ``files`` (relative path to content) by one atomic switch; False if it did already.

    ``folder/<name>`` links to ``..data/<name>`` and ``..data`` to the folder with the present content, so a reader sees
    all files old or all files new.
    """
    for name in files:
        if name.startswith("/") or ".." in Path(name).parts or Path(name).parts[0].startswith("..data"):
            raise InvalidInputError(f"{name!r} cannot be a file of a volume: it must be a path below it, without '..'")
    data = folder / "..data"
    current = _read(data.resolve()) if data.exists() else None
    if current == dict(files):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    old = data.readlink() if data.is_symlink() else None
    fresh = folder / f"..{secrets.token_hex(6)}"
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    fresh.mkdir(exist_ok=True)
    link = folder / "..data.new"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    _link_names(folder, {Path(name).parts[0] for name in files})
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)  # nobody needs it; a reader may hold a file of it open
    return True


def _link_names(folder: Path, names: set[str]) -> None:
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(Path("..data") / name)
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()


def _read(folder: Path) -> dict[str, Projected]:
    return {
        str(path.relative_to(folder)): Projected(path.read_bytes(), path.stat().st_mode & 0o777)
        for base, _, names in os.walk(folder)
        for path in (Path(base) / name for name in names)
    }
