"""What a configuration says of a pipeline: its members, and who may call them. Pure: no store, no server.

An ensemble names each member in its steps. Business logic names them in parameters, one for each member::

    parameters { key: "gravswell.member.denoise" value { string_value: "noise-removal:3" } }
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from tritonclient.grpc import model_config_pb2

from gravswell.errors import InvalidInputError
from gravswell.quiver.checks.backends import is_ensemble

PREFIX = "gravswell."
"""Of the parameters that are ours."""

ACCESS = "gravswell.access"
"""Whether clients may call the members of this pipeline by themselves."""

MEMBER = "gravswell.member."
"""Followed by the member's name in the function; the value is ``entry:version``."""

Access = Literal["private", "public"]

_OWN = ("platform", "backend", "ensemble_scheduling")
"""Fields that say what kind of pipeline it is, and of what."""


class Pinned(NamedTuple):
    """A member as a configuration names it."""

    alias: str
    """The entry's own name in an ensemble, whose steps have no other."""
    model: str
    version: int
    """-1: the newest, which only an ensemble says that others wrote."""


def is_pipeline(config: Any) -> bool:
    """Whether it is made of other models: an ensemble, or business logic of ours."""
    return is_ensemble(config) or any(key.startswith(PREFIX) for key in config.parameters)


def pinned_members(config: Any) -> list[Pinned]:
    """The members that a configuration names, each once, in the order in which it does; none for anything else."""
    steps = [Pinned(step.model_name, step.model_name, step.model_version) for step in config.ensemble_scheduling.step]
    named = [
        Pinned(key.removeprefix(MEMBER), *parse_member_value(config.parameters[key].string_value))
        for key in sorted(config.parameters)
        if key.startswith(MEMBER)
    ]
    return list(dict.fromkeys(steps + named))


def member_value(model: str, version: int) -> str:
    """How a parameter names a member: ``noise-removal:3``."""
    return f"{model}:{version}"


def parse_member_value(text: str) -> tuple[str, int]:
    """The entry and the number in a parameter's value. InvalidInputError for anything else."""
    model, _, version = text.rpartition(":")
    if not model or not version.removeprefix("-").isdecimal():
        raise InvalidInputError(f"{text!r} names no member: write entry:version, such as noise-removal:3")
    return model, int(version)


def access_of(config: Any) -> Access:
    """Whether clients may call the members by themselves; ``private`` where nothing is said."""
    text = config.parameters[ACCESS].string_value if ACCESS in config.parameters else "private"
    return check_access(text)


def check_access(text: str) -> Access:
    """``private`` or ``public``; InvalidInputError for anything else."""
    if text == "public":
        return "public"
    if text == "private":
        return "private"
    raise InvalidInputError(f"access is {text!r}: use private, or public for members that clients call themselves")


def set_parameters(config: Any, access: Access, members: Iterable[Pinned] = ()) -> None:
    """State who may call the members, and of business logic which they are."""
    config.parameters[ACCESS].string_value = access
    for member in members:
        config.parameters[f"{MEMBER}{member.alias}"].string_value = member_value(member.model, member.version)


def take_parts(config: Any, parts: Any) -> None:
    """Put into ``config`` what a pipeline's version itself decides; what else it says stays.

    That is the kind of pipeline, the steps, and the parameters that are ours. Business logic runs as one instance on
    the CPU where nothing is said of instances, and an ensemble has none.
    """
    for field in _OWN:
        config.ClearField(field)
    for key in [key for key in config.parameters if key.startswith(PREFIX)]:
        del config.parameters[key]
    config.platform, config.backend = parts.platform, parts.backend
    if parts.HasField("ensemble_scheduling"):
        for other in ("dynamic_batching", "sequence_batching"):  # of one oneof: it would clear them silently
            if config.HasField(other):
                raise InvalidInputError(
                    f"{config.name} has {other}, and is compiled into an ensemble, which has a schedule of its own: "
                    f"take {other} out of config.pbtxt, where a member can have it"
                )
        config.ensemble_scheduling.CopyFrom(parts.ensemble_scheduling)
        del config.instance_group[:]
    elif not config.instance_group:
        config.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    for key in parts.parameters:
        if key.startswith(PREFIX):
            config.parameters[key].CopyFrom(parts.parameters[key])
