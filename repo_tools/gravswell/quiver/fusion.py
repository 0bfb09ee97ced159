"""Many models as one: what is to be fused. How it is done is in :mod:`gravswell.quiver.exporters.fused`.

A fusion is exported like any model: ``repo.add("zoo").export_version(qv.fuse([base, deep], "zoo"))``.
"""

import inspect
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from gravswell.errors import InvalidInputError
from gravswell.quiver.manifest import FusedModel, TensorRecord

MODEL_ID = "model_id"
"""The input that says of each row which model is to answer it: INT64, from 1 on."""

MAX_BATCH_SIZE = 64
"""Rows that a server puts together for a fusion, unless the first version says otherwise."""

FEW_BATCHES = 4
"""Batches that are taken of a function that gives some: it may have no end."""

_ENTRY = "gravswell.quiver.entry.Entry"
_CHUNK = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of a fusion."""

    model: Any
    """What :meth:`Entry.export_version <gravswell.quiver.Entry.export_version>` takes; or an entry (its newest version)
    or a version of one; or a function that makes the model, and is called with :attr:`params` if it takes something."""
    inputs: Any = None
    """What it takes: the shape of each input, ``{"x": (None, 64)}``; or a batch or several, ``{"x": array}``, with
    which it is proved too; or a function that gives batches, called with :attr:`params`."""
    params: Mapping[str, Any] | None = None
    """What it was made with: given to the functions, and kept in the table of ids. As JSON has them."""
    name: str = "base"
    """What the table of ids calls it. Several may be called the same; the ids differ."""
    scale: float = 1
    """Kept in the table of ids, and nothing else: on the machines of the API that this follows, a share of the hardware
    for each model. It changes no answer."""
    input_types: Mapping[str, Any] | None = None
    """As :meth:`~gravswell.quiver.Entry.export_version` takes them."""
    output_names: Sequence[str] | None = None
    """What the fusion calls its outputs, in order; by default as the model's graph does."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """What the fusion calls its inputs, where that is not what the model's graph does: ``{"x": "pixels"}``."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """Models behind one name. The model at index ``i`` has the id ``i + 1``; made by :func:`fuse`."""

    name: str
    models: tuple[ModelInfo, ...]
    max_batch_size: int = MAX_BATCH_SIZE
    """Rows that the server may put together, stated with the first version; 0: each request by itself."""
    check: Callable[[Sequence[FusedModel], Sequence[TensorRecord]], object] | None = field(
        default=None, repr=False, compare=False
    )
    """Called with the table of ids and the inputs beside ``model_id`` once an export knows them, which is before
    anything is published: what it raises ends the export."""

    @property
    def ids(self) -> dict[int, str]:
        """Name of each model by its id."""
        return {number: info.name for number, info in enumerate(self.models, 1)}

    def __repr__(self) -> str:
        told = ", ".join(f"{number} {name}" for number, name in self.ids.items())
        return f"Fusion({self.name!r}: {told})"


def fuse(models: Iterable[Any], name: str = "fusion", *, max_batch_size: int = MAX_BATCH_SIZE) -> Fusion:
    """Fuse models into one, which an entry exports like any other; a request says ``model_id`` for each of its rows.

    ``models``: each a :class:`ModelInfo`, or what one takes as its ``model``. They may be of different frameworks, and
    the same one several times. An entry stands for its newest version, as of now.

    Raises InvalidInputError for what cannot be meant; whether the models go together is seen when it is exported.
    """
    if isinstance(models, ModelInfo | str | bytes | Mapping) or not isinstance(models, Iterable):
        raise InvalidInputError("fuse takes a list of models: qv.fuse([base, deep], 'zoo')")
    found = tuple(_checked(number, _info(model)) for number, model in enumerate(models, 1))
    if not found:
        raise InvalidInputError("fuse was given no model: a fusion is of one or more")
    if isinstance(max_batch_size, bool) or not isinstance(max_batch_size, int) or max_batch_size < 0:
        raise InvalidInputError(f"max_batch_size={max_batch_size!r}: use a whole number, 0 for none")
    return Fusion(name, found, max_batch_size)


def _info(model: Any) -> ModelInfo:
    return model if isinstance(model, ModelInfo) else ModelInfo(model, name=_name_of(model))


def _name_of(model: Any) -> str:
    """What a model that came without a name is called."""
    if isinstance(model, str) or hasattr(model, "__fspath__"):
        own = PurePath(str(model).replace("\\", "/")).stem
    elif _is(model, _ENTRY):
        own = model.name
    else:
        own = getattr(model, "entry", None) or getattr(model, "__name__", None) or type(model).__name__
    return _CHUNK.sub("-", str(own)) or "model"


def _is(model: Any, name: str) -> bool:
    return any(f"{c.__module__}.{c.__qualname__}" == name for c in type(model).__mro__)


def _checked(number: int, info: ModelInfo) -> ModelInfo:
    what = f"model {number} ({info.name})"
    if not isinstance(info.name, str) or not info.name.strip():
        raise InvalidInputError(f"model {number} has {info.name!r} for a name: give it some text")
    if isinstance(info.scale, bool) or not isinstance(info.scale, int | float) or not 0 < info.scale < math.inf:
        raise InvalidInputError(f"{what} has scale={info.scale!r}: use a number above 0; it changes no answer")
    try:
        json.dumps(dict(info.params or {}))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"the params of {what} are no JSON ({error}): numbers, texts, lists and maps") from None
    _check_words(what, info)
    model = info.model
    if inspect.isfunction(model):
        model = called(model, info.params)
    if isinstance(model, ModelInfo | Fusion):
        raise InvalidInputError(f"{what} is a {type(model).__name__}: put its models into the list themselves")
    return replace(info, model=model.version() if _is(model, _ENTRY) else model)


def _check_words(what: str, info: ModelInfo) -> None:
    """A file's descriptions come as anything that TOML, JSON and YAML can say."""
    names = info.output_names
    if names is not None and (isinstance(names, str) or not isinstance(names, Sequence) or not _texts(names)):
        raise InvalidInputError(f'output_names={names!r} of {what}: use a sequence of names, such as ["y"]')
    if not isinstance(info.rename, Mapping) or not _texts((*info.rename, *info.rename.values())):
        raise InvalidInputError(f'rename={info.rename!r} of {what}: use a map of names, such as {{"x": "pixels"}}')
    types = info.input_types
    if types is not None and (not isinstance(types, Mapping) or not _texts(types)):
        raise InvalidInputError(f'input_types={types!r} of {what}: use a type for each input, such as {{"x": "FP32"}}')


def _texts(names: Iterable[Any]) -> bool:
    return all(isinstance(name, str) and name for name in names)


def called(function: Callable[..., Any], params: Mapping[str, Any] | None) -> Any:
    """What a user's function gives for ``params``; for nothing where there are none, or it takes nothing."""
    return function() if params is None or not inspect.signature(function).parameters else function(dict(params))
