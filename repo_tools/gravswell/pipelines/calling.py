"""How a pipeline's function is called, and what it calls: the same here and in every server.

This file is copied beside each published pipeline as ``gravswell_calling.py`` and imports nothing of gravswell: it runs
in the server's Python, 3.8 or newer, with the NumPy that is there. Text is ``str`` for a function, in arrays of
objects; what goes to and comes from a server is :func:`encoded` and :func:`decoded`.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SPEC_FILE = "pipeline.json"
SOURCE_FOLDER = "source"
SOURCE_FILE = "pipeline_source.py"
ASSETS_FOLDER = "assets"

TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_UINT16": "uint16",
    "TYPE_UINT32": "uint32",
    "TYPE_UINT64": "uint64",
    "TYPE_INT8": "int8",
    "TYPE_INT16": "int16",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
    "TYPE_FP64": "float64",
    "TYPE_STRING": "object",
}
"""NumPy's name for each of Triton's types."""

STARTED = 32
"""Calls of members that one process has under way at most; more wait their turn."""

Call = Callable[[str, "dict[str, Any]"], "dict[str, Any]"]
"""Runs the member of that name: arrays by the names of its inputs, to arrays by those of its outputs."""


def has_one_more(dims: Sequence[int], max_batch_size: int) -> bool:
    """Whether Triton carries a tensor with a last dim of 1 more: a scalar is one element there, and behind a batch that
    it forms one for each row.
    """
    return len(dims) == int(max_batch_size > 0)


class Tensor(NamedTuple):
    """An input or output. ``dims`` has the batch too, and -1 for any size; empty for a scalar."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    """Of an input: a call may leave it out."""

    def carried(self, array: Any, max_batch_size: int) -> Any:
        """``array`` as Triton has it."""
        return array.reshape((*array.shape, 1)) if has_one_more(self.dims, max_batch_size) else array

    def uncarried(self, array: Any) -> Any:
        """What :meth:`carried` did, undone."""
        one_more = array.ndim == len(self.dims) + 1 and array.shape[-1] == 1
        return array.reshape(array.shape[:-1]) if one_more else array

    def checked(self, value: Any, what: str) -> Any:
        """``value`` as an array of this type and shape. ValueError says of ``what`` that it is another."""
        array, wanted = as_array(value), TYPES[self.data_type]
        if array.dtype.name != wanted:
            way_out = "give it text" if wanted == "object" else f"use .astype({wanted!r})"
            raise ValueError(f"{what} is to be {wanted}, and is {array.dtype}: {way_out}")
        fits = array.ndim == len(self.dims) and all(
            want in (-1, have)
            for want, have in zip(self.dims, array.shape)  # noqa: B905 - `strict` is of Python 3.10
        )
        if not fits:
            raise ValueError(f"{what} is to have shape {list(self.dims)} (-1: any size), and has {list(array.shape)}")
        return array


class Outputs(tuple):  # type: ignore[type-arg]  # tuple[Any, ...] is no base class in the oldest Python of a server
    """What a member answers that has several outputs: ``a, b = m(x)``, ``m(x)["scores"]`` or ``m(x).scores``.

    An output comes before a tuple's own method of its name: ``m(x).index``.
    """

    _names: tuple[str, ...] = ()

    def __new__(cls, names: Iterable[str], values: Iterable[Any]) -> Outputs:
        """With a value for each name, in order."""
        self = super().__new__(cls, values)
        self._names = tuple(names)
        return self

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            if key not in self._names:
                raise KeyError(f"there is no output {key!r}; there are: {', '.join(self._names)}")
            key = self._names.index(key)
        return super().__getitem__(key)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name in self._names:
            return self[name]
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no output {name!r}; there are: {', '.join(self._names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs, in order."""
        return self._names

    def keys(self) -> tuple[str, ...]:
        """The same: with this, ``dict(outputs)`` works too."""
        return self._names


