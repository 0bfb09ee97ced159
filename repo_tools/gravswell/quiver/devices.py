"""A configuration on given devices."""

from collections.abc import Sequence
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.checks.backends import is_ensemble

_Group: Any = model_config_pb2.ModelInstanceGroup


def on_devices(config: Any, gpus: Sequence[int]) -> None:
    """Change a ``ModelConfig``, in place, so that what runs on GPUs runs on ``gpus``, with as many instances on each.

    Groups that ask for the CPU, or for devices that the model itself chooses (``KIND_MODEL``), stay as they are, and so
    does an ensemble, which runs in its members' instances. Groups that differ in nothing but their devices and how many
    instances are on them become one, with the first one's count: else each device would get all of theirs.
    """
    if is_ensemble(config):
        return
    if not config.instance_group:
        config.instance_group.add()
    kept: list[Any] = []
    seen: list[Any] = []
    for group in config.instance_group:
        if group.kind in (_Group.KIND_AUTO, _Group.KIND_GPU):
            group.kind = _Group.KIND_GPU
            group.gpus[:] = gpus
            group.count = group.count or 1
            form = _Group()
            form.CopyFrom(group)
            form.ClearField("count")
            form.ClearField("name")
            if form in seen:
                continue
            seen.append(form)
        kept.append(group)
    if len(kept) < len(config.instance_group):
        groups = [_Group.FromString(group.SerializeToString()) for group in kept]
        config.ClearField("instance_group")
        config.instance_group.extend(groups)
