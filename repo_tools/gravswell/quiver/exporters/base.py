"""What an exporter is asked for, and what it gives back."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from gravswell.errors import ExportError, GravswellError, InvalidInputError
from gravswell.quiver.golden import Array
from gravswell.quiver.manifest import TensorRecord
from gravswell.targets import DEFAULT_TARGET, Target

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_Answer = TypeVar("_Answer")

Inputs = dict[str, NDArray[Any]]
Outputs = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input as it was asked for: Triton type (``TYPE_FP32``), and shape with None for a dynamic dim."""

    name: str
    data_type: str | None
    """None: the exporter's choice, the type that the model computes in."""
    shape: tuple[int | None, ...]
    optional: bool = False
    """A request may leave it out."""

    @classmethod
    def of(cls, record: TensorRecord) -> "InputSpec":
        """What a graph says of one of its inputs."""
        dims = tuple(None if dim == -1 else dim for dim in record.dims)
        return cls(record.name, record.data_type, dims, record.optional)

    @property
    def dims(self) -> list[int]:
        """The shape with -1 for a dynamic dim, as messages show it."""
        return [-1 if dim is None else dim for dim in self.shape]

    def admits(self, shape: Sequence[int | None]) -> bool:
        """Whether the shape is one of its own: where it is open, any size is, and to leave that open too."""
        return len(shape) == len(self.shape) and all(
            own in (None, size) for own, size in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What the user asked for, completed from the entry's configuration."""

    model: Any
    inputs: tuple[InputSpec, ...] | None = None
    """None: the model has to know."""
    output_names: tuple[str, ...] | None = None
    opset: int | None = None
    """What the user insists on; None: :meth:`opset_for` says."""
    target: Target = DEFAULT_TARGET
    """The oldest Triton that is to run the graph."""
    inferred: bool = False
    """``inputs`` and ``output_names`` are what the entry has, not what the user said."""
    samples: tuple[Mapping[str, Array], ...] = ()
    """The user's own input batches; made up at random when there are none."""
    folder: Path | None = None
    """Where an exporter may keep what is large while it is open, in a folder of its own; None: where it likes."""

    stage: Callable[[str], None] = lambda _: None
    """Called with what is being done now, in words for a progress display."""

    def opset_for(self, own: int) -> int:
        """The opset of ONNX's own operators to write, for a converter whose ``own`` choice that is."""
        return self.opset or min(own, self.target.opset)

    def ml_opset_for(self, own: int) -> int:
        """The opset of ``ai.onnx.ml`` to write, likewise."""
        return min(own, self.target.ml_opset)


Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each input."""


@dataclass(frozen=True, slots=True)
class Assumption:
    """A condition on the inputs' sizes that a converter took for granted, and inputs that do not meet it."""

    condition: str
    """As Python: ``x.shape[1] <= 100``."""
    shapes: tuple[Shapes, ...]
    """The model is asked for each of these."""
    further: tuple[Shapes, ...] = ()
    """Where it refuses all of those, it is asked for one of these after another, until it answers."""
    every: bool = False
    """Whether a model that refuses all of them takes nothing that does not meet the condition."""


@dataclass(frozen=True, slots=True)
class Exported:
    """An ONNX graph and the model that it was made of, side by side."""

    proto: Any
    """``onnx.ModelProto``, of whose tensors some may lie in ``source`` and in files beside it."""
    source: Path | None
    """The file that ``proto`` was read from, to be published byte for byte if it is the only one. None: in memory."""
    converted: bool
    """Made by a converter just now, which leaves notes in it; not somebody's own graph."""
    exporter: str
    framework: str
    """Name and version of whose outputs are the reference."""
    reference: Callable[[Inputs], Outputs]
    """The framework's own answer to a batch, by the graph's output names. May raise whatever the framework raises."""
    ailing: Callable[[], str] = str
    """What in the model itself holds NaN, as the end of a message; empty if nothing does."""
    assumptions: tuple[Assumption, ...] = ()
    """Where the graph may be wrong, unless the model itself refuses such inputs or answers them alike."""
    computes_in: np.dtype[Any] | None = None
    """The floating type of what is inside, where that is coarser than the outputs': it says how exact they are."""
    batching: int = 0
    """Rows that a server is to put together, in the entry's first version, where nobody says otherwise; 0: none."""


class Exporter(ABC):
    """Turns one framework's models into ONNX. Imports the framework only in :meth:`exporting`."""

    name: ClassVar[str]
    """What a user calls these models: ``torch module``…"""
    hint: ClassVar[str] = ""
    """What else to say when a model takes no random inputs."""
    traces: ClassVar[bool] = False
    """Whether it converts by running the model on an example, whose sizes may stay in the graph."""

    @abstractmethod
    def claims(self, model: Any) -> bool:
        """Whether the model is one of this framework's, told without importing it."""

    def opened(self, request: ExportRequest) -> ExportRequest:
        """The request that the other methods are given: with its model read, where that is a file or takes long."""
        return request

    def closed(self, request: ExportRequest) -> None:
        """Give back what :meth:`opened` took, however the export ended."""
        del request  # most took nothing

    @abstractmethod
    def inputs(self, request: ExportRequest) -> tuple[InputSpec, ...]:
        """The inputs, completed: every one has a type. InvalidInputError when the model cannot tell its shapes."""

    @abstractmethod
    def exporting(self, request: ExportRequest, batches: Sequence[Inputs]) -> AbstractContextManager[Exported]:
        """Export. While the context is open the model is in its inference form; afterwards it is as it was, always.

        ``batches`` are some that the model takes; it may be traced with the first. Raises ExportError when the model
        cannot become ONNX.
        """

    @abstractmethod
    def answering(self, request: ExportRequest) -> AbstractContextManager[Callable[[Inputs], Any]]:
        """The model as a plain function, to find inputs that it accepts before it is exported."""

    def own_batches(self, request: ExportRequest) -> list[Inputs] | None:
        """Batches on the scale that the model itself knows, to be tried before random ones; None: it knows none.

        May raise whatever the framework raises.
        """
        del request
        return None


def file_of(model: Any, *suffixes: str) -> Path | None:
    """The path that ``model`` is, if it is one and its name ends in one of ``suffixes``."""
    if isinstance(model, str | os.PathLike) and os.fspath(model).endswith(suffixes):
        return Path(os.fspath(model))
    return None


def class_names(model: Any) -> set[str]:
    """Qualified names of the classes that ``model`` is an instance of."""
    return {f"{c.__module__}.{c.__qualname__}" for c in type(model).__mro__}


def described(error: BaseException, limit: int = 300) -> str:
    """A foreign error in one line, without colours, short enough for a message: the first cause, which says most."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = " ".join(_COLOUR.sub("", str(error)).split())
    text = words.partition(" Stack trace:")[0] or "no message"  # of C++, which XGBoost puts behind its words
    return f"{type(error).__name__}: {text[: limit - 1] + '…' if len(text) > limit else text}"


def answered(answer: Callable[[Inputs], _Answer], batch: Inputs) -> _Answer:
    """The user's model on ``batch``. ExportError for whatever it raises that is not an error of ours."""
    try:
        return answer(batch)
    except GravswellError:
        raise
    except Exception as error:
        given = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in batch.items())
        raise ExportError(
            f"the model itself fails on {given} ({described(error)}): give batches that it accepts as sample_inputs "
            f"(--sample-inputs FILE.npz), or declare the shapes and the types that it takes, such as "
            f'input_types={{"ids": "int64"}} (--input-type ids=int64)'
        ) from error


