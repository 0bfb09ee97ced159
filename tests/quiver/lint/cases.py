"""Models as others write them, each with the rules that it breaks; the last word has the real Triton."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def affine(batch: int | str = "batch", *, opset: int = 18, ir_version: int = 9, data: str | None = None) -> bytes:
    """``y = 2x`` over rows of 4; with ``data`` the 2 lies in that file."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "affine",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 4])],
        [numpy_helper.from_array(np.array([2], np.float32), "scale")],
    )
    if data is not None:
        tensor = graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=data)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    return bytes(made.SerializeToString())


def two_outputs() -> bytes:
    """``affine`` that also returns its input."""
    model = onnx.load_from_string(affine())
    model.graph.node.append(helper.make_node("Identity", ["x"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 4]))
    return bytes(model.SerializeToString())


def split() -> bytes:
    """A graph that returns a sequence of tensors, which no Triton tensor holds."""
    graph = helper.make_graph(
        [helper.make_node("SplitToSequence", ["x"], ["y"])],
        "split",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    )


TWO = np.array([2], np.float32).tobytes()
ONE = "instance_group { kind: KIND_CPU count: 1 } "  # a process for each instance: the fewer the sooner
ONNX = 'platform: "onnxruntime_onnx" ' + ONE
X, Y = (
    'input { name: "x" data_type: TYPE_FP32 dims: [-1, 4] } ',
    'output { name: "y" data_type: TYPE_FP32 dims: [-1, 4] } ',
)
PLAIN = ONNX + X + Y
BATCHED = ONNX + 'max_batch_size: 8 input { name: "x" data_type: TYPE_FP32 dims: [4] } '
BATCHED += 'output { name: "y" data_type: TYPE_FP32 dims: [4] } '
GOOD = {"1/model.onnx": affine()}
EMPTY: dict[str, bytes] = {"1/.keep": b""}


def ensemble(step: str, rest: str = "") -> str:
    """An ensemble of one step."""
    return f'platform: "ensemble" {X}{Y} ensemble_scheduling {{ step {{ {step} }} }} {rest}'


def step(model: str = "good", version: int = -1, key: str = "x", value: str = "x") -> str:
    """One step's text."""
    maps = f'input_map {{ key: "{key}" value: "{value}" }} output_map {{ key: "y" value: "y" }}'
    return f'model_name: "{model}" model_version: {version} {maps}'


@dataclass(frozen=True)
class Case:
    """A model folder, the rules that it breaks, and whether Triton is asked: not where it hangs or was asked before."""

    config: str | None
    rules: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: GOOD)
    links: dict[str, str] = field(default_factory=dict)
    asked: bool = True

    def write(self, folder: Path) -> None:
        """Make the folder."""
        folder.mkdir(parents=True)
        if self.config is not None:
            (folder / "config.pbtxt").write_text(self.config)
        for path, content in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        for path, target in self.links.items():
            (folder / path).symlink_to(target)


def _dims(x: str, y: str = "[-1, 4]", **more: Any) -> str:
    extra = " ".join(f"{key} {{ shape: {value} }}" for key, value in more.items())
    return (
        f'{ONNX} input {{ name: "x" data_type: TYPE_FP32 dims: {x} {extra} }} '
        f'output {{ name: "y" data_type: TYPE_FP32 dims: {y} }}'
    )


