"""Partitions of graphs: every part is a model by itself, and together they answer as the whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from gravswell import quiver as qv
from gravswell.errors import ConflictError, ExportError, InvalidInputError, VerificationError
from gravswell.partitions import Partition, partition
from gravswell.quiver.exporters.proof import cpu_session, run
from gravswell.quiver.golden import compare

from ..networks import model
from .graphs import attention, branching, gated, images, mlp, residual

Make = Callable[[], ModelProto]


def whole(proto: ModelProto, rows: int, **dims: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch of so many rows, and the model's own answer."""
    session = cpu_session(proto.SerializeToString())
    rng = np.random.default_rng(rows)
    sizes = {"rows": rows} | dims
    batch = {
        taken.name: rng.standard_normal([sizes.get(dim, dim) for dim in taken.shape]).astype(np.float32)
        for taken in session.get_inputs()
    }
    return batch, run(session, batch)


def check_parts(made: Partition) -> None:
    """Each is valid, and states the shapes that the documents have of it."""
    for part in made.plan.parts:
        graph = made.graph(part)
        onnx.checker.check_model(graph, full_check=True)
        assert [value.name for value in graph.graph.input] == [taken.name for taken in part.inputs]
        assert [value.name for value in graph.graph.output] == [given.name for given in part.outputs]
        assert all(value.type.tensor_type.HasField("shape") for value in (*graph.graph.input, *graph.graph.output))


@pytest.mark.parametrize("make", [lambda: mlp(16, 64, 32, 8), residual, images, gated, attention, branching])
def test_layers_in_slices(make: Make) -> None:
    proto = make()
    with partition(proto, 2, name="m") as made:
        check_parts(made)
        assert [(part.name, part.rank, part.stage) for part in made.plan.parts] == [("rank-0", 0, 1), ("rank-1", 1, 2)]
        assert all(part.layers for part in made.plan.parts)
        for rows in (1, 3, 17):
            batch, expected = whole(proto, rows, length=5)
            compare(expected, made.chain()(batch))


@pytest.mark.parametrize("by", ["column", "row"])
@pytest.mark.parametrize(
    ("make", "stages"),
    [
        (lambda: mlp(16, 64, 32, 8), (3, 2)),
        (lambda: mlp(16, 64, 8), (2, 1)),
        (residual, (3, 3)),
        (images, (3, 2)),
        (gated, (2, 1)),
        (attention, (2, 1)),
        (lambda: attention(0, 0, -1, 2), (2, 1)),
    ],
)
def test_layers_shared_by_ranks(make: Make, by: Any, stages: tuple[int, int]) -> None:
    proto = make()
    with partition(proto, 2, by, name="m") as made:
        check_parts(made)
        assert made.plan.stages == stages[by == "row"]
        assert {one.how for one in made.plan.combined} == {"concat" if by == "column" else "sum"}
        for rows in (1, 3, 17):
            batch, expected = whole(proto, rows, length=5)
            compare(expected, made.chain()(batch))


def test_ways_that_part_and_meet_again_are_followed_once() -> None:
    """Between two layers each of forty sums has two ways to the next: a million million ways in all."""
    nodes = [helper.make_node("MatMul", ["x", "up"], ["h0"])]
    for k in range(40):
        nodes.append(helper.make_node("Tanh", [f"h{k}"], [f"t{k}"]))
        nodes.append(helper.make_node("Add", [f"h{k}", f"t{k}"], [f"h{k + 1}"]))
    nodes.append(helper.make_node("MatMul", ["h40", "down"], ["y"]))
    rng = np.random.default_rng(0)
    weights = {"up": rng.standard_normal((4, 8)), "down": rng.standard_normal((8, 4))}
    shape = ["rows", 4]
    proto = model(
        nodes,
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        {name: array.astype(np.float32) for name, array in weights.items()},
    )
    with partition(proto, 2, "row", name="m") as made:
        check_parts(made)
        assert made.plan.stages == 1
        batch, expected = whole(proto, 3)
        compare(expected, made.chain()(batch))


def test_heads_that_the_ranks_do_not_divide_are_put_together() -> None:
    proto = attention()
    with partition(proto, 8, "row", name="m") as made:  # eight columns, but four heads
        assert made.plan.stages == 2
        batch, expected = whole(proto, 3, length=5)
        compare(expected, made.chain()(batch))