def accepted(answer: Callable[[Inputs], object], candidates: Iterable[list[Inputs]]) -> list[Inputs] | Exception:
    """The first of the ``candidates`` of which the user's model takes every batch; else why it does not take the first.

    Errors of ours are raised.
    """
    first: Exception | None = None
    for batches in candidates:
        try:
            for batch in batches:
                answer(batch)
        except GravswellError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever the user's model raises
            first = first or error
        else:
            first = None  # whose traceback holds what it was raised in: a session may be gigabytes
            return batches
    return first or ValueError("there are no batches to try")


def check_names_differ(outputs: Sequence[str], inputs: Sequence[InputSpec]) -> None:
    """InvalidInputError where a tensor of the graph would have the name of another."""
    if len({*outputs, *(spec.name for spec in inputs)}) < len(outputs) + len(inputs):
        raise InvalidInputError(f"output_names {', '.join(outputs)}: each needs a name of its own, and no input's")


def with_chosen_sizes(request: ExportRequest, own: Iterable[InputSpec], where: str) -> tuple[InputSpec, ...]:
    """The inputs that a model states itself, with the sizes that the user chose where it leaves them open.

    ``where``: what states them, as messages call it. InvalidInputError for an input, a type or a shape that is not its.
    """
    specs = {spec.name: spec for spec in own}
    for asked in () if request.inferred else request.inputs or ():
        known = specs.get(asked.name)
        if known is None:
            raise InvalidInputError(f"{where} has no input {asked.name!r}; its inputs: {', '.join(specs)}")
        if not known.admits(asked.shape) or asked.data_type not in (None, known.data_type):
            raise InvalidInputError(
                f"input {asked.name!r} is {known.data_type} {known.dims} in {where}, "
                f"not {asked.data_type or known.data_type} {asked.dims}: choose sizes where it has -1, "
                f"or leave its shape out"
            )
        specs[asked.name] = replace(known, shape=asked.shape)
    return tuple(specs.values())


def named_outputs(
    request: ExportRequest,
    specs: Sequence[InputSpec],
    answer: Callable[[Inputs], Sequence[tuple[str, Array]]],
    batch: Inputs,
) -> tuple[list[str], Callable[[Inputs], Outputs]]:
    """What to call the tensors that a model returns, and its answers by these names: see :class:`Exported`.

    They are what was asked, or else the names that the tensors come with for ``batch``. InvalidInputError where other
    than one name each was asked for, or one that is taken.
    """
    returned = answered(answer, batch)
    names = list(request.output_names or (name for name, _ in returned))
    if len(names) != len(returned):
        raise InvalidInputError(
            f"{len(names)} output_names ({', '.join(names)}) for the {len(returned)} tensors "
            f"that {type(request.model).__name__} returns: name each"
        )
    check_names_differ(request.output_names or (), specs)

    def reference(inputs: Inputs) -> Outputs:
        return {name: array for name, (_, array) in zip(names, answer(inputs), strict=True)}

    return names, reference


def as_arrays(sample: Mapping[str, Any]) -> Inputs:
    """A user's batch as arrays."""
    return {name: np.asarray(value) for name, value in sample.items()}
