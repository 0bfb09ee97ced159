"""Dynamic batching, sequence batching, the response cache and the version policy."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.rules import Finding

_Control = model_config_pb2.ModelSequenceBatching.Control
_PAIRS = ("int32_false_true", "fp32_false_true", "bool_false_true")
_ID_TYPES = {"TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"}


def check(config: Any, place: str) -> Iterator[Finding]:
    """All of them, and how they go together."""
    if config.HasField("dynamic_batching"):
        yield from _dynamic(config, place)
    if config.HasField("sequence_batching"):
        yield from _sequence(config, place)
    if config.response_cache.enable:
        for what, there in (
            ("sequence_batching", config.HasField("sequence_batching")),
            ("a decoupled model_transaction_policy", config.model_transaction_policy.decoupled),
        ):
            if there:
                yield rules.CACHE_UNABLE.at(place, f"it is enabled beside {what}", "response_cache.enable")
    policy = config.version_policy
    kind = policy.WhichOneof("policy_choice")
    if (kind == "latest" and not policy.latest.num_versions) or (kind == "specific" and not policy.specific.versions):
        field = f"version_policy.{kind}"
        yield rules.POLICY_EMPTY.at(place, f"{field} stands for no version", field, unfinished=True)


def filled_in(config: Any) -> set[str]:
    """The inputs of the graph that the server fills in for a sequence: control tensors, and what it keeps as state."""
    batching = config.sequence_batching
    return {control.name for control in batching.control_input} | {state.input_name for state in batching.state}


def kept(config: Any) -> set[str]:
    """The outputs of the graph that the server keeps as a sequence's state, for its next request."""
    return {state.output_name for state in config.sequence_batching.state}


def _preferred(config: Any, batching: Any, place: str, field: str) -> Iterator[Finding]:
    for size in batching.preferred_batch_size:
        if not 1 <= size <= config.max_batch_size:
            fact = f"preferred_batch_size {size} does not go with max_batch_size {config.max_batch_size}"
            yield rules.PREFERRED_SIZE.at(place, fact, f"{field}.preferred_batch_size")
            return


def _dynamic(config: Any, place: str) -> Iterator[Finding]:
    batching, field = config.dynamic_batching, "dynamic_batching"
    larger = list(_preferred(config, batching, place, field))
    yield from larger
    if not larger and 0 <= config.max_batch_size <= 1:
        fact = f"dynamic_batching is stated, and max_batch_size is {config.max_batch_size}"
        yield rules.BATCHING_UNUSED.at(place, fact, field)
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels and not 1 <= default <= levels:
        fact = f"priority_levels is {levels}, default_priority_level {default}"
        yield rules.PRIORITY_DEFAULT.at(place, fact, f"{field}.default_priority_level", unfinished=not default)
    for level in sorted(batching.priority_queue_policy):
        if levels and not 1 <= level <= levels:
            fact = f"there is a policy for level {level}, and priority_levels is {levels}"
            yield rules.PRIORITY_POLICY.at(place, fact, f"{field}.priority_queue_policy[{level}]")
    if not batching.preserve_ordering:
        return
    if levels > 1:
        yield rules.ORDERING.at(place, f"it is set with {levels} priority levels", f"{field}.preserve_ordering")
    policies = [("default_queue_policy", batching.default_queue_policy)]
    policies += [(f"priority_queue_policy[{k}]", v) for k, v in sorted(batching.priority_queue_policy.items())]
    for name, policy in policies:
        if policy.default_timeout_microseconds and policy.timeout_action == policy.DELAY:
            fact = f"{name} delays requests after {policy.default_timeout_microseconds} µs"
            yield rules.ORDERING.at(place, fact, f"{field}.{name}.timeout_action")


def _sequence(config: Any, place: str) -> Iterator[Finding]:
    batching, field = config.sequence_batching, "sequence_batching"
    if batching.HasField("oldest"):
        yield from _preferred(config, batching.oldest, place, f"{field}.oldest")
    share = batching.direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        fact = f"minimum_slot_utilization is {share:g}"
        yield rules.SLOT_UTILIZATION.at(place, fact, f"{field}.direct.minimum_slot_utilization")
    names = Counter(tensor.name for tensor in batching.control_input)
    kinds = Counter(control.kind for tensor in batching.control_input for control in tensor.control)
    for k, tensor in enumerate(batching.control_input):
        where = f"{field}.control_input[{k}]"
        if not tensor.name:
            yield rules.SEQUENCE_CONTROL.at(place, "it has no name", f"{where}.name", unfinished=True)
        elif names[tensor.name] > 1:
            yield rules.SEQUENCE_CONTROL.at(place, f"{tensor.name!r} stands there twice", f"{where}.name")
        for n, control in enumerate(tensor.control):
            kind = _Control.Kind.Name(control.kind)
            if kinds[control.kind] > 1:
                yield rules.SEQUENCE_CONTROL.at(place, f"{kind} stands there twice", f"{where}.control[{n}]")
            fact, unfinished = _values(control)
            if fact:
                yield rules.SEQUENCE_CONTROL.at(place, f"{kind} {fact}", f"{where}.control[{n}]", unfinished=unfinished)


def _values(control: Any) -> tuple[str, bool]:
    """What is wrong with a control's values, and whether only something is missing."""
    given = [name for name in _PAIRS if getattr(control, name)]
    if control.kind == _Control.CONTROL_SEQUENCE_CORRID:
        data_type = model_config_pb2.DataType.Name(control.data_type)
        if given:
            return f"has {given[0]}, which it does not take", False
        return ("", False) if data_type in _ID_TYPES else (f"is {data_type}", not control.data_type)
    if not given:
        return f"has none of {', '.join(_PAIRS)}", True
    if len(given) > 1:
        return f"has {' and '.join(given)}", False
    count = len(getattr(control, given[0]))
    return ("", False) if count == 2 else (f"has {count} values in {given[0]} in place of 2", count < 2)
