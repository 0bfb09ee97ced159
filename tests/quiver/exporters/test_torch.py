"""What goes wrong between a torch module and a served graph, case by case (the pitfalls of the seeds)."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gravswell import quiver as qv
from gravswell.errors import ExportError, InvalidInputError, UnsupportedError, VerificationError
from gravswell.extras import install
from gravswell.quiver import exporters
from gravswell.quiver.golden import load_golden
from gravswell.quiver.manifest import FileRecord
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.verification import verify_version

from .modules import module
from .refusing import check_refusal, nothing_was_published
from .signatures import shapes

X = {"x": (None, 4)}


def diverged() -> nn.Module:
    """What training with too large a step leaves."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.constant_(model[1].weight, float("nan"))
    return model


def two(self: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a - 2 * b


@pytest.mark.parametrize(
    ("model", "arguments", "inputs", "outputs"),
    [
        pytest.param(
            module(lambda s, x: {"twice": x * 2, "total": x.sum(1)}),
            {"input_shapes": X},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"twice": ("TYPE_FP32", (-1, 4)), "total": ("TYPE_FP32", (-1,))},
            id="dict-outputs-name-themselves",
        ),
        pytest.param(
            module(lambda s, x: [x + 1, x > 0]),
            {"input_shapes": X, "output_names": ["p", "q"]},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"p": ("TYPE_FP32", (-1, 4)), "q": ("TYPE_BOOL", (-1, 4))},
            id="list-outputs-are-named-in-order",
        ),
        pytest.param(
            module(lambda s, x: (x, x)),
            {"input_shapes": X},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"output_0": ("TYPE_FP32", (-1, 4)), "output_1": ("TYPE_FP32", (-1, 4))},
            id="the-input-itself-twice",
        ),
        pytest.param(
            module(lambda s, x: x.sum()),
            {"input_shapes": X, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (1,))},
            id="rank-0-is-one-element",
        ),
        pytest.param(
            module(two),
            {"input_shapes": {"b": (None, 4), "a": (None, 4)}, "output_names": ["y"]},
            {"a": ("TYPE_FP32", (-1, 4)), "b": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="inputs-in-another-order-match-by-name",
        ),
        pytest.param(
            module(two),
            {"input_shapes": {"first": (None, 4), "second": (None, 4)}, "output_names": ["y"]},
            {"first": ("TYPE_FP32", (-1, 4)), "second": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="names-of-their-own-match-by-position",
        ),
        pytest.param(
            module(lambda s, x, mask=None, scale=None: (x if mask is None else x * mask) * (scale + 1)),
            {"input_shapes": {"x": (None, 4), "scale": (None, 4)}, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4)), "scale": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="an-optional-input-in-between-is-left-out",
        ),
        pytest.param(
            module(lambda s, x, *, scale: x * scale),
            {"input_shapes": {"scale": (None, 1), "x": (None, 4)}, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4)), "scale": ("TYPE_FP32", (-1, 1))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="a-parameter-that-goes-by-name-alone",
        ),
        pytest.param(
            nn.Embedding(10, 4),
            {"input_shapes": {"ids": (None, 7)}, "input_types": {"ids": "int64"}, "output_names": ["y"]},
            {"ids": ("TYPE_INT64", (-1, 7))},
            {"y": ("TYPE_FP32", (-1, 7, 4))},
            id="int64-and-a-small-vocabulary",
        ),
        pytest.param(
            nn.Linear(4, 2).half(),
            {"input_shapes": X, "output_names": ["y"]},
            {"x": ("TYPE_FP16", (-1, 4))},
            {"y": ("TYPE_FP16", (-1, 2))},
            id="half-precision-weights",
        ),
        pytest.param(
            nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            {"input_shapes": {"image": (None, 3, None, None)}, "output_names": ["y"]},
            {"image": ("TYPE_FP32", (-1, 3, -1, -1))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="dynamic-height-and-width",
        ),
        pytest.param(
            module(lambda s, x: x.reshape(2, -1)),
            {"input_shapes": {"x": (4, 4)}, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (4, 4))},
            {"y": ("TYPE_FP32", (2, 8))},
            id="a-declared-fixed-batch",
        ),
        pytest.param(
            module(lambda s, x: torch.log(x)),
            {"input_shapes": X, "output_names": ["y"]},
            {"x": ("TYPE_FP32", (-1, 4))},
            {"y": ("TYPE_FP32", (-1, 4))},
            id="nan-where-the-model-says-nan",
        ),
    ],
)
def test_exports(
    entry: qv.Entry, model: nn.Module, arguments: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
) -> None:
    entry.export_version(model, **arguments)
    assert shapes(entry.inputs) == inputs
    assert shapes(entry.outputs) == outputs
    entry.export_version(model)
    assert entry.versions == [1, 2]


