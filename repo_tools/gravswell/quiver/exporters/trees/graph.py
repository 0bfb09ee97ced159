"""ONNX of boosted trees: one ``TreeEnsembleRegressor`` that sums their leaves, and plain operators on the sums.

``TreeEnsembleClassifier`` would compute labels and probabilities itself, but knows only some of the links, and not the
ways in which the frameworks choose between two classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from gravswell.quiver.exporters.trees.boosted import Boosted
from gravswell.quiver.golden import Array

ML_DOMAIN, ML_OPSET = "ai.onnx.ml", 3
"""3 is the oldest with thresholds in float64."""

OPSET, MIN_OPSET = 18, 13
"""Of ONNX's own operators."""


class Pieces:
    """Nodes and constants of a graph under construction, in order."""

    def __init__(self, fresh: Callable[[str], str]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._fresh = fresh

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a new constant. Text becomes a string tensor."""
        array = np.asarray(value, dtype=dtype)
        self.constants.append(
            numpy_helper.from_array(array.astype(object) if array.dtype.kind == "U" else array, self._fresh("constant"))
        )
        return self.constants[-1].name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append a node and return the name of its only output."""
        output = output or self._fresh(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=self._fresh(op), **attributes))
        return output

    def append(self, node: NodeProto) -> str:
        """Append a finished node that has no name yet."""
        node.name = self._fresh(node.op_type)
        self.nodes.append(node)
        return str(node.output[0])

    def fresh(self, name: str) -> str:
        """A name that nothing has."""
        return self._fresh(name)


def build(
    boosted: Boosted, x: str, elem_type: int, outputs: Sequence[str], pieces: Pieces, *, raw: bool = False
) -> None:
    """Add what computes ``outputs`` of the tensor ``x`` of shape (rows, features) and that ONNX element type.

    The outputs of a classifier are its labels (rows,) and its probabilities (rows, classes); of any other model its
    answers (rows, targets). Numbers are float32. ``raw``: a classifier gives the sums in place of its probabilities,
    those of the first of two classes with the opposite sign.
    """
    double = boosted.double and elem_type == TensorProto.DOUBLE
    own, dtype = (TensorProto.DOUBLE, np.float64) if double else (TensorProto.FLOAT, np.float32)
    if elem_type != own:
        x = pieces.add("Cast", x, to=own)
    if not np.isnan(boosted.missing):
        gap = pieces.add("Equal", x, pieces.constant(boosted.missing, dtype))
        x = pieces.add("Where", gap, pieces.constant(np.nan, dtype), x)
    sums = _linear(boosted, x, pieces) if boosted.weights is not None else _summed(boosted, x, pieces, double=double)
    if boosted.classes is None:
        _linked(boosted, sums, outputs[0], pieces)
    else:
        _classified(boosted, boosted.classes, sums, outputs, pieces, raw=raw)


def _linear(boosted: Boosted, x: str, pieces: Pieces) -> str:
    present = pieces.add("Where", pieces.add("IsNaN", x), pieces.constant(0, np.float32), x)
    product = pieces.add("MatMul", present, pieces.constant(boosted.weights, np.float32))
    return pieces.add("Add", product, pieces.constant(boosted.base, np.float32))


