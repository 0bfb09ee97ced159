"""What the functions of pipelines import: for each set of requirements a folder of packages in the user's cache.

The folder is put before the packages of Triton's Python stub, which has some in versions of its own. The stub's NumPy
is the only one that it works with: a folder holds none. What a package says of NumPy is obeyed where that can be. Where
it asks for NumPy 2, as those do that were built with it and run on older ones too, it is installed all the same: if it
does not run, its import says so.
"""

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gravswell.cache import cache_dir
from gravswell.errors import InvalidInputError, UnavailableError
from gravswell.quiver.composition.requirements import requirements_in
from gravswell.serving.triton.install import STUB_NUMPY
from gravswell.serving.triton.packages import Progress, digest, install_packages, once
from gravswell.serving.triton.support import require_plain_path

TYPICAL_BYTES: Final = 100_000_000
"""Of a few scientific packages; progress is shown against it."""

_CONFLICT = re.compile(r"conflict|ResolutionImpossible|unsatisfiable|No solution", re.IGNORECASE)
"""How installers tell that no set of versions fits, rather than that nothing was found."""


def ensure_environment(requirements: str, whose: str, progress: Progress | None = None) -> Path:
    """Return the folder with the packages of ``requirements``, the text of a ``requirements.txt``; install them if new.

    Any number of processes may call this at once. UnavailableError names ``whose`` they are, and the installer's words:
    there is no network, no such version, or none built for this Python.
    """
    try:
        lines = sorted(map(str, requirements_in(requirements)))
    except InvalidInputError as error:
        raise UnavailableError(f"the packages of {whose} cannot be installed: its requirements.txt: {error}") from None
    root = cache_dir() / "environments"
    require_plain_path(root, "let GRAVSWELL_CACHE name another folder")
    target = root / digest(sys.version, sys.base_prefix, STUB_NUMPY, *lines)
    what = f"the packages of {whose} ({', '.join(lines)})"
    report = progress or (lambda _step, _done, _total: None)
    once(target, TYPICAL_BYTES, what, lambda stage: _build(stage, lines, what, report))
    return target / "packages"


def _build(stage: Path, lines: Sequence[str], what: str, report: Progress) -> None:
    constraint = stage / "constraint.txt"
    constraint.write_text(f"{STUB_NUMPY}\n")
    packages = stage / "packages"
    try:
        _install(packages, [*lines, "--constraint", str(constraint)], what, report)
    except UnavailableError as error:
        if not _CONFLICT.search(str(error)):
            raise
        shutil.rmtree(packages)
        _install(packages, lines, what, report)
    for numpy in [found for name in ("numpy", "numpy.libs", "numpy-*.dist-info") for found in packages.glob(name)]:
        shutil.rmtree(numpy)


def _install(target: Path, requirements: Sequence[str], what: str, report: Progress) -> None:
    try:
        install_packages(requirements, target, TYPICAL_BYTES, report)
    except UnavailableError as error:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise UnavailableError(f"{what} cannot be installed for Python {version}: {error}") from None
