"""Sections of a configuration set by one call each: in Triton's own names, typed, written at once and checked.

Everything else of a section, and every section without a call of its own, is an attribute of the configuration.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from gravswell.errors import InvalidInputError


class QueuePolicy(TypedDict, total=False):
    """How long requests may wait, and how many."""

    timeout_action: Literal["REJECT", "DELAY"]
    default_timeout_microseconds: int
    allow_timeout_override: bool
    max_queue_size: int


class Control(TypedDict, total=False):
    """What a control tensor of a sequence tells: a pair of values, or for the correlation id its type."""

    kind: Literal["CONTROL_SEQUENCE_START", "CONTROL_SEQUENCE_READY", "CONTROL_SEQUENCE_END", "CONTROL_SEQUENCE_CORRID"]
    int32_false_true: Sequence[int]
    fp32_false_true: Sequence[float]
    bool_false_true: Sequence[bool]
    data_type: str


class ControlInput(TypedDict):
    """An input of the graph that the server fills in."""

    name: str
    control: Sequence[Control]


class InitialState(TypedDict, total=False):
    """What a state begins as: ``zero_data``, or ``data_file`` in the model's folder ``initial_state``."""

    name: str
    data_type: str
    dims: Sequence[int]
    zero_data: bool
    data_file: str


class State(TypedDict, total=False):
    """An output of the graph that is its input at the sequence's next request."""

    input_name: str
    output_name: str
    data_type: str
    dims: Sequence[int]
    initial_state: Sequence[InitialState]
    use_same_buffer_for_input_output: bool
    use_growable_memory: bool


class Direct(TypedDict, total=False):
    """Every sequence has a slot of its own in one instance's batch."""

    max_queue_delay_microseconds: int
    minimum_slot_utilization: float


class Oldest(TypedDict, total=False):
    """Sequences are put into batches as dynamic batching does it."""

    max_candidate_sequences: int
    preferred_batch_size: Sequence[int]
    max_queue_delay_microseconds: int
    preserve_ordering: bool


class WarmupInput(TypedDict, total=False):
    """An input of a sample; ``dims`` are sizes, without the batch. One of the last three says what is in it."""

    data_type: str
    dims: Sequence[int]
    zero_data: bool
    random_data: bool
    input_data_file: str


Resource = TypedDict("Resource", {"name": str, "count": int, "global": bool}, total=False)
"""What an instance holds while it runs."""


class RateLimiter(TypedDict, total=False):
    """When an instance may run, on a server with ``--rate-limit=execution_count``."""

    resources: Sequence[Resource]
    priority: int


class Accelerator(TypedDict, total=False):
    """``tensorrt``, ``cuda``, ``openvino``…, with its own parameters."""

    name: str
    parameters: Mapping[str, str]


