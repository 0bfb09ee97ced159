"""Which backend loads the model, by the configuration, and what ONNX Runtime's one is told."""

from collections.abc import Iterator
from typing import Any

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.rules import Finding

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "ensemble",
}
"""Triton's platforms, and the backend that each stands for."""

_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "enable_mem_arena", "enable_mem_pattern")
"""Parameters of the ONNX Runtime backend that are whole numbers."""


def is_ensemble(config: Any) -> bool:
    """Whether the model is made of other models."""
    return bool(config.platform == "ensemble" or config.HasField("ensemble_scheduling"))


def check(config: Any, place: str) -> Iterator[Finding]:
    """``platform``, ``backend`` and ``parameters``."""
    stands_for = PLATFORMS.get(config.platform)
    if config.platform and not config.backend and stands_for is None:
        yield rules.PLATFORM_UNKNOWN.at(place, f"there is no platform {config.platform!r}", "platform")
    elif stands_for is not None and config.backend not in ("", stands_for) and not is_ensemble(config):
        fact = f"platform {config.platform!r} stands for {stands_for}, and backend is {config.backend!r}"
        yield rules.PLATFORM_DIFFERS.at(place, fact, "backend")
    if "onnxruntime" not in (stands_for, config.backend):
        return
    for name in _NUMBERS:
        if name in config.parameters and not _is_number(config.parameters[name].string_value):
            fact = f"{name} is {config.parameters[name].string_value!r}, which is no whole number"
            yield rules.PARAMETER_VALUE.at(place, fact, f"parameters[{name}]")
    mode = config.parameters["execution_mode"].string_value if "execution_mode" in config.parameters else "0"
    if mode.strip() not in ("0", "1"):
        yield rules.PARAMETER_VALUE.at(place, f"execution_mode is {mode!r}", "parameters[execution_mode]")


def _is_number(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
