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


def stateful() -> bytes:
    """``affine`` with a state that goes through it."""
    model = onnx.load_from_string(affine())
    model.graph.node.append(helper.make_node("Identity", ["s"], ["t"]))
    model.graph.input.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, ["batch", 4]))
    model.graph.output.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, ["batch", 4]))
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
ONE_CPU = "kind: KIND_CPU count: 1 "
CONTROL = "sequence-control"
GOOD = {"1/model.onnx": affine()}
EMPTY: dict[str, bytes] = {"1/.keep": b""}
PYTHON = f'backend: "python" {X}{Y}'
MODEL_PY = {"1/model.py": b"class TritonPythonModel: ..."}


def ensemble(step: str, rest: str = "") -> str:
    """An ensemble of one step."""
    return f'platform: "ensemble" {X}{Y} ensemble_scheduling {{ step {{ {step} }} }} {rest}'


def step(model: str = "good", version: int = -1, key: str = "x", value: str = "x", made: str = "y") -> str:
    """One step's text."""
    maps = f'input_map {{ key: "{key}" value: "{value}" }} output_map {{ key: "y" value: "{made}" }}'
    return f'model_name: "{model}" model_version: {version} {maps}'


def group(text: str) -> str:
    """The plain model with that instance group."""
    return f"{PLAIN.replace(ONE, '')} instance_group {{ {text} }}"


def warmup(
    batch: int = 1,
    *,
    data_type: str = "TYPE_FP32",
    dims: str = "[1, 4]",
    data: str = "zero_data: true",
    more: str = "",
) -> str:
    """A sample for ``x``."""
    value = f"data_type: {data_type} dims: {dims} {data}"
    return f'model_warmup {{ name: "w" batch_size: {batch} inputs {{ key: "x" value {{ {value} }} }} {more} }}'


def controls(*given: str) -> str:
    """The batched model with sequences and these controls: name, kind, values."""
    inputs = ""
    for control in given:
        name, kind, *values = control.split(" ", 2)
        inputs += f'control_input {{ name: "{name}" control {{ kind: CONTROL_SEQUENCE_{kind} {"".join(values)} }} }} '
    return f"{BATCHED} sequence_batching {{ {inputs} }}"


