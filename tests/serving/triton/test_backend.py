"""Our ``onnxruntime`` backend in a real Triton, held against ONNX Runtime in this process and Triton's C++ backend."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.grpc.aio import InferenceServerClient as AsyncClient
from tritonclient.utils import InferenceServerException

from gravswell.errors import InvalidInputError
from gravswell.serving.triton import EmbeddedTriton

Put = Callable[..., Path]
Graph = Callable[..., onnx.ModelProto]
Infer = Callable[..., dict[str, Any]]


def test_a_scikit_learn_model_answers_as_onnxruntime_does(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, infer: Infer
) -> None:
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    classifier = LogisticRegression(max_iter=1000).fit(images / 16, labels)
    model = to_onnx(classifier, images[:1], options={"zipmap": False})
    put_entry(open_repository, "digits", model, config='platform: "onnxruntime_onnx"\n')
    triton.load("digits")

    served = infer(triton.grpc_address, "digits", X=images[:4])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    label, probabilities = session.run(["label", "probabilities"], {"X": images[:4]})
    # A label is a number for each row; Triton writes that as dims [ 1 ], as its C++ backend does.
    np.testing.assert_array_equal(served["label"], label[:, None])
    np.testing.assert_allclose(served["probabilities"], probabilities, rtol=1e-5, atol=1e-6)


TYPES = [
    (TensorProto.BOOL, np.array([[True, False]])),
    (TensorProto.UINT8, np.array([[0, 255]], np.uint8)),
    (TensorProto.UINT16, np.array([[0, 65535]], np.uint16)),
    (TensorProto.UINT32, np.array([[0, 2**32 - 1]], np.uint32)),
    (TensorProto.UINT64, np.array([[0, 2**64 - 1]], np.uint64)),
    (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    (TensorProto.INT16, np.array([[-(2**15), 7]], np.int16)),
    (TensorProto.INT32, np.array([[-(2**31), 7]], np.int32)),
    (TensorProto.INT64, np.array([[-(2**63), 7]], np.int64)),
    (TensorProto.FLOAT16, np.array([[0.1, np.inf]], np.float16)),
    (TensorProto.FLOAT, np.array([[0.1, np.nan]], np.float32)),
    (TensorProto.DOUBLE, np.array([[0.1, -0.0]], np.float64)),
    (TensorProto.STRING, np.array([["Grüße".encode(), b""]], dtype=object)),
]


def test_every_type_passes_through_unchanged(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph, infer: Infer
) -> None:
    """One graph with an input and an output of each type, whose config Triton completes."""
    names = [f"t{kind}" for kind, _ in TYPES]
    model = onnx_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        [(name, kind, ["n", 2]) for name, (kind, _) in zip(names, TYPES, strict=True)],
        [(f"{name}_out", kind, ["n", 2]) for name, (kind, _) in zip(names, TYPES, strict=True)],
    )
    put_entry(open_repository, "types", model, config='platform: "onnxruntime_onnx"\n')
    triton.load("types")
    sent = {name: value for name, (_, value) in zip(names, TYPES, strict=True)}
    got = infer(triton.grpc_address, "types", **sent)
    for name, value in sent.items():
        np.testing.assert_array_equal(got[f"{name}_out"], value, strict=True)


def test_a_scalar_travels_as_one_element(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph, infer: Infer
) -> None:
    model = onnx_graph(
        [helper.make_node("Neg", ["x"], ["y"])], [("x", TensorProto.FLOAT, [])], [("y", TensorProto.FLOAT, [])]
    )
    put_entry(open_repository, "scalar", model, config='platform: "onnxruntime_onnx"\n')
    triton.load("scalar")
    assert infer(triton.grpc_address, "scalar", x=np.array([3.0], np.float32))["y"].tolist() == [-3.0]


def test_a_batch_of_scalars_is_reshaped(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph, infer: Infer
) -> None:
    model = onnx_graph(
        [helper.make_node("Neg", ["x"], ["y"])], [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, ["n"])]
    )
    put_entry(open_repository, "flat", model, config='platform: "onnxruntime_onnx"\nmax_batch_size: 4\n')
    triton.load("flat")
    assert infer(triton.grpc_address, "flat", x=np.array([[1.0], [2.0]], np.float32))["y"].tolist() == [[-1.0], [-2.0]]


def test_an_incomplete_config_is_completed_as_the_c_backend_does(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_scale: Callable[..., onnx.ModelProto]
) -> None:
    put_entry(open_repository, "bare", onnx_scale(), config='platform: "onnxruntime_onnx"\n')
    put_entry(open_repository, "bare_fixed", onnx_scale(rows=3), config='platform: "onnxruntime_onnx"\n')
    triton.load("bare")
    triton.load("bare_fixed")
    with InferenceServerClient(triton.grpc_address) as client:
        bare = client.get_model_config("bare").config
        fixed = client.get_model_config("bare_fixed").config
    assert (bare.max_batch_size, list(bare.input[0].dims), bare.HasField("dynamic_batching")) == (4, [4], True)
    assert (fixed.max_batch_size, list(fixed.input[0].dims), fixed.HasField("dynamic_batching")) == (0, [3, 4], False)


def test_optional_inputs_may_be_left_out(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph, infer: Infer
) -> None:
    tensor = (TensorProto.FLOAT, [2])
    model = onnx_graph(
        [helper.make_node("Add", ["x", "bias"], ["y"])],
        [("x", *tensor), ("bias", *tensor)],
        [("y", *tensor)],
        [helper.make_tensor("bias", TensorProto.FLOAT, [2], [10.0, 20.0])],
    )
    config = """platform: "onnxruntime_onnx"
        input { name: "x" data_type: TYPE_FP32 dims: 2 }
        input { name: "bias" data_type: TYPE_FP32 dims: 2 optional: true }
        output { name: "y" data_type: TYPE_FP32 dims: 2 }
    """
    put_entry(open_repository, "optional", model, config)
    triton.load("optional")
    x = np.array([1, 2], np.float32)
    assert infer(triton.grpc_address, "optional", x=x)["y"].tolist() == [11, 22]
    assert infer(triton.grpc_address, "optional", x=x, bias=x)["y"].tolist() == [2, 4]


def test_another_file_name_and_external_data(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, infer: Infer, onnx_graph: Graph, scale_config: str
) -> None:
    weight = onnx.numpy_helper.from_array(np.full((1, 4), 5, np.float32), "w")
    tensor = ("x", TensorProto.FLOAT, ["n", 4])
    model = onnx_graph([helper.make_node("Mul", ["x", "w"], ["y"])], [tensor], [("y", *tensor[1:])], [weight])
    folder = put_entry(open_repository, "external", b"", f'{scale_config}default_model_filename: "net.onnx"\n')
    (folder / "model.onnx").unlink()
    onnx.save(model, folder / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    triton.load("external")
    assert infer(triton.grpc_address, "external", x=np.ones((1, 4), np.float32))["y"].tolist() == [[5] * 4]


ONE_INPUT = 'input {{ name: "{0}" data_type: {1} dims: [ {2} ] }}\n'
ONE_OUTPUT = 'output {{ name: "{0}" data_type: {1} dims: [ {2} ] }}\n'


@pytest.mark.parametrize(
    ("config", "rows", "told"),
    [
        ("max_batch_size: 8\n", 3, "model does not support batching while non-zero max_batch_size"),
        (
            "max_batch_size: 8\n" + ONE_INPUT.format("x", "TYPE_FP32", "4") + ONE_OUTPUT.format("y", "TYPE_FP32", "4"),
            3,
            "fixed first dimension 3",
        ),
        (
            ONE_INPUT.format("z", "TYPE_FP32", "-1, 4") + ONE_OUTPUT.format("y", "TYPE_FP32", "-1, 4"),
            "n",
            "unexpected input 'z'; the model has x",
        ),
        (
            ONE_INPUT.format("x", "TYPE_FP64", "-1, 4") + ONE_OUTPUT.format("y", "TYPE_FP32", "-1, 4"),
            "n",
            "expects datatype TYPE_FP64 for input 'x', model provides TYPE_FP32",
        ),
        (
            ONE_INPUT.format("x", "TYPE_FP32", "-1, 5") + ONE_OUTPUT.format("y", "TYPE_FP32", "-1, 4"),
            "n",
            "the model expects dims [-1, 4]",
        ),
        (
            ONE_INPUT.format("x", "TYPE_FP32", "-1, 4") + ONE_OUTPUT.format("y", "TYPE_FP32", "2, 4"),
            "n",
            "tensor 'y'",
        ),
        ('parameters { key: "intra_op_thread_count" value { string_value: "two" } }\n', "n", "must be an integer"),
        ('parameters { key: "execution_mode" value { string_value: "2" } }\n', "n", "execution_mode"),
    ],
)
def test_a_config_that_the_graph_contradicts_is_refused(
    config: str,
    rows: Any,
    told: str,
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Put,
    onnx_scale: Callable[..., onnx.ModelProto],
) -> None:
    name = f"refused_{abs(hash((config, rows)))}"
    put_entry(open_repository, name, onnx_scale(rows=rows), f'platform: "onnxruntime_onnx"\n{config}')
    with pytest.raises(InvalidInputError) as caught:
        triton.load(name)
    assert told in str(caught.value)


def test_types_that_cannot_pass_are_refused_by_name(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph
) -> None:
    tensor = (TensorProto.BFLOAT16, [2])
    model = onnx_graph([helper.make_node("Identity", ["x"], ["y"])], [("x", *tensor)], [("y", *tensor)])
    put_entry(open_repository, "brain", model, 'platform: "onnxruntime_onnx"\n')
    with pytest.raises(InvalidInputError, match=r"input 'x' is a tensor\(bfloat16\)"):
        triton.load("brain")


def test_implicit_state_is_refused(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_scale: Callable[..., Any], batched_config: str
) -> None:
    state = """sequence_batching {
        state { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: 4 }
    }\n"""
    put_entry(open_repository, "stateful", onnx_scale(), batched_config + state)
    with pytest.raises(InvalidInputError, match="implicit state"):
        triton.load("stateful")


def test_a_switch_is_spelled_as_for_the_c_backend(
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Put,
    onnx_scale: Callable[..., onnx.ModelProto],
    scale_config: str,
) -> None:
    def load(value: str) -> None:
        config = scale_config + f'parameters {{ key: "enable_mem_arena" value {{ string_value: "{value}" }} }}\n'
        put_entry(open_repository, f"switched_{value}", onnx_scale(), config)
        triton.load(f"switched_{value}")

    for value in ("true", "ON", "1", "off"):
        load(value)
    with pytest.raises(InvalidInputError, match=r"enable_mem_arena.*'maybe'"):
        load("maybe")


def test_parameters_and_graph_level_are_accepted(
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Put,
    infer: Infer,
    onnx_scale: Callable[..., onnx.ModelProto],
    scale_config: str,
) -> None:
    values = {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "1",
        "execution_mode": "1",
        "enable_mem_arena": "False",
        "enable_mem_pattern": "0",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "session.use_device_allocator_for_initializers": "1",
    }
    config = scale_config + "optimization { graph { level: -1 } }\n"
    for key, value in values.items():
        if key != "memory.enable_memory_arena_shrinkage":  # ONNX Runtime refuses to shrink an arena that is off
            config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    put_entry(open_repository, "tuned", onnx_scale(), config)
    triton.load("tuned")
    assert infer(triton.grpc_address, "tuned", x=np.ones((1, 4), np.float32))["y"].tolist() == [[2] * 4]


async def test_requests_are_batched_and_a_bad_one_fails_alone(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph
) -> None:
    """Twelve rows of a table, asked for one by one; one row does not exist."""
    table = onnx.numpy_helper.from_array(np.arange(20, dtype=np.float32).reshape(10, 2), "table")
    model = onnx_graph(
        [helper.make_node("Gather", ["table", "i"], ["row"])],
        [("i", TensorProto.INT64, ["n"])],
        [("row", TensorProto.FLOAT, ["n", 2])],
        [table],
    )
    config = """platform: "onnxruntime_onnx"
        max_batch_size: 16
        input { name: "i" data_type: TYPE_INT64 dims: 1 reshape { shape: [ ] } }
        output { name: "row" data_type: TYPE_FP32 dims: 2 }
        dynamic_batching { preferred_batch_size: [ 12 ] max_queue_delay_microseconds: 2000000 }
    """
    put_entry(open_repository, "table", model, config)
    triton.load("table")

    async def row(client: AsyncClient, number: int) -> Any:
        tensor = InferInput("i", [1, 1], "INT64").set_data_from_numpy(np.array([[number]]))
        return (await client.infer("table", [tensor], client_timeout=60)).as_numpy("row")

    async def counted(client: AsyncClient) -> Any:
        return (await client.get_inference_statistics("table")).model_stats[0]

    async with AsyncClient(triton.grpc_address) as client:
        good = await asyncio.gather(*(row(client, number % 10) for number in range(12)))
        # Triton counts an execution after it has sent the answers, so the counts may come a moment later.
        async with asyncio.timeout(30):
            while (counts := await counted(client)).inference_count < 12:  # noqa: ASYNC110  Triton tells nobody
                await asyncio.sleep(0.05)
        numbers = [*range(10), 77, 1]
        mixed = await asyncio.gather(*(row(client, number) for number in numbers), return_exceptions=True)

    assert [value.tolist() for value in good] == [[[2.0 * (n % 10), 2.0 * (n % 10) + 1]] for n in range(12)]
    assert counts.inference_count == 12
    assert counts.execution_count < 12
    for number, answer in zip(numbers, mixed, strict=True):
        if number == 77:
            assert isinstance(answer, InferenceServerException)
            assert "indices element out of data bounds" in answer.message()
        else:
            assert answer.tolist() == [[2.0 * number, 2.0 * number + 1]]


def test_a_string_that_is_not_text_is_that_requests_error(
    triton: EmbeddedTriton, open_repository: Path, put_entry: Put, onnx_graph: Graph, infer: Infer
) -> None:
    tensor = (TensorProto.STRING, [1])
    model = onnx_graph([helper.make_node("Identity", ["s"], ["t"])], [("s", *tensor)], [("t", *tensor)])
    put_entry(open_repository, "echo", model, 'platform: "onnxruntime_onnx"\n')
    triton.load("echo")
    with pytest.raises(InferenceServerException, match="input 's' holds a string that is not UTF-8"):
        infer(triton.grpc_address, "echo", s=np.array([b"\xff"], dtype=object))
    assert infer(triton.grpc_address, "echo", s=np.array([b"ok"], dtype=object))["t"].tolist() == [b"ok"]


def test_a_config_given_at_load_replaces_the_repositorys(
    triton: EmbeddedTriton,
    open_repository: Path,
    put_entry: Put,
    infer: Infer,
    onnx_scale: Callable[..., onnx.ModelProto],
    scale_config: str,
) -> None:
    """As the agent loads: a chosen version, under the version's own config."""
    put_entry(open_repository, "chosen", onnx_scale(2.0), scale_config)
    put_entry(open_repository, "chosen", onnx_scale(3.0), None, version=2)
    config = {
        "name": "chosen",
        "platform": "onnxruntime_onnx",
        "version_policy": {"specific": {"versions": [1]}},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    }
    triton.control.load("chosen", json.dumps(config), timeout=60)
    x = np.ones((1, 4), np.float32)
    assert infer(triton.grpc_address, "chosen", x=x)["y"].tolist() == [[2] * 4]
    triton.load("chosen")
    assert infer(triton.grpc_address, "chosen", x=x)["y"].tolist() == [[3] * 4]
