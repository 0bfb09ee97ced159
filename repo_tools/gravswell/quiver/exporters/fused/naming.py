"""A model inside another graph: every name of it under a prefix of its own, and its weights where they belong."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from gravswell.quiver.exporters.fused.sharing import Content
from gravswell.quiver.exporters.fused.singles import Single
from gravswell.quiver.exporters.graph import inner_graphs, tensors
from gravswell.quiver.exporters.weights import is_external

_Renaming = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Branch:
    """A model that stands in the graph once, for one id or several."""

    model: Single
    proto: ModelProto
    """In the common opset; its data files are named from the folder that holds those of all models."""
    weights: Mapping[str, Content]
    """The contents of its weights by name, as far as it may share them."""

    def value(self, own: str) -> str:
        """What a value of the model is called in the fusion."""
        return f"{self.model.number}/{own}" if own else ""


def moved(proto: ModelProto, folder: PurePosixPath) -> ModelProto:
    """The model with its data files, which lie in ``folder``, named from where that is."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in tensors(copy):
        if is_external(tensor):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = str(folder / entry.value)
    return copy


def body_of(
    branch: Branch, inputs: Mapping[str, str], shared: set[Content]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """The nodes of the model, fed with ``inputs`` (values of the graph around, by the model's own names of its inputs),
    and the weights that are its alone."""
    graph = branch.proto.graph
    common = {name: shared_name(key) for name, key in branch.weights.items() if key in shared}
    known = {**common, **inputs}

    def renamed(own: str) -> str:
        return known.get(own) or branch.value(own)

    nodes = [_renamed(node, renamed, branch) for node in graph.node]
    nodes += [  # an output that is an input, or a weight, as it is
        helper.make_node("Identity", [known[tensor.own]], [branch.value(tensor.own)])
        for tensor in branch.model.outputs
        if tensor.own in known
    ]
    weights = [_named(tensor, renamed(tensor.name)) for tensor in graph.initializer if tensor.name not in common]
    return nodes, weights


def shared_weights(branches: Sequence[Branch], shared: set[Content]) -> Iterator[TensorProto]:
    """The weights that several branches have, each once."""
    seen: set[Content] = set()
    for branch in branches:
        for tensor in branch.proto.graph.initializer:
            key = branch.weights.get(tensor.name)
            if key in shared and key not in seen:
                seen.add(key)
                yield _named(tensor, shared_name(key))


def shared_name(key: Content) -> str:
    """What a weight that several models have is called."""
    return f"shared/{key[2][:24]}-{key[0]}-{'x'.join(map(str, key[1]))}"


def _renamed(node: NodeProto, renamed: _Renaming, branch: Branch) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    _rename_node(copy, renamed, branch)
    return copy


def _rename_node(node: NodeProto, renamed: _Renaming, branch: Branch) -> None:
    node.name = branch.value(node.name or f"{node.op_type} of {next(filter(None, node.output), '')}")
    node.input[:] = [renamed(name) for name in node.input]
    node.output[:] = [branch.value(name) for name in node.output]
    for inner in inner_graphs(node):
        _rename_graph(inner, renamed, branch)


def _rename_graph(graph: GraphProto, renamed: _Renaming, branch: Branch) -> None:
    """Of a graph inside a node: its own values, and those that it takes from around it."""
    for value in (*graph.input, *graph.value_info):
        value.name = branch.value(value.name)
    for tensor in graph.initializer:
        tensor.name = branch.value(tensor.name)
    for value in graph.output:
        value.name = renamed(value.name)
    for node in graph.node:
        _rename_node(node, renamed, branch)


def _named(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy
