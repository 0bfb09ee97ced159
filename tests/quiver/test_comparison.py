"""What a comparison of two versions tells: clients as a table, the rest on versions that were really published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import NotFoundError, UnsupportedError, VerificationError
from gravswell.quiver.comparison import Side, compare_versions
from gravswell.quiver.comparison.clients import config_changes, signature_changes
from gravswell.quiver.comparison.fields import differing_fields
from gravswell.quiver.config import parse_config
from gravswell.quiver.manifest import Signature, TensorRecord
from gravswell.quiver.reader import RepositoryReader

F, D = "TYPE_FP32", "TYPE_FP64"


def _tensors(*given: tuple[str, str, list[int]]) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(name=name, data_type=kind, dims=tuple(dims)) for name, kind, dims in given)


X, Y = ("x", F, [-1, 4]), ("y", F, [-1, 2])


@pytest.mark.parametrize(
    ("inputs", "outputs", "told", "breaking"),
    [
        ([X], [Y], None, False),
        ([], [Y], "input 'x' is gone", True),
        ([X, ("z", F, [1])], [Y], "input 'z' is new", True),
        ([X, ("o", F, [1])], [Y], "input 'o' is new, and optional", False),
        ([("x", D, [-1, 4])], [Y], "input 'x' is TYPE_FP64, and was TYPE_FP32", True),
        ([("x", F, [8, 4])], [Y], "input 'x' takes [8, 4], and took [-1, 4]", True),
        ([("x", F, [-1, 5])], [Y], "input 'x' takes [-1, 5]", True),
        ([("x", F, [-1, -1])], [Y], "input 'x' takes [-1, -1]", False),
        ([("x", F, [-1, 4, 1])], [Y], "another number of dims", False),
        ([X], [], "output 'y' is gone", True),
        ([X], [Y, ("z", F, [1])], "output 'z' is new", False),
        ([X], [("y", D, [-1, 2])], "output 'y' is TYPE_FP64", True),
        ([X], [("y", F, [-1, 3])], "output 'y' gives [-1, 3], and gave [-1, 2]", True),
        ([X], [("y", F, [-1, -1])], "output 'y' gives [-1, -1]", False),
        ([X], [("y", F, [7, 2])], "output 'y' gives [7, 2]", False),
    ],
)
def test_what_breaks_clients(inputs: Any, outputs: Any, told: str | None, breaking: bool) -> None:
    old = Signature(inputs=_tensors(X), outputs=_tensors(Y))
    found = signature_changes(
        old, Signature(inputs=_tensors(*inputs), outputs=_tensors(*outputs)), optional=frozenset({"o"})
    )
    if told is None:
        assert found == []
    elif "number of dims" in told:
        assert [change.reason for change in found] == ["requests of the old number of dims are refused"]
    else:
        assert [told in change.what for change in found] == [True]
        assert found[0].breaking is breaking
        assert found[0].reason


def test_order_is_told_and_breaks_nobody() -> None:
    z = ("z", F, [1])
    old = Signature(inputs=_tensors(X, z), outputs=_tensors(Y))
    (change,) = signature_changes(old, Signature(inputs=_tensors(z, X), outputs=_tensors(Y)))
    assert change.what == "the inputs are in the order z, x, and were in x, z"
    assert not change.breaking


@pytest.mark.parametrize(
    ("old", "new", "breaking"),
    [
        ("max_batch_size: 8", "max_batch_size: 4", True),
        ("max_batch_size: 8", "max_batch_size: 16", False),
        ("", "max_batch_size: 8", True),
        ("max_batch_size: 8", "", False),
        ("", "sequence_batching {}", True),
        ("sequence_batching {}", "", False),
        ("", "model_transaction_policy { decoupled: true }", True),
    ],
)
def test_what_of_a_config_breaks_clients(old: str, new: str, breaking: bool) -> None:
    (change,) = config_changes(parse_config(old), parse_config(new))
    assert change.breaking is breaking


def test_configs_field_by_field() -> None:
    old = parse_config(
        'max_batch_size: 8 instance_group { count: 1 } input { name: "a" dims: 1 } parameters { key: "k" '
        'value { string_value: "1" } } dynamic_batching { max_queue_delay_microseconds: 5 }'
    )
    new = parse_config(
        'instance_group { count: 2 kind: KIND_CPU } input { name: "b" dims: 1 } input { name: "a" dims: 1 } '
        'parameters { key: "k" value { string_value: "2" } } dynamic_batching { max_queue_delay_microseconds: 9 }'
    )
    found = {f.path: (f.old, f.new) for f in differing_fields(old, new)}
    assert found == {
        "max_batch_size": ("8", None),
        "instance_group[0].count": ("1", "2"),
        "instance_group[0].kind": (None, "KIND_CPU"),
        "input[b]": (None, 'name: "b" dims: 1'),
        "parameters[k].string_value": ("1", "2"),
        "dynamic_batching.max_queue_delay_microseconds": ("5", "9"),
    }
    assert differing_fields(old, old) == []


def _network(weight: float, *, extra: bool = False, opset: int = 18) -> Any:
    nodes = [helper.make_node("Mul", ["x", "w"], ["m"], name="scale"), helper.make_node("Add", ["m", "b"], ["y"])]
    tensors = [
        numpy_helper.from_array(np.array([3, 4, 0, weight], np.float32), "w"),
        numpy_helper.from_array(np.ones(4, np.float32), "b"),
    ]
    if extra:
        nodes[1] = helper.make_node("Add", ["r", "b"], ["y"])
        nodes.insert(1, helper.make_node("Relu", ["m"], ["r"]))
        tensors.append(numpy_helper.from_array(np.ones(1, np.float32), "unused"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    helper.set_model_props(made, {"note": str(weight)})
    return made


def test_graph_weights_and_answers(entry: qv.Entry, root: Path) -> None:
    entry.export_version(_network(0))
    entry.config.add_instance_group(count=4)
    entry.export_version(_network(0.5, extra=True, opset=19))
    reader = RepositoryReader(root)
    found = compare_versions(Side(reader, "my-model", 1), Side(reader, "my-model", 2))
    assert (found.old, found.new, found.breaking, found.identical) == ("my-model/1", "my-model/2", False, False)
    assert [f.path for f in found.config] == ["instance_group[0]"]
    assert found.graph.opsets == {"ai.onnx": (18, 19)}
    assert found.graph.ir_version is None
    assert found.graph.operators == {"Relu": (0, 1)}
    assert found.graph.nodes_added == ("Relu r",)
    assert found.graph.nodes_removed == ()
    assert found.graph.nodes_changed == ("Add y",)
    assert found.graph.metadata == {"note": ("0", "0.5")}
    weights = {w.name: w for w in found.weights}
    assert (weights["b"].state, weights["unused"].state) == ("equal", "added")
    assert weights["w"].state == "changed"
    assert weights["w"].max_abs == pytest.approx(0.5)
    assert weights["w"].relative == pytest.approx(0.1)  # of a norm of 5
    assert set(found.files) >= {"model.onnx", ".config.pbtxt"}
    (answer,) = found.outputs
    assert (answer.name, answer.samples) == ("y", 3)
    assert answer.max_abs is not None
    assert answer.max_abs > 0
    entry.export_version(_network(np.nan))
    (weight,) = (
        w for w in compare_versions(Side(reader, "my-model", 1), Side(reader, "my-model", 3)).weights if w.name == "w"
    )
    assert (weight.state, weight.max_abs) == ("changed", None)
    same = compare_versions(Side(reader, "my-model", 2), Side(reader, "my-model", 2))
    assert same.identical
    assert (same.clients, same.config, same.outputs[0].max_abs) == ((), (), 0.0)
    with pytest.raises(NotFoundError, match="its versions: 3, 2, 1"):
        compare_versions(Side(reader, "my-model", 1), Side(reader, "my-model", 7))


def test_versions_of_two_repositories_that_others_wrote(tmp_path: Path, affine: Callable[..., Any]) -> None:
    """One without a config and with its data outside the file, one with another type of weight."""
    for name, kind in (("a", np.float32), ("b", np.float64)):
        folder = tmp_path / name / "m/1"
        folder.mkdir(parents=True)
        made = affine()
        made.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([2], kind), "scale"))
        if kind is np.float64:
            for value in (*made.graph.input, *made.graph.output):
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        else:
            external_data_helper.convert_model_to_external_data(made, location="w.bin", size_threshold=0)
        onnx.save(made, str(folder / "model.onnx"))
    old, new = (Side(RepositoryReader(tmp_path / name), "m", 1) for name in ("a", "b"))
    found = compare_versions(old, new)
    assert found.breaking
    assert [w.data_type for w in found.weights] == [("FLOAT", "DOUBLE")]
    assert "w.bin" in found.files
    assert compare_versions(old, old).weights[0].state == "equal"
    (tmp_path / "b/m/1/model.onnx").write_bytes(b"no model")
    with pytest.raises(VerificationError):
        compare_versions(old, new)
    (tmp_path / "b/m/1/model.onnx").rename(tmp_path / "b/m/1/model.plan")
    with pytest.raises(UnsupportedError, match=r"no model\.onnx"):
        compare_versions(old, new)
