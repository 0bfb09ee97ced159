"""Where the embedded Triton can run: decided from plain facts, so that every platform is tested on any."""

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gravswell.errors import InvalidInputError, UnsupportedError

PYTHONS: Final = ((3, 11), (3, 12))
"""Interpreters whose stub is in the wheel and takes numpy < 2."""

GLIBC: Final = (2, 35)

WAY_OUT: Final = (
    "exporting, verifying and listing models work here without it; to serve them, use Linux on x86_64 with Python "
    "3.11 or 3.12, or apply the repository to a cluster"
)


@dataclass(frozen=True)
class Machine:
    """What decides. ``glibc`` is None where the C library is another one."""

    system: str
    architecture: str
    glibc: tuple[int, int] | None
    python: tuple[int, int]

    @classmethod
    def this(cls) -> Self:
        """The machine and interpreter that run this code."""
        library, version = platform.libc_ver()
        major, _, minor = version.partition(".")
        return cls(
            system=platform.system(),
            architecture=platform.machine(),
            glibc=(int(major), int(minor.split(".")[0])) if library == "glibc" and minor else None,
            python=sys.version_info[:2],
        )


def require_support(machine: Machine) -> None:
    """Raise :class:`UnsupportedError`, with what can still be done, where the embedded Triton cannot run."""
    obstacle = None
    if machine.system != "Linux":
        obstacle = f"it is built for Linux, and this is {machine.system}"
    elif machine.architecture != "x86_64":
        obstacle = f"it is built for x86_64, and this machine is {machine.architecture}"
    elif machine.glibc is None:
        obstacle = "it needs glibc 2.35 or newer, and this system has another C library"
    elif machine.glibc < GLIBC:
        obstacle = f"it needs glibc 2.35 or newer, and this system has {_dotted(machine.glibc)}"
    elif machine.python not in PYTHONS:
        obstacle = f"its Python backend takes Python 3.11 or 3.12, and this is {_dotted(machine.python)}"
    if obstacle:
        raise UnsupportedError(f"the embedded Triton cannot run here: {obstacle}; {WAY_OUT}")


def require_plain_path(path: Path, way_out: str) -> None:
    """Raise :class:`InvalidInputError` for a path that Triton's Python backend cannot hand to its shell.

    It quotes nothing, so a space there makes every load hang, and it reads other than ASCII letters wrongly.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.,:=@%+~/-]+", str(path)):
        raise InvalidInputError(
            f"the embedded Triton cannot work in {path}: the path holds a space or the like; {way_out}"
        )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