def parameter(key: str, value: str) -> str:
    """One of ``parameters``."""
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


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
    "policy-of-none": Case(PLAIN + "version_policy { latest {} }", "no-version policy-empty"),
    "no-file": Case(PLAIN, "file-missing", {"1/other.onnx": affine()}),
    "unchosen-damage": Case(PLAIN, "", {"1/model.onnx": b"no model", "2/model.onnx": affine()}),
    # the config
    "no-config": Case(None, "config-missing"),
    "no-text": Case(PLAIN + "input [", "config-unreadable"),
    "unknown-field": Case(PLAIN + "frobnicate: 3", "field-unknown"),
    "unknown-inside": Case(PLAIN.replace(ONE, "") + "instance_group { frobnicate: 3 }", "field-unknown group-count"),
    "no-platform": Case(X + Y, "platform-guessed"),
    "odd-platform": Case('platform: "onnx" ' + X + Y, "platform-unknown"),
    "two-platforms": Case(PLAIN + 'backend: "tensorrt"', "platform-differs file-missing"),
    "no-platform-of-its": Case('platform: "onnx" backend: "onnxruntime" ' + ONE + X + Y, "platform-differs"),
    "any-platform": Case(PLAIN + 'backend: "python"', "file-missing", asked=False),  # Triton hangs without the file
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
    "gpu-of-a-model": Case(group("kind: KIND_MODEL count: 1 gpus: [0]"), "group-gpus"),
    "gpu-of-any": Case(group("count: 1 gpus: [0]"), "group-needs-gpu", asked=False),
    "gpu": Case(group("kind: KIND_GPU count: 1"), "group-needs-gpu", asked=False),
    "count": Case(group("kind: KIND_CPU count: -1"), "group-count"),
    "profile": Case(group('kind: KIND_CPU count: 1 profile: "0"'), "group-profile"),
    "resource-0": Case(group(ONE_CPU + 'rate_limiter { resources { name: "R" } }'), "resource-count"),
    "resource-of-both": Case(group(
        ONE_CPU + 'rate_limiter { resources { name: "Q" count: 1 global: true } resources { name: "Q" count: 1 } }'
    ), "resource-scope"),
    "warm-up": Case(PLAIN + warmup(data='input_data_file: "none"'), "warmup-file"),
    "warm-up-type": Case(PLAIN + warmup(data_type="TYPE_INT64"), "warmup-input"),
    "warm-up-dims": Case(PLAIN + warmup(dims="[1, 5]"), "warmup-input"),
    "warm-up-open": Case(PLAIN + warmup(dims="[-1, 4]"), "warmup-input"),
    "warm-up-no-data": Case(PLAIN + warmup(data=""), "warmup-input"),
    "warm-up-of-nothing": Case(PLAIN + 'model_warmup { name: "w" batch_size: 1 }', "warmup-input"),
    "warm-up-of-more": Case(
        PLAIN + warmup(more='inputs { key: "q" value { data_type: TYPE_FP32 dims: 1 zero_data: true } }'),
        "warmup-input",
        asked=False,  # on a server of its own, which dies of it
    ),
    "warm-up-batch": Case(BATCHED + warmup(9, dims="[4]"), "warmup-batch", asked=False),  # on a server of its own
    "warm-up-rows": Case(PLAIN + warmup(2), "warmup-batch", asked=False),
    "warm-up-never": Case(PLAIN + warmup(0, dims="[7]"), "warmup-skipped"),
    "priority-beyond": Case(BATCHED + "dynamic_batching { priority_levels: 2 default_priority_level: 1 "
        "priority_queue_policy { key: 3 value { max_queue_size: 1 } } }", "priority-policy"),
    "ordered-priorities": Case(BATCHED + "dynamic_batching { preserve_ordering: true priority_levels: 2 "
        "default_priority_level: 1 }", "preserve-ordering"),
    "ordered-delay": Case(BATCHED + "dynamic_batching { preserve_ordering: true default_queue_policy "
        "{ timeout_action: DELAY default_timeout_microseconds: 5 } }", "preserve-ordering"),
    "cached-sequence": Case(BATCHED + "response_cache { enable: true } sequence_batching {}", "cache-unable"),
    "cached-stream": Case(
        BATCHED + "response_cache { enable: true } model_transaction_policy { decoupled: true }", "cache-unable"
    ),
    "sequence-prefers": Case(
        BATCHED + "sequence_batching { oldest { max_candidate_sequences: 4 preferred_batch_size: [9] } }",
        "preferred-size",
    ),
    "two-schedulers": Case(BATCHED + "dynamic_batching {} sequence_batching {}", "config-unreadable"),
    "state": Case(  # the embedded server refuses every state
        BATCHED
        + 'sequence_batching { state { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: 4 } }',
        files={"1/model.onnx": stateful()},
        asked=False,
    ),
    "slots": Case(BATCHED + "sequence_batching { direct { minimum_slot_utilization: 1.5 } }", "slot-utilization"),
    "control-twice": Case(controls("s START int32_false_true: [0, 1]", "t START int32_false_true: [0, 1]"), CONTROL),
    "control-shared": Case(controls("s START int32_false_true: [0, 1]", "s END int32_false_true: [0, 1]"), CONTROL),
    "control-nameless": Case(controls(" START int32_false_true: [0, 1]"), CONTROL),
    "control-valueless": Case(controls("s READY"), CONTROL),
    "control-of-three": Case(controls("s START int32_false_true: [0, 1, 2]"), CONTROL),
    "control-mixed": Case(controls("s END int32_false_true: [0, 1] bool_false_true: [false, true]"), CONTROL),
    "control-of-id": Case(controls("s CORRID data_type: TYPE_FP32"), CONTROL),
    "control-of-id-pair": Case(controls("s CORRID data_type: TYPE_INT64 fp32_false_true: [0, 1]"), CONTROL),
    "parameter": Case(PLAIN + parameter("intra_op_thread_count", "many"), "parameter-value"),
    "parameter-mode": Case(PLAIN + parameter("execution_mode", "3"), "parameter-value"),
    "format": Case(PLAIN.replace('name: "x"', 'name: "x" format: FORMAT_NHWC'), "tensor-format"),
    "shape-tensor": Case(PLAIN.replace('name: "x"', 'name: "x" is_shape_tensor: true'), "tensor-format"),
    "non-linear": Case(PLAIN.replace('name: "y"', 'name: "y" is_non_linear_format_io: true'), "tensor-format"),
    "reshaped-to-none": Case(PLAIN.replace('name: "x"', 'name: "x" reshape { shape: [] }'), "tensor-incomplete"),
    "reshaped-around": Case(_dims("[4, -1]", reshape="[-1, 4]"), "tensor-incomplete"),
    "batch-of-none": Case(BATCHED + 'batch_input { target_name: "b" data_type: TYPE_FP32 }', "batch-source"),
    "batch-of-other": Case(
        BATCHED + 'batch_input { target_name: "b" data_type: TYPE_FP32 source_input: "q" }', "batch-source"
    ),
    "batch-type": Case(
        BATCHED + 'batch_input { target_name: "b" data_type: TYPE_INT64 source_input: "x" }', "batch-source"
    ),
    "batch-to-other": Case(BATCHED + 'batch_output { target_name: "q" source_input: "x" }', "batch-source"),
    "batch-to-twice": Case(BATCHED + 'batch_output { target_name: ["y", "y"] source_input: "x" }', "batch-source"),
    "labels": Case(PLAIN.replace("dims: [-1, 4] } ", 'dims: [-1, 4] label_filename: "a.txt" } ').replace(
        'label_filename: "a.txt"', "", 1
    ), "labels-missing"),
    # ensembles
    "no-step": Case(f'platform: "ensemble" {X}{Y}', "ensemble-empty", EMPTY),
    "instances": Case(ensemble(step(), "instance_group { count: 1 }"), "ensemble-instances", EMPTY),
    "member-gone": Case(ensemble(step("gone")), "step-missing", EMPTY),
    "member-version": Case(ensemble(step(version=9)), "step-version", EMPTY),
    "called-gone": Case(PYTHON + parameter("gravswell.member.a", "gone:1"), "member-missing", MODEL_PY, asked=False),
    "called-misnamed": Case(PYTHON + parameter("gravswell.member.a", "good"), "member-missing", MODEL_PY, asked=False),
    "called-version": Case(
        PYTHON + parameter("gravswell.member.a", "two-of-it:1"), "member-version", MODEL_PY, asked=False
    ),
    "two-of-it": Case(PLAIN, files={"1/model.onnx": affine(), "2/model.onnx": affine()}, asked=False),
    "member-tensor": Case(ensemble(step(key="q")), "step-tensor", EMPTY),
    "of-a-backend": Case(ensemble(step(), 'backend: "onnxruntime"'), "ensemble-platform", EMPTY),
    "of-a-platform": Case(
        ensemble(step()).replace('"ensemble"', '"onnxruntime_onnx"'), "ensemble-platform", EMPTY
    ),
    "optimized": Case(ensemble(step(), "optimization { priority: PRIORITY_MAX }"), "ensemble-section", EMPTY),
    "warmed-up": Case(ensemble(step(), warmup()), "ensemble-section", EMPTY),
    "step-of-none": Case(ensemble(step("")), "step-incomplete", EMPTY),
    "step-of-0": Case(ensemble(step().replace("model_version: -1", "")), "step-incomplete", EMPTY),
    "step-without-input": Case(
        ensemble('model_name: "good" model_version: -1 output_map { key: "y" value: "y" }'),
        "step-incomplete tensor-unused", EMPTY,
    ),
    "made-twice": Case(ensemble(f"{step()} }} step {{ {step()}"), "tensor-rewritten", EMPTY),
    "input-made": Case(  # loads; asked, it would run its step without end
        ensemble(step(made="x")).replace(Y, Y.replace('"y"', '"x"')), "tensor-rewritten", EMPTY, asked=False
    ),
    "circle": Case(
        ensemble(f"{step(value='n')} }} step {{ {step(value='y', made='n')}"), "tensor-unmade tensor-unused", EMPTY
    ),
    "input-unused": Case(ensemble(step(), X.replace('"x"', '"z"')), "tensor-unused", EMPTY),
    "unmade": Case(ensemble(step(value="z")), "tensor-unmade tensor-unused", EMPTY),
}  # fmt: skip
