"""The packages that a version's ``requirements.txt`` asks for: a line for each, as pip reads it, and no options."""

import importlib.metadata
import re
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from gravswell.errors import InvalidInputError
from gravswell.quiver.manifest import REQUIREMENTS_FILE

_COMMENT = re.compile(r"(^|\s)#.*$")
"""pip's: a URL may hold a # too."""


def parse_requirement(line: Any) -> Requirement:
    """InvalidInputError for what names no package."""
    try:
        return Requirement(line)
    except (InvalidRequirement, TypeError) as error:
        why = str(error).splitlines()[0]
        raise InvalidInputError(f"{line!r} names no package ({why}): write tokenizers==0.21") from None


def requirements_in(text: str) -> list[Requirement]:
    """The requirements of a ``requirements.txt``. InvalidInputError for a line that is none."""
    lines = [_COMMENT.sub("", line).strip() for line in text.splitlines()]
    return [parse_requirement(line) for line in lines if line]


def absent_here(folder: Path) -> list[str]:
    """Those requirements of the version in ``folder`` whose package is not installed here, in whatever version."""
    path = folder / REQUIREMENTS_FILE
    return [str(wanted) for wanted in requirements_in(path.read_text()) if _absent(wanted)] if path.is_file() else []


def _absent(wanted: Requirement) -> bool:
    if wanted.marker is not None and not wanted.marker.evaluate():
        return False
    try:
        importlib.metadata.distribution(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False
