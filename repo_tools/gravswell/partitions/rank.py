"""One rank: a process that builds its models once, on its device, and computes with them as often as it is asked."""

import ctypes
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import helper

from gravswell.errors import InvalidInputError, UnavailableError, UnsupportedError
from gravswell.quiver.datatypes import from_runtime, numpy_type
from gravswell.quiver.exporters import files
from gravswell.quiver.exporters.base import Inputs, Outputs, described
from gravswell.quiver.exporters.fused.sharing import Content, content
from gravswell.quiver.exporters.proof import run
from gravswell.quiver.exporters.weights import array_of, is_external
from gravswell.quiver.golden import Array

PROVIDERS: Mapping[str, Mapping[str, str]] = {
    "cpu": {
        "cpu": "CPUExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
        "dnnl": "DnnlExecutionProvider",
        "xnnpack": "XnnpackExecutionProvider",
    },
    "gpu": {
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "rocm": "ROCMExecutionProvider",
        "directml": "DmlExecutionProvider",
    },
}
"""What computes on each target, and what ONNX Runtime calls it."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where a rank computes: a target, one of its devices, and one of its providers."""

    target: str
    number: int
    provider: str
    """As ONNX Runtime calls it."""

    @classmethod
    def of(cls, target: str, provider: str | None, number: int) -> "Device":
        """The device that is meant; None is the first provider of the target that is installed.

        InvalidInputError for a provider or a device that the target does not have, UnsupportedError for a provider
        that this installation does not have.
        """
        providers = PROVIDERS.get(target)
        if providers is None:
            raise InvalidInputError(f"there is no target {target!r}; there is: {', '.join(PROVIDERS)}")
        available = ort.get_available_providers()
        here = [name for name, runtime in providers.items() if runtime in available]
        if provider is not None and provider not in providers:
            raise InvalidInputError(
                f"target {target} has no provider {provider!r}: its providers are {', '.join(providers)}, of which "
                f"this installation has {', '.join(here) or 'none'}"
            )
        if not here or (provider is not None and provider not in here):
            every = [name for names in PROVIDERS.values() for name, runtime in names.items() if runtime in available]
            asked = f"provider {provider!r} of target {target}" if provider else f"any provider of target {target}"
            raise UnsupportedError(
                f"this installation of ONNX Runtime {ort.__version__} does not have {asked}; it has: "
                f"{', '.join(every)}. Another build of it may: pip install onnxruntime-gpu, in place of onnxruntime"
            )
        if number < 0 or (target == "cpu" and number):
            ones = "there is one, device 0" if target == "cpu" else "they are numbered from 0 on"
            raise InvalidInputError(f"target {target} has no device {number}: {ones}")
        return cls(target, number, providers[provider or here[0]])

    def provider_options(self) -> list[Any]:
        """As ONNX Runtime takes it."""
        return [(self.provider, {"device_id": str(self.number)})] if self.target == "gpu" else [self.provider]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of the first of several runs, and of the quickest."""

    first: float
    best: float
    runs: int


class Rank:
    """Models on one device, built once. ``build_seconds`` is what that took.

    :param share_weights: hold what several of the models have alike once, on the CPU. ONNX Runtime packs the matrices
        of each session for speed, and its Python interface shares no packed ones: so they stay unpacked then, which
        costs time at every batch of more than a row.
    :raises UnavailableError: the device does not take them.
    """

    def __init__(self, models: Sequence[Path], device: Device, *, share_weights: bool = False) -> None:
        if share_weights and device.provider != PROVIDERS["cpu"]["cpu"]:
            raise UnsupportedError(
                f"{device.provider} takes no weights that are in another's memory: leave share_weights "
                f"(--share-weights) out, or use target cpu with provider cpu"
            )
        self.device = device
        self.shared_bytes = 0
        """Bytes that are held once and would be held again."""
        began = time.perf_counter()
        shared = _shared(models) if share_weights else {}
        held: dict[Content, Any] = {}
        self.sessions = [self._session(path, shared.get(path, {}), held) for path in models]
        self._held = held  # sessions read them, and do not own them
        give_back()
        self.build_seconds = time.perf_counter() - began

    def predict(self, inputs: Sequence[Inputs], *, repeat: int = 1) -> tuple[list[Outputs], Timing]:
        """What each model makes of its inputs, and how long all of them took.

        InvalidInputError, in ONNX Runtime's words, for inputs that a model does not take.
        """
        seconds = []
        answers: list[Outputs] = []
        for _ in range(repeat):
            began = time.perf_counter()
            answers = [_run(session, batch) for session, batch in zip(self.sessions, inputs, strict=True)]
            seconds.append(time.perf_counter() - began)
        return answers, Timing(seconds[0], min(seconds), repeat)

    def _session(self, path: Path, shared: Mapping[str, Content], held: dict[Content, Any]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if shared:
            options.add_session_config_entry("session.disable_prepacking", "1")
            proto = files.load(path)
            for tensor in proto.graph.initializer:
                key = shared.get(tensor.name)
                if key is not None and key in held:
                    self.shared_bytes += held[key].tensor_size_in_bytes()
                elif key is not None:
                    held[key] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array_of(tensor, path)))
                if key is not None:
                    options.add_initializer(tensor.name, held[key])
        where = f"{path} on device {self.device.number} of target {self.device.target} ({self.device.provider})"
        try:
            session = ort.InferenceSession(str(path), options, providers=self.device.provider_options())
        except Exception as error:  # ONNX Runtime's own errors share no base
            raise UnavailableError(f"ONNX Runtime does not load {where}: {described(error)}") from error
        if self.device.provider not in session.get_providers():  # it goes on without one that does not come up
            raise UnavailableError(
                f"ONNX Runtime has not got {where}: there is no such device, or its driver or libraries are missing; "
                f"it would compute on {', '.join(session.get_providers())}"
            )
        return session


def inputs_of(session: ort.InferenceSession, given: Mapping[str, Array] | None, rows: int) -> Inputs:
    """The batch for one model: of ``given`` what it takes; or where nothing was given ones, in so many rows.

    InvalidInputError names an input that is not given.
    """
    if given is not None:
        lacking = [node.name for node in session.get_inputs() if node.name not in given]
        if lacking:
            raise InvalidInputError(
                f"input {lacking[0]!r} is not given; there is: {', '.join(given)}. The model takes "
                f"{', '.join(node.name for node in session.get_inputs())}"
            )
        return {node.name: given[node.name] for node in session.get_inputs()}
    batch: Inputs = {}
    for node in session.get_inputs():
        data_type = from_runtime(node.type)
        if data_type is None:
            raise InvalidInputError(f"input {node.name!r} is a {node.type}, of which there are no ones: give it")
        shape = [dim if isinstance(dim, int) else (1 if axis else rows) for axis, dim in enumerate(node.shape)]
        batch[node.name] = np.ones(shape, np.int64).astype(numpy_type(data_type))
    return batch


def _run(session: ort.InferenceSession, batch: Inputs) -> Outputs:
    try:
        return run(session, batch)
    except Exception as error:  # ONNX Runtime's own errors share no base
        given = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in batch.items())
        raise InvalidInputError(f"the model does not take {given}: {described(error)}") from error


def give_back() -> None:
    """Return to the system what reading the models took, which glibc keeps: as much as their weights."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


def _shared(models: Sequence[Path]) -> dict[Path, dict[str, Content]]:
    """By model: the weights, by name, that another of the models has too, with what they are."""
    found: dict[Path, dict[str, Content]] = {}
    holders: Counter[Content] = Counter()
    for path in models:
        for tensor in files.load(path).graph.initializer:
            if not is_external(tensor):  # small, or text
                continue
            if helper.tensor_dtype_to_np_dtype(tensor.data_type).kind in "fiub":  # of numpy's own types
                key = found.setdefault(path, {})[tensor.name] = content(tensor, path)
                holders[key] += 1
    return {path: {name: key for name, key in weights.items() if holders[key] > 1} for path, weights in found.items()}
