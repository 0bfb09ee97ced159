"""By layer: consecutive slices of a graph, one for each rank, of about the same weight."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from gravswell.errors import InvalidInputError
from gravswell.partitions.assembly import Draft, Part, assemble
from gravswell.partitions.cuts import cut
from gravswell.partitions.network import LARGE_NODE, Network, TensorType, name_of, values_of
from gravswell.partitions.sharding import layers_of
from gravswell.partitions.shards import ELEMENTWISE
from gravswell.quiver.exporters import files
from gravswell.quiver.exporters.base import Inputs
from gravswell.quiver.exporters.proof import run

Balance = Literal["weights", "time"]
"""What the slices have the same of: bytes of weights, or time on this machine's CPU."""

TIMED_RUNS = 5

_UNTIDY = 0.02
"""What a cut costs, in tensors, that is not right before a layer: what follows a layer stays with it."""

_NAMED = 8
"""Layers that a message names."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Nodes that no cut can part, in the order of the graph."""

    nodes: tuple[int, ...]
    cost: float
    layers: tuple[str, ...]
    """Names of those that count: each slice gets one at least."""
    crossing: float
    """What a cut behind it costs: the tensors that go across, and as a fraction their share of all bytes."""


def layered(network: Network, ranks: int, balance: Balance, batches: Sequence[Inputs]) -> list[Part]:
    """The slices. InvalidInputError where there are fewer layers than ranks."""
    held = {at: network.held_by(at) for at in range(len(network.nodes)) if not _is_constant(network, at)}
    layers = {at for at, names in held.items() if _is_layer(network, at, names)}
    if not layers:
        balance = "time"
    costs = _times(network, batches) if balance == "time" else _bytes(network, held)
    steps = _steps(network, list(held), costs, layers or set(held))
    _check_enough(network, steps, ranks, weighted=bool(layers))
    ends = cut(
        [step.cost for step in steps],
        [bool(step.layers) for step in steps],
        [step.crossing for step in steps],
        ranks,
    )
    slices = [
        [at for step in steps[start:end] for at in step.nodes] for start, end in zip([0, *ends[:-1]], ends, strict=True)
    ]
    return _parts(network, slices, layers)


def _parts(network: Network, slices: Sequence[Sequence[int]], layers: set[int]) -> list[Part]:
    slice_of = {at: k for k, nodes in enumerate(slices) for at in nodes}
    last = len(slices) - 1
    taken: dict[str, TensorType] = {name: network.types[name] for name in network.inputs}
    parts = []
    for k, nodes in enumerate(slices):
        made = [name for at in nodes for name in network.nodes[at].output if name]
        given = [
            name
            for name in made
            if name in network.outputs or any(slice_of.get(at, k) > k for at in network.readers.get(name, ()))
        ]
        if k == last:
            given += [name for name in network.outputs if name in network.constant or name in network.weights]
        types = {name: network.types[name] for name in given}
        draft = Draft(
            name=f"rank-{k}",
            stage=k + 1,
            rank=k,
            nodes=network.nodes,
            reads=network.reads,
            taken=taken,
            given=types,
            weights={},
            layers=[name_of(network.nodes[at]) for at in nodes if at in layers],
        )
        parts.append(assemble(network, draft))
        taken = taken | types
    return parts


def _is_constant(network: Network, at: int) -> bool:
    return all(name in network.constant for name in network.nodes[at].output if name)


def _is_layer(network: Network, at: int, held: set[str]) -> bool:
    """Whether a node has weights of its own: a matrix at least, or as trees have them in its attributes."""
    node = network.nodes[at]
    matrix = any(len(network.weights[name].dims) > 1 for name in held) and node.op_type not in ELEMENTWISE
    return matrix or node.ByteSize() > LARGE_NODE