class Member:
    """A model that a pipeline calls: inputs by place or by name, in; one output, or :class:`Outputs`, out."""

    def __init__(
        self, alias: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_batch_size: int, call: Call
    ) -> None:
        self.alias = alias
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.max_batch_size = max_batch_size
        self._call = call

    def __repr__(self) -> str:
        takes = ", ".join(f"{tensor.name}: {TYPES[tensor.data_type]}{list(tensor.dims)}" for tensor in self.inputs)
        return f"<member {self.alias}({takes}) -> {', '.join(tensor.name for tensor in self.outputs)}>"

    def __call__(self, *tensors: Any, **named: Any) -> Any:
        """Run it. TypeError for inputs that it does not have, ValueError for an array that it does not take."""
        kinds = {tensor.name: tensor for tensor in self.inputs}
        arrays = {
            name: kinds[name].checked(value, f"input {name} of member {self.alias}")
            for name, value in self.bound(tensors, named).items()
        }
        rows = max((len(array) for array in arrays.values() if array.ndim), default=1)
        if 0 < self.max_batch_size < rows:
            raise ValueError(
                f"member {self.alias} takes up to {self.max_batch_size} rows at once, and was given {rows}: split them"
            )
        answers = self._call(self.alias, arrays)
        return self.answered({tensor.name: tensor.uncarried(answers[tensor.name]) for tensor in self.outputs})

    def start(self, *tensors: Any, **named: Any) -> Future[Any]:
        """Begin a call and go on: ``.result()`` waits for what the call gives, or raises what it raises.

        Calls that were started run at the same time, those of other members too. Those that a pipeline's function has
        not waited for end before its answer goes out: what has not begun is dropped.
        """
        call = _threads().submit(self, *tensors, **named)
        begun = _BEGUN.get()
        if begun is not None:
            begun.append(call)
        return call

    def answered(self, answers: Mapping[str, Any]) -> Any:
        """The answers as the function gets them."""
        names = [tensor.name for tensor in self.outputs]
        return answers[names[0]] if len(names) == 1 else Outputs(names, [answers[name] for name in names])

    def bound(self, tensors: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """What is given for each input, in the order of the inputs. TypeError if that is not what it takes."""
        names = [tensor.name for tensor in self.inputs]
        takes = f"member {self.alias} takes {', '.join(names)}"
        if len(tensors) > len(names):
            raise TypeError(f"{takes}, and was given {len(tensors)} tensors")
        given = dict(zip(names, tensors))  # noqa: B905
        for name, value in named.items():
            if name not in names:
                raise TypeError(f"{takes}, and was given {name!r}")
            if name in given:
                raise TypeError(f"member {self.alias} was given {name!r} twice, by its place and by its name")
            given[name] = value
        missing = [tensor.name for tensor in self.inputs if tensor.name not in given and not tensor.optional]
        if missing:
            raise TypeError(f"{takes}, and was not given {', '.join(missing)}")
        return {name: given[name] for name in names if name in given}


@functools.lru_cache(maxsize=1)
def _threads() -> ThreadPoolExecutor:
    """What started calls wait in: made when the first is, for a server forks its processes before."""
    return ThreadPoolExecutor(STARTED, "gravswell-member")


_BEGUN: ContextVar[list[Future[Any]] | None] = ContextVar("begun", default=None)
"""What the pipeline that is called has started."""


@contextmanager
def _all_ended() -> Iterator[None]:
    """No call that is started in here outlives it: a server asks a member only while it waits for the pipeline."""
    calls: list[Future[Any]] = []
    before = _BEGUN.set(calls)
    try:
        yield
    finally:
        _BEGUN.reset(before)
        wait([call for call in calls if not call.cancel()])


class Loaded:
    """A published pipeline, ready to be called with its inputs by name."""

    def __init__(self, function: Callable[..., Any], spec: Mapping[str, Any], keywords: Mapping[str, Any]) -> None:
        self._function = function
        self._inputs = read_tensors(spec["inputs"])
        self._outputs = read_tensors(spec["outputs"])
        self._keywords = dict(keywords)
        self._rows = int(spec.get("max_batch_size", 0))
        self.inputs = [tensor.name for tensor in self._inputs]
        self.outputs = [tensor.name for tensor in self._outputs]
        self.members = {
            alias: ([tensor["name"] for tensor in member["inputs"]], [tensor["name"] for tensor in member["outputs"]])
            for alias, member in spec["members"].items()
        }

    def __call__(self, given: Mapping[str, Any], *, carried: bool = True) -> dict[str, Any]:
        """The outputs by name, in the types that are declared. Raises what the function raises, and ValueError for an
        answer that is not what was declared.

        :param carried: inputs and outputs have the shapes that Triton gives to scalars.
        """
        arrays = [tensor.uncarried(given[tensor.name]) for tensor in self._inputs]
        with _all_ended():
            result = self._function(*arrays, **self._keywords)
        answers = named_outputs(result, self.outputs)
        checked = {t.name: t.checked(answers[t.name], f"output {t.name}") for t in self._outputs}
        return {t.name: t.carried(checked[t.name], self._rows) for t in self._outputs} if carried else checked


def load(folder: Path, call: Call, *, carried: bool = True) -> Loaded:
    """The pipeline that was published in ``folder``, whose members ``call`` runs.

    What is imported there is found in the folder's ``source`` first. ImportError for what is not installed.

    :param carried: ``call`` takes arrays in the shapes that Triton gives to scalars.
    """
    spec = json.loads((folder / SPEC_FILE).read_text(encoding="utf-8"))
    source = folder / SOURCE_FOLDER
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))
    where = importlib.util.spec_from_file_location(SOURCE_FILE[:-3], str(source / SOURCE_FILE))
    assert where is not None, "a .py file has a loader"
    assert where.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(where)
    sys.modules[SOURCE_FILE[:-3]] = module  # where classes and dataclasses of it are looked up
    where.loader.exec_module(module)
    members = {alias: _member(alias, member, call, carried) for alias, member in spec["members"].items()}
    assets = {name: folder / path for name, path in spec["assets"].items()}
    return Loaded(getattr(module, spec["function"]), spec, {**members, **assets})


