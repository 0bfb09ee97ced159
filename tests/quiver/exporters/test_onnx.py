"""Existing ONNX models: published as they are, or refused by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.exporters import files

Affine = Callable[..., Any]


def _saved(tmp_path: Path, proto: Any, name: str = "given.onnx") -> Path:
    path = tmp_path / "given" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_file_is_published_byte_for_byte(tmp_path: Path, entry: qv.Entry, affine: Affine) -> None:
    proto = affine()
    proto.doc_string = "mine"
    proto.metadata_props.add(key="alphabet", value="abc")
    given = _saved(tmp_path, proto)
    for model in (given, str(given)):
        assert Path(entry.export_version(model)).read_bytes() == given.read_bytes()
    manifest = entry.versions[-1].manifest
    assert manifest.opset == 18
    assert manifest.ir_version == 9
    assert manifest.framework.startswith("onnxruntime ")


def test_a_proto_is_left_as_it_was(entry: qv.Entry, affine: Affine) -> None:
    proto = affine(ir_version=11)
    before = proto.SerializeToString()
    path = entry.export_version(proto)
    assert proto.SerializeToString() == before
    assert onnx.load(path).ir_version == 10, "the newest that Triton 24.08 takes"


def test_a_newer_opset_is_converted_down(entry: qv.Entry, affine: Affine) -> None:
    path = entry.export_version(affine(opset=22, ir_version=10))
    assert onnx.load(path).opset_import[0].version == 21


def test_a_newer_opset_that_cannot_be_is_refused_naming_both(
    entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ExportError, match=r"opset 22.*Triton 24\.08.*up to 21"):
        entry.export_version(affine(opset=22, ir_version=10))


def test_a_fixed_batch_is_stated_and_not_batchable(entry: qv.Entry, affine: Affine) -> None:
    with pytest.raises(ExportError, match="lead with the batch"):
        entry.export_version(affine(batch=3), max_batch_size=8)
    entry.export_version(affine(batch=3))
    assert entry.inputs["x"].dims == (3, 4)
    assert entry.versions[-1].manifest.verification.batch_sizes == ()


def test_a_batch_hard_coded_inside_is_found(entry: qv.Entry) -> None:
    """The graph says that any batch goes in; a Reshape inside knows only one."""
    made = helper.make_graph(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2, 2])],
        [numpy_helper.from_array(np.array([2, 2, 2], np.int64), "shape")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ExportError, match="model itself fails"):
        entry.export_version(model)
    with pytest.raises(ExportError, match=r"batch of 1 .*hard-coded"):
        entry.export_version(model, sample_inputs={"x": np.zeros((2, 4), np.float32)})
    assert entry.versions == []


def test_shapes_that_the_graph_does_not_have(entry: qv.Entry, affine: Affine) -> None:
    for arguments, fact in (
        ({"input_shapes": {"z": (None, 4)}}, "no input 'z'; its inputs: x"),
        ({"input_shapes": {"x": (None, 5)}}, r"\[-1, 4\] in the graph, not TYPE_FP32 \[-1, 5\]"),
        ({"input_shapes": {"x": (None, 4)}, "input_types": {"x": "int64"}}, "not TYPE_INT64"),
        ({"output_names": ["z"]}, "outputs are y, not z"),
        ({"opset": 15}, "in opset 18"),
    ):
        with pytest.raises(InvalidInputError, match=fact):
            entry.export_version(affine(), **arguments)
    entry.export_version(affine(), input_shapes={"x": (None, 4)}, output_names=["y"])


def _reshaping(height: int, width: int) -> Any:
    """A graph that says that it takes any size, and whose inside knows only multiples of these."""
    made = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["tiles"]),
            helper.make_node("ReduceMean", ["tiles"], ["mean"], axes=[2, 4], keepdims=0),
            helper.make_node("Mul", ["mean", "factor"], ["y"]),
        ],
        "tiles",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "h", "w"]),
            helper.make_tensor_value_info("factor", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "a", "b"])],
        [numpy_helper.from_array(np.array([0, 1, height, -1, width], np.int64), "shape")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def test_sizes_that_the_graph_leaves_open_are_chosen_tried_and_recorded(entry: qv.Entry) -> None:
    entry.export_version(_reshaping(64, 64))
    proof = entry.versions[-1].manifest.verification
    assert proof.shapes == tuple({"x": (rows, size, size), "factor": ()} for rows, size in ((2, 64), (1, 128), (5, 64)))


def test_sizes_that_the_user_chooses(entry: qv.Entry) -> None:
    with pytest.raises(ExportError, match=r"the model itself fails on random inputs of x TYPE_FP32.*input_shapes"):
        entry.export_version(_reshaping(48, 80))
    assert entry.versions == []
    entry.export_version(_reshaping(48, 80), input_shapes={"x": (None, 48, 160), "factor": ()})
    proof = entry.versions[-1].manifest.verification
    assert [shapes["x"] for shapes in proof.shapes] == [(2, 48, 160), (1, 48, 160), (5, 48, 160)]
    assert [shapes["factor"] for shapes in proof.shapes] == [()] * 3
    assert entry.inputs["x"].dims == (-1, -1, -1), "the graph's own: the sizes were a choice"
    entry.export_version(_reshaping(48, 80), input_shapes={"x": (3, 48, 80)})
    assert entry.versions[-1].manifest.verification.shapes[0]["x"] == (3, 48, 80)


def test_an_input_of_unknown_rank_gets_the_user_s(entry: qv.Entry, affine: Affine, tmp_path: Path) -> None:
    model = affine()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    before = model.SerializeToString()
    for given in (model, _saved(tmp_path, model)):
        with pytest.raises(InvalidInputError, match=r"how many dimensions input 'x' has: say so as input_shapes"):
            entry.export_version(given)
    for given in (model, _saved(tmp_path, model)):
        path = entry.export_version(given, input_shapes={"x": (None, 4)})
        assert entry.inputs["x"].dims == (-1, 4)
        assert [d.dim_value for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim] == [0, 4]
    assert model.SerializeToString() == before
    entry.export_version(model)  # the entry knows by now


def _with_external(tmp_path: Path, affine: Affine, location: str) -> Path:
    proto = affine()
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return _saved(tmp_path, proto)


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "../secret", "a/../../secret", "link", ""])
def test_external_data_outside_the_folder_is_refused(
    tmp_path: Path, entry: qv.Entry, affine: Affine, location: str
) -> None:
    path = _with_external(tmp_path, affine, location)
    (tmp_path / "secret").write_bytes(b"\0\0\0@")
    (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidInputError, match=r"'scale' keeps its data in .*outside"):
        entry.export_version(path)
    assert entry.versions == []


def test_external_data_beside_the_model_is_taken_in(tmp_path: Path, entry: qv.Entry, affine: Affine) -> None:
    path = _with_external(tmp_path, affine, "weights.bin")
    with pytest.raises(NotFoundError, match=r"weights\.bin"):
        entry.export_version(path)
    (path.parent / "weights.bin").write_bytes(np.float32(2).tobytes())
    published = Path(entry.export_version(path))
    assert [p.name for p in published.parent.iterdir() if not p.name.startswith(".")] == ["model.onnx"]
    with pytest.raises(InvalidInputError, match="path of the model file"):
        entry.export_version(onnx.load(path, load_external_data=False))


def test_above_the_limit_the_data_file_is_published_too(
    entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = affine(1024)
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(1024, 2, np.float32), "scale"))
    monkeypatch.setattr(files, "INLINE_LIMIT", 100)
    path = Path(entry.export_version(proto))
    assert sorted(p.name for p in path.parent.iterdir() if not p.name.startswith(".")) == [
        "model.onnx",
        "model.onnx.data",
    ]
    assert "model.onnx.data" in entry.versions[-1].manifest.files
    assert path.stat().st_size < 1024


@pytest.mark.parametrize(
    ("value_type", "node", "fact"),
    [
        (
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None)),
            helper.make_node("SequenceConstruct", ["x"], ["y"]),
            r"output 'y' is a seq\(tensor\(float\)\)",
        ),
        (
            helper.make_optional_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ["batch", 4])),
            helper.make_node("Optional", ["x"], ["y"]),
            "output 'y' is a optional",
        ),
        (
            helper.make_tensor_type_proto(TensorProto.BFLOAT16, ["batch", 4]),
            helper.make_node("Cast", ["x"], ["y"], to=TensorProto.BFLOAT16),
            r"output 'y' is a tensor\(bfloat16\)",
        ),
    ],
)
def test_what_no_tensor_of_triton_can_hold_is_named(entry: qv.Entry, value_type: Any, node: Any, fact: str) -> None:
    made = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_value_info("y", value_type)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(ExportError, match=fact):
        entry.export_version(model)
    assert entry.versions == []


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08\x09"])
def test_files_that_are_no_model(tmp_path: Path, entry: qv.Entry, content: bytes) -> None:
    path = tmp_path / "given.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"given\.onnx is no ONNX model"):
        entry.export_version(path)
    with pytest.raises(NotFoundError, match=r"missing\.onnx"):
        entry.export_version(tmp_path / "missing.onnx")


def test_an_operator_that_the_runtime_lacks(entry: qv.Entry, affine: Affine) -> None:
    proto = affine()
    proto.graph.node[0].op_type = "Nonsense"
    with pytest.raises(ExportError, match="does not load"):
        entry.export_version(proto)


def test_a_model_is_opened_once(entry: qv.Entry, affine: Affine, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its published form once more: sessions of a large one take seconds."""
    real, opened = ort.InferenceSession, []

    def opening(given: Any, *args: Any, **kwargs: Any) -> Any:
        opened.append(given)
        return real(given, *args, **kwargs)

    monkeypatch.setattr(ort, "InferenceSession", opening)
    entry.export_version(affine())
    assert len(opened) == 2


