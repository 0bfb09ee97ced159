"""What each rank has of each tensor, where the ranks share the layers themselves. Pure: decided from types and names.

A tensor is *whole* (everybody could have it), a *shard* (each rank has a part of it along one axis) or *partial* (each
rank has a summand of it). A layer that is split by output columns makes shards of a whole tensor; one that is split by
input rows makes partial sums of shards. What works element by element keeps shards; all else needs whole tensors, and
there the ranks' answers are put together: that ends a *stage*.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from onnx import NodeProto, TensorProto

from gravswell.partitions.network import Network, name_of, stated

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})

_ELEMENTWISE = """
    Abs Add And Cast Ceil Celu Clip Cos Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid
    HardSwish Identity LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mul Neg Not Or PRelu Pow Reciprocal Relu Round
    Selu Sigmoid Sign Sin Softplus Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor
"""

_SAME = frozenset(_ELEMENTWISE.split())
"""Operators that work element by element, with broadcasting."""

_POOLS = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"})
"""Operators that work on each channel, which is axis 1, by itself."""


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


@dataclass(frozen=True, slots=True)
class Layer:
    """A node that multiplies a tensor with a matrix of weights, or convolves it with one."""

    node: int
    name: str
    data: str
    weight: str
    bias: str | None
    columns: int
    rows: int
    column_axis: int
    """Of the weights, from 0."""
    row_axis: int
    data_axis: int
    """Along which the rows meet the input, counted from the last."""
    out_axis: int
    """Along which the columns come out, counted from the last."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A node that the ranks compute, each its share."""

    node: int
    how: Literal["columns", "rows", "same"]
    layer: Layer | None = None
    cut: Shard | None = None
    """Of ``rows``: the input comes whole, and each rank cuts its part out of it. Of ``same``: what the shards are."""


@dataclass(slots=True)
class Sharding:
    """The outcome: who computes what at which stage, and what is put together at its end."""

    states: dict[str, State] = field(default_factory=dict)
    placed: dict[int, list[Placed]] = field(default_factory=dict)
    """By stage, in the order of the graph."""
    combined: dict[int, list[str]] = field(default_factory=dict)
    """By stage: the tensors that are put together."""


def layers_of(network: Network) -> dict[int, Layer]:
    """The layers that can be split, by node."""
    found: dict[int, Layer] = {}
    for at, node in enumerate(network.nodes):
        make = {"MatMul": _matmul, "Gemm": _gemm, "Conv": _conv}.get(node.op_type)
        layer = make(network, at, node) if make and node.domain in ("", "ai.onnx") else None
        if layer is not None and network.weights[layer.weight].data_type in _FLOATS:
            found[at] = layer
    return found


def _matmul(network: Network, at: int, node: NodeProto) -> Layer | None:
    data, weight = node.input
    if not _is_weight(network, weight, 2) or not _is_computed(network, data, 2):
        return None
    rows, columns = network.weights[weight].dims
    return Layer(at, name_of(node), data, weight, None, columns, rows, 1, 0, -1, -1)


def _gemm(network: Network, at: int, node: NodeProto) -> Layer | None:
    data, weight, *rest = node.input
    bias = rest[0] if rest and rest[0] else None
    attributes = stated(node)
    if attributes.get("transA") or not _is_weight(network, weight, 2) or not _is_computed(network, data, 2):
        return None
    row_axis = int(bool(attributes.get("transB")))
    dims = network.weights[weight].dims
    columns, rows = dims[1 - row_axis], dims[row_axis]
    if bias is not None and (bias not in network.weights or list(network.weights[bias].dims) not in _rows_of(columns)):
        return None
    return Layer(at, name_of(node), data, weight, bias, columns, rows, 1 - row_axis, row_axis, -1, -1)


def _rows_of(size: int) -> tuple[list[int], ...]:
    """Shapes in which a bias is written."""
    return [size], [1, size]


def _conv(network: Network, at: int, node: NodeProto) -> Layer | None:
    data, weight, *rest = node.input
    bias = rest[0] if rest and rest[0] else None
    if weight not in network.weights or stated(node).get("group", 1) != 1 or not _is_computed(network, data, 3):
        return None
    dims = network.weights[weight].dims
    if bias is not None and not _is_weight(network, bias, 1):
        return None
    channels = 1 - len(dims)
    return Layer(at, name_of(node), data, weight, bias, dims[0], dims[1], 0, 1, channels, channels)


def _is_weight(network: Network, name: str, dims: int) -> bool:
    return name in network.weights and len(network.weights[name].dims) == dims


def _is_computed(network: Network, name: str, least: int) -> bool:
    return name in network.types and name not in network.constant and len(network.types[name].dims) >= least


def shard(network: Network, layers: dict[int, Layer], by: Literal["column", "row"]) -> Sharding:
    """Decide for every node, in the order of the graph. ``layers``: those that are to be split."""
    return _Decision(network, layers, by).made()