def test_each_rank_holds_its_share() -> None:
    with partition(mlp(16, 256, 64), 4, "row", name="m") as made:
        weights = [sum(part.weight_bytes for part in made.plan.of_rank(rank)) for rank in range(4)]
        assert max(weights) < 0.27 * made.plan.weight_bytes  # 1/4, the second bias, names
        assert made.plan.replicated == {}
        assert [part.name for part in made.plan.parts] == ["rank-0", "rank-1", "rank-2", "rank-3", "combine"]
        first = made.ranks[0][0].graph
        assert [list(tensor.dims) for tensor in first.initializer] == [[16, 64], [64], [64, 64], [64]]
        assert [list(tensor.dims) for tensor in made.ranks[1][0].graph.initializer] == [[16, 64], [64], [64, 64]]
        assert [node.op_type for node in made.combine[0].graph.node] == ["Sum"]


def test_slices_are_even_and_shared_weights_are_told() -> None:
    with partition(mlp(64, *[64] * 8), 4, name="m") as made:
        assert [part.layers for part in made.plan.parts] == [(f"fc{k}", f"fc{k + 1}") for k in (1, 3, 5, 7)]
        assert [len(part.inputs) for part in made.plan.parts] == [1] * 4
    with partition(residual(), 3, name="m") as made:
        assert made.plan.replicated == {"shared": made.plan.replicated["shared"]}
        assert made.plan.replicated["shared"] >= 16 * 16 * 4


def test_slices_by_time() -> None:
    layers = [helper.make_node("MatMul", ["x", "w"], ["a"], name="slow"), helper.make_node("Relu", ["a"], ["b"])]
    layers += [helper.make_node("Add", ["b", "b"], ["c"]), helper.make_node("Gemm", ["c", "v"], ["y"], name="quick")]
    weights = {"w": np.ones((512, 512), np.float32), "v": np.ones((512, 1), np.float32)}
    shapes = [("x", TensorProto.FLOAT, ["rows", 512])], [("y", TensorProto.FLOAT, ["rows", 1])]
    with partition(model(layers, *shapes, weights), 2, name="m", balance="time") as made:
        assert [part.layers for part in made.plan.parts] == [("slow",), ("quick",)]
    bare = [helper.make_node("Exp", ["x"], ["a"]), helper.make_node("Log", ["a"], ["b"])]
    bare += [helper.make_node("Neg", ["b"], ["y"])]
    shapes = [("x", TensorProto.FLOAT, ["rows", 4])], [("y", TensorProto.FLOAT, ["rows", 4])]
    with partition(model(bare, *shapes, {}), 3, name="m") as made:  # weights say nothing
        assert [[node.op_type for node in graph.graph.node] for [graph] in made.ranks] == [["Exp"], ["Log"], ["Neg"]]
    with pytest.raises(InvalidInputError, match=r"4 ranks .* 3 nodes .*: use ranks=3 or fewer$"):
        partition(model(bare, *shapes, {}), 4)


def test_a_published_version_is_held_to_its_golden_batches(tmp_path: Path) -> None:
    entry = qv.ModelRepository(tmp_path / "r").add("net", qv.Platform.ONNX)
    proto = mlp(16, 32, 8)
    batch, expected = whole(proto, 4)
    entry.export_version(proto, sample_inputs=batch)
    for given in (entry, entry.version(1)):
        with partition(given, 2, "row") as made:
            assert made.plan.model == "net"
            assert any(sample.inputs["x"].shape == (4, 16) for sample in made.samples)
            compare(expected, made.chain()(batch))
            assert made.errors["y"].max_abs < 1e-5
    rows = {"x": np.ones((7, 16), np.float32)}
    with partition(entry, 2, sample_inputs=rows) as made:
        assert any(sample.inputs["x"].shape == (7, 16) for sample in made.samples)


def test_weights_go_from_file_to_file(tmp_path: Path) -> None:
    proto = mlp(16, 256, 256, 8)
    path = tmp_path / "large.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="large.bin", size_threshold=0)
    with partition(path, 2) as made:
        assert made.plan.model == "large"
        batch, expected = whole(mlp(16, 256, 256, 8), 3)
        compare(expected, made.chain()(batch))


