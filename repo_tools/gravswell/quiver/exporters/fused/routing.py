"""The graph of a fusion: ids are checked, rows go to the models that they name, answers come back in their order.

::

    model_id ─ Equal to each id ─ NonZero: the rows, model by model ─ how many each model has
    If a model has any: its rows → the model → its answers, else none
    the answers of all, model by model ─ ScatterND ─ outputs, in the order of the rows

A model that no row names costs one ``If``, about 1 µs in ONNX Runtime; of many models, whole groups are passed over by
one. Nothing that decides whose answer a row gets is left to what a runtime does with a bad index: on CPUs ONNX Runtime
refuses one, on GPUs it reads zeros. ``Split`` holds the sizes that it is given against its tensor on every provider,
and no optimizer takes it apart, as one does ``Reshape``: so it makes the checks. Its name says what is wrong, and ONNX
Runtime puts that into its message.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from gravswell.quiver.datatypes import numpy_type
from gravswell.quiver.exporters.fused.interface import FusedInput, FusedOutput, Interface
from gravswell.quiver.exporters.fused.levels import Level
from gravswell.quiver.exporters.fused.naming import Branch, body_of, shared_weights
from gravswell.quiver.exporters.fused.sharing import Content
from gravswell.quiver.fusion import MODEL_ID
from gravswell.quiver.golden import Array

GROUP = 8
"""Models, or groups of them, that one ``If`` passes over where no row names any of them."""

OWN = "fusion/"
"""Begins the names of the fusion's own values. A model's begin with its first id."""

_ROWS = "rows"
_SIZE = f"{OWN}size"
_ORDER = f"{OWN}order"
_HAVE = f"{OWN}have"


def _taken(name: str) -> str:
    """The value of an input: under a prefix that nothing else has, for an input may be called as anything else is."""
    return f"{OWN}input/{name}"


def routed(
    branches: Sequence[Branch], table: Sequence[int], interface: Interface, shared: set[Content], level: Level
) -> ModelProto:
    """The fusion of ``branches``. ``table``: for each id, from 1 on, the index of its branch.

    Weights whose content is in ``shared`` stand in the graph itself, where every branch sees them, and others in their
    branch, where ONNX Runtime optimizes the operators that they belong to as in the model alone.
    """
    routing = _Routing(branches, interface, shared)
    nodes = [*routing.check(table), *routing.held()]
    nodes += routing.alone() if len(branches) == 1 else routing.apart()
    inputs = [_value(i.name, i.data_type, [_ROWS, *_open(i.name, i.dims[1:])]) for i in interface.inputs]
    graph = helper.make_graph(
        nodes,
        "fusion",
        [_value(MODEL_ID, "TYPE_INT64", [_ROWS]), *inputs],
        [_value(o.name, o.data_type, [_ROWS, *_tail_dims(o)]) for o in interface.outputs],
        [
            *routing.constants,
            *(_constant(i.name, _no_rows(i)) for i in interface.inputs if i.optional),
            *shared_weights(branches, shared),
        ],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(level.opsets.items())],
        ir_version=level.ir_version,
        producer_name="gravswell",
    )


class _Routing:
    """The nodes behind the check, and the constants that they need in the graph."""

    def __init__(self, branches: Sequence[Branch], interface: Interface, shared: set[Content]) -> None:
        self._branches = branches
        self._inputs = {i.name: i for i in interface.inputs}
        self._outputs = interface.outputs
        self._shared = shared
        self.constants: list[TensorProto] = []

    def check(self, table: Sequence[int]) -> Iterator[NodeProto]:
        """From ``model_id`` to the rows, model by model. One row that names no model fails the run."""
        count, named = len(table), MODEL_ID
        if len(self._branches) == count:
            ids = range(1, count + 1)
        else:  # an id outside becomes 0 or one above the last, and these are nobody's
            named, ids = f"{OWN}whose", range(len(self._branches))
            self.constants.append(_constant(f"{OWN}table", np.array([-1, *table, -1], np.int64)))
            self.constants.append(_constant(f"{OWN}first", np.array(0, np.int64)))
            self.constants.append(_constant(f"{OWN}last", np.array(count + 1, np.int64)))
            yield helper.make_node("Clip", [MODEL_ID, f"{OWN}first", f"{OWN}last"], [f"{OWN}within"])
            yield helper.make_node("Gather", [f"{OWN}table", f"{OWN}within"], [named])
        self.constants.append(_constant(f"{OWN}ids", np.array(ids, np.int64).reshape(-1, 1)))
        self.constants.append(_constant(f"{OWN}one", np.array(1, np.int64)))
        told = f"{MODEL_ID} of every row must be one of 1 to {count}"
        yield helper.make_node("Equal", [named, f"{OWN}ids"], [_HAVE])
        yield helper.make_node("NonZero", [_HAVE], [f"{OWN}found"])
        yield helper.make_node("Shape", [MODEL_ID], [f"{OWN}all"])
        yield helper.make_node("Split", [f"{OWN}found", f"{OWN}all"], [f"{OWN}known"], axis=1, name=told)
        yield helper.make_node("Gather", [f"{OWN}known", f"{OWN}one"], [_ORDER], axis=0)
        yield helper.make_node("Shape", [_ORDER], [_SIZE])

    def held(self) -> Iterator[NodeProto]:
        """Every input that is always there, held to have the rows of ``model_id``. Of the others its users do so."""
        for taken in self._inputs.values():
            if not taken.optional:
                yield _held(taken, _taken(taken.name))

    def alone(self) -> list[NodeProto]:
        """The nodes of a single branch, which every row goes to."""
        (branch,) = self._branches
        nodes, weights = body_of(branch, {t.own: _taken(t.name) for t in branch.model.inputs}, self._shared)
        self.constants += weights
        given = branch.model.outputs
        return nodes + [helper.make_node("Identity", [branch.value(t.own)], [t.name]) for t in given]

    def apart(self) -> list[NodeProto]:
        """The nodes that give each branch its rows, and put the answers together."""
        self.constants.append(_constant(f"{OWN}column", np.array([-1, 1], np.int64)))
        nodes = [*self._tails(), *self._counts()]
        inside, parts = self._level(self._top, 0, f"{OWN}count-{self._top}/0", _ORDER)
        nodes += inside + self._together(parts, f"{OWN}all/")
        nodes.append(helper.make_node("Reshape", [_ORDER, f"{OWN}column"], [f"{OWN}places"]))
        for k, output in enumerate(self._outputs):
            answers = f"{OWN}all/{k}"  # every row is in it, at another place
            nodes.append(helper.make_node("ScatterND", [answers, f"{OWN}places", answers], [output.name]))
        return nodes

    # Branches stand in groups of GROUP, these in groups again. A part, of one of them, is a prefix: of `rows`, which
    # they are in the batch, and of `0`, `1`…, their answers by output.

    @property
    def _top(self) -> int:
        """The level on which there is one group."""
        level = 0
        while self._count(level) > GROUP:
            level += 1
        return level

    def _count(self, level: int) -> int:
        return math.ceil(len(self._branches) / float(GROUP**level))

    def _counts(self) -> Iterator[NodeProto]:
        """How many rows each member of a group has, on each level; for a group above, or for the graph itself."""
        self.constants.append(_constant(f"{OWN}along", np.array([1], np.int64)))
        counts = f"{OWN}count-0"
        yield helper.make_node("Cast", [_HAVE], [f"{OWN}ones"], to=TensorProto.INT64)
        yield helper.make_node("ReduceSum", [f"{OWN}ones", f"{OWN}along"], [counts], keepdims=0)
        for level in range(self._top):
            count = self._count(level)
            sizes = [min(GROUP, count - k) for k in range(0, count, GROUP)]
            self.constants.append(_constant(f"{OWN}sizes-{level}", np.array(sizes, np.int64)))
            parts = [f"{counts}/{k}" for k in range(len(sizes))]
            yield helper.make_node("Split", [counts, f"{OWN}sizes-{level}"], parts, axis=0)
            above = f"{OWN}count-{level + 1}"
            sums = [f"{part}/sum" for part in parts]
            for part, total in zip(parts, sums, strict=True):
                yield helper.make_node("ReduceSum", [part], [total], keepdims=1)
            yield helper.make_node("Concat", sums, [above], axis=0)
            counts = above
        yield helper.make_node("Identity", [counts], [f"{counts}/0"])

    def _level(self, level: int, group: int, counts: str, rows: str) -> tuple[list[NodeProto], list[str]]:
        """The nodes of one group, which has ``rows``: an ``If`` for each of its members; and these members' parts."""
        members = range(group * GROUP, min((group + 1) * GROUP, self._count(level)))
        ones = f"{OWN}ones-{len(members)}"
        if ones not in {tensor.name for tensor in self.constants}:
            self.constants.append(_constant(ones, np.ones(len(members), np.int64)))
        parts = [f"{OWN}{level}-{k}/" for k in members]
        any_ = f"{OWN}{level}-{members[0]}/any"
        nodes = [
            helper.make_node("Split", [rows, counts], [f"{part}rows" for part in parts], axis=0),
            helper.make_node("Cast", [counts], [any_], to=TensorProto.BOOL),
            helper.make_node("Split", [any_, ones], [f"{part}is-there" for part in parts], axis=0),
        ]
        for k, part in zip(members, parts, strict=True):
            weights: list[TensorProto] = []
            if level:
                body, inner = self._level(level - 1, k, f"{OWN}count-{level - 1}/{k}", f"{part}rows")
                body += self._together(inner, f"{part}in/")
            else:
                body, weights = self._leaf(k, part)
            nodes.append(self._if(part, body, weights))
        return nodes, parts

    def _if(self, part: str, body: list[NodeProto], weights: Sequence[TensorProto]) -> NodeProto:
        """``body`` if it has any rows, and else no answers."""
        nothing: list[NodeProto] = []
        for k, output in enumerate(self._outputs):
            nothing += _filled(output, f"{part}out/{k}", _no_answer(output), k, rows=None)
        return helper.make_node(
            "If",
            [f"{part}is-there"],
            [f"{part}{k}" for k in range(len(self._outputs))],
            name=f"{part}if",
            then_branch=helper.make_graph(body, f"{part}then", [], self._values(f"{part}in/"), weights),
            else_branch=helper.make_graph(nothing, f"{part}else", [], self._values(f"{part}out/")),
        )

    def _values(self, prefix: str) -> list[ValueInfoProto]:
        return [_value(f"{prefix}{k}", o.data_type, [None, *_tail_dims(o)]) for k, o in enumerate(self._outputs)]

    def _leaf(self, index: int, part: str) -> tuple[list[NodeProto], list[TensorProto]]:
        """A model with the rows that name it."""
        branch, prefix = self._branches[index], f"{part}in/"
        nodes = []
        rows_of = {tensor.own: f"{prefix}input/{tensor.name}" for tensor in branch.model.inputs}
        for tensor in branch.model.inputs:
            source = _taken(tensor.name)
            if self._inputs[tensor.name].optional:
                source = f"{prefix}all/{tensor.name}"
                nodes.append(_held(self._inputs[tensor.name], source, f" of model {branch.model.number}"))
            nodes.append(helper.make_node("Gather", [source, f"{part}rows"], [rows_of[tensor.own]], axis=0))
        body, weights = body_of(branch, rows_of, self._shared)
        nodes += body
        given = {tensor.name: branch.value(tensor.own) for tensor in branch.model.outputs}
        if set(given) < {output.name for output in self._outputs}:
            nodes.append(helper.make_node("Shape", [f"{part}rows"], [f"{prefix}size"]))
        for k, output in enumerate(self._outputs):
            if output.name in given:
                nodes.append(helper.make_node("Identity", [given[output.name]], [f"{prefix}{k}"]))
            else:
                assert output.absent is not None, "refused by the interface"
                nodes += _filled(output, f"{prefix}{k}", output.absent, k, rows=f"{prefix}size")
        return nodes, weights

    def _together(self, parts: Sequence[str], prefix: str) -> list[NodeProto]:
        names = map(str, range(len(self._outputs)))
        return [helper.make_node("Concat", [part + name for part in parts], [prefix + name], axis=0) for name in names]

    def _tails(self) -> Iterator[NodeProto]:
        """The sizes behind the batch of each output that is as long as an input."""
        for k, output in enumerate(self._outputs):
            if all(isinstance(size, int) for size in output.tail):
                continue
            pieces = []
            for axis, size in enumerate(output.tail):
                piece = f"{OWN}tail-{k}-{axis}"
                pieces.append(piece)
                if isinstance(size, tuple):
                    yield helper.make_node("Shape", [_taken(size[0])], [f"{piece}/all"])
                    self.constants.append(_constant(f"{piece}/axis", np.array([size[1]], np.int64)))
                    yield helper.make_node("Gather", [f"{piece}/all", f"{piece}/axis"], [piece])
                else:
                    self.constants.append(_constant(piece, np.array([size], np.int64)))
            yield helper.make_node("Concat", pieces, [f"{OWN}tail-{k}"], axis=0)


