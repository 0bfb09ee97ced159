"""What each rank has of each tensor, where the ranks share the layers themselves. Pure: decided from types and names.

A tensor is *whole* (everybody could have it), a *shard* (each rank has a part of it along one axis) or *partial* (each
rank has a summand of it). A layer that is split by output columns makes shards of a whole tensor; one that is split by
input rows makes partial sums of shards. Much else keeps shards (:mod:`.shards`); the rest needs whole tensors, and
there the ranks' answers are put together: that ends a *stage*.
"""

from dataclasses import dataclass, field
from typing import Literal

from onnx import NodeProto, TensorProto

from gravswell.partitions.network import Network, name_of, stated
from gravswell.partitions.shards import Partial, Shard, State, Whole, kept

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


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


def shard(network: Network, layers: dict[int, Layer], by: Literal["column", "row"], ranks: int) -> Sharding:
    """Decide for every node, in the order of the graph. ``layers``: those that are to be split."""
    return _Decision(network, layers, by, ranks).made()


class _Decision:
    def __init__(self, network: Network, layers: dict[int, Layer], by: Literal["column", "row"], ranks: int) -> None:
        self._network, self._layers, self._by, self._ranks = network, layers, by, ranks
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
        return self._divided(kept(self._network, at, self._made.states.get))

    def _divided(self, state: Shard | None) -> Shard | None:
        """The shards, where all ranks have the same of them: a reshape may leave fewer along their axis."""
        return None if state is None or state.size % self._ranks else state

    def _meets_rows(self, name: str, state: Shard) -> bool:
        """Whether the shards of a tensor reach, on a way that keeps them, nothing but layers whose rows they are."""
        pending, seen = [(name, state)], {(name, state)}
        while pending:
            reached, held = pending.pop()
            readers = self._network.readers.get(reached, [])
            if not readers or reached in self._network.outputs:
                return False
            for at in readers:
                layer = self._layers.get(at)
                if layer is not None:
                    if layer.data != reached or (held.axis, held.size) != (layer.data_axis, layer.rows):
                        return False
                    continue
                after = self._ahead(at, reached, held)
                if after is None:
                    return False
                made = {(out, after) for out in self._network.nodes[at].output if out} - seen
                seen |= made  # ways that part may meet again
                pending += made
        return True

    def _ahead(self, at: int, name: str, state: Shard) -> Shard | None:
        """The shards that would come out of a node that is not decided yet, into which those of ``name`` go."""

        def ahead(read: str) -> State | None:
            if read == name:
                return state
            if read in self._network.constant or read in self._network.weights:
                return None
            held = self._network.types.get(read)
            # what is not decided yet may become a shard as this one is, as in a gate beside it; a shape does not
            return self._made.states.get(read, state if held and held.element in _FLOATS else Whole(0))

        return self._divided(kept(self._network, at, ahead))
