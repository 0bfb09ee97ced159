"""Which backend loads the model, by the configuration, and what ONNX Runtime's one is told."""

import re
from collections.abc import Iterator
from typing import Any

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.rules import Finding

PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "torch_aoti": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "ensemble",
}
"""Triton's platforms, and the backend that each stands for."""

_STRICT = frozenset(PLATFORMS.values()) - {"ensemble"}
"""Backends that Triton holds against the platform; any other, such as ``python``, takes every one."""

_FILES = ("model.py", "model.xml")
"""Values of ``default_model_filename`` that name a backend, whatever ``platform`` says."""

_NUMBERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
"""Parameters of the ONNX Runtime backend that are whole numbers."""

_SWITCHES = ("enable_mem_arena", "enable_mem_pattern")
"""Those that are on or off; old servers took numbers for them."""

_ON_OR_OFF = ("true", "false", "on", "off")


def is_ensemble(config: Any) -> bool:
    """Whether the model is made of other models."""
    return bool(config.platform == "ensemble" or config.HasField("ensemble_scheduling"))


def may_be_tensorrt(config: Any) -> bool:
    """Whether TensorRT loads it, or may: Triton goes by the files where neither platform nor backend is stated."""
    return bool(config.platform == "tensorrt_plan" or (not config.platform and config.backend in ("", "tensorrt")))


def check(config: Any, place: str) -> Iterator[Finding]:
    """``platform``, ``backend`` and ``parameters``."""
    stands_for = PLATFORMS.get(config.platform)
    if config.platform and not config.backend and stands_for is None and config.default_model_filename not in _FILES:
        yield rules.PLATFORM_UNKNOWN.at(place, f"there is no platform {config.platform!r}", "platform")
    elif config.platform and config.backend in _STRICT and config.backend != stands_for and not is_ensemble(config):
        stands = f"stands for {stands_for}" if stands_for else "is none of Triton's"
        fact = f"platform {config.platform!r} {stands}, and backend is {config.backend!r}"
        yield rules.PLATFORM_DIFFERS.at(place, fact, "backend")
    if (config.backend or stands_for) != "onnxruntime":
        return
    values = {name: value.string_value for name, value in config.parameters.items()}
    for name in _NUMBERS:
        if name in values and _leading_number(values[name]) is None:
            fact = f"{name} is {values[name]!r}, which is no whole number"
            yield rules.PARAMETER_VALUE.at(place, fact, f"parameters[{name}]")
    mode = values.get("execution_mode", "0")
    if _leading_number(mode) not in (0, 1, None):
        yield rules.PARAMETER_VALUE.at(place, f"execution_mode is {mode!r}", "parameters[execution_mode]")
    for name in _SWITCHES:
        if name in values and values[name].lower() not in _ON_OR_OFF and _leading_number(values[name]) is None:
            fact = f"{name} is {values[name]!r}, which is neither true nor false"
            yield rules.PARAMETER_VALUE.at(place, fact, f"parameters[{name}]")


def _leading_number(text: str) -> int | None:
    """What the backend's C++ (``std::stoi``) reads: it passes over whatever follows the number."""
    match = re.match(r"\s*[+-]?[0-9]+", text)
    return int(match[0]) if match else None