def _held(taken: FusedInput, output: str, whose: str = "") -> NodeProto:
    told = f"input {taken.name}{whose} must have as many rows as {MODEL_ID}"
    return helper.make_node("Split", [taken.name, _SIZE], [output], axis=0, name=told)


def _filled(output: FusedOutput, name: str, value: Array, index: int, *, rows: str | None) -> list[NodeProto]:
    """``value`` as ``rows`` of the output, none without."""
    sizes = [size for size in output.tail if isinstance(size, int)]
    fixed = len(sizes) == len(output.tail)
    if rows is None and fixed:
        return [_stated(name, np.full((0, *sizes), value))]
    nodes = [_stated(f"{name}/value", value)]
    if rows is None:
        rows = f"{name}/no-rows"
        nodes.append(_stated(rows, np.zeros(1, np.int64)))
    tail = f"{OWN}tail-{index}"
    if fixed:
        tail = f"{name}/tail"
        nodes.append(_stated(tail, np.array(sizes, np.int64)))
    return [
        *nodes,
        helper.make_node("Concat", [rows, tail], [f"{name}/shape"], axis=0),
        helper.make_node("Expand", [f"{name}/value", f"{name}/shape"], [name]),
    ]


def _no_answer(output: FusedOutput) -> Array:
    return np.zeros((), numpy_type(output.data_type))


def _no_rows(taken: FusedInput) -> Array:
    """What an input is that a request leaves out."""
    dims = [1 if dim is None else dim for dim in taken.dims[1:]]
    return np.zeros((0, *dims), numpy_type(taken.data_type))


def _open(name: str, dims: Sequence[int | None]) -> list[int | str]:
    return [f"{name}_{axis}" if dim is None else dim for axis, dim in enumerate(dims, 1)]


def _tail_dims(output: FusedOutput) -> list[int | str | None]:
    return [f"{size[0]}_{size[1]}" if isinstance(size, tuple) else size for size in output.tail]


def _value(name: str, data_type: str, dims: Sequence[int | str | None]) -> ValueInfoProto:
    strings = data_type == "TYPE_STRING"
    kind = TensorProto.STRING if strings else helper.np_dtype_to_tensor_dtype(numpy_type(data_type))
    return helper.make_tensor_value_info(name, kind, list(dims))


def _constant(name: str, array: Array) -> TensorProto:
    return numpy_helper.from_array(array.astype(object) if array.dtype.kind == "U" else array, name)


def _stated(name: str, array: Array) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=_constant("", array))