def read_tensors(stated: Iterable[Mapping[str, Any]]) -> list[Tensor]:
    """Tensors as a spec, a manifest or a configuration's JSON states them."""
    return [Tensor(t["name"], t["data_type"], tuple(t["dims"]), bool(t.get("optional"))) for t in stated]


def named_outputs(result: Any, names: Sequence[str]) -> dict[str, Any]:
    """What a function returned, by the names of the outputs: a mapping has names, anything else has an order.

    ValueError for other names, or another number of tensors.
    """
    if isinstance(result, Mapping):
        if sorted(result) != sorted(names):
            raise ValueError(f"the function returned {_listed(result)}; the outputs are {_listed(names)}")
        return {name: result[name] for name in names}
    if isinstance(result, list):  # of tensors, or of one's rows
        raise ValueError(  # noqa: TRY004 - as for another number of them
            "the function returned a list: return a tensor, a tuple of tensors, or a dict by name"
        )
    values = result if isinstance(result, tuple) else (result,)
    if len(values) != len(names):
        raise ValueError(f"the function returned {len(values)} tensors; the outputs are {_listed(names)}")
    return dict(zip(names, values))  # noqa: B905


def as_array(value: Any) -> Any:
    """``value`` as an array that can be sent; text as objects."""
    array = np.asarray(value)
    if array.dtype.kind == "S" or (array.dtype.kind == "O" and any(isinstance(x, bytes) for x in array.flat)):
        return decoded(array)
    if array.dtype.kind == "U":
        return array.astype(object)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def decoded(array: Any) -> Any:
    """Text as ``str``, of what a server has as bytes. ValueError for what is not UTF-8."""
    made = np.empty(array.shape, dtype=object)
    for k, item in enumerate(array.flat):
        try:
            made.flat[k] = item.decode() if isinstance(item, bytes) else str(item)
        except UnicodeDecodeError as error:
            raise ValueError(f"element {k} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    return made


def encoded(array: Any) -> Any:
    """Text as bytes, as a server takes it."""
    made = np.empty(array.shape, dtype=object)
    for k, item in enumerate(array.flat):
        made.flat[k] = item if isinstance(item, bytes) else str(item).encode()
    return made


def _member(alias: str, stated: Mapping[str, Any], call: Call, carried: bool) -> Member:
    inputs, outputs = read_tensors(stated["inputs"]), read_tensors(stated["outputs"])
    rows = int(stated["max_batch_size"])
    kinds = {tensor.name: tensor for tensor in inputs}

    def carry(name: str, arrays: dict[str, Any]) -> dict[str, Any]:
        return call(name, {key: kinds[key].carried(array, rows) for key, array in arrays.items()})

    return Member(alias, inputs, outputs, rows, carry if carried else call)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
