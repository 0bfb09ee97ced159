"""Which modules a server has by itself, which a package brings, and which are the user's own files."""

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import distribution, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal

from gravswell.errors import InvalidInputError
from gravswell.quiver.composition.fresh import OWN_FOLDERS, package_folders

Kind = Literal["standard", "installed", "local"]

_NEEDED_ANYWAY = frozenset({"numpy"})
"""Packages that every server of pipelines has."""


def kind_of(name: str) -> Kind:
    """Where the module ``name`` comes from. One that is installed editable is the user's own: its files go along."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "standard"
    module = sys.modules.get(name)
    spec = find_spec(top) if module is None else module.__spec__
    origin = getattr(module, "__file__", None) or (spec.origin if spec is not None else None)
    if origin is None:  # a folder of packages, or nothing that is there
        return "installed" if top in _distributions() else "local"
    for folder in package_folders():
        # In any other folder than an interpreter's own, packages may lie beside the user's files.
        if Path(origin).is_relative_to(folder) and (folder.name in OWN_FOLDERS or top in _distributions()):
            return "installed"
    return "local"


def requirements_of(modules: set[str]) -> list[str]:
    """``name==version`` of the packages that bring the installed ones among ``modules``, beyond NumPy.

    Without a local label such as ``+cpu``, which no index has. InvalidInputError for a module of no package.
    """
    found = set()
    for module in modules:
        if kind_of(module) == "installed" and module.partition(".")[0] not in _NEEDED_ANYWAY:
            package = _package_of(module)
            found |= {f"{package}=={version(package).partition('+')[0]}"} if package is not None else set()
    return sorted(found)


def _package_of(module: str) -> str | None:
    """The package that has the module; None for a folder that several share (``google``), or what is not there."""
    candidates = _distributions().get(module.partition(".")[0], [])
    if len(candidates) == 1:
        return candidates[0]
    path = module.replace(".", "/")
    for package in candidates:
        files = distribution(package).files or ()
        if any(str(file.parent / file.name.partition(".")[0]) in (path, f"{path}/__init__") for file in files):
            return package
    file = getattr(sys.modules.get(module), "__file__", None)
    if candidates and file is None:
        return None
    raise InvalidInputError(
        f"{module}{f' ({file})' if file else ''} is of no installed package, so no server can install it: say what "
        f'brings it, requirements=["name==version"]'
    )


def local_files(module: ModuleType) -> dict[str, Path]:
    """The files of one of the user's own modules by their paths below the folder that it is imported from.

    That is its file, and the ``__init__.py`` of each package that it is in.
    """
    name, file = module.__name__, getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise InvalidInputError(f"module {name} has no Python file that could go along ({file}): use one that has")
    path = Path(file)
    parts = name.split(".")
    is_package = path.name == "__init__.py"
    inside = "/".join(parts) + ("/__init__.py" if is_package else ".py")
    root = path.parents[len(parts) if is_package else len(parts) - 1]
    files = {inside: path}
    for depth in range(1, len(parts)):
        package = "/".join([*parts[:depth], "__init__.py"])
        if (root / package).is_file():
            files[package] = root / package
    return files


def imported(source: str, package: str) -> Iterator[str]:
    """The modules that a source imports when it runs, wherever in it; relative ones are those of ``package``."""
    for node in _running(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in sys.modules)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes below: all but those that only type checkers see."""
    for_checkers = isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING"
    for child in node.orelse if for_checkers and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield child
        yield from _running(child)


def _distributions() -> dict[str, list[str]]:
    """The installed packages that have each module; a notebook may install more between two exports."""
    folders = [folder for folder in package_folders() if folder.is_dir()]
    return _distributions_at(tuple((folder, folder.stat().st_mtime_ns) for folder in folders))


@lru_cache(maxsize=1)
def _distributions_at(_: tuple[tuple[Path, int], ...]) -> dict[str, list[str]]:
    return {name: list(dict.fromkeys(found)) for name, found in packages_distributions().items()}
