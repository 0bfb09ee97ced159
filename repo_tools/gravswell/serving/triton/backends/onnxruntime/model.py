"""Triton's ``onnxruntime`` backend, in Python: serves ``platform: "onnxruntime_onnx"`` where the C++ backend is absent.

This file runs inside Triton's Python stub, not in gravswell's interpreter: it is copied into the server's backend
folder and imports nothing of gravswell. It acts as the C++ backend does: it completes inputs, outputs and the batch
size that a config leaves out, refuses what the graph contradicts, runs the requests of a batch as one, and honours the
same ``parameters``. Two defaults differ, because every instance here is a process of its own on a shared CPU: one
intra-op thread, and no spinning.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # exists in the stub only

DEFAULT_FILE = "model.onnx"
DEFAULT_MAX_BATCH_SIZE = 4
"""What the C++ backend fills in for a graph that can batch when the config does not say."""

SWITCHES = {"true": True, "on": True, "false": False, "off": False}
"""What a parameter that is on or off is called; the C++ backend takes 0 and 1 too."""

TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
}
"""ONNX Runtime's type names to Triton's. bfloat16 is absent: NumPy has no such type to carry it."""


class BackendError(Exception):
    """Why a model cannot load or a request cannot run; Triton shows the text to whoever asked."""


class Tensor(NamedTuple):
    """An input or output of the graph. ``dims`` holds -1 for a dynamic dimension and is empty for a scalar."""

    name: str
    data_type: str
    dims: tuple[int, ...]


def require_numpy_1() -> None:
    """Refuse NumPy 2: the stub reads item sizes as 0 there, and every tensor would be silently wrong."""
    if int(np.__version__.split(".")[0]) >= 2:
        raise BackendError(f"the Python stub needs numpy < 2 and found {np.__version__}; reinstall the embedded Triton")


def integer_parameter(config: dict[str, Any], name: str, default: int) -> int:
    """Read one of the config's ``parameters``, as C++'s ``std::stoi`` does, which passes over what follows the number.

    Raises :class:`BackendError` for a text that begins with none.
    """
    text = config.get("parameters", {}).get(name, {}).get("string_value")
    if text is None:
        return default
    number = re.match(r"\s*[+-]?[0-9]+", text)
    if number is None:
        raise BackendError(f"parameter '{name}' must be an integer, and is '{text}'")
    return int(number[0])


def switch_parameter(config: dict[str, Any], name: str, *, default: bool) -> bool:
    """Read one that is on or off, in any case as the C++ backend does, or a number, which its older releases want."""
    text = config.get("parameters", {}).get(name, {}).get("string_value")
    if text is None:
        return default
    return SWITCHES[text.lower()] if text.lower() in SWITCHES else integer_parameter(config, name, 0) != 0


def session_options(config: dict[str, Any]) -> ort.SessionOptions:
    """Translate a model config into ONNX Runtime's options, with the C++ backend's names and values."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = integer_parameter(config, "intra_op_thread_count", 1)
    options.inter_op_num_threads = integer_parameter(config, "inter_op_thread_count", 0)
    options.enable_cpu_mem_arena = switch_parameter(config, "enable_mem_arena", default=True)
    options.enable_mem_pattern = switch_parameter(config, "enable_mem_pattern", default=True)
    for pool in ("intra_op", "inter_op"):
        options.add_session_config_entry(f"session.{pool}.allow_spinning", "0")
    allocator = integer_parameter(config, "session.use_device_allocator_for_initializers", 0)
    options.add_session_config_entry("session.use_device_allocator_for_initializers", str(allocator))

    mode = integer_parameter(config, "execution_mode", 0)
    if mode not in (0, 1):
        raise BackendError(f"parameter 'execution_mode' must be 0 (sequential) or 1 (parallel), and is {mode}")
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if mode else ort.ExecutionMode.ORT_SEQUENTIAL

    level = config.get("optimization", {}).get("graph", {}).get("level", 0)
    options.graph_optimization_level = {
        -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    }.get(int(level), ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
    return options


def open_session(config: dict[str, Any]) -> ort.InferenceSession:
    """Load the version's graph. Raises :class:`BackendError` with the file and ONNX Runtime's own words."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for accelerator in accelerators.get("cpu_execution_accelerator", []):
        raise BackendError(f"the CPU execution accelerator '{accelerator['name']}' is not part of this server")
    name = config.get("default_model_filename") or DEFAULT_FILE
    # Triton names the folder of the model file, so a file name with a folder in it is already followed.
    path = Path(pb_utils.get_model_dir()) / Path(name).name
    if path.is_dir():  # as in the C++ backend: a folder holds the graph beside its external data
        path /= DEFAULT_FILE
    if not path.is_file():
        raise BackendError(f"{path}: no such file")
    try:
        return ort.InferenceSession(str(path), session_options(config), providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  ONNX Runtime's exceptions share no base of their own
        raise BackendError(f"{path}: {error}") from None


def tensors(nodes: list[Any], role: str) -> dict[str, Tensor]:
    """Describe the graph's inputs or outputs; raises :class:`BackendError` for a type that Triton cannot carry."""
    found = {}
    for node in nodes:
        if node.type not in TRITON_TYPES:
            raise BackendError(f"{role} '{node.name}' is a {node.type}, which this server cannot carry")
        dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
        found[node.name] = Tensor(node.name, TRITON_TYPES[node.type], dims)
    return found


def complete(config: dict[str, Any], inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    """Fill in, in place, what the config leaves out: batch size, dynamic batching, inputs and outputs."""
    batchable = all(tensor.dims[:1] == (-1,) for tensor in (*inputs.values(), *outputs.values()))
    if batchable:
        config["max_batch_size"] = config.get("max_batch_size") or DEFAULT_MAX_BATCH_SIZE
        if config["max_batch_size"] > 1 and not {"dynamic_batching", "sequence_batching"} & config.keys():
            config["dynamic_batching"] = {}
    elif config.get("max_batch_size"):
        raise BackendError(
            f"autofill failed for model '{config['name']}': model does not support batching while non-zero "
            f"max_batch_size is specified"
        )
    batched = config.get("max_batch_size", 0) > 0
    for key, found in (("input", inputs), ("output", outputs)):
        if not config.get(key):
            config[key] = [describe(tensor, batched) for tensor in found.values()]


def describe(tensor: Tensor, batched: bool) -> dict[str, Any]:
    """Write a tensor as Triton's config does: without the batch dimension, and never with empty dims."""
    dims = list(tensor.dims[1:] if batched else tensor.dims)
    described: dict[str, Any] = {"name": tensor.name, "data_type": tensor.data_type, "dims": dims or [1]}
    if not dims and batched:
        described["reshape"] = {"shape": []}
    return described


def validate(config: dict[str, Any], key: str, graph: dict[str, Tensor], optional: set[str]) -> None:
    """Refuse a config whose inputs or outputs (``key``) the graph does not have in that type and shape."""
    prefix = f"unable to load model '{config['name']}'"
    batched = config.get("max_batch_size", 0) > 0
    for declared in config[key]:
        name = declared["name"]
        if name not in graph:
            raise BackendError(f"{prefix}, unexpected {key} '{name}'; the model has {', '.join(sorted(graph))}")
        tensor = graph[name]
        if declared["data_type"] != tensor.data_type:
            raise BackendError(
                f"{prefix}, configuration expects datatype {declared['data_type']} for {key} '{name}', model provides "
                f"{tensor.data_type}"
            )
        dims = [int(dim) for dim in declared.get("reshape", {}).get("shape", declared["dims"])]
        if not tensor.dims:
            if batched or any(dim != 1 for dim in dims):
                raise BackendError(f"{prefix}, scalar {key} '{name}' needs dims [ 1 ] and max_batch_size 0")
            continue
        if batched and tensor.dims[0] >= 0:
            raise BackendError(
                f"{prefix}, {key} '{name}' has the fixed first dimension {tensor.dims[0]}, so the model cannot batch: "
                f"max_batch_size must be 0, and is {config['max_batch_size']}"
            )
        expected = tensor.dims[1:] if batched else tensor.dims
        if not fits(dims, expected, exact=key == "output"):
            raise BackendError(
                f"{prefix}, tensor '{name}': the model expects dims {list(expected)} and the model configuration "
                f"specifies dims {dims}"
            )
    missing = graph.keys() - {declared["name"] for declared in config[key]} - optional
    if key == "input" and missing:
        raise BackendError(f"{prefix}, the configuration lacks input {', '.join(sorted(missing))}")


def fits(declared: list[int], graph: tuple[int, ...], *, exact: bool) -> bool:
    """Whether the declared dims may stand for the graph's: an input may narrow a dynamic dim, an output may not."""
    return len(declared) == len(graph) and all(
        a == b or (b == -1 and not exact) for a, b in zip(declared, graph, strict=True)
    )


class TritonPythonModel:
    """One instance of one version, in its own process."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config: Any) -> Any:
        """Complete a config that leaves out inputs or outputs; one that names both is left as it is."""
        require_numpy_1()
        config = auto_complete_model_config.as_dict()
        if not (config.get("input") and config.get("output")):
            session = open_session(config)
            complete(config, tensors(session.get_inputs(), "input"), tensors(session.get_outputs(), "output"))
        return auto_complete_model_config

    def initialize(self, args: dict[str, str]) -> None:
        """Load the graph and hold it against the config."""
        require_numpy_1()
        config = json.loads(args["model_config"])
        if config.get("sequence_batching", {}).get("state"):
            raise BackendError(
                f"unable to load model '{config['name']}': implicit state (sequence_batching.state) does not pass "
                f"through a Python stub; keep the state in the graph or serve it with Triton's own image"
            )
        self._session = open_session(config)
        initializers = tensors(self._session.get_overridable_initializers(), "initializer")
        self._inputs = tensors(self._session.get_inputs(), "input") | initializers
        self._outputs = tensors(self._session.get_outputs(), "output")
        optional = {declared["name"] for declared in config["input"] if declared.get("optional")}
        controls = {control["name"] for control in config.get("sequence_batching", {}).get("control_input", [])}
        validate(config, "input", self._inputs, optional | controls | initializers.keys())
        validate(config, "output", self._outputs, set())
        self._batched = config.get("max_batch_size", 0) > 0
        self._dims = {declared["name"]: [int(dim) for dim in declared["dims"]] for declared in config["output"]}
        self._run_options = ort.RunOptions()
        shrinkage = config.get("parameters", {}).get("memory.enable_memory_arena_shrinkage")
        if shrinkage:
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", shrinkage["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of a batch with one run; where they cannot be one, with a run for each."""
        if self._batched and len(requests) > 1:
            together = self._run_together(requests)
            if together is not None:
                return together
        responses, failures = [], []
        for request in requests:
            try:
                responses.append(self._run_alone(request))
            except Exception as error:  # noqa: BLE001  whatever failed belongs to this request's client
                failures.append(str(error))
                responses.append(pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(str(error))))
        if len(failures) == len(requests) and len(set(failures)) == 1:
            # Triton counts as failed what is raised here, as it does the C++ backend's errors, but not an error that is
            # answered; roll-outs and alerts go by its count.
            raise BackendError(failures[0])
        return responses

    def _run_together(self, requests: list[Any]) -> "list[Any] | None":
        wanted = [request.requested_output_names() for request in requests]
        names = list(dict.fromkeys(name for own in wanted for name in own))
        try:
            feeds = [self._feed(request) for request in requests]
            sizes = [next(iter(feed.values())).shape[0] for feed in feeds]
            joined = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
            results = self._run(names, joined)
        except Exception:  # noqa: BLE001  one bad request must fail alone: each is run again and says so itself
            return None
        if any(result.shape[:1] != (sum(sizes),) for result in results.values()):
            return None  # an output that does not lead with the batch cannot be dealt out
        ends = np.cumsum(sizes)
        return [
            self._response({name: results[name][end - size : end] for name in own})
            for own, size, end in zip(wanted, sizes, ends, strict=True)
        ]

    def _run_alone(self, request: Any) -> Any:
        return self._response(self._run(request.requested_output_names(), self._feed(request)))

    def _run(self, names: list[str], feed: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, self._session.run(names, feed, self._run_options), strict=True))

    def _feed(self, request: Any) -> dict[str, Any]:
        feed = {}
        for tensor in request.inputs():
            graph, value = self._inputs[tensor.name()], tensor.as_numpy()
            if graph.data_type == "TYPE_STRING":
                value = decoded(tensor.name(), value)
            feed[graph.name] = value if graph.dims else value.reshape(())
        return feed

    def _response(self, results: dict[str, Any]) -> Any:
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor(name, result if result.ndim else result.reshape(self._dims[name]))
                for name, result in results.items()
            ]
        )


def decoded(name: str, value: Any) -> Any:
    """Triton's strings are bytes, ONNX Runtime's are text."""
    try:
        texts = [item.decode() if isinstance(item, bytes) else str(item) for item in value.flat]
    except UnicodeDecodeError as error:
        raise BackendError(f"input '{name}' holds a string that is not UTF-8: {error}") from None
    return np.array(texts, dtype=object).reshape(value.shape)
