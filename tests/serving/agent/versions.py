"""Small published versions, made directly in a folder: also ones that a sound exporter would never publish."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from gravswell.quiver.golden import Sample, save_golden
from gravswell.quiver.manifest import (
    GOLDEN,
    MANIFEST,
    MODEL_FILE,
    VERSION_CONFIG,
    FileRecord,
    Manifest,
    MemberRecord,
    Signature,
    TensorRecord,
    VerificationRecord,
    digest_of,
)

WIDTH = 4
OPSET = 17


def config_text(name: str, *, kind: str = "KIND_GPU") -> str:
    """The config of a model that takes x[-1, 4] and answers y[-1, 4]."""
    return (
        f'name: "{name}"\nplatform: "onnxruntime_onnx"\n'
        f'input {{ name: "x" data_type: TYPE_FP32 dims: [ -1, {WIDTH} ] }}\n'
        f'output {{ name: "y" data_type: TYPE_FP32 dims: [ -1, {WIDTH} ] }}\n'
        f"instance_group {{ count: 1 kind: {kind} }}\n"
    )


def scaling_graph(factor: float) -> bytes:
    """y = x * factor: the answer tells which version gave it."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def failing_graph() -> bytes:
    """Loads, and fails every inference: no x of the golden samples can have that shape."""
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "odd"], ["other"]),
            helper.make_node("Neg", ["other"], ["turned"]),
            helper.make_node("Reshape", ["turned", "even"], ["y"]),
        ],
        "failing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            helper.make_tensor("odd", TensorProto.INT64, [2], [-1, 1 + 7 * WIDTH]),
            helper.make_tensor("even", TensorProto.INT64, [2], [-1, WIDTH]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def picky_graph(factor: float) -> bytes:
    """y = x * factor, and an error for an x of 200 or more: right by its golden samples, and wrong in production."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Div", ["largest", "hundred"], ["hundreds"]),
        helper.make_node("Floor", ["hundreds"], ["floor"]),
        helper.make_node("Max", ["floor", "zero"], ["index"]),
        helper.make_node("Cast", ["index"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["factors", "place"], ["chosen"]),
        helper.make_node("Mul", ["x", "chosen"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "picky",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [
            helper.make_tensor("hundred", TensorProto.FLOAT, [], [100.0]),
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("factors", TensorProto.FLOAT, [2], [factor, factor]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def endless_graph() -> bytes:
    """Takes x, and answers y when it has gone round more often than anybody can wait for."""
    n = helper.make_tensor_value_info("n", TensorProto.INT64, [])
    go_on = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("on", "on_out")]
    row = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in ("v", "v_out", "x", "y")]
    step = [helper.make_node("Identity", ["on"], ["on_out"]), helper.make_node("Neg", ["v"], ["v_out"])]
    body = helper.make_graph(step, "round", [n, go_on[0], row[0]], [go_on[1], row[1]])
    constants = [
        helper.make_tensor("rounds", TensorProto.INT64, [], [1 << 60]),
        helper.make_tensor("yes", TensorProto.BOOL, [], [True]),
    ]
    loop = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)
    graph = helper.make_graph([loop], "endless", [row[2]], [row[3]], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


SLEEPER = """
import time

class TritonPythonModel:
    def initialize(self, args):
        while True:
            time.sleep(1)
"""
"""A model of Triton's Python backend whose load never ends."""


def publish(
    repository: Path,
    entry: str,
    number: int,
    factor: float,
    *,
    graph: bytes | None = None,
    golden_factor: float | None = None,
    golden: bool = True,
    python: str | None = None,
    opset: int = OPSET,
) -> str:
    """Publish version ``number`` with correct hashes; return its digest.

    ``graph`` replaces the model file's bytes, ``golden_factor`` makes the golden outputs those of another factor,
    ``python`` is a ``model.py`` that Triton's Python backend serves in place of the graph, and ``opset`` is what the
    manifest says of the graph.
    """
    stage = _stage(repository, entry, number)
    (stage / MODEL_FILE).write_bytes(scaling_graph(factor) if graph is None else graph)
    (stage / VERSION_CONFIG).write_text(config_text(entry))
    if python is not None:
        (stage / "model.py").write_text(python)
        config = config_text(entry).replace('platform: "onnxruntime_onnx"', 'backend: "python"')
        (stage / VERSION_CONFIG).write_text(config)
    if golden:
        save_golden(stage / GOLDEN, _samples(number, factor if golden_factor is None else golden_factor))
    return _put(repository, entry, number, stage, opset=opset)


def publish_member(
    repository: Path, entry: str, number: int, factor: float, *, alias: str = "", **how: object
) -> MemberRecord:
    """Publish a version as :func:`publish` does, and return what a pipeline says of it."""
    digest = publish(repository, entry, number, factor, **how)  # type: ignore[arg-type]
    return MemberRecord(alias=alias or entry, model=entry, version=number, digest=digest)


def publish_pipeline(
    repository: Path, entry: str, number: int, factor: float, *members: MemberRecord, public: bool = False
) -> str:
    """Publish an ensemble that takes x through ``members`` in turn, and of which the outcome is x * ``factor``.

    Where it is ``public``, it lets clients call its members, too.
    """
    stage = _stage(repository, entry, number)
    text = config_text(entry).partition("instance_group")[0]
    text = text.replace("onnxruntime_onnx", "ensemble") + "ensemble_scheduling {\n"
    tensors = ["x", *(f"t{k}" for k in range(1, len(members))), "y"]
    for member, x, y in zip(members, tensors[:-1], tensors[1:], strict=True):
        text += (
            f'step {{ model_name: "{member.model}" model_version: {member.version} '
            f'input_map {{ key: "x" value: "{x}" }} output_map {{ key: "y" value: "{y}" }} }}\n'
        )
    text += "}\n"
    access = "public" if public else "private"
    text += f'parameters {{ key: "gravswell.access" value {{ string_value: "{access}" }} }}\n'
    (stage / VERSION_CONFIG).write_text(text)
    save_golden(stage / GOLDEN, _samples(number, factor))
    return _put(repository, entry, number, stage, members=members)


def _stage(repository: Path, entry: str, number: int) -> Path:
    stage = repository.parent / f"stage-{entry}-{number}"
    stage.mkdir()
    return stage


def _samples(seed: int, factor: float) -> list[Sample]:
    rng = np.random.default_rng(seed)
    samples = []
    for rows in (1, 3):
        x = rng.standard_normal((rows, WIDTH)).astype(np.float32)
        samples.append(Sample({"x": x}, {"y": (x * np.float32(factor)).astype(np.float32)}))
    return samples


def _put(
    repository: Path, entry: str, number: int, stage: Path, members: Sequence[MemberRecord] = (), opset: int = OPSET
) -> str:
    """Write the manifest, and let the version appear; return its digest."""
    folder = repository / entry
    folder.mkdir(parents=True, exist_ok=True)
    signature = Signature(
        inputs=(TensorRecord(name="x", data_type="TYPE_FP32", dims=(-1, WIDTH)),),
        outputs=(TensorRecord(name="y", data_type="TYPE_FP32", dims=(-1, WIDTH)),),
    )
    files = {path.name: _record(path) for path in sorted(stage.iterdir())}
    manifest = Manifest(
        model=entry,
        version=number,
        created=datetime(2026, 1, number, tzinfo=UTC),
        files=files,
        signature=signature,
        opset=opset,
        ir_version=9,
        exporter="test",
        framework="test",
        gravswell="0",
        verification=VerificationRecord(reference="test", samples=2, rtol=1e-4, atol=1e-5),
        members=tuple(dict.fromkeys(members)),
    ).to_bytes()
    (stage / MANIFEST).write_bytes(manifest)
    if not (folder / "config.pbtxt").exists():
        (folder / "config.pbtxt").write_text((stage / VERSION_CONFIG).read_text())
    stage.rename(folder / str(number))
    return digest_of(manifest)


def flip_a_bit(path: Path) -> None:
    """Damage a file as a disk or a cable does."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def _record(path: Path) -> FileRecord:
    data = path.read_bytes()
    return FileRecord(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
