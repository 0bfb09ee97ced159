"""What can be fused: frameworks beside each other, different inputs and outputs, opsets, entries; and what cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sklearn.datasets
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, VerificationError
from gravswell.quiver.exporters.fused import exporter
from gravswell.quiver.golden import load_golden

from ..networks import classifier
from .conftest import FLOAT, Fuse, alone, frameworks, onnx_model, scaled

X, Y = sklearn.datasets.load_iris(return_X_y=True)


def test_frameworks_beside_each_other_answer_as_themselves(fuse: Fuse) -> None:
    models = frameworks()
    network, tree = (info.model for info in models)
    fused = fuse(models)
    rows = X[::10].astype(np.float32)
    ids = np.arange(len(rows)) % 2 + 1
    got = fused(ids, x=rows)["y"]
    with torch.no_grad():
        expected = network(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(got[ids == 1], expected[ids == 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[ids == 2][:, 0], tree.predict(rows)[ids == 2], rtol=1e-6)
    manifest = fused.entry.version().manifest
    assert manifest.framework.startswith("torch ")
    assert ", scikit-learn " in manifest.framework
    golden = load_golden(fused.path.parent / ".golden.npz")
    assert {tuple(sorted(set(s.inputs["model_id"].tolist()))) for s in golden} == {(1,), (2,), (1, 2)}


def test_models_with_different_inputs_are_routed_by_what_they_take(fuse: Fuse) -> None:
    fused = fuse([scaled(2), qv.ModelInfo(scaled(3, 6, x="image"), output_names=["z"])])
    table = fused.entry.version().manifest.fusion or ()
    assert [(row.inputs, row.outputs) for row in table] == [(("x",), ("y",)), (("image",), ("z",))]
    config = fused.entry.config
    assert [(i.name, i.optional) for i in config.input] == [("model_id", False), ("x", True), ("image", True)]
    assert config.max_batch_size == 0, "Triton's onnxruntime backend takes no optional input where it batches"
    x, image = np.ones((2, 4), np.float32), np.ones((2, 6), np.float32)
    assert fused([1, 1], x=x)["y"].tolist() == [[2] * 4] * 2
    assert np.isnan(fused([1, 1], x=x)["z"]).all()
    mixed = fused([2, 1], x=x, image=image)
    assert mixed["z"][0].tolist() == [3] * 6
    assert mixed["y"][1].tolist() == [2] * 4
    assert np.isnan(mixed["z"][1]).all()
    with pytest.raises(Exception, match="input image of model 2 must have as many rows as model_id"):
        fused([1, 2], x=x)
    with pytest.raises(InvalidInputError, match=r"max_batch_size=8 and the input 'x'.*leave out.*onnxruntime backend"):
        fuse([scaled(2), scaled(3, 6, x="image", y="z")], max_batch_size=8)


def test_lengths_that_a_request_chooses(fuse: Fuse) -> None:
    def summing(factor: float) -> onnx.ModelProto:
        nodes = [helper.make_node("Mul", ["x", "f"], ["y"]), helper.make_node("Neg", ["y"], ["z"])]
        tensors = [("x", FLOAT, ["b", "length", 2])], [(name, FLOAT, ["b", "length", 2]) for name in "yz"]
        return onnx_model(nodes, *tensors, {"f": np.array([factor], np.float32)})

    fused = fuse([summing(2), summing(3)])
    assert [list(o.dims) for o in fused.entry.config.output] == [[-1, 2], [-1, 2]]
    for length in (1, 5):
        assert fused([2, 1], x=np.ones((2, length, 2), np.float32))["y"][:, :, 0].tolist() == [
            [3] * length,
            [2] * length,
        ]


def relabelled(said: str) -> onnx.ModelProto:
    """``u``: the text ``t``, or ``said`` where that is ``a``."""
    keys = {"keys_strings": ["a"], "values_strings": [said], "default_string": "other"}
    node = helper.make_node("LabelEncoder", ["t"], ["u"], domain="ai.onnx.ml", **keys)
    tensors = [(name, TensorProto.STRING, ["b", 1]) for name in "tu"]
    return onnx_model([node], tensors[:1], tensors[1:], domains={"ai.onnx.ml": 3})


def test_texts(fuse: Fuse) -> None:
    texts = np.array([["a"], ["a"], ["b"]], object)
    assert fuse([relabelled("one"), relabelled("two")])([2, 1, 2], t=texts)["u"].tolist() == [
        ["two"],
        ["one"],
        ["other"],
    ]


def test_opsets_are_raised_to_the_newest(fuse: Fuse) -> None:
    fused = fuse([scaled(2, opset=11), scaled(3, opset=17)])
    assert {o.domain: o.version for o in fused.proto.opset_import}[""] == 17
    assert fused([1], x=np.ones((1, 4), np.float32))["y"].tolist() == [[2] * 4]


def test_a_graph_of_an_old_ir_version_is_raised_with_the_others(fuse: Fuse) -> None:
    """Before version 4 a weight had to be an input as well: it is none of the fusion's."""
    old = scaled(2, opset=11)
    old.ir_version = 3
    old.graph.input.append(helper.make_tensor_value_info("factor", FLOAT, [1]))
    new = scaled(3)
    new.ir_version = 10
    fused = fuse([old, new], target="24.08")
    assert fused.proto.ir_version == 10
    assert [value.name for value in fused.proto.graph.input] == ["model_id", "x"]
    assert fused([1, 2], x=np.ones((2, 4), np.float32))["y"].tolist() == [[2] * 4, [3] * 4]