@pytest.mark.parametrize(
    ("model", "arguments", "error", "fact"),
    [
        pytest.param(nn.Linear(4, 1), {}, InvalidInputError, "input_shapes", id="no-shapes"),
        *(
            pytest.param(
                nn.Linear(4, 1),
                {"input_shapes": X, name: value},
                InvalidInputError,
                f"{name}=.* finite",
                id=f"{name}-{value}",
            )
            for name, value in (("rtol", float("inf")), ("rtol", float("nan")), ("rtol", -1), ("atol", float("inf")))
        ),
        pytest.param(nn.Linear(4, 1), {"input_shapes": {}}, InvalidInputError, "empty", id="empty-shapes"),
        pytest.param(nn.Linear(4, 1), {"input_shapes": {"x": "4"}}, InvalidInputError, "sequence", id="shape-text"),
        pytest.param(nn.Linear(4, 1), {"input_shapes": {"x": (None, -3)}}, InvalidInputError, "-3", id="shape-sign"),
        pytest.param(
            nn.Linear(4, 1), {"input_shapes": X, "output_names": "y"}, InvalidInputError, "sequence", id="names-text"
        ),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "output_names": ["y", "z"]},
            InvalidInputError,
            "2 output_names",
            id="2",
        ),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "input_types": {"z": "int64"}},
            InvalidInputError,
            "no input",
            id="type-of-nothing",
        ),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "input_types": {"x": "quaternion"}},
            InvalidInputError,
            "float32",
            id="type",
        ),
        pytest.param(
            nn.Linear(4, 1), {"input_shapes": {"x": (None, 5)}}, ExportError, "the model itself fails", id="wrong-width"
        ),
        pytest.param(
            module(lambda s, x: s.nothing), {"input_shapes": X}, ExportError, "nothing", id="a-model-that-raises"
        ),
        pytest.param(
            module(lambda s, x: x.reshape(int(x.shape[0]), 2, 2)),
            {"input_shapes": X},
            ExportError,
            "batch fixed at 2",
            id="a-batch-frozen-by-int",
        ),
        pytest.param(
            nn.Sequential(module(lambda s, x: x.reshape(2, 4)), nn.Linear(4, 1)),
            {"input_shapes": X},
            ExportError,
            "the model itself fails",
            id="a-batch-hard-coded-in-the-model",
        ),
        pytest.param(
            module(lambda s, x: x.reshape(2, -1)),
            {"input_shapes": X, "max_batch_size": 8},
            ExportError,
            "lead with the batch",
            id="an-output-without-the-batch",
        ),
        pytest.param(
            module(lambda s, x: x * 2),
            {"input_shapes": {"x": (4, 4)}, "max_batch_size": 8},
            ExportError,
            "lead with the batch",
            id="max-batch-size-on-a-fixed-batch",
        ),
        pytest.param(
            module(lambda s, x: x - x.mean(0, keepdim=True)),
            {"input_shapes": X, "max_batch_size": 8},
            ExportError,
            "depends on the other rows",
            id="rows-that-mix",
        ),
        pytest.param(
            module(lambda s, x: x * 2 if x.sum() > 0 else x - 1),
            {"input_shapes": X},
            ExportError,
            r"test_torch\.py:\d+ makes a Python value .* torch\.where",
            id="a-branch-frozen-by-tracing",
        ),
        pytest.param(
            module(lambda s, x: x + torch.rand_like(x)),
            {"input_shapes": X},
            VerificationError,
            "another answer each time",
            id="chance",
        ),
        pytest.param(
            module(lambda s, x: torch.fft.rfft(x)), {"input_shapes": X}, ExportError, "complex", id="complex-output"
        ),
        pytest.param(module(lambda s, x: (x, 3)), {"input_shapes": X}, ExportError, "a int", id="a-number-beside"),
        pytest.param(module(lambda s, x: None), {"input_shapes": X}, ExportError, "no tensor", id="nothing-returned"),
        pytest.param(nn.Linear(4, 1).bfloat16(), {"input_shapes": X}, ExportError, "bfloat16", id="bfloat16"),
        pytest.param(
            module(lambda s, x: x.bfloat16()), {"input_shapes": X}, ExportError, "output 0 is bfloat16", id="a-bfloat16"
        ),
        pytest.param(nn.Linear(4, 1), {"input_shapes": X, "opset": 22}, InvalidInputError, "opset 22", id="opset"),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "sample_inputs": {"z": np.zeros((1, 4))}},
            InvalidInputError,
            "has inputs z",
            id="samples-of-another-input",
        ),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "sample_inputs": {"x": [["a"] * 4]}},
            InvalidInputError,
            "holds <U1 values that are no TYPE_FP32",
            id="samples-of-another-type",
        ),
        pytest.param(
            nn.Linear(4, 1),
            {"input_shapes": X, "sample_inputs": {"x": np.zeros((1, 5))}},
            InvalidInputError,
            r"\[1, 5\]",
            id="samples-of-another-shape",
        ),
        pytest.param(
            nn.Embedding(3, 2),
            {"input_shapes": {"ids": (None,)}, "sample_inputs": {"ids": np.array([7])}},
            ExportError,
            r"the model itself fails on ids int64 \[2\] \(IndexError.*as sample_inputs",
            id="samples-that-the-module-refuses",
        ),
        pytest.param(
            diverged(),
            {"input_shapes": X},
            ExportError,
            r"output_0 is NaN or infinite in every element.*nothing can be verified \(1\.weight of the module",
            id="nan-throughout",
        ),
        pytest.param(
            module(lambda s, x: (x, x.sum(1) / 0)),
            {"input_shapes": X, "output_names": ["p", "q"]},
            ExportError,
            "output q is NaN or infinite in every element",
            id="one-output-infinite-throughout",
        ),
        pytest.param(object(), {"input_shapes": X}, InvalidInputError, "cannot be exported", id="no-model"),
    ],
)
def test_refuses(
    entry: qv.Entry, root: Path, model: Any, arguments: dict[str, Any], error: type[Exception], fact: str
) -> None:
    check_refusal(entry, root, model, arguments, error, fact)