def test_chance_is_not_verifiable(entry: qv.Entry) -> None:
    made = helper.make_graph(
        [helper.make_node("RandomNormalLike", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    with pytest.raises(VerificationError, match="another answer each time"):
        entry.export_version(model)


def test_initializers_are_no_inputs(entry: qv.Entry, affine: Affine) -> None:
    """Older exporters list every weight among the inputs, as one that may be overridden."""
    proto = affine()
    proto.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    entry.export_version(proto)
    assert list(entry.inputs) == ["x"]


def test_newer_operators_that_no_converter_brings_down_are_refused(entry: qv.Entry, affine: Affine) -> None:
    proto = affine()
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 5))
    with pytest.raises(ExportError, match=r"the graph is in opset 5 of ai\.onnx\.ml, Triton 24\.08 .*takes up to 4"):
        entry.export_version(proto)
    for opsets, version, limit in (({"": 22}, 22, 21), ({"": 18, "ai.onnx.ml": 5}, 5, 4)):
        proto = affine()
        ids = [helper.make_opsetid(*opset) for opset in opsets.items()]
        same = helper.make_node("Identity", ["a"], ["b"])
        proto.functions.append(helper.make_function("mine", "F", ["a"], ["b"], [same], ids))
        with pytest.raises(ExportError, match=rf"function 'F' of the graph is in opset {version}.*up to {limit}"):
            entry.export_version(proto)


def test_a_graph_without_inputs_states_its_outputs_once(entry: qv.Entry) -> None:
    value = numpy_helper.from_array(np.ones(3, np.float32))
    made = helper.make_graph(
        [helper.make_node("Constant", [], ["y"], value=value)],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for _ in range(3):
        entry.export_version(model)
    assert [output.name for output in entry.config.output] == ["y"]


def test_the_newest_ml_operators_that_every_server_has(entry: qv.Entry) -> None:
    """``LabelEncoder`` with its tables as tensors is what opset 4 of ``ai.onnx.ml`` brought."""
    table = {
        "keys_tensor": numpy_helper.from_array(np.array([0, 1], np.int64)),
        "values_tensor": numpy_helper.from_array(np.array([7, 8], np.int64)),
        "default_tensor": numpy_helper.from_array(np.array([-1], np.int64)),
    }
    made = helper.make_graph(
        [helper.make_node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", **table)],
        "labels",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, ["batch"])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 4)]
    path = entry.export_version(helper.make_model(made, opset_imports=opsets, ir_version=9))
    assert {o.domain: o.version for o in onnx.load(path).opset_import}["ai.onnx.ml"] == 4
