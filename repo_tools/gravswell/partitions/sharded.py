"""By column and by row: the graph of every rank at every stage, and the graphs that put their answers together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from gravswell.errors import InvalidInputError
from gravswell.partitions.assembly import Draft, Part, assemble
from gravswell.partitions.network import LARGE_NODE, Network, TensorType, told
from gravswell.partitions.records import Combined
from gravswell.partitions.sharding import Layer, Placed, Sharding, layers_of, shard
from gravswell.partitions.shards import Partial, Shard, Whole, part_of
from gravswell.quiver.exporters import graph

LEAST_OPSET = 11
"""From which on a Gemm needs no bias and an axis may be counted from the last."""

_NAMED = 8
"""Layers that a message names."""


def sharded(
    network: Network, ranks: int, by: Literal["column", "row"], whole: Sequence[str]
) -> tuple[list[Part], list[Combined]]:
    """The parts, stage by stage, each with its combination behind the ranks; and what is put together, and how.

    ``whole``: patterns of the names of layers that are not split. InvalidInputError where no layer can be, or where
    the ranks do not divide one.
    """
    if (opset := graph.default_opset(network.proto)) < LEAST_OPSET:
        raise InvalidInputError(
            f"the graph is in opset {opset}, and by={by!r} writes operators of {LEAST_OPSET}: convert it with "
            f"onnx.version_converter first, or use by='layer'"
        )
    layers = _chosen(network, by, whole)
    sharding = shard(network, layers, by, ranks)
    _check_divides(network, sharding, ranks)
    parts: list[Part] = []
    combined: list[Combined] = []
    stages = sorted(sharding.placed)
    handed = _handed_on(network, sharding)
    for stage in stages:
        known = {name: network.types[name] for name in network.inputs}
        known |= {name: network.types[name] for earlier in range(1, stage) for name in handed.get(earlier, ())}
        mark = f"-stage-{stage}" if len(stages) > 1 else ""
        for rank in range(ranks):
            share = _Share(network, sharding, stage, rank, ranks)
            parts.append(assemble(network, share.draft(f"rank-{rank}{mark}", known)))
        name = f"combine-{stage}" if len(stages) > 1 else "combine"
        given = handed.get(stage, [])
        if stage == stages[-1]:
            given = [*given, *(name for name in network.outputs if _is_prior(sharding, name))]
        parts.append(
            assemble(network, _combination(network, sharding, known, given, name=name, stage=stage, ranks=ranks))
        )
        combined += [_how(sharding, stage, name) for name in sharding.combined[stage]]
    return parts, combined


def shard_name(tensor: str, rank: int) -> str:
    """What a rank's part of a tensor is called outside of the rank."""
    return f"{tensor}.rank-{rank}"


def _chosen(network: Network, by: str, whole: Sequence[str]) -> dict[int, Layer]:
    layers = layers_of(network)
    if not layers:
        ops = [
            told(node) for at, node in enumerate(network.nodes) if network.held_by(at) or node.ByteSize() > LARGE_NODE
        ]
        held = f"its weights are in {', '.join(ops[:_NAMED])}" if ops else "it has no weights"
        raise InvalidInputError(
            f"by={by!r} splits MatMul, Gemm and Conv layers (of one group) whose matrix of floats is a constant of the "
            f"graph, and there is none: {held}; use by='layer'"
        )
    for pattern in whole:
        if not any(fnmatchcase(layer.name, pattern) for layer in layers.values()):
            names = ", ".join(layer.name for layer in list(layers.values())[:_NAMED])
            raise InvalidInputError(f"whole names {pattern!r}, and no layer that can be split is called so: {names}")
    chosen = {
        at: layer for at, layer in layers.items() if not any(fnmatchcase(layer.name, pattern) for pattern in whole)
    }
    if not chosen:
        raise InvalidInputError(f"whole names all {len(layers)} layers, so that nothing would be split: name fewer")
    return chosen


