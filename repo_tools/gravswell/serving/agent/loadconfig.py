"""The config that Triton gets at load: what the version published, and what its place adds. Pure.

Two ``parameters`` carry the agent's own memory into Triton, where it cannot go stale: which digest was loaded, and with
which overlay. An agent that restarts reads them back and knows what is served.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tritonclient.grpc import model_config_pb2

from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.composition.config import MEMBER
from gravswell.quiver.config import ModelConfig, config_to_json
from gravswell.quiver.devices import on_devices
from gravswell.serving.contracts import DesiredModel
from gravswell.serving.members import as_member
from gravswell.serving.triton.overlay import run_on_cpu

DIGEST_PARAMETER = "gravswell-digest"
KEY_PARAMETER = "gravswell-load"
AGAIN_PARAMETER = "gravswell-again"

ModelInstanceGroup: Any = model_config_pb2.ModelInstanceGroup

UNVERIFIED = "unverified"
"""What stands for the digest of a version that has no manifest."""


class Loaded(NamedTuple):
    """What Triton serves under one name. ``key`` is None when it was not loaded by an agent."""

    version: int
    digest: str | None
    key: str | None
    members: tuple[str, ...] = ()
    """The names of the models that it calls as members, of a pipeline."""


def load_key(model: DesiredModel, *, cpu_only: bool) -> str:
    """Short hash of all that decides how a version is loaded; equal keys need no reload."""
    facts = [model.name, str(model.version), model.digest or UNVERIFIED, str(model.instances), str(cpu_only)]
    if model.gpus is not None:  # one more fact only where there is one: an upgrade of the agent reloads nothing
        facts.append(str(model.gpus))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def for_traffic(published: Any, model: DesiredModel, *, cpu_only: bool, again: str = "") -> str:
    """JSON of the config under which ``model`` takes traffic: exactly its version, its instances, its devices.

    Triton does nothing for a config that it runs with already; a new text in ``again`` makes it load all the same.
    """
    config = ModelConfig()
    config.CopyFrom(published)
    config.name = model.name
    config.ClearField("version_policy")
    config.version_policy.specific.versions.append(model.version)
    if model.instances is not None and not is_ensemble(config):  # which runs in its members' instances
        if not config.instance_group:
            config.instance_group.add(kind=ModelInstanceGroup.KIND_AUTO)
        for group in config.instance_group:
            group.count = model.instances
    if model.gpus is not None:
        on_devices(config, model.gpus)
    if cpu_only:
        run_on_cpu(config)
    _remember(config, model, cpu_only=cpu_only, again=again)
    return config_to_json(config)


def for_proof(
    published: Any, private_name: str, version: int, *, cpu_only: bool, gpus: Sequence[int] | None = None
) -> str:
    """JSON of the config for the golden proof: the same graph under a private name, one instance, no queueing.

    It runs on the first of ``gpus``, the model's own devices: others are not its to use. Batching delay, cache, warm-up
    and rate limits are left out: they change when an answer comes, not what it is.
    """
    config = ModelConfig()
    config.CopyFrom(published)
    config.name = private_name
    config.ClearField("version_policy")
    config.version_policy.specific.versions.append(version)
    for field in ("dynamic_batching", "response_cache", "model_warmup"):
        config.ClearField(field)
    if gpus is not None:
        on_devices(config, gpus)
    if not is_ensemble(config):
        first = config.instance_group[0] if config.instance_group else None
        group = ModelInstanceGroup(kind=first.kind if first else ModelInstanceGroup.KIND_AUTO, count=1)
        if first and first.gpus:
            group.gpus.append(first.gpus[0])
        config.ClearField("instance_group")
        config.instance_group.append(group)
    if cpu_only:
        run_on_cpu(config)
    return config_to_json(config)


def for_member(published: Any, name: str, member: DesiredModel, *, cpu_only: bool, again: str = "") -> Any:
    """The config under which the version ``member`` is loaded as ``name``, for the pipelines that call it.

    It keeps the instances and the batching that it was published with, on the devices of the pipeline if that was given
    some; ``again`` is that of :func:`for_traffic`.
    """
    config = as_member(published, name, member.version)
    if member.gpus is not None:
        on_devices(config, member.gpus)
    if cpu_only:
        run_on_cpu(config)
    _remember(config, member, cpu_only=cpu_only, again=again)
    return config


def read_loaded(version: int, config: Mapping[str, Any]) -> Loaded:
    """What a running config (Triton's JSON) says of itself."""
    parameters = config.get("parameters") or {}
    digest = parameters.get(DIGEST_PARAMETER, {}).get("string_value")
    key = parameters.get(KEY_PARAMETER, {}).get("string_value")
    calls = [step["model_name"] for step in config.get("ensemble_scheduling", {}).get("step", ())]
    pins = [value.get("string_value", "") for name, value in parameters.items() if name.startswith(MEMBER)]
    calls += [pin.rpartition(":")[0] for pin in pins]
    members = tuple(sorted({name for name in calls if name.startswith(MEMBER_PREFIX)}))
    return Loaded(version, None if digest in (None, UNVERIFIED) else digest, key, members)


def _remember(config: Any, model: DesiredModel, *, cpu_only: bool, again: str) -> None:
    config.parameters[DIGEST_PARAMETER].string_value = model.digest or UNVERIFIED
    config.parameters[KEY_PARAMETER].string_value = load_key(model, cpu_only=cpu_only)
    if again:
        config.parameters[AGAIN_PARAMETER].string_value = again