def test_an_opset_that_cannot_be_raised_names_the_model_and_both(repo: qv.ModelRepository) -> None:
    node = helper.make_node("LabelEncoder", ["t"], ["n"], domain="ai.onnx.ml", classes_strings=["a", "b"])
    tensors = [("t", TensorProto.STRING, ["b", 1])], [("n", TensorProto.INT64, ["b", 1])]
    old = onnx_model([node], *tensors, domains={"ai.onnx.ml": 1})
    fusion = qv.fuse([relabelled("one"), qv.ModelInfo(old, name="old")])
    told = r"model 2 \(old\) is in opset 1 of ai.onnx.ml, the fusion needs 3.* LabelEncoder is another one there"
    with pytest.raises(ExportError, match=told):
        repo.add("zoo").export_version(fusion)
    assert repo.models["zoo"].versions == []


def test_an_opset_without_a_converter_names_the_model_and_both(
    repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    with pytest.raises(ExportError, match=r"model 1 \(.*\) is in opset 13, the fusion needs 17.*no adapter.*one opset"):
        repo.add("zoo").export_version(qv.fuse([scaled(2, opset=13), scaled(3, opset=17)]))


def test_functions_and_graphs_in_nodes_keep_their_names_apart(fuse: Fuse) -> None:
    def branching(factor: float) -> onnx.ModelProto:
        """``out = 2 * factor * x`` where there are rows, else x: with weights that the inner graphs see."""
        inner = [
            helper.make_graph(
                [helper.make_node(*node)], name, [], [helper.make_tensor_value_info("y", FLOAT, ["b", 4])]
            )
            for name, node in (("yes", ("Twice", ["x", "f"], ["y"], "", "", "own")), ("no", ("Identity", ["x"], ["y"])))
        ]
        nodes = [
            helper.make_node("Size", ["x"], ["size"]),
            helper.make_node("Cast", ["size"], ["any"], to=TensorProto.BOOL),
            helper.make_node("If", ["any"], ["out"], then_branch=inner[0], else_branch=inner[1]),
        ]
        weights = {"f": np.array([factor], np.float32)}
        tensors = [("x", FLOAT, ["b", 4])], [("out", FLOAT, ["b", 4])]
        model = onnx_model(nodes, *tensors, weights, domains={"own": 1})
        body = [helper.make_node("Mul", ["a", "b"], ["c"]), helper.make_node("Add", ["c", "c"], ["d"])]
        opsets = [helper.make_opsetid("", 18)]
        model.functions.append(helper.make_function("own", "Twice", ["a", "b"], ["d"], body, opsets))
        return model

    fused = fuse([branching(1), branching(5)])
    x = np.stack([np.ones(4), -np.ones(4)]).astype(np.float32)
    assert fused([1, 2], x=x)["out"][:, 0].tolist() == [2, -10]
    assert fused([2, 2], x=x)["out"].tobytes() == alone(branching(5))(x=x)["out"].tobytes()


def test_entries_and_versions_keep_their_frameworks_answers(fuse: Fuse, repo: qv.ModelRepository) -> None:
    iris = repo.add("iris")
    iris.export_version(LogisticRegression(max_iter=500).fit(X, Y), sample_inputs={"x": X[::7].astype(np.float32)})
    iris.export_version(LogisticRegression(C=0.01).fit(X, Y))
    fused = fuse([iris.version(1), iris])
    table = fused.entry.version().manifest.fusion or ()
    assert [(row.name, row.source) for row in table] == [("iris", "iris/1"), ("iris", "iris/2")]
    assert fused.entry.version().manifest.framework.startswith("scikit-learn ")
    x = X[::25].astype(np.float32)
    for number in (1, 2):
        single = alone(onnx.load(iris.version(number).location))(x=x)
        assert fused([number] * len(x), x=x)["probabilities"].tobytes() == single["probabilities"].tobytes()


def test_a_fused_file_is_a_fusion_wherever_it_goes(fuse: Fuse, repo: qv.ModelRepository) -> None:
    other = qv.ModelInfo(scaled(3, 6, x="image"), output_names=["z"])
    for models, optional in ([scaled(2), scaled(3)], []), ([scaled(2), other], ["x", "image"]):
        fused = fuse(models)
        again = repo.add("again", force=True)
        again.export_version(fused.path)
        assert again.version().manifest.fusion == fused.entry.version().manifest.fusion
        assert [i.name for i in again.config.input if i.optional] == optional
    fused = fuse([classifier(seed=0), classifier(seed=1)])
    fused.entry.quantize("fp16")
    assert [row.id for row in fused.entry.version().manifest.fusion or ()] == [1, 2]


def test_a_quantized_version_is_itself(fuse: Fuse, repo: qv.ModelRepository) -> None:
    entry = repo.add("small")
    entry.export_version(classifier())
    entry.quantize("fp16")
    fused = fuse([entry.version(1), entry.version(2)])
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    single = alone(onnx.load(entry.version(2).location))(x=x)
    np.testing.assert_allclose(fused([2] * 4, x=x)["scores"], single["scores"], rtol=1e-2, atol=1e-3)


def test_what_a_row_does_not_have_says_so(fuse: Fuse) -> None:
    labelled = onnx_model(
        [helper.make_node("ArgMax", ["x"], ["best"], axis=1, keepdims=0), helper.make_node("Identity", ["x"], ["y"])],
        [("x", FLOAT, ["b", 4])],
        [("y", FLOAT, ["b", 4]), ("best", TensorProto.INT64, ["b"])],
    )
    got = fuse([scaled(2), labelled])([1, 2], x=np.eye(4, dtype=np.float32)[[2, 3]])
    assert got["best"].tolist() == [np.iinfo(np.int64).min, 3]


def flag(name: str = "flag") -> onnx.ModelProto:
    nodes = [helper.make_node("Greater", ["x", "zero"], [name]), helper.make_node("Identity", ["x"], ["y"])]
    outputs = [("y", FLOAT, ["b", 4]), (name, TensorProto.BOOL, ["b", 4])]
    return onnx_model(nodes, [("x", FLOAT, ["b", 4])], outputs, {"zero": np.float32(0)})


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (
            [scaled(2), scaled(2, 6)],
            r"input 'x' is TYPE_FP32 \[-1, 4\] in model 1 .* and TYPE_FP32 \[-1, 6\] in model 2",
        ),
        ([scaled(2), scaled(2, kind=np.float64)], r"input 'x' is TYPE_FP32 .* in model 1 .* TYPE_FP64 .* in model 2"),
        ([scaled(2), scaled(2, 6, x="z")], r"output 'y' is .* in model 1 .* in model 2 .*output_names"),
        ([scaled(2), flag()], r"model 2 .* gives an output 'flag' and model 1 .* TYPE_BOOL, which has no value"),
        ([scaled(2, x="model_id")], r"model 1 .*'model_id', which is the name of the fusion's own input.*rename"),
        ([scaled(2, x="y", y="z"), scaled(2)], r"'y', which is the name of an output of another model"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(repo: qv.ModelRepository, models: Any, told: str) -> None:
    entry = repo.add("zoo")
    with pytest.raises(InvalidInputError, match=told):
        entry.export_version(qv.fuse(models))
    assert entry.versions == []


def test_renaming_is_the_way_out(fuse: Fuse) -> None:
    fused = fuse([scaled(2), qv.ModelInfo(scaled(3, 6), rename={"x": "wide"}, output_names=["w"])])
    assert fused([2], wide=np.ones((1, 6), np.float32))["w"].tolist() == [[3] * 6]
    with pytest.raises(InvalidInputError, match=r"model 1 .*rename names z, which is no input; it takes x"):
        fuse([qv.ModelInfo(scaled(2), rename={"z": "a"})])


def test_a_fixed_batch_is_refused(repo: qv.ModelRepository) -> None:
    fixed = scaled(2)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    with pytest.raises(
        InvalidInputError, match=r"model 1 .*input 'x' has shape \[1, 4\], and a fusion routes row by row"
    ):
        repo.add("zoo").export_version(qv.fuse([fixed]))


def test_a_model_whose_rows_depend_on_each_other_is_refused_by_name(repo: qv.ModelRepository) -> None:
    tensors = [("x", FLOAT, ["rows", 4])], [("y", FLOAT, ["rows", 4])]
    over_rows = onnx_model([helper.make_node("Softmax", ["x"], ["y"], axis=0)], *tensors)
    told = r"^model 2 \(odd\): a row's answer depends on the other rows of its batch .*an entry of its own$"
    published = repo.add("odd")
    published.export_version(over_rows)
    for model in (over_rows, published):
        with pytest.raises(ExportError, match=told):
            repo.add("zoo", force=True).export_version(qv.fuse([scaled(2), qv.ModelInfo(model, name="odd")]))


def test_functions_make_models_and_inputs_of_their_parameters(fuse: Fuse) -> None:
    batches = {"x": np.full((3, 4), 7, np.float32)}
    info = qv.ModelInfo(lambda p: scaled(p["by"]), lambda p: [batches] * p["many"], {"by": 3, "many": 2}, scale=0.5)
    fused = fuse([info, scaled(2)])
    table = fused.entry.version().manifest.fusion or ()
    assert (table[0].params, table[0].scale) == ({"by": 3, "many": 2}, 0.5)
    assert fused([1], x=np.ones((1, 4), np.float32))["y"].tolist() == [[3] * 4], "scale changes no answer"
    assert any(7 in sample.inputs["x"] for sample in load_golden(fused.path.parent / ".golden.npz"))


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ([], "no model"),
        ("model.onnx", "a list of models"),
        ([qv.ModelInfo(scaled(2), scale=0)], "scale=0"),
        ([qv.ModelInfo(scaled(2), params={"a": object()})], "no JSON"),
        ([qv.ModelInfo(scaled(2), name=" ")], "for a name"),
        ([qv.fuse([scaled(2)])], "put its models into the list"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(models: Any, told: str) -> None:
    with pytest.raises(InvalidInputError, match=told):
        qv.fuse(models)


def test_what_a_fusion_takes_is_not_asked_twice(repo: qv.ModelRepository) -> None:
    entry, fusion = repo.add("zoo"), qv.fuse([scaled(2), scaled(3)])
    with pytest.raises(InvalidInputError, match="give them to the models"):
        entry.export_version(fusion, sample_inputs={"x": np.ones((1, 4), np.float32)})
    with pytest.raises(InvalidInputError, match="give output_names to their ModelInfo"):
        entry.export_version(fusion, output_names=["z"])
    with pytest.raises(InvalidInputError, match=r"opset 13 or newer, and Triton 20\.11"):
        entry.export_version(fusion, target="20.11")


def test_the_gate_stops_a_graph_that_answers_otherwise(
    repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = exporter.routed
    monkeypatch.setattr(exporter, "routed", lambda branches, *rest: real(branches[::-1], *rest))
    entry = repo.add("zoo")
    with pytest.raises(VerificationError, match=r"does not answer as model 1 \(ModelProto\) alone does: output 'y'"):
        entry.export_version(qv.fuse([scaled(2), scaled(3)]))
    assert entry.versions == []


def test_weights_in_files_are_followed(fuse: Fuse, tmp_path: Path) -> None:
    def saved(factor: float) -> Path:
        proto = onnx_model(
            [helper.make_node("Mul", ["x", "w"], ["y"])],
            [("x", FLOAT, ["b", 512])],
            [("y", FLOAT, ["b", 512])],
            {"w": np.full(512, factor, np.float32)},
        )
        folder = tmp_path / str(factor)
        folder.mkdir()
        onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
        return folder / "m.onnx"

    fused = fuse([saved(2), saved(3)])
    assert [row.name for row in fused.entry.version().manifest.fusion or ()] == ["m", "m"]
    assert fused([2, 1], x=np.ones((2, 512), np.float32))["y"][:, 0].tolist() == [3, 2]
    assert numpy_helper.to_array(onnx.load(saved(4)).graph.initializer[0])[0] == 4
