"""What a server with GPUs is held to: TF32 is its arithmetic, and anything more is a fault."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gravswell.errors import VerificationError
from gravswell.quiver.config import parse_config
from gravswell.quiver.golden import Sample
from gravswell.quiver.manifest import VerificationRecord
from gravswell.serving.golden import Golden

CONFIG = 'name: "m" platform: "onnxruntime_onnx"'
FULL = """optimization { execution_accelerators { gpu_execution_accelerator {
  name: "cuda" parameters { key: "use_tf32" value: "0" } } } }"""
ENSEMBLE = """name: "m" platform: "ensemble" instance_group { kind: KIND_CPU }
ensemble_scheduling { step { model_name: "a" model_version: 1 } }"""

RNG = np.random.default_rng(0)
WEIGHTS = [(RNG.standard_normal(shape) / 8).astype(np.float32) for shape in ((64, 256), (256, 256), (256, 10))]
X = RNG.standard_normal((16, 64)).astype(np.float32)


def tf32(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to ten bits after the point, as a tensor core takes its operands."""
    bits = values.view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


def network(x: Any, product: Any = np.matmul) -> Any:
    """Three layers."""
    for weight in WEIGHTS:
        x = np.maximum(product(x, weight), 0) if weight is not WEIGHTS[-1] else product(x, weight)
    return x


def on_tensor_cores(a: Any, b: Any) -> Any:
    return (tf32(a).astype(np.float64) @ tf32(b)).astype(np.float32)


def golden(verification: VerificationRecord | None = None, **more: Any) -> Golden:
    y = network(X)
    return Golden.of([Sample({"x": X}, {"y": y, "label": y.argmax(1), **more})], verification)


def answers(y: Any, **more: Any) -> dict[str, Any]:
    return {"y": y, "label": y.argmax(1), **more}


def test_products_in_tf32_are_refused_on_a_cpu_and_agree_on_a_gpu():
    rounded = answers(network(X, on_tensor_cores))
    with pytest.raises(VerificationError, match=r"golden sample 0: output y: .* values differ"):
        golden().check(0, rounded)
    golden().on(parse_config(CONFIG)).check(0, rounded)


def test_other_weights_are_refused_on_a_gpu_with_a_way_out():
    other = network(X * np.float32(1.05), on_tensor_cores)
    with pytest.raises(VerificationError, match=r'golden sample 0: output y: .* TF32: .* "use_tf32" value: "0"'):
        golden().on(parse_config(CONFIG)).check(0, answers(other))


def test_a_label_beside_scores_may_flip_at_a_tie_and_a_label_alone_may_not():
    held = golden().on(parse_config(CONFIG))
    assert list(held.samples[0].outputs) == ["y"]
    y = network(X)
    alone = Golden.of([Sample({"x": X}, {"label": y.argmax(1)})], None)
    assert alone.on(parse_config(CONFIG)) is alone


def test_doubles_are_held_to_doubles():
    double = network(X.astype(np.float64))
    held = golden(double=double).on(parse_config(CONFIG))
    held.check(0, answers(network(X, on_tensor_cores), double=double))
    with pytest.raises(VerificationError, match="output double"):
        held.check(0, answers(network(X), double=double * (1 + 1e-5)))


@pytest.mark.parametrize(
    "config",
    [f"{CONFIG} {FULL}", f"{CONFIG} {FULL}".replace('"0"', '"False"'), f"{CONFIG} instance_group {{ kind: KIND_CPU }}"],
    ids=["TF32 is off", "in another word", "on CPUs"],
)
def test_without_tf32_it_is_held_as_on_a_cpu(config: str):
    as_on_a_cpu = golden()
    assert as_on_a_cpu.on(parse_config(config)) is as_on_a_cpu


def test_what_was_promised_holds_on_gpus_too():
    asked = golden(VerificationRecord(reference="torch", samples=1, rtol=1e-4, atol=1e-5))
    assert asked.on(parse_config(CONFIG)) is asked
    variant = golden(VerificationRecord(reference="torch", samples=1, rtol=0.0, atol={"y": 0.1}))
    assert variant.on(parse_config(CONFIG)) is variant


@pytest.mark.parametrize(
    ("config", "eased"),
    [
        (ENSEMBLE, True),
        (f"{CONFIG} instance_group {{ kind: KIND_CPU }} instance_group {{ kind: KIND_GPU }}", True),
        (f'{CONFIG} parameters {{ key: "gravswell.member.a" value {{ string_value: "a:1" }} }}', True),
    ],
    ids=["an ensemble", "one group on GPUs", "a pipeline's member"],
)
def test_whatever_may_run_on_a_gpu_is_held_to_its_arithmetic(config: str, eased: bool):
    assert bool(golden().on(parse_config(config)).way_out) is eased
