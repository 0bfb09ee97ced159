"""Environments with fewer packages than the tests' own, as users have them."""

import os
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SCRIPT = """\
#!{python}
import sys
from {module} import {name}
sys.exit({name}())
"""


def make_environment(folder: Path, wanted: str) -> Path:
    """The interpreter of an environment in ``folder`` with what ``pip install`` of a requirement gives, by links.

    The commands of these packages are beside it.
    """
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    python = folder / "bin/python"
    for found in _with_requirements(Requirement(wanted), {}).values():
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            link = packages / top
            if not link.exists():
                link.symlink_to(Path(str(found.locate_file(top))))
        for command in found.entry_points.select(group="console_scripts"):  # installed ones begin with their own Python
            script = python.with_name(command.name)
            script.write_text(SCRIPT.format(python=python, module=command.module, name=command.attr))
            script.chmod(0o755)
    return python


def without_python_variables() -> dict[str, str]:
    """This process's variables, without those that tell an interpreter where packages are."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def _with_requirements(
    wanted: Requirement, found: dict[tuple[str, str], Distribution]
) -> dict[tuple[str, str], Distribution]:
    """The distribution of that name and all that it needs with the extras that are asked for, by name and extra."""
    for extra in ("", *wanted.extras):
        key = (canonicalize_name(wanted.name), extra)
        if key not in found:
            found[key] = distribution(wanted.name)
            for requirement in map(Requirement, found[key].requires or ()):
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    _with_requirements(requirement, found)
    return found
