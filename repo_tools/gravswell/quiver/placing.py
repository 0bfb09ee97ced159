"""Where models were placed, written into their entries."""

from typing import TYPE_CHECKING, Any

from tritonclient.grpc import model_config_pb2

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.checks.backends import is_ensemble
from gravswell.quiver.config import ConfigText
from gravswell.quiver.devices import on_devices
from gravswell.quiver.repository import ModelRepository

if TYPE_CHECKING:
    from gravswell.placement import Layout

ModelInstanceGroup: Any = model_config_pb2.ModelInstanceGroup


def write_layout(repository: ModelRepository, layout: "Layout", *, dry_run: bool = False) -> dict[str, str]:
    """Put the devices of each placed model into ``instance_group`` of the entry of its name; the texts, by entry.

    Instances per device stay, and so do groups for the CPU. All is checked before anything is written:
    :class:`NotFoundError` for a model that is no entry, :class:`InvalidInputError` for an ensemble, and for one that
    asks for no GPU. What is served changes with an entry's next version.
    """
    missing = [name for name in layout.placed if name not in repository.models]
    if missing:
        known = ", ".join(repository.models) or "none"
        raise NotFoundError(f"{repository.location} has no entry {', '.join(missing)}; its entries: {known}")
    proposed: dict[str, str] = {}
    for name in layout.placed:
        config = repository.models[name].config
        text = ConfigText(str(config), where=config.where)
        if is_ensemble(text.message):
            raise InvalidInputError(f"{name} is an ensemble, without instances of its own: place what it is made of")
        on_devices(text.message, layout.gpus(name))
        if not any(group.gpus for group in text.message.instance_group):
            kind = ModelInstanceGroup.Kind.Name(text.message.instance_group[0].kind)
            raise InvalidInputError(
                f"{name} runs on no device that it could be given: its instance_group is {kind}; leave it out, or have "
                f"it run on GPUs (gravswell config set REPO {name} instance_group[0].kind=KIND_GPU)"
            )
        proposed[name] = config.replace(text.render(), dry_run=True)
    for name, rendered in proposed.items() if not dry_run else ():
        repository.models[name].config.replace(rendered)
    return proposed
