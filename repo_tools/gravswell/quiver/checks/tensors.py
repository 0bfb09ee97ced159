"""Inputs and outputs as they are stated, and those that Triton makes for a batch."""

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.backends import may_be_tensorrt
from gravswell.quiver.checks.rules import Finding

_BATCH_TYPES = ("TYPE_INT32", "TYPE_FP32")


def check(config: Any, place: str) -> Iterator[Finding]:
    """``max_batch_size``, ``input``, ``output``, ``batch_input`` and ``batch_output``."""
    if config.max_batch_size < 0:
        yield rules.BATCH_NEGATIVE.at(place, f"max_batch_size is {config.max_batch_size}", "max_batch_size")
    for side in ("input", "output"):
        tensors = getattr(config, side)
        for k, tensor in enumerate(tensors):
            field = f"{side}[{k}]"
            lacks = _lacks(tensor)
            wrong = lacks or _misshapen(tensor, config.max_batch_size)
            if wrong:
                yield rules.TENSOR_INCOMPLETE.at(
                    place, f"{side} {tensor.name!r} {wrong}", field, unfinished=lacks is not None
                )
            for fact in _formats(config, tensor):
                yield rules.TENSOR_FORMAT.at(place, f"{side} {tensor.name!r} {fact}", field)
        for name, count in Counter(tensor.name for tensor in tensors).items():
            if count > 1:
                yield rules.TENSOR_TWICE.at(place, f"{side} {name!r} is stated {count} times", side)
    yield from _batch_tensors(config, place)


def is_whole(tensor: Any, max_batch_size: int) -> bool:
    """Whether a tensor of the configuration says all that it must, with dims that can be."""
    return _lacks(tensor) is None and _misshapen(tensor, max_batch_size) is None


def _lacks(tensor: Any) -> str | None:
    if not tensor.name:
        return "has no name"
    if not tensor.data_type:
        return "has no data_type"
    return None if tensor.dims else "has no dims"


def _misshapen(tensor: Any, max_batch_size: int) -> str | None:
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if any(dim < 1 and dim != -1 for dim in dims):
        return f"has dims {dims}"
    if not tensor.HasField("reshape"):
        return None
    if any(dim < 1 and dim != -1 for dim in shape):
        return f"is reshaped to {shape}"
    if not shape and max_batch_size == 0:
        return "is reshaped to no dims, and without a batch that is no tensor"
    if _sizes(dims) != _sizes(shape):
        return f"has dims {dims}, reshaped to {shape}, which is another number of elements"
    return None


def _sizes(dims: list[int]) -> list[int]:
    """Elements between the dynamic dims: Triton compares dims and reshape part by part."""
    parts: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            parts.append([])
        else:
            parts[-1].append(dim)
    return [prod(part) for part in parts]


def _formats(config: Any, tensor: Any) -> Iterator[str]:
    layout = getattr(tensor, "format", 0)
    if layout and len(tensor.dims) != 3:
        name = model_config_pb2.ModelInput.Format.Name(layout)
        yield f"is {name} and has {len(tensor.dims)} dims in place of 3"
    if may_be_tensorrt(config):
        return
    for flag in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(tensor, flag):
            yield f"is marked {flag}, which only TensorRT has"


def _batch_tensors(config: Any, place: str) -> Iterator[Finding]:
    # Names are held against what is stated; where nothing is, Triton or the first export completes it.
    inputs = {tensor.name for tensor in config.input}
    outputs = {tensor.name for tensor in config.output}
    for side in ("batch_input", "batch_output"):
        for k, tensor in enumerate(getattr(config, side)):
            field = f"{side}[{k}]"
            if len(tensor.source_input) != 1:
                fact = f"it has {len(tensor.source_input)} source_input in place of one"
                yield rules.BATCH_SOURCE.at(place, fact, field, unfinished=not tensor.source_input)
            for name in tensor.source_input:
                if inputs and name not in inputs:
                    yield rules.BATCH_SOURCE.at(place, f"there is no input {name!r}", f"{field}.source_input")
            if side == "batch_input":
                data_type = model_config_pb2.DataType.Name(tensor.data_type)
                if data_type not in _BATCH_TYPES:
                    unset = not tensor.data_type
                    yield rules.BATCH_SOURCE.at(place, f"it is {data_type}", f"{field}.data_type", unfinished=unset)
                continue
            for name, count in Counter(tensor.target_name).items():
                if (outputs and name not in outputs) or count > 1:
                    fact = f"there is no output {name!r}" if count == 1 else f"{name!r} stands there {count} times"
                    yield rules.BATCH_SOURCE.at(place, fact, f"{field}.target_name")
