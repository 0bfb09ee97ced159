"""Parts: graphs that are made of some nodes of another, and of whatever constants these need."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import ModelProto, NodeProto, TensorProto, helper

from gravswell import __version__
from gravswell.partitions.network import Network, TensorType, record_of
from gravswell.partitions.records import Tensor


@dataclass(frozen=True, slots=True)
class Part:
    """One graph of a partition, before it is written."""

    name: str
    stage: int
    rank: int | None
    proto: ModelProto
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    held: tuple[str, ...]
    """The weights of the whole graph that are in it in full."""
    layers: tuple[str, ...]


@dataclass(slots=True)
class Draft:
    """What a part may be made of. Of ``nodes`` only those are taken that its outputs need."""

    name: str
    stage: int
    rank: int | None
    nodes: Sequence[NodeProto]
    reads: Sequence[Iterable[str]]
    """Of each of ``nodes``."""
    taken: Mapping[str, TensorType]
    """Tensors that come from outside, and are not made in it."""
    given: Mapping[str, TensorType]
    """Its outputs."""
    weights: Mapping[str, TensorProto]
    """Constants beside those of the whole graph."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Names of the outputs inside of it, where these are others."""
    layers: Sequence[str] = ()


def assemble(network: Network, draft: Draft) -> Part:
    """The part: only what its outputs need is in it, and it takes only what it reads."""
    wanted = {draft.renamed.get(name, name) for name in draft.given}
    kept: list[NodeProto] = []
    for node, reads in zip(reversed(draft.nodes), reversed(draft.reads), strict=True):
        if any(name in wanted and name not in draft.taken for name in node.output):
            kept.append(node)
            wanted.update(name for name in reads if name)
    kept.reverse()
    own = {name: tensor for name, tensor in draft.weights.items() if name in wanted}
    held = tuple(name for name in network.weights if name in wanted)
    inputs = {name: type_ for name, type_ in draft.taken.items() if name in wanted}
    names = {inside: outside for outside, inside in draft.renamed.items()}
    whole = network.proto
    proto = helper.make_model(
        helper.make_graph(
            [_renamed(node, names) for node in kept],
            draft.name,
            [type_.info(name) for name, type_ in inputs.items()],
            [type_.info(name) for name, type_ in draft.given.items()],
            [*own.values(), *(network.weights[name] for name in held)],
        ),
        opset_imports=whole.opset_import,
        ir_version=whole.ir_version,
        producer_name="gravswell",
        producer_version=__version__,
    )
    return Part(
        draft.name,
        draft.stage,
        draft.rank,
        proto,
        tuple(tensor(name, type_) for name, type_ in inputs.items()),
        tuple(tensor(name, type_) for name, type_ in draft.given.items()),
        held,
        tuple(draft.layers),
    )


def tensor(name: str, held: TensorType) -> Tensor:
    """A tensor between parts, as the documents have it."""
    return Tensor(**record_of(name, held).model_dump())


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    if not names or not any(name in names for name in (*node.input, *node.output)):
        return node
    copy = NodeProto()
    copy.CopyFrom(node)
    for side in (copy.input, copy.output):
        for at, name in enumerate(side):
            side[at] = names.get(name, name)
    return copy
