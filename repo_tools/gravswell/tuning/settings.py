"""A setting in Triton's configuration: as it is measured, and as it is written for production. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.errors import InvalidInputError
from gravswell.quiver.composition.config import pinned_members
from gravswell.quiver.config import ModelConfig
from gravswell.tuning.space import Setting

_Group: Any = model_config_pb2.ModelInstanceGroup


def require_tunable(config: Any) -> None:
    """InvalidInputError for a configuration whose instances or batches are not one number each."""
    name = config.name
    if members := [member.model for member in pinned_members(config)]:
        raise InvalidInputError(
            f"{name} is Python that calls {', '.join(members)}, as often as it likes: tune these, which run in "
            f"instances of their own, and set its own by hand"
        )
    if config.HasField("sequence_batching"):
        raise InvalidInputError(
            f"{name} batches sequences, whose requests depend on one another: a load of independent ones measures "
            f"something else; set its instances by hand"
        )
    if len(config.instance_group) > 1:
        raise InvalidInputError(
            f"{name} has {len(config.instance_group)} instance groups, and one count is tuned: keep one of them, "
            f"or set their counts by hand"
        )


def promises(config: Any) -> list[str]:
    """What ``dynamic_batching`` states beside sizes and a wait: clients may rely on it, such as on priorities."""
    own = ("preferred_batch_size", "max_queue_delay_microseconds")
    return [field.name for field, _ in config.dynamic_batching.ListFields() if field.name not in own]


def measured_config(config: Any, versions: Sequence[int], setting: Setting | None) -> Any:
    """``config`` as it is measured: on the CPU, those versions, and no cache, which would answer for the model.

    :param setting: None for an ensemble, which runs in its members' instances.
    """
    made = ModelConfig()
    made.CopyFrom(config)
    made.ClearField("response_cache")
    made.ClearField("version_policy")
    made.version_policy.specific.versions.extend(versions)
    if setting is not None:
        made.ClearField("instance_group")
        made.instance_group.add(kind=_Group.KIND_CPU, count=setting.instances)
        _batch(made, setting.delay)
    return made


def tuned(config: Any, setting: Setting) -> tuple[Any, list[str], list[str]]:
    """``config`` with what was tuned and all else as it is; what that changes, and what to know, in words.

    What was measured on a CPU says nothing of GPUs: where the group asks for them, all stays as it is.
    """
    made = ModelConfig()
    made.CopyFrom(config)
    notes = []
    group = made.instance_group[0] if made.instance_group else None
    if group is not None and (group.kind == _Group.KIND_GPU or group.gpus):
        best = setting_told(setting)
        notes.append(
            f"instance_group asks for GPUs, and what is best on this CPU ({best}) says nothing of them: config.pbtxt "
            f"stays as it is. State kind: KIND_CPU to have it tuned for CPUs"
        )
        return made, [], notes
    if group is not None and group.kind == _Group.KIND_MODEL:
        notes.append("instance_group is KIND_MODEL, whose instances the model places itself: it keeps its count")
    else:
        if group is None:
            group = made.instance_group.add(kind=_Group.KIND_AUTO)
        group.count = setting.instances
        notes.append(f"{_count_told(setting)} is a count for CPUs, where it was measured")
    _batch(made, setting.delay)
    return made, _changes(config, made), notes


def _batch(config: Any, delay: int | None) -> None:
    if delay is None:
        config.ClearField("dynamic_batching")
        return
    config.dynamic_batching.SetInParent()
    config.dynamic_batching.max_queue_delay_microseconds = delay


def _changes(before: Any, after: Any) -> list[str]:
    words = []
    counts = [config.instance_group[0].count if config.instance_group else None for config in (before, after)]
    if counts[0] != counts[1]:
        words.append(f"instance_group count: {counts[1]} (was {counts[0] or 'unset'})")
    batching = [batching_told(_delay(config)) for config in (before, after)]
    if batching[0] != batching[1]:
        words.append(f"dynamic_batching: {batching[1]} (was {batching[0]})")
    return words


def _delay(config: Any) -> int | None:
    return config.dynamic_batching.max_queue_delay_microseconds if config.HasField("dynamic_batching") else None


def settings_told(settings: Iterable[tuple[str, Setting]]) -> str:
    """The settings of models in words, without a name where there is one model."""
    each = [(name, setting_told(setting)) for name, setting in settings]
    return each[0][1] if len(each) == 1 else "; ".join(f"{name} {told}" for name, told in each)


def setting_told(setting: Setting) -> str:
    """``2 instances, batching off``."""
    return f"{_count_told(setting)}, batching {batching_told(setting.delay)}"


def _count_told(setting: Setting) -> str:
    return f"{setting.instances} instance{'s' * (setting.instances > 1)}"


def batching_told(delay: int | None) -> str:
    """Dynamic batching in words, by its wait in microseconds; None is off."""
    return "off" if delay is None else f"on, waits {delay} µs" if delay else "on"
