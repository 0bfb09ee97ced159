"""From a function to a file of source: what it needs, found in its text and taken from where it was defined."""

import ast
import builtins
import dis
import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

from gravswell.errors import InvalidInputError
from gravswell.pipelines.shipping.modules import imported, kind_of, local_files, requirements_of
from gravswell.pipelines.shipping.text import definition_in, text_of, without_decorators
from gravswell.pipelines.shipping.values import as_source, is_endless

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS")
_STORES = ("STORE_GLOBAL", "DELETE_GLOBAL")
_OURS = ("model", "triton_python_backend_utils", "gravswell_calling", "pipeline_source")
"""Modules beside the shipped ones on a server: none of the user's may hide one."""


@dataclass(slots=True)
class Shipment:
    """What goes along with a pipeline."""

    source: str = ""
    modules: dict[str, Path] = field(default_factory=dict)
    """Files of the user's own modules, by their paths below the source's folder."""
    arrays: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    """By file name, without ``.npy``."""
    imports: set[str] = field(default_factory=set)
    """Every module that something in it imports."""

    @property
    def requirements(self) -> list[str]:
        """The packages that it needs, with the versions that are installed here."""
        return requirements_of(self.imports)


def ship(function: FunctionType, arrays_folder: str) -> Shipment:
    """What ``function`` needs to be defined anywhere. InvalidInputError names what cannot be written as source.

    :param arrays_folder: where its arrays will be, relative to the source's folder.
    """
    return _Packing(function, arrays_folder).shipment()


