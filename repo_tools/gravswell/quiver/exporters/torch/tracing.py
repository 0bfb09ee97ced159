"""What a trace would silently freeze: it records one run, and Python values read from tensors are constants in it.

torch warns of every such reading, with the same words for a size that never changes and for a value of the input. So
this looks into the graph that is being recorded: where does the tensor that is read come from? Whether the size of
something computed changes with the input's is seen by tracing again, at other sizes.
"""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.jit._trace import TracerWarning
from torch.overrides import TorchFunctionMode

from gravswell.errors import ExportError
from gravswell.quiver.exporters.base import InputSpec

_T = torch.Tensor

_READS = {
    _T.__bool__, _T.__int__, _T.__float__, _T.__index__, _T.__complex__, _T.__contains__, _T.__array__,
    _T.item, _T.tolist, _T.numpy, _T.equal, torch.equal, _T.allclose, torch.allclose,
    _T.is_nonzero, torch.is_nonzero, torch.tensor,
}  # fmt: skip
"""Functions that make a Python value, or a constant, of a tensor's values. torch itself warns of most of them."""

_SIZES = {"aten::size", "aten::len", "aten::numel", "aten::dim", "prim::shape", "prim::dtype", "prim::device"}
_WITHOUT_SIZES = {"aten::dim", "prim::dtype", "prim::device"}
_LIKE = {f"aten::{kind}" for kind in ("zeros_like", "ones_like", "empty_like", "new_zeros", "new_ones", "new_empty")}
_SIZED_BY_VALUES = ("aten::nonzero", "aten::unique", "aten::_unique", "aten::masked_select")

_DYNAMIC = "a size that was declared dynamic, or one that follows from it"

_TORCH = str(Path(torch.__file__).parent) + os.sep


Readings = dict[tuple[str, int], list[list[int] | None]]
"""The sizes behind each reading in turn, by file and line of the code that reads."""


class _Reads(TorchFunctionMode):
    """Refuses a reading of what depends on the inputs, while something is traced."""

    def __init__(self, specs: list[InputSpec]) -> None:
        super().__init__()
        self.readings: Readings = {}
        self._specs = specs

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called in place of every function of torch."""
        if func not in _READS or torch._C._get_tracing_state() is None:
            return func(*args, **(kwargs or {}))
        frame = _user_frame()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            result = func(*args, **(kwargs or {}))
        for tensor in _tensors((args, kwargs)):
            recorded = torch._C._get_value_trace(tensor)  # type: ignore[attr-defined]  # only while tracing: it crashes
            why = self._why(recorded)
            if why is not None:
                said = [str(w.message) for w in heard if issubclass(w.category, TracerWarning)]
                raise _frozen(why, said, *_place(frame))
        return result

    def _why(self, value: Any) -> str | None:
        """What the value depends on that the next input may have otherwise; None where it is the same for each."""
        found, seen = [value], set()
        while found:
            value = found.pop()
            if value.unique() in seen:
                continue
            seen.add(value.unique())
            node = value.node()
            if node.kind() in _SIZES:
                of = next(node.inputs(), None)
                if of is not None and any(_is_sized_by_values(n) for n in _ancestors(of)):
                    return "how many values meet a condition"
                if of is None or _in_torch(_nearest()):
                    continue  # torch knows of its own readings: it records them, or they are of its layers' own sizes
                if self._is_dynamic(of, node):
                    return _DYNAMIC
                self.readings.setdefault(_place(_nearest()), []).append(_sizes(of, node))
            elif node.kind() == "prim::Param":
                if self._input(value) is not None:
                    return "the values of its inputs"
            elif node.kind() not in _LIKE:
                found.extend(node.inputs())
        return None

    def _input(self, value: Any) -> InputSpec | None:
        """The model's own input that this is; weights and buffers follow them among the graph's."""
        if value.node().kind() != "prim::Param":
            return None
        order = [output.unique() for output in value.node().outputs()]
        k = order.index(value.unique())
        return self._specs[k] if k < len(self._specs) else None

    def _is_dynamic(self, value: Any, size: Any) -> bool:
        spec = self._input(value)
        if spec is None or size.kind() in _WITHOUT_SIZES:
            return False
        axis = _axis(size)
        return spec.shape[axis] is None if axis is not None else None in spec.shape


@contextmanager
def nothing_frozen(specs: list[InputSpec]) -> Iterator[Readings]:
    """Trace in it. ExportError where the graph would keep what the model read from one input's values or sizes.

    ``specs``: the model's inputs, in the order in which the tracer takes them. The readings of other sizes are
    complete afterwards, for :func:`check_same`.
    """
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TracerWarning)
        with _Reads(specs) as reads:
            yield reads.readings
    for warning in heard:  # readings inside C++, such as torch.FloatTensor([x.sum()]): sizes are integers
        said = str(warning.message)
        floating = said.startswith("Converting a tensor to a Python") and "integer" not in said and "index" not in said
        if floating and not warning.filename.startswith(_TORCH) and warning.filename != __file__:
            raise _frozen("the values of its inputs", [said], warning.filename, warning.lineno)


def check_same(readings: Readings, again: Readings) -> None:
    """ExportError where what was read while tracing is of other sizes ``again``, in a trace of inputs of other sizes.

    A place that is not met again is none to compare: a module may fill a cache once.
    """
    for place, sizes in readings.items():
        if any(a != b for a, b in zip(sizes, again.get(place, []), strict=False)):
            raise _frozen(_DYNAMIC, [], *place)


def _sizes(value: Any, size: Any) -> list[int] | None:
    """What ``size``, a node, says of ``value``; None where the trace does not know."""
    of = value.type().sizes() if value.type().kind() == "TensorType" and size.kind() not in _WITHOUT_SIZES else None
    axis = _axis(size)
    return of if of is None or axis is None else [of[axis]]


def _axis(size: Any) -> int | None:
    """The axis that the node measures, where it is a single one."""
    if size.kind() == "aten::len":
        return 0
    axis = list(size.inputs())[1].toIValue() if size.inputsSize() > 1 else None
    return axis if isinstance(axis, int) else None


def _frozen(why: str, said: list[str], file: str, line: int) -> ExportError:
    torch_says = f" (torch: {said[0].split('. ')[0]})" if said else ""
    out = (
        "declare a number there"
        if "declared" in why
        else "choose between tensors with torch.where, between computations with torch.cond"
    )
    return ExportError(
        f"{file}:{line} makes a Python value of a tensor that depends on {why}{torch_says}: traced, the graph would "
        f"keep what that was for one input, and answer wrongly for others; {out}"
    )


def _is_sized_by_values(node: Any) -> bool:
    if node.kind() == "aten::index":
        return any(
            item.type().kind() == "TensorType" and item.type().dtype() == torch.bool
            for indices in list(node.inputs())[1:]
            for item in indices.node().inputs()
        )
    return bool(node.kind().startswith(_SIZED_BY_VALUES))


def _ancestors(value: Any) -> Iterator[Any]:
    found, seen = [value], set()
    while found:
        value = found.pop()
        if value.unique() not in seen:
            seen.add(value.unique())
            yield value.node()
            found.extend(value.node().inputs())


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _nearest() -> FrameType:
    """The frame that called the function of torch, whoever wrote it."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _in_torch(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_TORCH)


def _user_frame() -> FrameType:
    """The nearest frame that is not torch's own."""
    frame = _nearest()
    while _in_torch(frame) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _place(frame: FrameType) -> tuple[str, int]:
    return frame.f_code.co_filename, frame.f_lineno
