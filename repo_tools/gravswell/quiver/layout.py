"""Where things lie in a repository: folder and file names, the rules for both, and nothing that touches a disk.

Keys are paths relative to the repository's root, with ``/`` on every platform and every store.
"""

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from gravswell.errors import InvalidInputError
from gravswell.names import why_reserved

CONFIG = "config.pbtxt"
"""The entry's working copy of its configuration, in the model's folder."""

CLAIM = ".claim.json"
"""Marks a version of an object store whose upload is under way or died; such a version is hidden from readers."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")


def check_name(name: str) -> str:
    """Return ``name`` if a new entry may bear it, else raise :class:`InvalidInputError`.

    The name becomes a folder, a part of a URL and a Triton model name, so it is one plain path component.
    """
    reserved = why_reserved(name)
    if _NAME.fullmatch(name) and reserved is None:
        return name
    if not name:
        fact = "it is empty"
    elif "/" in name or "\\" in name:
        fact = "it holds a path"
    elif name.startswith("."):
        fact = "it starts with a dot, and hidden folders are no models"
    elif reserved is not None:
        fact = reserved
    elif len(name) > 200:
        fact = f"it is {len(name)} characters long"
    else:
        bad = sorted({c for c in name if not re.fullmatch(r"[A-Za-z0-9_.-]", c)} or {name[0]})
        fact = f"it holds or starts with {', '.join(map(repr, bad))}"
    raise InvalidInputError(
        f"{name!r} cannot name an entry: {fact}; use up to 200 letters, digits, '_', '-' and '.', "
        f"starting with a letter, a digit or '_'"
    )


def is_readable_name(name: str) -> bool:
    """Whether a folder of that name can be an entry, also one that others made: Triton takes nearly everything."""
    return bool(name) and not name.startswith(".") and not any(c in name for c in "/\\\0")


def parse_version(name: str) -> int | None:
    """The number of the version folder ``name``, or None.

    Only plain positive decimals count: Triton's own ``stoll`` would take ``2.tmp`` for version 2 and ``-1`` for -1.
    """
    return int(name) if _NUMBER.fullmatch(name) else None


def version_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of those of the folders ``names`` that are version folders, ascending."""
    return sorted(number for number in map(parse_version, names) if number is not None)


def version_at(path: str) -> int:
    """The number of the version whose main file an export says is at ``path``, on a disk or in a bucket.

    The entry's newest version may be another writer's by then.
    """
    return int(PurePosixPath(path.replace("\\", "/")).parent.name)


def check_version(number: int) -> int:
    """Return ``number`` if it can be a version, else raise :class:`InvalidInputError`."""
    if isinstance(number, bool) or not isinstance(number, int) or parse_version(str(number)) is None:
        raise InvalidInputError(f"{number!r} cannot be a version: versions are whole numbers from 1 on")
    return number


def config_key(entry: str) -> str:
    """Key of the entry's working configuration."""
    return f"{entry}/{CONFIG}"


def version_folder(entry: str, number: int) -> str:
    """Key of the version's folder."""
    return f"{entry}/{number}"


def state_key(entry: str) -> str:
    """Key of the small file that remembers what the entry's folder cannot: the next number and the aliases.

    At the root: Triton 24.08 and later reloads every version when a non-numeric name in the model's folder is newer.
    """
    return f".{entry}.gravswell.json"


def is_state_key(name: str) -> bool:
    """Whether a file of that name at the root is such a one."""
    return name.startswith(".") and name == state_key(name[1:].removesuffix(state_key("")[1:]))


def check_key(key: str) -> str:
    """Return ``key`` if it stays inside the repository, else raise :class:`InvalidInputError`."""
    parts = key.split("/")
    if "\0" in key or "\\" in key or any(part in ("", ".", "..") for part in parts):
        raise InvalidInputError(f"{key!r} is no path inside a repository: it must be relative, without '.' or '..'")
    return key