class _Packing:
    def __init__(self, function: FunctionType, arrays_folder: str) -> None:
        self._function = function
        self._module = function.__module__
        self._arrays_folder = arrays_folder
        self._made = Shipment()
        self._values: dict[str, Any] = {}
        self._lines: list[str] = []

    def shipment(self) -> Shipment:
        plain = inspect.unwrap(self._function)
        text = self._text(self._function.__name__, plain)
        self._definition(self._function.__name__, plain, without_decorators(text, self._above(text)))
        self._values[self._function.__name__] = self._function
        head = [
            '"""What a pipeline calls, as its author wrote it. Made by gravswell; do not edit."""',
            "",
            "from __future__ import annotations",  # so that no annotation is evaluated: their modules stay behind
            "",
        ]
        if self._made.arrays:
            head += ["from pathlib import Path as _Path", "", "import numpy as _numpy", ""]
        self._made.source = "\n".join([*head, *self._lines]) + "\n"
        return self._made

    def _above(self, text: str) -> int:
        """How many decorators of the function stay behind: ours, and what stands above it, which has the pipeline."""
        node = definition_in(text)
        decorators = node.decorator_list if node is not None else []
        if not hasattr(self._function, "__wrapped__"):
            return len(decorators)  # none of them made another function of it
        scope = _scope(inspect.unwrap(self._function))
        stated = [_stated(d.func if isinstance(d, ast.Call) else d, scope) for d in decorators]
        ours = [k for k, value in enumerate(stated, 1) if _package(getattr(value, "__module__", "")) == "gravswell"]
        return max(ours, default=0)

    def _definition(self, name: str, defined: Any, text: str) -> None:
        """A function or class: first what it needs, then its own text."""
        scope = _scope(defined)
        for needed in _needs(text, name, scope):
            self._take(needed, scope[needed], wanted_by=name)
        for module in self._imported_inside(text, name):
            if kind_of(module) != "local" or _is_here(module):
                self._along(module)
        self._lines += [text, ""]

    @staticmethod
    def _imported_inside(text: str, name: str) -> Iterator[str]:
        """The modules that a definition imports when it runs."""
        nodes = list(ast.walk(ast.parse(text)))
        if any(isinstance(node, ast.ImportFrom) and node.level for node in nodes):
            raise InvalidInputError(
                f"{name} holds a relative import, and goes along without its package: import it at the top of the "
                f"module, or by its full name"
            )
        return imported(text, "")

    def _take(self, name: str, value: Any, *, wanted_by: str) -> None:
        if name in self._values:
            if self._values[name] is not value and not _equal(self._values[name], value):
                raise InvalidInputError(
                    f"{wanted_by} and another function each have a {name!r} of their own, and they become one module: "
                    f"rename one of them"
                )
            return
        self._values[name] = value
        if isinstance(value, ModuleType):
            self._import(value.__name__, f"import {value.__name__}" + _as(value.__name__, name), value)
            return
        plain = inspect.unwrap(value) if callable(value) and hasattr(value, "__wrapped__") else value
        if isinstance(plain, type | FunctionType):
            self._take_defined(name, value, plain, wanted_by=wanted_by)
        elif (builtin := _importable(value)) is not None:
            module, attribute = builtin
            self._import(module, f"from {module} import {attribute}" + _as(attribute, name))
        elif type(value) in (np.ndarray, np.memmap):  # of a masked one .npy keeps half
            self._array(name, value, wanted_by)
        elif (source := as_source(value)) is not None:
            self._lines += [f"{name} = {source}", ""]
        else:
            raise InvalidInputError(_refusal(wanted_by, name, value))

    def _take_defined(self, name: str, value: Any, plain: Any, *, wanted_by: str) -> None:
        if plain.__module__ in (self._module, "__main__"):
            if plain.__name__ == "<lambda>":
                raise InvalidInputError(f"{wanted_by} uses {name}, which is a lambda: write it with def")
            if plain.__name__ != name:
                self._take(plain.__name__, value, wanted_by=wanted_by)
                self._lines += [f"{name} = {plain.__name__}", ""]
            else:
                self._definition(name, plain, self._text(name, plain))
            return
        attribute = plain.__qualname__.partition(".")[0]
        module = inspect.getmodule(plain)
        if module is None or getattr(module, name, None) is value:
            attribute = name
        elif getattr(module, attribute, None) is not plain and getattr(module, attribute, None) is not value:
            raise InvalidInputError(_refusal(wanted_by, name, value))
        self._import(plain.__module__, f"from {plain.__module__} import {attribute}" + _as(attribute, name), module)

    def _import(self, name: str, statement: str, module: ModuleType | None = None) -> None:
        self._along(name, module)
        self._lines += [statement, ""]

    def _along(self, name: str, module: ModuleType | None = None) -> None:
        """Have the module be there: nothing for an installed one, else its file, and what that imports."""
        if _package(name) == "gravswell":
            raise InvalidInputError(
                f"{self._function.__name__} uses {name}, and servers have no gravswell: use NumPy, or copy what it "
                f"needs"
            )
        self._made.imports.add(name)
        if kind_of(name) != "local":
            return
        module = module or import_module(name)
        if _package(name) in _OURS:
            raise InvalidInputError(f"your module {name} would hide one of the server's: give it another name")
        files = local_files(module)
        for inside, path in files.items():
            if inside not in self._made.modules:
                self._made.modules[inside] = path
                package = ".".join(Path(inside).parent.parts)
                for other in imported(path.read_text(encoding="utf-8"), package):
                    if other and other != name and (kind_of(other) != "local" or other in sys.modules):
                        self._along(other)

    def _array(self, name: str, value: Any, wanted_by: str) -> None:
        if value.dtype.kind == "O":
            raise InvalidInputError(f"{wanted_by} uses {name}, an array of objects, which .npy keeps only as a pickle")
        self._made.arrays[name] = value.copy()  # as it is now: the function may write into it
        where = f'_Path(__file__).parent / "{self._arrays_folder}" / "{name}.npy"'
        self._lines += [f"{name} = _numpy.load({where}, allow_pickle=False)", ""]

    def _text(self, name: str, defined: Any) -> str:
        try:
            text = text_of(defined)
        except (OSError, TypeError):
            place = "a file" if isinstance(defined, type) else "a file or a notebook's cell"
            raise InvalidInputError(
                f"the source of {name} cannot be found, so it cannot go along: define it in {place}"
            ) from None
        if definition_in(text) is None:
            raise InvalidInputError(f"{name} is not written with def or class, so its source cannot go along")
        return text


