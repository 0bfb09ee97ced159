"""Integers that a graph takes: found where it says so, and drawn up to there."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.quiver.exporters.onnx_values import index_bounds

WORDS, KINDS, PLACES = 30522, 2, 512


def _table(name: str, rows: int) -> TensorProto:
    return numpy_helper.from_array(np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) / rows, name)


def _encoder() -> onnx.ModelProto:
    """Token ids, their kinds and a mask, as a sentence encoder takes them; the ids go a longer way to their table."""
    nodes = [
        helper.make_node("Cast", ["ids"], ["narrow"], to=TensorProto.INT32),
        helper.make_node("Unsqueeze", ["narrow", "last"], ["apart"]),
        helper.make_node("Squeeze", ["apart", "last"], ["together"]),
        helper.make_node("Cast", ["words"], ["exact"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["exact", "step"], ["shared"]),
        helper.make_node("Gather", ["shared", "together"], ["word"]),
        helper.make_node("Constant", [], ["kinds"], value=_table("", KINDS)),
        helper.make_node("Gather", ["kinds", "kind_ids"], ["kind"], axis=-2),
        helper.make_node("Add", ["word", "kind"], ["both"]),
        helper.make_node("Cast", ["mask"], ["weight"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weight", "last"], ["weights"]),
        helper.make_node("Mul", ["both", "weights"], ["y"]),
    ]
    ids = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "length"]) for name in ("ids", "kind_ids", "mask")
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        ids,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "length", 2])],
        [
            numpy_helper.from_array(np.arange(WORDS * 2, dtype=np.int8).reshape(WORDS, 2), "words"),
            numpy_helper.from_array(np.float32(0.1), "step"),
            numpy_helper.from_array(np.int64([2]), "last"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_index_ends_where_its_table_does() -> None:
    assert index_bounds(_encoder()) == {"ids": WORDS, "kind_ids": KINDS}


def test_the_smallest_table_counts() -> None:
    model = _encoder()
    model.graph.node.insert(0, helper.make_node("Gather", ["places", "ids"], ["place"]))
    model.graph.initializer.append(_table("places", PLACES))
    assert index_bounds(model)["ids"] == PLACES


def test_ids_are_drawn_from_all_of_the_table_and_masks_are_flags(entry: qv.Entry) -> None:
    path = entry.export_version(_encoder())
    with np.load(path.replace("model.onnx", ".golden.npz")) as golden:
        ids, kinds, mask = (golden[f"0/inputs/{name}"] for name in ("ids", "kind_ids", "mask"))
    assert ids.max() > WORDS / 2
    assert set(kinds.ravel()) == set(mask.ravel()) == {0, 1}
    assert entry.versions[-1].manifest.verification.inputs == "random"


@pytest.mark.parametrize(
    "change",
    [
        {"op_type": "GatherND"},  # of several axes
        {"input": ["computed", "together"]},  # a table whose length the graph does not state
    ],
)
def test_what_the_graph_does_not_say_is_not_guessed(change: dict[str, Any]) -> None:
    model = _encoder()
    lookup = next(node for node in model.graph.node if node.op_type == "Gather")
    for field, value in change.items():
        if field == "input":
            lookup.input[:] = value
        else:
            setattr(lookup, field, value)
    assert index_bounds(model) == {"kind_ids": KINDS} | ({} if "op_type" in change else {"ids": None})
