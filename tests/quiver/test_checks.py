"""What a configuration is refused for when it is written: never for what Triton's sources take."""

import pytest

from gravswell.errors import InvalidInputError
from gravswell.quiver.checks import Severity, findings, refuse_new
from gravswell.quiver.config import parse_config

X, Y = 'input { name: "x" data_type: TYPE_FP32 dims: 4 } ', 'output { name: "y" data_type: TYPE_FP32 dims: 4 } '
ONNX = 'platform: "onnxruntime_onnx" '
FROM_X = 'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "n" data_type: TYPE_FP32 source_input: "x" } '
TO_Y = 'batch_output { target_name: "y" source_input: "x" } '


def _parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def _refused(text: str) -> list[str]:
    return [f.rule.id for f in findings(parse_config(text)) if f.severity is Severity.REFUSED]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('backend: "tensorrt" instance_group { profile: "0" }', id="Triton fills in tensorrt_plan"),
        pytest.param('instance_group { profile: "0" }', id="or takes it from the files"),
        pytest.param('backend: "tensorrt" ' + X.replace("dims", "is_shape_tensor: true dims"), id="a shape tensor"),
        pytest.param(ONNX + 'backend: "python"', id="python takes any platform"),
        pytest.param(ONNX + 'backend: "my_onnx"', id="and so does any backend of one's own"),
        pytest.param('platform: "torch_aoti"', id="a platform of newer servers"),
        pytest.param('platform: "mine" default_model_filename: "model.py"', id="a file that names the backend"),
        *(
            pytest.param(ONNX + _parameter("enable_mem_arena", value), id=f"enable_mem_arena {value}")
            for value in ("true", "False", "on", "0")
        ),
        pytest.param(ONNX + _parameter("intra_op_thread_count", " 4.0"), id="as std::stoi reads it"),
        pytest.param(ONNX + _parameter("execution_mode", "1 "), id="and a mode"),
        pytest.param(ONNX + FROM_X + TO_Y, id="names of tensors that are not stated yet"),
        pytest.param(
            ONNX + X.replace("dims: 4", "dims: -1") + 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" '
            "value { data_type: TYPE_FP32 dims: 0 zero_data: true } } }",
            id="a warm-up with nothing in it",
        ),
    ],
)
def test_what_triton_takes_is_not_refused(text: str) -> None:
    assert _refused(text) == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (ONNX + 'backend: "pytorch"', "platform-differs"),
        ('platform: "onnx" backend: "onnxruntime"', "platform-differs"),
        ('platform: "onnx"', "platform-unknown"),
        (ONNX + 'instance_group { profile: "0" }', "group-profile"),
        (ONNX + _parameter("enable_mem_arena", "maybe"), "parameter-value"),
        (ONNX + _parameter("execution_mode", "2"), "parameter-value"),
        (ONNX + X + Y + FROM_X.replace('source_input: "x"', 'source_input: "q"'), "batch-source"),
    ],
)
def test_what_it_refuses_still_is(text: str, rule: str) -> None:
    assert _refused(text) == [rule]


def test_an_edit_may_take_out_what_stands_before_an_old_fault() -> None:
    wrong = "instance_group { kind: KIND_CPU count: 1 gpus: 0 } "
    before = parse_config(ONNX + "instance_group { kind: KIND_CPU count: 1 } " + wrong)
    after = parse_config(ONNX + wrong)
    refuse_new(before, after, "here")
    with pytest.raises(InvalidInputError, match=r"instance_group\[1\]\.gpus"):
        refuse_new(after, parse_config(ONNX + wrong + wrong), "here")