class _Decision:
    def __init__(self, network: Network, layers: dict[int, Layer], by: Literal["column", "row"]) -> None:
        self._network, self._layers, self._by = network, layers, by
        self._made = Sharding(states={name: Whole(0) for name in network.inputs})

    def made(self) -> Sharding:
        for at, node in enumerate(self._network.nodes):
            if all(name in self._network.constant for name in node.output if name):
                continue
            layer = self._layers.get(at)
            if layer is not None:
                self._split(layer, node)
            elif (kept := self._kept(at)) is not None:
                self._place(Placed(at, "same", cut=kept), kept, node)
            else:
                stage = max(map(self._whole, self._network.reads[at]), default=0)
                self._made.states.update((name, Whole(stage)) for name in node.output if name)
        for name in self._network.outputs:
            self._whole(name)
        return self._made

    def _split(self, layer: Layer, node: NodeProto) -> None:
        state = self._made.states[layer.data]
        if self._by == "row" and isinstance(state, Shard) and (state.axis, state.size) == (layer.data_axis, layer.rows):
            self._place(Placed(layer.node, "rows", layer), Partial(state.stage), node)
            return
        stage = self._whole(layer.data) + 1
        out = Shard(stage, layer.out_axis, layer.columns)
        if self._by == "column" or self._meets_rows(node.output[0], out):
            self._place(Placed(layer.node, "columns", layer), out, node)
        else:
            cut = Shard(stage, layer.data_axis, layer.rows)
            self._place(Placed(layer.node, "rows", layer, cut), Partial(stage), node)

    def _place(self, placed: Placed, state: Shard | Partial, node: NodeProto) -> None:
        self._made.placed.setdefault(state.stage, []).append(placed)
        self._made.states.update((name, state) for name in node.output if name)

    def _whole(self, name: str) -> int:
        """The stage whose end the tensor is whole at, where it is put together if it is not."""
        state = self._made.states.get(name)
        if state is None:  # a constant
            return 0
        if not isinstance(state, Whole):
            combined = self._made.combined.setdefault(state.stage, [])
            if name not in combined:
                combined.append(name)
        return state.stage

    def _kept(self, at: int) -> Shard | None:
        """The shards that come out of a node into which shards of one stage go, where it keeps them."""
        shards = {state for name in self._network.reads[at] if isinstance(state := self._made.states.get(name), Shard)}
        stages = {state.stage for state in shards}
        if len(stages) != 1:
            return None
        (stage,) = stages
        for name in self._network.reads[at]:
            state = self._made.states.get(name)
            if isinstance(state, Partial) or (isinstance(state, Whole) and state.stage >= stage):
                return None
        return kept(self._network, at, self._made.states.get)

    def _meets_rows(self, name: str, state: Shard) -> bool:
        """Whether the shards of a tensor reach, element by element, nothing but layers whose rows they are."""
        readers = self._network.readers.get(name, [])
        if not readers or name in self._network.outputs:
            return False
        for at in readers:
            layer = self._layers.get(at)
            if layer is not None:
                if layer.data != name or (state.axis, state.size) != (layer.data_axis, layer.rows):
                    return False
                continue

            def ahead(read: str) -> State | None:
                if read == name:
                    return state
                if read in self._network.constant or read in self._network.weights:
                    return None
                # what is not decided yet may become a shard as this one is, as in a gate beside it
                return self._made.states.get(read, state)

            after = kept(self._network, at, ahead)
            if after is None or not all(self._meets_rows(out, after) for out in self._network.nodes[at].output if out):
                return False
        return True


def kept(network: Network, at: int, state_of: Callable[[str], State | None]) -> Shard | None:
    """The shards that come out of a node, where every rank can compute its own of its part; else None.

    ``state_of``: of each tensor that the node reads, None of a constant. What is whole is cut to the shards' part.
    """
    node = network.nodes[at]
    if node.domain not in ("", "ai.onnx") or node.output[0] not in network.types:
        return None
    if node.op_type in _SAME:
        return _elementwise(network, node, state_of)
    state = state_of(node.input[0])
    if not isinstance(state, Shard) or any(isinstance(state_of(name), Shard) for name in node.input[1:]):
        return None
    return _rearranged(network, node, state)


def _rearranged(network: Network, node: NodeProto, state: Shard) -> Shard | None:
    data, out = network.types[node.input[0]], network.types[node.output[0]]
    channels = state.axis == 1 - len(data.dims)
    if node.op_type in _POOLS or (node.op_type == "BatchNormalization" and _has_weights(network, node)):
        return state if channels and sum(map(bool, node.output)) == 1 else None
    if node.op_type == "Flatten" and channels and stated(node).get("axis", 1) == 1:
        size = out.size(-1)
        return Shard(state.stage, -1, size) if size is not None and not size % state.size else None
    if node.op_type == "Transpose":
        count = len(data.dims)
        order = list(stated(node).get("perm", range(count - 1, -1, -1)))
        return Shard(state.stage, order.index(state.axis + count) - count, state.size)
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