def _summed(boosted: Boosted, x: str, pieces: Pieces, *, double: bool) -> str:
    sizes = [len(tree.feature) for tree in boosted.trees]
    ids = np.concatenate([np.arange(size) for size in sizes])
    trees = np.repeat(np.arange(len(sizes)), sizes)
    yes, no = (np.concatenate([getattr(tree, side) for tree in boosted.trees]) for side in ("yes", "no"))
    leaf = yes < 0
    thresholds = np.concatenate([tree.threshold for tree in boosted.trees]).astype(np.float64)
    if not double and boosted.less == "BRANCH_LEQ":
        thresholds = rounded_down(thresholds)
    weights = np.concatenate([tree.value for tree in boosted.trees]).astype(np.float64)[leaf]
    output = pieces.fresh("sums")
    node = helper.make_node("TreeEnsembleRegressor", [x], [output], domain=ML_DOMAIN)
    modes = np.where(leaf, "LEAF", boosted.less)
    node.attribute.append(AttributeProto(name="nodes_modes", type=AttributeProto.STRINGS, strings=_bytes(modes)))
    integers = {
        "nodes_treeids": trees,
        "nodes_nodeids": ids,
        "nodes_featureids": np.concatenate([tree.feature for tree in boosted.trees]),
        "nodes_truenodeids": np.where(leaf, 0, yes),
        "nodes_falsenodeids": np.where(leaf, 0, no),
        "nodes_missing_value_tracks_true": np.concatenate([tree.missing_yes for tree in boosted.trees]),
        "target_treeids": trees[leaf],
        "target_nodeids": ids[leaf],
        "target_ids": np.repeat([tree.target for tree in boosted.trees], sizes)[leaf],
    }
    for name, values in integers.items():
        node.attribute.append(
            AttributeProto(name=name, type=AttributeProto.INTS, ints=values.astype(np.int64).tolist())
        )
    for name, values in {"nodes_values": thresholds, "target_weights": weights, "base_values": boosted.base}.items():
        node.attribute.append(_floats(name, values, double=double))
    node.attribute.append(helper.make_attribute("n_targets", boosted.targets))
    return pieces.append(node)


def _bytes(texts: Array) -> list[bytes]:
    return [str(text).encode() for text in texts.tolist()]


def _floats(name: str, values: Array, *, double: bool) -> AttributeProto:
    if double:
        return helper.make_attribute(
            f"{name}_as_tensor", numpy_helper.from_array(np.asarray(values, np.float64), f"{name}_as_tensor")
        )
    return AttributeProto(name=name, type=AttributeProto.FLOATS, floats=np.asarray(values, np.float32).tolist())


def rounded_down(values: Array) -> Array:
    """The largest float32 that is no larger than each value: what is at most the one is at most the other."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


def _linked(boosted: Boosted, sums: str, output: str, pieces: Pieces) -> None:
    """Add the link, from sums to answers."""
    if boosted.slope != 1:
        sums = pieces.add("Mul", sums, pieces.constant(boosted.slope, np.float32))
    match boosted.link:
        case "identity":
            pieces.add("Identity", sums, output=output)
        case "sigmoid":
            pieces.add("Sigmoid", sums, output=output)
        case "exp":
            pieces.add("Exp", sums, output=output)
        case "softplus":
            pieces.add("Softplus", sums, output=output)
        case "softmax":
            pieces.add("Softmax", sums, output=output, axis=1)
        case "square":
            pieces.add("Mul", sums, pieces.add("Abs", sums), output=output)
        case "hinge":
            above = pieces.add("Greater", sums, pieces.constant(0, np.float32))
            pieces.add("Cast", above, output=output, to=TensorProto.FLOAT)
        case "argmax":
            largest = pieces.add("ArgMax", sums, axis=1, keepdims=1)
            pieces.add("Cast", largest, output=output, to=TensorProto.FLOAT)


def _classified(
    boosted: Boosted, classes: Array, sums: str, outputs: Sequence[str], pieces: Pieces, *, raw: bool
) -> None:
    label, probabilities = outputs
    if raw and boosted.targets > 1:
        pieces.add("Identity", sums, output=probabilities)
    elif raw:
        pieces.add("Concat", pieces.add("Neg", sums), sums, output=probabilities, axis=1)
    elif boosted.targets > 1:
        _linked(boosted, sums, probabilities, pieces)
    else:
        second = pieces.fresh("second")
        _linked(boosted, sums, second, pieces)
        first = pieces.add("Sub", pieces.constant(1, np.float32), second)
        pieces.add("Concat", first, second, output=probabilities, axis=1)
    if boosted.several_labels:
        above = pieces.add("Greater", probabilities, pieces.constant(0.5, np.float32))
        pieces.add("Cast", above, output=label, to=TensorProto.INT64)
        return
    largest = pieces.add("ArgMax", probabilities, axis=1, keepdims=0)
    pieces.add("Gather", pieces.constant(served_labels(classes)), largest, output=label, axis=0)


def served_labels(classes: Array) -> Array:
    """Labels as the graph gives them: text, or int64, which booleans and whole floats become too."""
    texts = np.asarray(classes).dtype.kind in "UOT"
    return np.asarray(classes).astype(np.str_ if texts else np.int64)