def _check_divides(network: Network, sharding: Sharding, ranks: int) -> None:
    uneven: list[tuple[Layer, int, str]] = []
    for placed in (one for stage in sharding.placed.values() for one in stage):
        if placed.layer is not None:
            size = placed.layer.columns if placed.how == "columns" else placed.layer.rows
            if size % ranks:
                uneven.append((placed.layer, size, "output columns" if placed.how == "columns" else "input rows"))
    if not uneven:
        return
    layer, size, what = uneven[0]
    node = network.nodes[layer.node]
    dims = list(network.weights[layer.weight].dims)
    names = [layer.name for layer, _, _ in uneven]
    divisors = ", ".join(str(n) for n in range(2, size + 1) if not size % n) or "none but 1"
    others = f" (nor do they divide {', '.join(names[1:_NAMED])})" if len(names) > 1 else ""
    raise InvalidInputError(
        f"{told(node)} (weight {layer.weight!r} {dims}) has {size} {what}, which {ranks} ranks do not divide{others}: "
        f"use ranks that do ({divisors}), or leave layers whole: whole={names!r} "
        f"({' '.join(f'--whole {name}' for name in names[:_NAMED])})"
    )


def _is_prior(sharding: Sharding, name: str) -> bool:
    """Whether an output depends on no layer that is split."""
    state = sharding.states.get(name)
    return state is None or (isinstance(state, Whole) and state.stage == 0)


def _stage_of(network: Network, sharding: Sharding, at: int) -> int:
    """The stage at which a node is computed, by the ranks or by what combines their answers."""
    return next((state.stage for name in network.nodes[at].output if (state := sharding.states.get(name))), 0)


def _handed_on(network: Network, sharding: Sharding) -> dict[int, list[str]]:
    """By stage: the tensors that are whole at its end and that others need, or that are the graph's outputs."""
    handed: dict[int, list[str]] = {}
    for name, state in sharding.states.items():
        whole = isinstance(state, Whole) or name in sharding.combined.get(state.stage, ())
        if not whole or state.stage == 0:
            continue
        readers = network.readers.get(name, ())
        if name in network.outputs or any(_stage_of(network, sharding, at) > state.stage for at in readers):
            handed.setdefault(state.stage, []).append(name)
    return handed


def _how(sharding: Sharding, stage: int, name: str) -> Combined:
    state = sharding.states[name]
    if isinstance(state, Shard):
        return Combined(tensor=name, stage=stage, how="concat", axis=state.axis)
    return Combined(tensor=name, stage=stage, how="sum")


