"""Versions in float16 and int8: converted, measured, published and verified for real."""

import logging
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from sklearn.tree import DecisionTreeRegressor

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.exporters import files, open_session, run
from gravswell.quiver.golden import compare, load_golden
from gravswell.quiver.manifest import GOLDEN, Manifest
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.variants import convert
from gravswell.quiver.verification import verify_version

from ...networks import FEATURES, classifier, convolution, model

ROWS = {"x": np.random.default_rng(1).standard_normal((300, FEATURES)).astype(np.float32)}


@pytest.fixture
def entry(entry: qv.Entry) -> qv.Entry:
    """One version, of a small classifier."""
    entry.export_version(classifier())
    return entry


def _types(version: qv.Version) -> set[int]:
    proto = onnx.load(version.location)
    return {tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) > 1}


def _golden(version: qv.Version) -> list[Any]:
    return load_golden(Path(version.location).parent / GOLDEN)


def test_fp16_is_the_next_version_with_the_same_tensors(entry: qv.Entry, repo: qv.ModelRepository) -> None:
    before = str(entry.config)
    made = entry.quantize("fp16")
    parent, variant = entry.version(1), entry.version(made.version)
    assert (made.version, made.parent, made.location) == (2, 1, variant.location)
    assert str(entry.config) == before
    assert variant.manifest.signature == parent.manifest.signature
    assert _types(variant) == {TensorProto.FLOAT16}
    assert made.bytes < 0.7 * made.parent_bytes
    assert verify_version(RepositoryReader(repo.url), entry.name, 2).samples == 3


def test_the_manifest_says_what_it_is_and_what_it_cost(entry: qv.Entry) -> None:
    made = entry.quantize("int8")
    manifest = entry.version(2).manifest
    record = manifest.verification.variant
    assert record is not None
    assert (record.kind, record.method, record.version) == ("int8", "dynamic", 1)
    assert record.digest == entry.version(1).digest
    assert 0 < record.errors["scores"].of_scale <= record.max_error == 0.1
    assert record.errors["scores"].max_abs == made.errors["scores"].max_abs
    assert record.rows == made.rows == 8
    assert "int8 (dynamic)" in manifest.exporter
    assert manifest.framework == entry.version(1).manifest.framework
    assert Manifest.from_bytes(manifest.to_bytes(), where="here") == manifest
    assert b"variant" not in entry.version(1).manifest.to_bytes()


def test_golden_outputs_stay_the_frameworks_and_a_label_is_none(entry: qv.Entry) -> None:
    entry.quantize("int8")
    parent, variant = _golden(entry.version(1)), _golden(entry.version(2))
    for before, after in zip(parent, variant, strict=True):
        np.testing.assert_array_equal(before.inputs["x"], after.inputs["x"])
        np.testing.assert_array_equal(before.outputs["scores"], after.outputs["scores"])
        assert set(after.outputs) == {"scores"}  # a label may flip at a tie on another processor
    verification = entry.version(2).manifest.verification
    assert isinstance(verification.atol, dict)
    assert verification.atol["scores"] == pytest.approx(0.1, abs=0.05)  # of the largest score


def test_another_model_does_not_pass_for_the_variant(entry: qv.Entry) -> None:
    """What the bound is for: a server that answers with other weights differs by more."""
    entry.quantize("int8", calibration=ROWS)
    entry.export_version(classifier(seed=1))
    samples, proof = _golden(entry.version(2)), entry.version(2).manifest.verification
    session = open_session(Path(entry.version(3).location))
    wrong = run(session, samples[0].inputs)
    with pytest.raises(VerificationError, match="output scores"):
        compare(samples[0].outputs, wrong, proof.rtol, proof.atol)