def _bytes(network: Network, held: dict[int, set[str]]) -> dict[int, float]:
    """Bytes by node: those of a weight that several share with the first that needs it."""
    counted: set[str] = set()
    costs: dict[int, float] = {}
    for at, names in held.items():
        costs[at] = float(network.nodes[at].ByteSize() + sum(network.bytes_of(name) for name in names - counted))
        counted |= names
    return costs


def _steps(network: Network, nodes: Sequence[int], costs: dict[int, float], layers: set[int]) -> list[_Step]:
    """The nodes in groups, with a place for a cut behind each."""
    position = {at: k for k, at in enumerate(nodes)}
    across = [0.0] * len(nodes)
    parted = [0] * len(nodes)
    sizes = {name: _size(type_) for name, type_ in network.types.items()}
    total = sum(sizes.values()) + 1
    for name, at in network.maker.items():
        last = max((position[reader] for reader in network.readers.get(name, ()) if reader in position), default=-1)
        if at not in position or last <= position[at]:
            continue
        across[position[at]] += 1 + sizes.get(name, 0) / total
        across[last] -= 1 + sizes.get(name, 0) / total
        if name not in network.types:  # no tensor, or one of no fixed number of dims: it stays inside
            parted[position[at]] += 1
            parted[last] -= 1
    steps: list[_Step] = []
    group: list[int] = []
    crossing, together = 0.0, 0
    for k, at in enumerate(nodes):
        crossing += across[k]
        together += parted[k]
        group.append(at)
        if not together:
            named = tuple(name_of(network.nodes[one]) for one in group if one in layers)
            untidy = 0.0 if nodes[k + 1 : k + 2] and nodes[k + 1] in layers else _UNTIDY
            steps.append(_Step(tuple(group), sum(costs[one] for one in group), named, crossing + untidy))
            group = []
    return steps


def _size(held: TensorType) -> int:
    """Elements for one row, sizes that differ counted as one: to compare tensors by."""
    return prod(dim for dim in held.dims if isinstance(dim, int))


def _check_enough(network: Network, steps: Sequence[_Step], ranks: int, *, weighted: bool) -> None:
    count = sum(bool(step.layers) for step in steps)
    if count >= ranks:
        return
    layers = [name for step in steps for name in step.layers]
    names = ", ".join(layers[:_NAMED]) + (", …" if len(layers) > _NAMED else "")
    what = "layers with weights" if weighted else "nodes"
    can = f"has {count} {what} that can be parted ({names}): use ranks={count} or fewer"
    if count < 2:
        can = f"has nothing between which it could be cut ({names}): leave it in one piece"
    inside = "; by='column' and by='row' cut the layers themselves" if layers_of(network) else ""
    raise InvalidInputError(
        f"more ranks than layers: {ranks} ranks were asked for, each of which holds one at least, and the graph {can}"
        f"{inside}"
    )


def _times(network: Network, batches: Sequence[Inputs]) -> dict[int, float]:
    """What each node takes, in microseconds of this machine's CPU: the least of a few runs of the largest batch."""
    batch = max(batches, key=values_of)
    proto = type(network.proto)()
    proto.CopyFrom(network.proto)
    for at, node in enumerate(proto.graph.node):
        node.name = f"gravswell_{at}"
    costs = dict.fromkeys(range(len(network.nodes)), 0.0)
    with tempfile.TemporaryDirectory(prefix="gravswell-times-") as name:
        path = files.write(proto, Path(name), network.source)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(name) / "times")
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(TIMED_RUNS):
            run(session, batch)
        events = json.loads(Path(session.end_profiling()).read_text())
    taken: dict[int, list[float]] = {}
    for event in events:
        node, _, kind = event["name"].rpartition("_kernel_time")
        if event.get("cat") == "Node" and not kind and node.startswith("gravswell_"):
            taken.setdefault(int(node.removeprefix("gravswell_")), []).append(float(event["dur"]))
    costs.update((at, max(min(times), 1.0)) for at, times in taken.items())
    return costs
