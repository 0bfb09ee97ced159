"""tf2onnx's graph in an order and in names that follow from the graph alone.

Its own names count what the process has converted before, and which of two equal constants stays depends on the hashes
of their names: no digest would come again, and two versions of one model would seem to share nothing.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from onnx import helper


def canonical(proto: Any, names: Mapping[str, str]) -> Any:
    """``proto``, changed in place: its inputs and outputs by ``names`` and in that order, all else after its place."""
    order = list(names)
    for values in (proto.graph.input, proto.graph.output):
        values.sort(key=lambda value: order.index(value.name))
    _sort(proto.graph, "model", Counter())
    inputs = {value.name for value in proto.graph.input}
    for axis, value, dim in _named_dims(proto.graph):
        dim.dim_param = "batch" if axis == 0 and value.name in inputs else f"{names[value.name]}_{axis}"
    _rename(proto.graph, names)
    return proto


def _sort(graph: Any, name: str, counts: Counter[str]) -> None:
    """Name graphs and nodes, and put each node behind what it needs; one that nobody needs goes."""
    graph.name = name
    _drop_identities(graph)
    nodes = list(graph.node)
    made_by = {value: k for k, node in enumerate(nodes) for value in node.output if value}
    order: dict[int, None] = {}
    pending = [made_by[value.name] for value in reversed(graph.output) if value.name in made_by]
    entered: set[int] = set()
    while pending:
        k = pending.pop()
        if k in entered:  # what it needs was on top of it
            order[k] = None
            continue
        entered.add(k)
        pending.append(k)
        needs = [made_by[value] for _, value in _uses([nodes[k]]) if value in made_by]
        pending += [need for need in reversed(needs) if need not in entered]
    del graph.node[:]
    graph.node.extend(nodes[k] for k in order)
    for node in graph.node:
        counts[node.op_type] += 1
        node.name = f"{node.op_type}_{counts[node.op_type]}"
        for attribute, inner in _inner(node):
            _sort(inner, f"{node.name}.{attribute}", counts)


def _drop_identities(graph: Any) -> None:
    """tf2onnx drops most of them, but of two outputs that are one value any may keep it: here it is the first."""
    sources = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    nodes = [node for node in graph.node if node.op_type != "Identity"]
    made = {value for node in nodes for value in node.output}

    def source(value: str) -> str:
        while value in sources:
            value = sources[value]
        return value

    new: dict[str, str] = {}
    for output in graph.output:
        if source(output.name) in made:
            new.setdefault(source(output.name), output.name)
    kept = [(new.get(value, value), output.name) for output in graph.output for value in [source(output.name)]]
    del graph.node[:]
    graph.node.extend(nodes)
    _replace(graph, {value: new.get(source(value), source(value)) for value in (*sources, *new)}, new)
    graph.node.extend(helper.make_node("Identity", [value], [name]) for value, name in kept if value != name)


def _replace(graph: Any, taken: Mapping[str, str], made: Mapping[str, str]) -> None:
    """Other names for what nodes take, in the graphs inside of them too, and for what they make."""
    for node in graph.node:
        node.input[:] = [taken.get(value, value) for value in node.input]
        node.output[:] = [made.get(value, value) for value in node.output]
        for _, inner in _inner(node):
            _replace(inner, taken, {})
            for output in inner.output:
                output.name = taken.get(output.name, output.name)


def _rename(graph: Any, outer: Mapping[str, str]) -> None:
    """Name what nodes make after them, constants after the first node that takes them; then follow it everywhere."""
    known = {"": "", **outer}
    for k, value in enumerate(graph.input):
        known.setdefault(value.name, f"{graph.name}.{k}")
    for node in graph.node:
        for k, value in enumerate(node.output):
            known.setdefault(value, f"{node.name}:{k}" if k else node.name)
    constants = {tensor.name for tensor in graph.initializer}
    uses = [*_uses(graph.node), *((graph.name, value.name) for value in graph.output)]
    taken = Counter[str]()
    for user, value in uses:
        if value in constants and value not in known:
            taken[user] += 1
            known[value] = f"{user}.constant_{taken[user]}"
    place = {name: k for k, name in enumerate(known)}
    unused = [k for k, tensor in enumerate(graph.initializer) if tensor.name not in known]
    for k in reversed(unused):
        del graph.initializer[k]
    graph.initializer.sort(key=lambda tensor: place[tensor.name])
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = known[value.name]
    for node in graph.node:
        node.input[:] = [known[value] for value in node.input]
        node.output[:] = [known[value] for value in node.output]
        for _, inner in _inner(node):
            _rename(inner, known)
            for _, _, dim in _named_dims(inner):
                dim.ClearField("dim_param")
    del graph.value_info[:]


def _uses(nodes: Any) -> Iterator[tuple[str, str]]:
    """Each value that the nodes refer to, in the graphs inside of them too, with the name of the node."""
    for node in nodes:
        yield from ((node.name, value) for value in node.input)
        for _, inner in _inner(node):
            yield from _uses(inner.node)
            yield from ((node.name, value.name) for value in inner.output)


def _inner(node: Any) -> Iterator[tuple[str, Any]]:
    return ((attribute.name, attribute.g) for attribute in node.attribute if attribute.HasField("g"))


def _named_dims(graph: Any) -> Iterator[tuple[int, Any, Any]]:
    for value in (*graph.input, *graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_param"):
                yield axis, value, dim
