"""Rows reach the model that they name, and no other; the answers are the single models' own, to the last bit."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gravswell import quiver as qv
from gravswell.quiver.exporters.fused import routing
from gravswell.quiver.exporters.fused.routing import GROUP

from ..networks import classifier, convolution
from .conftest import FLOAT, Fuse, alone, onnx_model, scaled


@pytest.mark.parametrize("rows", [1, 8, 33])
def test_every_answer_is_the_single_models_to_the_last_bit(fuse: Fuse, rows: int) -> None:
    models = [classifier(seed=0), classifier(32, seed=1), classifier(transposed=True, seed=2)]
    fused, rng = fuse(models), np.random.default_rng(rows)
    x = rng.standard_normal((rows, 16)).astype(np.float32)
    for number, model in enumerate(models, 1):
        got, expected = fused([number] * rows, x=x), alone(model)(x=x)
        assert all(got[name].tobytes() == expected[name].tobytes() for name in expected)
    ids = rng.integers(1, 4, rows)
    mixed = fused(ids, x=x)
    for number, model in enumerate(models, 1):
        own = ids == number
        if own.any():
            assert mixed["scores"][own].tobytes() == alone(model)(x=x[own])["scores"].tobytes()


def test_convolutions_are_laid_out_as_alone(fuse: Fuse) -> None:
    other = convolution()
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w"))
    fused = fuse([convolution(), other])
    x = np.random.default_rng(0).standard_normal((3, 3, 8, 8)).astype(np.float32)
    assert fused([1] * 3, x=x)["y"].tobytes() == alone(convolution())(x=x)["y"].tobytes()
    assert fused([2] * 3, x=x)["y"].tobytes() == alone(other)(x=x)["y"].tobytes()


@pytest.mark.parametrize(("count", "group"), [(2, GROUP), (GROUP + 1, GROUP), (9, 2)])
def test_any_number_of_models(fuse: Fuse, monkeypatch: pytest.MonkeyPatch, count: int, group: int) -> None:
    monkeypatch.setattr(routing, "GROUP", group)  # 2: groups of groups of groups
    fused = fuse([scaled(k) for k in range(1, count + 1)])
    x = np.ones((count, 4), np.float32)
    ids = np.random.default_rng(0).permutation(count) + 1
    assert fused(ids, x=x)["y"][:, 0].tolist() == ids.tolist()
    for number in {1, count // 2, count}:
        assert fused([number] * 2, x=x[:2])["y"].tolist() == [[number] * 4] * 2


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("bad", [0, -1, -4, 4, 2**40])
def test_an_unknown_id_fails_the_request(fuse: Fuse, models: int, bad: int) -> None:
    fused = fuse([scaled(2)] * 3 if models == 1 else [scaled(k) for k in (2, 3, 4)])
    for ids in ([1, bad, 2], [bad], [bad] * 8):
        with pytest.raises(Exception, match="model_id of every row must be one of 1 to 3"):
            fused(ids, x=np.ones((len(ids), 4), np.float32))


def test_rows_that_are_missing_fail_the_request(fuse: Fuse) -> None:
    fused = fuse([scaled(2), scaled(3)])
    for rows in (2, 5):
        with pytest.raises(Exception, match="input x must have as many rows as model_id"):
            fused([1, 1, 1], x=np.ones((rows, 4), np.float32))


def test_no_rows_are_no_answers(fuse: Fuse) -> None:
    assert fuse([scaled(2), scaled(3)])([], x=np.ones((0, 4), np.float32))["y"].shape == (0, 4)


def test_copies_stand_in_the_graph_once_and_have_ids_of_their_own(fuse: Fuse) -> None:
    fused = fuse([qv.ModelInfo(classifier(), name="base"), qv.ModelInfo(classifier(), name="base"), classifier(32)])
    assert sum(node.op_type == "If" for node in fused.proto.graph.node) == 2
    table = fused.entry.version().manifest.fusion
    assert table is not None
    assert [(row.id, row.name, row.copy_of) for row in table] == [
        (1, "base", None),
        (2, "base", 1),
        (3, "ModelProto", None),
    ]
    said = next(entry.value for entry in fused.proto.metadata_props if entry.key == "gravswell.fusion")
    assert [row["name"] for row in json.loads(said)] == ["base", "base", "ModelProto"]
    x = np.ones((1, 16), np.float32)
    assert fused([1], x=x)["scores"].tobytes() == fused([2], x=x)["scores"].tobytes()


def test_weights_that_models_share_are_stored_once(fuse: Fuse) -> None:
    weights = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    def tail(factor: float, called: str) -> onnx.ModelProto:
        nodes = [helper.make_node("MatMul", ["x", called], ["h"]), helper.make_node("Mul", ["h", "f"], ["y"])]
        held = {called: weights, "f": np.array([factor], np.float32)}
        return onnx_model(nodes, [("x", FLOAT, ["b", 64])], [("y", FLOAT, ["b", 64])], held)

    fused = fuse([tail(1, "w"), tail(2, "other"), tail(3, "w")])
    assert fused.path.stat().st_size < weights.nbytes * 1.8
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    assert fused([2] * 4, x=x)["y"].tobytes() == alone(tail(2, "w"))(x=x)["y"].tobytes()


def test_a_weight_is_not_shared_where_a_runtime_would_compute_otherwise(fuse: Fuse) -> None:
    """Convolutions on CPUs are laid out anew, for which a weight has to be in their own branch."""
    weight = np.random.default_rng(0).standard_normal((32, 16, 3, 3)).astype(np.float32)

    def network(factor: float) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["h"], pads=[1] * 4),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Mul", ["r", "f"], ["y"]),
        ]
        sizes: list[Any] = ["b", 16, 8, 8]
        outputs = [("y", FLOAT, ["b", 32, 8, 8])]
        return onnx_model(nodes, [("x", FLOAT, sizes)], outputs, {"w": weight, "f": np.float32(factor)})

    fused = fuse([network(1), network(2)])
    x = np.random.default_rng(1).standard_normal((4, 16, 8, 8)).astype(np.float32)
    assert fused([2] * 4, x=x)["y"].tobytes() == alone(network(2))(x=x)["y"].tobytes()


def test_the_server_puts_requests_together_unless_told_otherwise(fuse: Fuse) -> None:
    config = fuse([scaled(2), scaled(3)]).entry.config
    assert config.max_batch_size == 64
    assert config.message.HasField("dynamic_batching")
    assert fuse([scaled(2), scaled(3)], max_batch_size=8).entry.config.max_batch_size == 8
    plain = fuse([scaled(2), scaled(3)], max_batch_size=0).entry.config
    assert plain.max_batch_size == 0
    assert not plain.message.HasField("dynamic_batching")


def test_a_second_version_may_be_of_other_models_with_the_same_tensors(fuse: Fuse) -> None:
    entry = fuse([scaled(2), scaled(3)]).entry
    entry.export_version(qv.fuse([scaled(2), scaled(3), scaled(5)], "zoo"))
    assert [len(version.manifest.fusion or ()) for version in entry.versions] == [2, 3]


def names_of(graph: onnx.GraphProto) -> Iterator[str]:
    """Every name of a value in the graph, and in the graphs inside its nodes."""
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield from (*node.input, *node.output)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from names_of(attribute.g)


def adding(names: Sequence[str], factor: float) -> onnx.ModelProto:
    """``y``: the sum of the inputs ``names``, and ``factor``."""
    nodes = [helper.make_node("Sum", [*names, "factor"], ["y"])]
    tensors = [(name, FLOAT, ["b", 1]) for name in names]
    return onnx_model(nodes, tensors, [("y", FLOAT, ["b", 1])], {"factor": np.array([factor], np.float32)})


@pytest.mark.parametrize("form", ["one", "copies", "several", "optional"])
def test_an_input_may_be_called_as_the_routing_calls_its_own(fuse: Fuse, form: str) -> None:
    def models(names: Sequence[str]) -> list[onnx.ModelProto]:
        first, second = adding(names, 1), adding(names, 2)
        return {
            "one": [first],
            "copies": [first, first, second],
            "several": [first, second],
            "optional": [first, scaled(3, 1, x="apart")],
        }[form]

    own = [name.removeprefix("fusion/") for name in names_of(fuse(models(["x"])).proto.graph) if "fusion/" in name]
    pieces = {piece for name in own for piece in (name, *(name[k + 1 :] for k, c in enumerate(name) if c == "/"))}
    names = sorted({"ids", "0", "1", "size", *pieces} - {"", "apart"})
    assert {"ids", "size", "order", "one", "all", "known", "found", "have"} <= set(names)
    inputs = {name: np.ones((2, 1), np.float32) for name in (*names, *(["apart"] if form == "optional" else []))}
    last = {"one": len(names) + 1, "copies": len(names) + 2, "several": len(names) + 2, "optional": 3}[form]
    ids = [{"one": 1, "copies": 3, "several": 2, "optional": 2}[form], 1]
    assert fuse(models(names))(ids, **inputs)["y"].ravel().tolist() == [last, len(names) + 1]