def test_calibrated_int8_is_proved_with_real_rows(entry: qv.Entry, repo: qv.ModelRepository) -> None:
    made = entry.quantize("int8", calibration=ROWS)
    assert (made.method, made.rows) == ("static, QDQ", 8 + 8 + 300)
    operators = {node.op_type for node in onnx.load(made.location).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert not {node.domain for node in onnx.load(made.location).graph.node} - {""}
    assert entry.version(2).manifest.verification.inputs == "given"
    rows = np.concatenate([sample.inputs["x"] for sample in _golden(entry.version(2))])
    assert all(any((row == real).all() for real in ROWS["x"]) for row in rows)
    assert verify_version(RepositoryReader(repo.url), entry.name, 2).samples == 3


def test_given_golden_batches_stay(repo: qv.ModelRepository) -> None:
    entry = repo.add("given")
    entry.export_version(classifier(), sample_inputs={"x": ROWS["x"][:7]})
    entry.quantize("int8", calibration={"x": ROWS["x"][7:]})
    kept = [sample.inputs["x"] for sample in _golden(entry.version(2))]
    assert any(np.array_equal(batch, ROWS["x"][:7]) for batch in kept)


@pytest.mark.parametrize("calibration", [None, ROWS], ids=["dynamic", "static"])
def test_weights_may_lie_transposed(repo: qv.ModelRepository, calibration: Any) -> None:
    """As torch exports a Linear; ONNX Runtime's quantizer forgets to turn what is said of their shape."""
    entry = repo.add("transposed")
    entry.export_version(classifier(transposed=True))
    assert entry.quantize("int8", calibration=calibration).version == 2


def test_a_server_that_forms_batches_may_do_so_with_a_variant(repo: qv.ModelRepository) -> None:
    entry = repo.add("batched")
    entry.export_version(classifier(), max_batch_size=8)
    for kind, calibration in (("fp16", None), ("int8", ROWS)):
        entry.quantize(kind, version=1, calibration=calibration)  # type: ignore[arg-type]
    assert [int(v) for v in entry.versions] == [1, 2, 3]
    assert entry.config.max_batch_size == 8


def test_too_large_an_error_is_told_and_leaves_nothing(entry: qv.Entry) -> None:
    with pytest.raises(VerificationError, match=r"output scores differs by up to .* at most 0.01%.*Nothing was publi"):
        entry.quantize("int8", max_error=1e-4)
    assert [int(v) for v in entry.versions] == [1]


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_nothing_to_convert_is_told_with_the_operators(
    repo: qv.ModelRepository, affine: Callable[..., Any], kind: Any
) -> None:
    entry = repo.add("affine")
    entry.export_version(affine())
    with pytest.raises(InvalidInputError, match=f"nothing in the graph to convert to {kind}.*operators: Mul"):
        entry.quantize(kind)
    assert [int(v) for v in entry.versions] == [1]


@pytest.mark.parametrize("kind", ["int8", "fp16"])
@pytest.mark.parametrize("rest", [False, True])  # encoders have products of two inputs beside those of weights
def test_what_somebody_quantized_is_not_converted_again(
    repo: qv.ModelRepository, tmp_path: Path, kind: Any, rest: bool
) -> None:
    more = [
        helper.make_node("MatMul", ["h", "h"], ["y"], name="rest") if rest else helper.make_node("Relu", ["h"], ["y"])
    ]
    tensors = [("x", TensorProto.FLOAT, ["rows", 8, 8])], [("y", TensorProto.FLOAT, ["rows", 8, 8])]
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="weighted"), *more]
    onnx.save(model(nodes, *tensors, {"w": weight}), tmp_path / "f.onnx")
    tools = import_module("onnxruntime.quantization")  # whose import brings another package of the name "tests"
    tools.quantize_dynamic(
        tmp_path / "f.onnx", tmp_path / "q.onnx", op_types_to_quantize=["MatMul"], nodes_to_exclude=["rest"]
    )
    entry = repo.add("quantized")
    entry.export_version(tmp_path / "q.onnx")
    told = f"quantized already .*MatMulInteger.*not converted to {kind}: give the float32 model"
    with pytest.raises(InvalidInputError, match=told):
        entry.quantize(kind)
    assert [int(version) for version in entry.versions] == [1]


