"""Which opset and IR version a Triton release takes, and that exports keep to it."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, UnsupportedError
from gravswell.targets import DEFAULT_TARGET, known_targets, target_of

Affine = Callable[..., Any]


def test_every_release_has_limits_that_never_shrink() -> None:
    known = list(known_targets().values())
    assert [target.tag for target in known] == sorted(target.tag for target in known)
    assert (known[0].tag, known[0].opset, known[0].ir_version) == ("20.11", 12, 7)
    for older, newer in itertools.pairwise(known):
        assert older.opset <= newer.opset, newer
        assert older.ml_opset <= newer.ml_opset, newer
        assert older.ir_version <= newer.ir_version, newer
    years = {tag[:2] for tag in known_targets()}
    assert all(
        f"{year}.{month:02}" in known_targets() for year in years & {"22", "23", "24", "25"} for month in range(1, 13)
    )
    assert DEFAULT_TARGET.tag == "24.08"


def test_limits_are_those_of_onnx_releases() -> None:
    """What a runtime reads is what the ONNX release that it is built with defines."""
    released = {(row[1], row[2]) for row in onnx.helper.VERSION_TABLE}
    for target in known_targets().values():
        assert any(ir == target.ir_version and opset >= target.opset for ir, opset in released), target


def test_tags_as_nvidia_writes_them() -> None:
    assert target_of("24.08-py3") is target_of("24.08")
    assert target_of("25.01-vllm-python-py3").runtime == "1.20.1"
    newest = list(known_targets().values())[-1]
    beyond = target_of("99.12")
    assert (beyond.tag, beyond.opset, beyond.ir_version) == ("99.12", newest.opset, newest.ir_version)
    assert newest.runtime in str(beyond)


@pytest.mark.parametrize(
    ("tag", "error", "fact"),
    [
        ("20.10", UnsupportedError, r"Triton 20\.10 .*20\.11 to 26\.\d\d"),
        ("21.01", UnsupportedError, r"no Triton 21\.01.*20\.12, 21\.02"),
        ("latest", InvalidInputError, r"'latest' is no tag.*20\.11 to"),
        ("24.13", InvalidInputError, "no tag"),
        ("", InvalidInputError, "no tag"),
    ],
)
def test_what_is_no_release_is_told_with_those_that_are(tag: str, error: type[Exception], fact: str) -> None:
    with pytest.raises(error, match=fact):
        target_of(tag)


def test_a_graph_is_brought_down_to_its_target_and_the_manifest_says_which(entry: qv.Entry, affine: Affine) -> None:
    path = entry.export_version(affine(opset=18, ir_version=10), target="21.09")
    written = onnx.load(path)
    assert (written.opset_import[0].version, written.ir_version) == (14, 7)
    manifest = entry.versions[-1].manifest
    assert (manifest.target, manifest.opset, manifest.ir_version) == ("21.09", 14, 7)
    entry.export_version(affine())
    assert entry.versions[-1].manifest.target == "24.08"


def test_functions_are_inlined_for_a_runtime_that_knows_none(entry: qv.Entry, affine: Affine) -> None:
    proto = affine(opset=12, ir_version=8)
    same = helper.make_node("Identity", ["a"], ["b"])
    proto.functions.append(helper.make_function("mine", "Same", ["a"], ["b"], [same], [helper.make_opsetid("", 12)]))
    proto.opset_import.append(helper.make_opsetid("mine", 1))
    proto.graph.node[0].output[0] = "m"
    proto.graph.node.append(helper.make_node("Same", ["m"], ["y"], domain="mine"))
    written = onnx.load(entry.export_version(proto, target="21.09"))
    assert not written.functions
    assert [node.op_type for node in written.graph.node] == ["Mul", "Identity"]
    assert written.ir_version == 7
    assert onnx.load(entry.export_version(proto, target="22.01")).functions


def test_what_no_converter_brings_down_names_the_model_the_target_and_its_limit(entry: qv.Entry) -> None:
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", "s"], ["y"])],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor("s", TensorProto.FLOAT, [4], np.ones(4, np.float32))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(ExportError, match=r"in opset 18, Triton 20\.11 \(ONNX Runtime 1\.5\.3\) takes up to 12"):
        entry.export_version(model, target="20.11")
    assert entry.versions == []
    entry.export_version(model, target="23.03")


def test_an_opset_beyond_the_target_is_refused(entry: qv.Entry, affine: Affine) -> None:
    with pytest.raises(InvalidInputError, match=r"opset 13 .*Triton 20\.11 .*up to 12"):
        entry.export_version(affine(), opset=13, target="20.11")
    with pytest.raises(InvalidInputError, match="no tag"):
        entry.export_version(affine(), target="new")