def _stated(expression: ast.expr, scope: Mapping[str, Any]) -> Any:
    """What a dotted name stands for; None for anything else."""
    if isinstance(expression, ast.Attribute):
        return getattr(_stated(expression.value, scope), expression.attr, None)
    return scope.get(expression.id) if isinstance(expression, ast.Name) else None


def _package(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _is_here(module: str) -> bool:
    """Whether it can be imported: what cannot is optional, or missed in the interpreter of its own."""
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def _needs(text: str, name: str, scope: Mapping[str, Any]) -> Iterator[str]:
    """The names of a definition that are defined outside of it, in the order in which its text has them.

    Its annotations are not evaluated where it goes, so their names are not among them.
    """
    code = compile(f"from __future__ import annotations\n{text}\n", f"<{name}>", "exec", dont_inherit=True)
    if lacking := sorted(_evaluated(code) - set(scope) - set(vars(builtins))):
        raise InvalidInputError(
            f"{name} is defined with {', '.join(lacking)} (in a decorator, a default, a base or a class's body), which "
            f"only the function around it knows: define it at the top of the module"
        )
    names = dict.fromkeys(_names(code, name))
    for needed in names:
        if needed in scope and needed != name:
            yield needed


def _evaluated(code: CodeType) -> set[str]:
    """The names that making a definition asks for, before any call: those of its classes' bodies too."""
    loaded = {str(i.argval) for i in dis.get_instructions(code) if i.opname == "LOAD_NAME"}
    stored = {str(i.argval) for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and not constant.co_flags & inspect.CO_OPTIMIZED:
            loaded |= _evaluated(constant)
    return {name for name in loaded - stored if not _is_pythons(name)}


def _names(code: CodeType, name: str) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in _STORES:
            raise InvalidInputError(
                f"{name} changes {instruction.argval!r}, a variable outside of it: each process of a server would have "
                f"its own; return it instead"
            )
        if instruction.opname in _LOADS:
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, name)


def _scope(defined: Any) -> dict[str, Any]:
    """What the names outside of a definition stand for, where it was defined."""
    if isinstance(defined, FunctionType):
        free = zip(defined.__code__.co_freevars, defined.__closure__ or (), strict=True)
        return {**_globals(defined.__globals__), **{name: cell.cell_contents for name, cell in free if _filled(cell)}}
    scope = _globals(vars(inspect.getmodule(defined) or builtins))
    for member in vars(defined).values():
        function = inspect.unwrap(member) if callable(member) else getattr(member, "fget", None)
        function = getattr(member, "__func__", function)
        if isinstance(function, FunctionType):
            scope |= {n: v for n, v in _scope(function).items() if n != "__class__"}
    return scope


def _globals(names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in names.items() if not _is_pythons(name)}


def _is_pythons(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _importable(value: Any) -> tuple[str, str] | None:
    """The module and the name of what some module has under its own name: a function in C, a ufunc, a constant."""
    name, module = getattr(value, "__name__", None), getattr(value, "__module__", None)
    if isinstance(value, np.ufunc):
        module = "numpy"
    if not callable(value) or not isinstance(name, str) or not isinstance(module, str):
        return None
    return (module, name) if getattr(import_module(module), name, None) is value else None


def _equal(a: Any, b: Any) -> bool:
    source = as_source(a)
    return source is not None and source == as_source(b)


def _as(name: str, alias: str) -> str:
    return "" if name == alias else f" as {alias}"


def _refusal(wanted_by: str, name: str, value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if kind.startswith(("gravswell.quiver.entry", "gravswell.quiver.version")):
        return f"{wanted_by} uses {name}, an entry: take it as a keyword-only parameter, def {wanted_by}(x, *, {name})"
    if is_endless(value):
        return (
            f"{wanted_by} uses {name}, a {kind} that holds itself, or is nested too deep to be written as source: make "
            f"it in a function"
        )
    filled = "; if calls have filled it, keep what they make by @functools.cache" if type(value) in (dict, list) else ""
    return (
        f"{wanted_by} uses {name}, a {kind}, which cannot be written as source: make it in a function, from a file "
        f"that goes along (assets={{…}}) if it has one{filled}"
    )
