"""What a rank has of a tensor, and what is left of that behind a node. Pure: told from types, names and operators."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from onnx import NodeProto

from gravswell.partitions.network import Network, TensorType, stated
from gravswell.quiver.exporters import graph

_NAMES = """
    Abs Add And Cast Ceil Celu Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
    HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mul Neg Not Or PRelu Pow Reciprocal Relu Round
    Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor
"""

ELEMENTWISE = frozenset(_NAMES.split())
"""Operators that work element by element, with broadcasting."""

_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"})
"""Operators that work on each channel, which is axis 1, by itself."""


_SOFTMAX_OF_LAST = 13
"""The opset from which on a softmax that names no axis is along the last one."""


@dataclass(frozen=True, slots=True)
class Shard:
    """Each rank has its part along ``axis`` (-1: the last) of the ``size`` elements there, within ``stage``."""

    stage: int
    axis: int
    size: int


@dataclass(frozen=True, slots=True)
class Partial:
    """Each rank has a summand, within ``stage``."""

    stage: int


@dataclass(frozen=True, slots=True)
class Whole:
    """Known in full once ``stage`` has ended; 0: before anything."""

    stage: int


State = Shard | Partial | Whole


def kept(network: Network, at: int, state_of: Callable[[str], State | None]) -> Shard | None:
    """The shards that come out of a node, where every rank can compute its own of its part; else None.

    ``state_of``: of each tensor that the node reads, None of a constant. What is whole is cut to the shards' part.
    """
    node = network.nodes[at]
    if node.domain not in ("", "ai.onnx") or node.output[0] not in network.types:
        return None
    if node.op_type in ELEMENTWISE:
        return _elementwise(network, node, state_of)
    state = state_of(node.input[0])
    if not isinstance(state, Shard):
        return None
    if node.op_type == "MatMul":  # of two tensors, many products side by side, as of the heads of an attention
        return state if state_of(node.input[1]) == state and state.axis < -2 else None
    if any(isinstance(state_of(name), Shard) for name in node.input[1:]):
        return None
    return _channels(network, node, state) or _rearranged(network, node, state)


def _channels(network: Network, node: NodeProto, state: Shard) -> Shard | None:
    """Through what works on each channel by itself."""
    if state.axis != 1 - len(network.types[node.input[0]].dims):
        return None
    if node.op_type in _POOLS or (node.op_type == "BatchNormalization" and _has_weights(network, node)):
        return state if sum(map(bool, node.output)) == 1 else None
    if node.op_type == "Flatten" and stated(node).get("axis", 1) == 1:
        size = network.types[node.output[0]].size(-1)
        return Shard(state.stage, -1, size) if size is not None and not size % state.size else None
    return None


def _rearranged(network: Network, node: NodeProto, state: Shard) -> Shard | None:
    """Through what leaves elements as they are, and a softmax along another axis."""
    data, out = network.types[node.input[0]], network.types[node.output[0]]
    count = len(data.dims)
    if node.op_type == "Transpose":
        order = list(stated(node).get("perm", range(count - 1, -1, -1)))
        return Shard(state.stage, order.index(state.axis + count) - count, state.size)
    if node.op_type in ("Softmax", "LogSoftmax"):
        default = -1 if graph.default_opset(network.proto) >= _SOFTMAX_OF_LAST else 1
        return state if stated(node).get("axis", default) in (-1, count - 1) and state.axis != -1 else None
    if node.op_type == "Reshape":
        return _reshaped(data, out, state)
    return None


def _reshaped(data: TensorType, out: TensorType, state: Shard) -> Shard | None:
    """Through a reshape that leaves the last axis as it is, parts it into heads, or joins these."""
    last, inner, outer = out.size(-1), out.size(-2), data.size(-1)
    if state.axis == -1 and last == state.size:
        return state
    if state.axis == -1 and last and inner and last * inner == state.size:
        return Shard(state.stage, -2, inner)
    if state.axis == -2 and outer and last == state.size * outer:
        return Shard(state.stage, -1, last)
    return None


def _elementwise(network: Network, node: NodeProto, state_of: Callable[[str], State | None]) -> Shard | None:
    names = [name for name in node.input if name]
    shards = {state for name in names if isinstance(state := state_of(name), Shard)}
    if len(shards) != 1:
        return None
    (state,) = shards
    if not isinstance(state_of(names[0]), Shard) and node.op_type in ("PRelu", "Clip", "Dropout"):
        return None
    for name in names:
        other = state_of(name)
        if not isinstance(other, Shard) and part_of(network, name, state) is None:
            return None
    return state


def part_of(network: Network, name: str, state: Shard) -> Literal["all", "cut"] | None:
    """What a rank takes of a whole tensor beside shards: all of it, where it is broadcast along their axis, or a part.

    None where that cannot be told.
    """
    if name in network.weights:
        dims: tuple[int | str | None, ...] = tuple(network.weights[name].dims)
    elif name in network.types:
        dims = network.types[name].dims
    else:
        return None
    size = dims[state.axis] if len(dims) >= -state.axis else 1
    if size == 1:
        return "all"
    return "cut" if size == state.size else None


def _has_weights(network: Network, node: NodeProto) -> bool:
    return all(name in network.weights for name in node.input[1:])