def _shard_type(network: Network, state: Shard | Partial, name: str, ranks: int) -> TensorType:
    held = network.types[name]
    return held.resized(state.axis, state.size // ranks) if isinstance(state, Shard) else held


def _combination(
    network: Network,
    sharding: Sharding,
    known: Mapping[str, TensorType],
    given: Sequence[str],
    *,
    name: str,
    stage: int,
    ranks: int,
) -> Draft:
    """What puts the ranks' answers together, and computes all that is left to compute of whole tensors then."""
    nodes: list[NodeProto] = []
    taken = dict(known)
    for tensor in sharding.combined[stage]:
        state = sharding.states[tensor]
        assert not isinstance(state, Whole)
        shards = [shard_name(tensor, rank) for rank in range(ranks)]
        taken |= {shard: _shard_type(network, state, tensor, ranks) for shard in shards}
        if isinstance(state, Shard):
            nodes.append(helper.make_node("Concat", shards, [tensor], name=f"{tensor}.concat", axis=state.axis))
        else:
            nodes.append(helper.make_node("Sum", shards, [tensor], name=f"{tensor}.sum"))
    replaced = {placed.node for placed in sharding.placed.get(stage, ())}
    rest = [at for at in range(len(network.nodes)) if at not in replaced]
    return Draft(
        name=name,
        stage=stage,
        rank=None,
        nodes=[*nodes, *(network.nodes[at] for at in rest)],
        reads=[*(node.input for node in nodes), *(network.reads[at] for at in rest)],
        taken=taken,
        given={tensor: network.types[tensor] for tensor in given},
        weights={},
    )


@dataclass(slots=True)
class _Share:
    """What one rank computes at one stage."""

    network: Network
    sharding: Sharding
    stage: int
    rank: int
    ranks: int
    weights: dict[str, TensorProto] = field(default_factory=dict)
    """Those that are cut to this rank's share."""
    cut: set[str] = field(default_factory=set)
    """Likewise, of the tensors that it has in full."""

    def draft(self, name: str, known: Mapping[str, TensorType]) -> Draft:
        network = self.network
        placed = {one.node: one for one in self.sharding.placed[self.stage]}
        nodes: list[NodeProto] = []
        reads: list[Iterable[str]] = []
        for at, node in enumerate(network.nodes):
            made = self._made(placed[at], node) if at in placed else [node]
            nodes += made
            reads += [one.input for one in made] if at in placed else [network.reads[at]]
        given = {}
        for tensor in self.sharding.combined[self.stage]:
            state = self.sharding.states[tensor]
            assert not isinstance(state, Whole)
            given[shard_name(tensor, self.rank)] = _shard_type(network, state, tensor, self.ranks)
        return Draft(
            name=name,
            stage=self.stage,
            rank=self.rank,
            nodes=nodes,
            reads=reads,
            taken=known,
            given=given,
            weights=self.weights,
            renamed={shard_name(tensor, self.rank): tensor for tensor in self.sharding.combined[self.stage]},
            layers=[one.layer.name for one in placed.values() if one.layer is not None],
        )

    def _made(self, placed: Placed, node: NodeProto) -> list[NodeProto]:
        """The node as this rank computes it, after those that cut what it reads."""
        before: list[NodeProto] = []
        share = NodeProto()
        share.CopyFrom(node)
        layer = placed.layer
        if layer is None and node.op_type == "Reshape":
            share.input[1] = self._shape(node, placed, before)
            return [*before, share]
        if layer is None:
            for k, name in enumerate(node.input):
                if name and not isinstance(self.sharding.states.get(name), Shard):
                    share.input[k] = self._beside(name, placed, node, before)
            return [*before, share]
        axis = layer.column_axis if placed.how == "columns" else layer.row_axis
        share.input[1] = self._cut_weight(layer.weight, axis)
        if placed.how == "rows":
            if placed.cut is not None:
                share.input[0] = self._cut(layer.data, placed.cut, before)
            if self.rank:
                del share.input[2:]  # the bias is in one of the summands
        elif layer.bias is not None:
            share.input[2] = self._cut_weight(layer.bias, len(self.network.weights[layer.bias].dims) - 1)
        return [*before, share]

    def _beside(self, name: str, placed: Placed, node: NodeProto, before: list[NodeProto]) -> str:
        """A whole tensor beside shards: cut as they are where it is not broadcast along their axis."""
        assert placed.cut is not None
        if node.op_type == "BatchNormalization":
            return self._cut_weight(name, 0)
        if part_of(self.network, name, placed.cut) == "all":
            return name
        if name in self.network.weights:
            return self._cut_weight(name, len(self.network.weights[name].dims) + placed.cut.axis)
        return self._cut(name, placed.cut, before)

    def _shape(self, node: NodeProto, placed: Placed, before: list[NodeProto]) -> str:
        """The shape that a reshape is given, with this rank's size where its part is. Sizes that are left open stay."""
        assert placed.cut is not None
        axis, shape = placed.cut.axis, node.input[1]
        own = f"{node.output[0]}.shape-of-rank"
        divisors = np.ones(len(self.network.types[node.output[0]].dims), np.int64)
        divisors[axis] = self.ranks
        for name, array in ((f"{own}.divisors", divisors), (f"{own}.none", np.array([0], np.int64))):
            self.weights[name] = numpy_helper.from_array(array, name)
        for operator, inputs, made in (
            ("Div", [shape, f"{own}.divisors"], f"{own}.divided"),
            ("Less", [shape, f"{own}.none"], f"{own}.open"),
            ("Where", [f"{own}.open", shape, f"{own}.divided"], own),
        ):
            before.append(helper.make_node(operator, inputs, [made], name=made))
        return own

    def _cut_weight(self, name: str, axis: int) -> str:
        """The name of this rank's part of a weight, which is made when it is first needed."""
        own = f"{name}.rank-{self.rank}-of-{self.ranks}-axis-{axis}"
        if own not in self.weights:
            array = self.network.value(name)
            assert array is not None
            share = np.split(array, self.ranks, axis)[self.rank]
            self.weights[own] = numpy_helper.from_array(np.ascontiguousarray(share), own)
        return own

    def _cut(self, name: str, state: Shard, before: list[NodeProto]) -> str:
        """The name of this rank's part of a tensor that it has in full."""
        own = f"{name}.rank-{self.rank}-of-{self.ranks}-axis{state.axis}"
        size = state.size // self.ranks
        numbers = {"begin": self.rank * size, "end": (self.rank + 1) * size, "axis": state.axis}
        for what, number in numbers.items():
            self.weights[f"{own}.{what}"] = numpy_helper.from_array(np.array([number], np.int64), f"{own}.{what}")
        if own not in self.cut:
            self.cut.add(own)
            numbered = [f"{own}.{what}" for what in numbers]
            before.append(helper.make_node("Slice", [name, *numbered], [own], name=f"{own}.slice"))
        return own
