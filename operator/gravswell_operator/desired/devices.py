"""What Models ask for of a replica's GPUs, in the terms of :mod:`gravswell.placement`."""

from collections.abc import Iterable, Mapping

from gravswell.placement import Held, Layout, Wish
from gravswell.placement.groups import groups_of
from gravswell.serving.contracts import DesiredModel
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.state import Unreadable


def wishes(model: Model, at: Iterable[int] = ()) -> list[Wish]:
    """What ``model`` asks for, being on the devices ``at`` already; nothing, where it runs on every device."""
    placement = model.spec.placement
    if placement.devices is None:
        return []
    now = groups_of(at)
    return [Wish(model.spec.entry, placement.devices, start=placement.start, shared=placement.shared, now=now)]


def held(server: InferenceServer, model: Model | Unreadable, desired: DesiredModel) -> list[Held]:
    """What ``desired`` holds of the server's devices, where it stays as it is whatever ``model`` asks for."""
    shared = _shares(model)
    groups = groups_of(device for device in desired.gpus or () if device < server.spec.gpus)
    return [Held(desired.name, group, shared) for group in groups]


def _shares(model: Model | Unreadable) -> bool:
    if isinstance(model, Model):
        return model.spec.placement.shared
    placement = model.spec.get("placement")
    return isinstance(placement, Mapping) and placement.get("shared") is True


def refusal(server: InferenceServer, layout: Layout, entry: str) -> str:
    """Why ``entry`` gets no devices, with the table of who holds what, and the way out."""
    name = server.metadata.name
    if not layout.devices:
        return (
            f"{entry} asks for devices, and InferenceServer {name} has none: raise its gpus, or leave "
            "placement.devices out"
        )
    return (
        f"{layout.refused[entry]}. Who holds what on each replica of InferenceServer {name}: {layout.table}. Ask for "
        "fewer devices or others, set shared: true on all that shall share them, or raise the server's gpus"
    )