CASES = {
    "good": Case(PLAIN),
    "batched": Case(BATCHED + "dynamic_batching { preferred_batch_size: [4] }"),
    "backend-only": Case('backend: "onnxruntime" ' + X + Y, asked=False),
    "other-file": Case(PLAIN + 'default_model_filename: "a.onnx"', files={"1/a.onnx": affine()}),
    "input-narrowed": Case(_dims("[3, 4]")),
    "reshaped": Case(_dims("[8]", reshape="[2, 4]")),
    "own-data": Case(PLAIN, files={"1/model.onnx": affine(data="two.bin"), "1/two.bin": TWO}),
    "ensemble": Case(ensemble(step()), files=EMPTY),
    # folders and names
    "no-model": Case(None, "no-model", {"notes/a.txt": b"a"}),
    "named-otherwise": Case('name: "other" ' + PLAIN, "name-differs"),
    ".hidden": Case(PLAIN, "name-unusable"),
    "no-version": Case(PLAIN, "no-version", {}),
    "no-number": Case(PLAIN, "no-version version-stray", {"abc/model.onnx": affine()}),
    "leading-zero": Case(PLAIN, "no-version version-stray", {"01/model.onnx": affine()}),
    "leftover": Case(PLAIN, "version-misread", {**GOOD, "2.tmp/model.onnx": affine()}),
    "leftover-alone": Case(None, "config-missing version-misread", {**GOOD, "2.tmp/model.onnx": affine()}),
    "leftover-of-published": Case(PLAIN, "version-stray", {**GOOD, "1.tmp/model.onnx": affine()}, asked=False),
    "negative": Case(PLAIN, "version-misread", {"-1/model.onnx": affine()}),
    "negative-unchosen": Case(PLAIN, "version-stray", {**GOOD, "-1/model.onnx": affine()}, asked=False),
    "plus": Case(PLAIN, "version-misread", {"+4/model.onnx": affine()}, asked=False),
    "zero": Case(PLAIN, "version-stray", {"0/model.onnx": affine()}),
    "hidden-version": Case(PLAIN, "version-stray", {**GOOD, ".1/model.onnx": affine()}, asked=False),
    "stray-file": Case(PLAIN, "file-stray", {**GOOD, "README.md": b"a"}, asked=False),
    "policy-in-part": Case(PLAIN + "version_policy { specific { versions: [1, 7] } }", "policy-absent"),
    "policy-in-vain": Case(PLAIN + "version_policy { specific { versions: [7] } }", "policy-absent no-version"),
    "policy-of-none": Case(PLAIN + "version_policy { latest {} }", "no-version"),
    "no-file": Case(PLAIN, "file-missing", {"1/other.onnx": affine()}),
    "unchosen-damage": Case(PLAIN, "", {"1/model.onnx": b"no model", "2/model.onnx": affine()}),
    # the config
    "no-config": Case(None, "config-missing"),
    "no-text": Case(PLAIN + "input [", "config-unreadable"),
    "unknown-field": Case(PLAIN + "frobnicate: 3", "field-unknown"),
    "unknown-inside": Case(PLAIN.replace(ONE, "") + "instance_group { frobnicate: 3 }", "field-unknown group-count"),
    "no-platform": Case(X + Y, "platform-guessed"),
    "odd-platform": Case('platform: "onnx" ' + X + Y, "platform-unknown"),
    "two-platforms": Case(PLAIN + 'backend: "python"', "platform-differs file-missing", asked=False),  # Triton hangs
    "batch-below-0": Case(PLAIN + "max_batch_size: -1", "batch-negative"),
    "no-tensors": Case(ONNX, "tensors-guessed"),
    "no-tensors-fixed": Case(ONNX, "tensors-guessed", {"1/model.onnx": affine(2)}, asked=False),
    "input-alone": Case(ONNX + X, "tensors-guessed dims-differ"),
    "output-alone": Case(ONNX + Y, "tensors-guessed dims-differ", asked=False),
    "no-dims": Case(_dims("[]"), "tensor-incomplete"),
    "dim-0": Case(_dims("[0, 4]"), "tensor-incomplete", asked=False),
    "no-type": Case(PLAIN.replace("data_type: TYPE_FP32", "", 1), "tensor-incomplete"),
    "no-name": Case(PLAIN.replace('name: "x"', ""), "tensor-incomplete tensor-unknown input-missing"),
    "reshaped-wrongly": Case(_dims("[9]", reshape="[2, 4]"), "tensor-incomplete"),
    "twice": Case(PLAIN + X, "tensor-twice"),
    # the graph
    "garbage": Case(PLAIN, "graph-unloadable", {"1/model.onnx": b"no model"}),
    "empty": Case(PLAIN, "graph-unloadable", {"1/model.onnx": b""}, asked=False),
    "sequence": Case(PLAIN, "tensor-unservable", {"1/model.onnx": split()}),
    "other-names": Case(PLAIN.replace('"x"', '"z"'), "tensor-unknown input-missing"),
    "other-output": Case(PLAIN + Y.replace('"y"', '"z"'), "tensor-unknown", asked=False),
    "output-unstated": Case(PLAIN, "output-missing", {"1/model.onnx": two_outputs()}),
    "other-type": Case(PLAIN.replace("FP32", "FP64", 1), "type-differs"),
    "output-narrowed": Case(_dims("[-1, 4]", "[3, 4]"), "dims-differ"),
    "input-widened": Case(_dims("[-1, -1]"), "dims-differ"),
    "fixed": Case(BATCHED, "not-batchable", {"1/model.onnx": affine(2)}),
    "climbing": Case(PLAIN, "data-outside file-stray", {"1/model.onnx": affine(data="../two.bin"), "two.bin": TWO}),
    "absolute": Case(PLAIN, "data-outside", {"1/model.onnx": affine(data="/etc/hostname")}, asked=False),
    "linked": Case(
        PLAIN, "data-outside", {"1/model.onnx": affine(data="two.bin")}, {"1/two.bin": "/etc/hostname"}
    ),
    "data-gone": Case(PLAIN, "data-missing", {"1/model.onnx": affine(data="two.bin")}),
    # scheduling
    "prefers-more": Case(BATCHED + "dynamic_batching { preferred_batch_size: [16] }", "preferred-size"),
    "prefers-some": Case(PLAIN + "dynamic_batching { preferred_batch_size: [4] }", "preferred-size"),
    "nothing-to-batch": Case(PLAIN + "dynamic_batching {}", "batching-unused"),
    "priorities": Case(BATCHED + "dynamic_batching { priority_levels: 2 }", "priority-default"),
    "gpu-of-a-cpu": Case(PLAIN.replace(ONE, "") + "instance_group { kind: KIND_CPU count: 1 gpus: [0] }", "group-gpus"),
    "gpu-of-any": Case(PLAIN.replace(ONE, "") + "instance_group { count: 1 gpus: [0] }", "group-gpus", asked=False),
    "gpu": Case(PLAIN.replace(ONE, "") + "instance_group { kind: KIND_GPU count: 1 }", "group-needs-gpu", asked=False),
    "count": Case(PLAIN.replace(ONE, "") + "instance_group { kind: KIND_CPU count: -1 }", "group-count"),
    "warm-up": Case(
        PLAIN + 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value '
        '{ data_type: TYPE_FP32 dims: [1, 4] input_data_file: "none" } } }',
        "warmup-file",
    ),
    "labels": Case(PLAIN.replace("dims: [-1, 4] } ", 'dims: [-1, 4] label_filename: "a.txt" } ').replace(
        'label_filename: "a.txt"', "", 1
    ), "labels-missing"),
    # ensembles
    "no-step": Case(f'platform: "ensemble" {X}{Y}', "ensemble-empty", EMPTY),
    "instances": Case(ensemble(step(), "instance_group { count: 1 }"), "ensemble-instances", EMPTY),
    "member-gone": Case(ensemble(step("gone")), "step-missing", EMPTY),
    "member-version": Case(ensemble(step(version=9)), "step-version", EMPTY),
    "member-tensor": Case(ensemble(step(key="q")), "step-tensor", EMPTY),
    "unmade": Case(ensemble(step(value="z")), "tensor-unmade", EMPTY),
}  # fmt: skip