class Edits(ABC):
    """What a configuration can be told by name. Every call raises InvalidInputError, naming the field, for what Triton
    refuses, and leaves the file as it was then."""

    @abstractmethod
    def _set(self, field: str, value: Any, *, effective: bool = False) -> Any:
        """Put ``value`` in place of a section and write it; ``effective``: refuse what would do nothing, too."""

    @abstractmethod
    def _add(self, field: str, value: Any) -> Any:
        """Append ``value`` to a list, or put what it has into a map, and write it."""

    def set_dynamic_batching(
        self,
        *,
        preferred_batch_size: Sequence[int] = (),
        max_queue_delay_microseconds: int = 0,
        preserve_ordering: bool = False,
        priority_levels: int = 0,
        default_priority_level: int = 0,
        default_queue_policy: QueuePolicy | None = None,
        priority_queue_policy: Mapping[int, QueuePolicy] | None = None,
    ) -> Any:
        """Form batches of several requests. The entry needs a ``max_batch_size`` above 1, which it got when its first
        version was exported."""
        return self._set("dynamic_batching", _given(locals()), effective=True)

    def set_sequence_batching(
        self,
        *,
        direct: Direct | None = None,
        oldest: Oldest | None = None,
        max_sequence_idle_microseconds: int = 0,
        control_input: Sequence[ControlInput] = (),
        state: Sequence[State] = (),
        iterative_sequence: bool = False,
    ) -> Any:
        """Bring the requests of one sequence to one instance, in order."""
        if direct is not None and oldest is not None:
            raise InvalidInputError("sequence_batching: give direct or oldest, for there is one strategy")
        return self._set("sequence_batching", _given(locals()))

    def set_version_policy(self, *, num_versions: int | None = None, versions: Sequence[int] = ()) -> Any:
        """Which versions a server loads: the newest ``num_versions``, just these ``versions``, or all of them."""
        if num_versions is not None and versions:
            raise InvalidInputError("version_policy: give num_versions or versions, for there is one policy")
        if versions:
            return self._set("version_policy", {"specific": {"versions": versions}})
        latest = {"latest": {"num_versions": num_versions}}
        return self._set("version_policy", {"all": {}} if num_versions is None else latest)

    def add_model_warmup(
        self, name: str, inputs: Mapping[str, WarmupInput], *, batch_size: int = 1, count: int = 0
    ) -> Any:
        """Run a sample before the model is ready: ``batch_size`` requests as one batch, ``count`` times (0: once)."""
        return self._add("model_warmup", [_given(locals())])

    def set_response_cache(self, *, enable: bool = True) -> Any:
        """Answer equal requests from the server's cache, on a server that has one (``--cache-config``)."""
        return self._set("response_cache", {"enable": enable})

    def set_optimization(
        self,
        *,
        graph_level: int | None = None,
        priority: Literal["PRIORITY_DEFAULT", "PRIORITY_MAX", "PRIORITY_MIN"] | None = None,
        cuda: Mapping[str, Any] | None = None,
        gpu_execution_accelerator: Sequence[Accelerator] = (),
        cpu_execution_accelerator: Sequence[Accelerator] = (),
        input_pinned_memory: bool | None = None,
        output_pinned_memory: bool | None = None,
        gather_kernel_buffer_threshold: int = 0,
        eager_batching: bool = False,
    ) -> Any:
        """How the backend and the server run it. ``graph_level`` is ``graph.level``: of ONNX Runtime -1 basic, 1
        extended, 2 none, 0 (or None) everything."""
        made: dict[str, Any] = {
            "priority": priority,
            "cuda": cuda,
            "gather_kernel_buffer_threshold": gather_kernel_buffer_threshold,
            "eager_batching": eager_batching,
        }
        if graph_level is not None:
            made["graph"] = {"level": graph_level}
        if gpu_execution_accelerator or cpu_execution_accelerator:
            made["execution_accelerators"] = {
                "gpu_execution_accelerator": gpu_execution_accelerator,
                "cpu_execution_accelerator": cpu_execution_accelerator,
            }
        for side, enable in (("input", input_pinned_memory), ("output", output_pinned_memory)):
            if enable is not None:
                made[f"{side}_pinned_memory"] = {"enable": enable}
        return self._set("optimization", made)

    def set_model_transaction_policy(self, *, decoupled: bool) -> Any:
        """Whether a request may have several answers, or none."""
        return self._set("model_transaction_policy", {"decoupled": decoupled})

    def set_parameters(self, parameters: Mapping[str, Any]) -> Any:
        """Put these into ``parameters``, beside what is there: numbers and the like become text, as Triton wants."""
        return self._add("parameters", {key: {"string_value": _text(value)} for key, value in parameters.items()})

    def set_metric_tags(self, tags: Mapping[str, str]) -> Any:
        """Put these into ``metric_tags``, beside what is there."""
        return self._add("metric_tags", dict(tags))


def number_named(message: Any, field: str, value: Any) -> Any:
    """The number of a named value, where ``field`` takes such: ``KIND_CPU``, ``TYPE_FP32``. Anything else as it is."""
    descriptor = getattr(message, "DESCRIPTOR", None)
    known = descriptor.fields_by_name.get(field) if descriptor is not None else None
    if known is None or known.enum_type is None or not isinstance(value, str):
        return value
    names = known.enum_type.values_by_name
    if value not in names:
        raise InvalidInputError(f"{field} is one of {', '.join(names)}, not {value!r}")
    return names[value].number


def _given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that say something, as the fields that they are named after."""
    return {key: value for key, value in arguments.items() if key != "self" and value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