def test_what_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    with partition(mlp(16, 32, 8), 2, name="m") as made:
        assert made.save(folder) == folder
        with pytest.raises(ConflictError, match="not empty"):
            made.save(folder)
        held = made.folder
    assert not held.exists()
    files = {"partition.json", "rank-0.json", "rank-0/model.onnx", "rank-1.json", "rank-1/model.onnx"}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"ranks": 4},
            "more ranks than layers: 4 ranks .* has 3 layers .* .fc1, fc2, fc3.: use ranks=3 or fewer; by=",
        ),
        ({"ranks": 3, "by": "column"}, r"Gemm 'fc1' .weight 'w1' \[16, 64\]. has 64 output columns, which 3 ranks"),
        ({"ranks": 4, "by": "column"}, r"Gemm 'fc3' .* has 6 output columns.*\(2, 3, 6\).*whole=\['fc3'\]"),
        ({"ranks": 2, "by": "column", "whole": ["fc9"]}, "'fc9', and no layer .* fc1, fc2, fc3"),
        ({"ranks": 2, "by": "column", "whole": ["*"]}, "all 3 layers"),
        ({"ranks": 2, "by": "row", "whole": "fc1"}, r"sequence of names: \['fc1'\]"),
        ({"ranks": 2, "whole": ["fc1"]}, "leave whole out"),
        ({"ranks": 0}, "ranks=0"),
        ({"ranks": 2, "by": "depth"}, "use one of layer, column, row"),
        ({"ranks": 2, "balance": "luck"}, "weights, time"),
        ({"ranks": 2, "by": "row", "balance": "time"}, "leave balance out"),
        ({"ranks": 2, "name": "a/b"}, "it holds a path"),
    ],
)
def test_errors_name_the_layer_the_numbers_and_the_way_out(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        partition(mlp(16, 64, 32, 6), **options)


def test_a_model_of_one_layer() -> None:
    """Weights may be in a node's attributes, as those of trees are: it is one layer, and is not split."""
    how = {"coefficients": [0.5] * 400, "intercepts": [1.0] * 4, "multi_class": 0, "post_transform": "NONE"}
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "y"], domain="ai.onnx.ml", name="all", classlabels_ints=range(4), **how
    )
    outputs = [("label", TensorProto.INT64, ["rows"]), ("y", TensorProto.FLOAT, ["rows", 4])]
    proto = model([node], [("x", TensorProto.FLOAT, ["rows", 100])], outputs, {})
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    with pytest.raises(InvalidInputError, match=r"nothing between which it could be cut .all.: leave it in one piece$"):
        partition(proto, 2)
    with pytest.raises(InvalidInputError, match="its weights are in LinearClassifier 'all'; use by='layer'"):
        partition(proto, 2, "row")


def test_layers_that_are_left_whole() -> None:
    proto = mlp(16, 64, 32, 6)
    with partition(proto, 4, "column", name="m", whole=["fc3"]) as made:
        check_parts(made)
        assert made.plan.stages == 2
        assert [node.op_type for node in made.combine[1].graph.node] == ["Concat", "Gemm"]
        batch, expected = whole(proto, 3)
        compare(expected, made.chain()(batch))


def test_what_cannot_be_split() -> None:
    weights = {"w": np.ones((4, 4), np.float32)}
    shapes = [("x", TensorProto.FLOAT, ["rows", 4])], [("y", TensorProto.FLOAT, ["rows", 4])]
    alone = model([helper.make_node("Add", ["x", "b"], ["y"], name="shift")], *shapes, {"b": np.ones(4, np.float32)})
    with pytest.raises(InvalidInputError, match="there is none: its weights are in Add 'shift'; use by='layer'"):
        partition(alone, 2, "column")
    old = model([helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")], *shapes, weights, opset=10)
    with pytest.raises(InvalidInputError, match="opset 10"):
        partition(old, 2, "column")
    through = model([helper.make_node("MatMul", ["x", "w"], ["y"])], shapes[0], [*shapes[1], shapes[0][0]], weights)
    with pytest.raises(ExportError, match="output 'x' is an input of the graph"):
        partition(through, 1)


def test_parts_that_answer_otherwise_are_not_written() -> None:
    """Sums in another order differ in the last bits, and a proof that allows nothing says so."""
    with pytest.raises(VerificationError, match=r"do not answer as the whole at a batch of .*by='layer'"):
        partition(mlp(16, 1024, 8), 8, "row", rtol=0, atol=1e-12)
