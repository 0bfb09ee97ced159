"""Instance groups: kinds, counts, devices, profiles and what they take of rate limits."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import model_config_pb2

from gravswell.quiver.checks import rules
from gravswell.quiver.checks.backends import is_ensemble, may_be_tensorrt
from gravswell.quiver.checks.rules import Finding

_Group = model_config_pb2.ModelInstanceGroup


def check(config: Any, place: str) -> Iterator[Finding]:
    """``instance_group``. An ensemble has none, which is another check's."""
    if is_ensemble(config):
        return
    for k, group in enumerate(config.instance_group):
        field = f"instance_group[{k}]"
        what, kind = f"instance_group {k}", _Group.Kind.Name(group.kind)
        gpus = ", ".join(map(str, group.gpus))
        if gpus and group.kind in (_Group.KIND_CPU, _Group.KIND_MODEL):
            yield rules.GROUP_GPUS.at(place, f"{what} is {kind} and names GPU {gpus}", f"{field}.gpus")
        if group.kind == _Group.KIND_GPU or (gpus and group.kind == _Group.KIND_AUTO):
            yield rules.GROUP_NEEDS_GPU.at(place, f"{what} is {kind}, count {group.count}", field)
        if group.count < 1:
            yield rules.GROUP_COUNT.at(place, f"{what} has count {group.count}", f"{field}.count")
        for profile in group.profile:
            if not may_be_tensorrt(config):
                yield rules.GROUP_PROFILE.at(place, f"{what} names profile {profile!r}", f"{field}.profile")
            elif not profile.isdecimal():
                yield rules.GROUP_PROFILE.at(place, f"{profile!r} is no number", f"{field}.profile")
    yield from _resources(config, place)


def _resources(config: Any, place: str) -> Iterator[Finding]:
    scopes: dict[str, set[bool]] = defaultdict(set)
    for k, group in enumerate(config.instance_group):
        for n, resource in enumerate(group.rate_limiter.resources):
            field = f"instance_group[{k}].rate_limiter.resources[{n}]"
            if not resource.count:
                yield rules.RESOURCE_COUNT.at(place, f"resource {resource.name!r} has count 0", f"{field}.count")
            scopes[resource.name].add(bool(getattr(resource, "global")))  # a keyword of Python's
            if len(scopes[resource.name]) > 1:
                yield rules.RESOURCE_SCOPE.at(place, f"resource {resource.name!r} is both", f"{field}.global")