def test_trees_have_nothing_to_convert(repo: qv.ModelRepository) -> None:
    entry = repo.add("tree")
    entry.export_version(DecisionTreeRegressor(max_depth=2).fit(ROWS["x"], ROWS["x"][:, 0]))
    for kind in ("fp16", "int8"):
        with pytest.raises(InvalidInputError, match="operators: TreeEnsembleRegressor"):
            entry.quantize(kind)  # type: ignore[arg-type]


@pytest.mark.parametrize("opset", [11, 17])
def test_convolutions_want_calibration(repo: qv.ModelRepository, opset: int) -> None:
    entry = repo.add("conv")
    entry.export_version(convolution(opset))
    with pytest.raises(InvalidInputError, match="Conv needs calibration data"):
        entry.quantize("int8")
    images = {"x": np.random.default_rng(2).standard_normal((20, 3, 8, 8)).astype(np.float32)}
    assert entry.quantize("int8", calibration=images).method == "static, QDQ"


def test_values_beyond_float16_are_no_variant(repo: qv.ModelRepository) -> None:
    entry = repo.add("large")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    tensors = ("x", TensorProto.FLOAT, ["rows", 2]), ("y", TensorProto.FLOAT, ["rows", 2])
    weights = {"w": np.full((2, 2), 6e4, np.float32), "v": np.full((2, 2), 1e-4, np.float32)}
    entry.export_version(model(nodes, tensors[:1], tensors[1:], weights))  # it fits again in the end
    with pytest.raises(VerificationError, match="NaN or infinite"):
        entry.quantize("fp16", max_error=1.0)


@pytest.mark.parametrize(("kind", "calibration"), [("fp16", None), ("int8", None), ("int8", ROWS)])
def test_a_large_graph_goes_from_file_to_file(
    entry: qv.Entry, repo: qv.ModelRepository, monkeypatch: pytest.MonkeyPatch, kind: Any, calibration: Any
) -> None:
    """What is above 2 GiB fits in no message, so the converters are given files with the data beside them."""
    for module in (convert, files):
        monkeypatch.setattr(module, "INLINE_LIMIT", 1000)
    made = entry.quantize(kind, calibration=calibration)
    assert verify_version(RepositoryReader(repo.url), entry.name, made.version).samples == 3


def test_a_variant_has_no_variants(entry: qv.Entry) -> None:
    entry.quantize("fp16")
    with pytest.raises(InvalidInputError, match="fp16 already, made of version 1"):
        entry.quantize("int8")
    assert entry.quantize("int8", version=1).version == 3


@pytest.mark.parametrize(
    ("kind", "how", "words"),
    [
        ("int4", {}, "use one of fp16, int8"),
        ("fp16", {"calibration": ROWS}, "needs no calibration"),
        ("int8", {"calibration": {"z": ROWS["x"]}}, "has inputs z; the model takes x"),
        ("int8", {"calibration": ["x"]}, "calibration is a batch"),
        ("int8", {"max_error": 0.0}, "max_error=0.0 is no bound"),
        ("int8", {"max_error": float("nan")}, "is no bound"),
        ("int8", {"min_agreement": 2.0}, "min_agreement=2.0 is no share"),
    ],
)
def test_arguments_that_cannot_be_meant(entry: qv.Entry, kind: Any, how: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        entry.quantize(kind, **how)


def test_no_version_to_convert(repo: qv.ModelRepository) -> None:
    with pytest.raises(NotFoundError, match="no version yet"):
        repo.add("empty").quantize("fp16")


def test_the_converters_leave_the_process_as_it_was(entry: qv.Entry, caplog: pytest.LogCaptureFixture) -> None:
    before = list(sys.path)
    with caplog.at_level(logging.WARNING):
        entry.quantize("int8", calibration=ROWS)
        entry.quantize("fp16", version=1)
    assert sys.path == before
    assert not [record for record in caplog.records if record.thread == threading.get_ident()]


def test_what_other_threads_log_while_it_converts_is_not_lost(caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    with convert._told("int8"):
        root.warning("the converter's advice")
        other = threading.Thread(target=root.warning, args=["another's warning"])
        other.start()
        other.join()
    told = [record.getMessage() for record in caplog.records]
    assert "another's warning" in told
    assert "the converter's advice" not in told