def test_outputs_that_differ_are_not_published(entry: qv.Entry, root: Path) -> None:
    """A tolerance that no runtime meets stands for a conversion that went wrong."""
    with pytest.raises(VerificationError, match=r"output y: \d+ of \d+ values differ, by up to"):
        entry.export_version(
            nn.Sequential(nn.Linear(64, 256), nn.Softmax(1)),
            input_shapes={"x": (None, 64)},
            output_names=["y"],
            rtol=0.0,
            atol=0.0,
        )
    nothing_was_published(entry, root)


def test_a_wrong_column_beside_a_large_one_is_not_published(
    entry: qv.Entry, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph answers 0 for a probability, beside a column of millions."""
    head = module(lambda s, x: torch.cat([x[:, :1] * 1e6, torch.sigmoid(x[:, 1:2])], 1))
    wrong = module(lambda s, x: torch.cat([x[:, :1] * 1e6, x[:, 1:2] * 0], 1))
    real = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda _, *args, **kwargs: real(wrong, *args, **kwargs))
    with pytest.raises(VerificationError, match="output y: "):
        entry.export_version(head, input_shapes=X, output_names=["y"])
    nothing_was_published(entry, root)
    monkeypatch.undo()
    entry.export_version(head, input_shapes=X, output_names=["y"])


def test_every_output_is_held_to_the_tolerance_of_its_own_type(entry: qv.Entry, root: Path) -> None:
    """Also when it is verified again: a half-precision output beside it loosens nothing."""
    model = module(lambda s, x: {"fine": x * 2, "half": x.half()})
    path = Path(entry.export_version(model, input_shapes=X))
    record = entry.versions[-1].manifest.verification
    assert (record.rtol, record.atol) == (None, None)
    proto = onnx.load(path)
    proto.graph.output[0].name = "exact"
    (node,) = (n for n in proto.graph.node if "fine" in n.output)
    node.output[0] = "exact"
    proto.graph.node.append(onnx.helper.make_node("Mul", ["exact", "bit"], ["fine"]))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.005), "bit"))
    proto.graph.output[0].name = "fine"
    path.write_bytes(proto.SerializeToString())
    manifest = entry.versions[-1].manifest
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    files = manifest.files | {"model.onnx": FileRecord(sha256=sha256, size=path.stat().st_size)}
    forged = manifest.model_copy(update={"files": files})
    (path.parent / ".manifest.json").write_bytes(forged.to_bytes())
    with pytest.raises(VerificationError, match="output fine: "):
        verify_version(RepositoryReader(root), "my-model", 1)
    entry.export_version(model, rtol=0.01)
    assert entry.versions[-1].manifest.verification.rtol == 0.01


def test_one_file_without_paths_of_this_machine(entry: qv.Entry) -> None:
    """torch writes weights beside the model and its own source lines into it, by default."""
    path = Path(entry.export_version(nn.Sequential(nn.Linear(300, 300), nn.ReLU()), input_shapes={"x": (None, 300)}))
    assert sorted(p.name for p in path.parent.iterdir()) == [
        ".config.pbtxt",
        ".golden.npz",
        ".manifest.json",
        "model.onnx",
    ]
    data = path.read_bytes()
    for private in (str(Path(__file__).parent), str(Path(torch.__file__).parent), "forward", "stack_trace"):
        assert private.encode() not in data
    proto = onnx.load(str(path))
    assert proto.ir_version <= 10
    assert all(o.version <= 21 for o in proto.opset_import)
    manifest = entry.versions[-1].manifest
    assert (manifest.opset, manifest.ir_version) == (18, proto.ir_version)
    assert manifest.framework == f"torch {torch.__version__}"


def test_the_same_model_gives_the_same_bytes(entry: qv.Entry) -> None:
    model = nn.Linear(4, 2)
    paths = [Path(entry.export_version(model, input_shapes=X)) for _ in range(2)]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert (paths[0].parent / ".golden.npz").read_bytes() == (paths[1].parent / ".golden.npz").read_bytes()


def test_a_scalar_for_each_row_is_reshaped(entry: qv.Entry) -> None:
    """Triton has no tensors without dims."""
    entry.export_version(module(lambda s, x: x.sum(1)), input_shapes=X, output_names=["y"], max_batch_size=8)
    (output,) = entry.config.output
    assert list(output.dims) == [1]
    assert output.HasField("reshape")
    assert list(output.reshape.shape) == []
    assert entry.outputs["y"].dims == (-1,)


def test_samples_of_one_s_own_are_the_golden_ones(entry: qv.Entry) -> None:
    sample = {"x": np.full((3, 4), 7.0, np.float32)}
    path = Path(entry.export_version(nn.Linear(4, 2), X, ["y"], sample_inputs=sample))
    golden = load_golden(path.parent / ".golden.npz")
    assert sorted(len(s.inputs["x"]) for s in golden) == [1, 2, 3, 5, 17]
    assert all((s.inputs["x"] == 7.0).all() for s in golden)
    assert entry.versions[-1].manifest.verification.batch_sizes == (1, 2, 3, 5, 17)


def test_a_second_export_may_widen_nothing(entry: qv.Entry) -> None:
    entry.export_version(nn.Linear(4, 2), input_shapes=X, output_names=["y"])
    before = str(entry.config)
    with pytest.raises(ValueError, match=r"output 'z' is new; output 'y' is gone.* add --force \(add"):
        entry.export_version(nn.Linear(4, 2), output_names=["z"])
    with pytest.raises(ValueError, match="and was TYPE_FP32"):
        entry.export_version(nn.Linear(4, 3))
    assert entry.versions == [1]
    assert str(entry.config) == before


@pytest.mark.parametrize("traced", [False, True])
def test_a_large_module_has_a_data_file(
    entry: qv.Entry, root: Path, monkeypatch: pytest.MonkeyPatch, traced: bool
) -> None:
    """And nothing is left of the files that torch wrote first."""
    monkeypatch.setattr(exporters.files, "INLINE_LIMIT", 1000)
    model: Any = nn.Linear(64, 8)
    if traced:
        model = torch.jit.trace(model, torch.ones(1, 64))
    path = Path(entry.export_version(model, {"x": (None, 64)}))
    own = {".config.pbtxt", ".golden.npz", ".manifest.json"}
    assert {file.name for file in path.parent.iterdir()} - own == {"model.onnx", "model.onnx.data"}
    assert path.stat().st_size < 2000 < path.with_name("model.onnx.data").stat().st_size
    assert {place.name for place in root.iterdir()} <= {"my-model", ".my-model.gravswell.json"}
    verify_version(RepositoryReader(root), "my-model", 1)


def test_what_torch_needs_is_named(entry: qv.Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "gravswell.quiver.exporters.torch.export", raising=False)
    monkeypatch.delattr(exporters.torch, "export", raising=False)
    with pytest.raises(UnsupportedError, match=re.escape(f"needs onnxscript: {install('torch')}")):
        entry.export_version(nn.Linear(4, 2), input_shapes=X)


def test_a_target_of_an_old_triton_is_kept_to(entry: qv.Entry) -> None:
    """torch's default exporter writes opset 18, which Triton 20.11 does not take: the other one writes 12."""
    model = nn.Sequential(nn.Linear(64, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 1))
    path = entry.export_version(model, {"x": (None, 64)}, ["y"], target="20.11")
    written = onnx.load(path)
    assert (written.opset_import[0].version, written.ir_version) == (12, 7)
    assert entry.versions[-1].manifest.target == "20.11"
    assert entry.inputs["x"].dims == (-1, 64)
