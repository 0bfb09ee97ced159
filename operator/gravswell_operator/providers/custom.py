"""Providers of others, which are installed beside the operator and found by their entry points."""

import logging
from collections.abc import Mapping
from importlib.metadata import entry_points

from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers.base import Ask, Cloud, CloudState
from gravswell_operator.state import Problem

GROUP = "gravswell.providers"
"""The group of entry points; each names something that returns a :class:`Cloud` when it is called without arguments."""

log = logging.getLogger(__name__)


class Custom:
    """What every provider of the type Custom is inside the cluster: nothing. Its nodes join from outside."""

    way_out = ""

    def objects(self, pool: GPUNodePool, bounds: Bounds) -> list[Manifest]:  # noqa: ARG002  a provider's signature
        """None."""
        return []


class Absent:
    """In place of a provider that is not there: says so, and lets nothing go that it may have made."""

    def __init__(self, why: str) -> None:
        self._why = why

    async def reconcile(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.reconcile`."""
        return CloudState(ask.pool.status.cloud or CloudStatus(), Problem(Reason.PROVIDER_MISSING, self._why))

    async def release(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.release`."""
        return await self.reconcile(ask)


def installed() -> dict[str, Cloud]:
    """The providers of others, by the names of their entry points; one that does not load says why to each pool."""
    found: dict[str, Cloud] = {}
    for point in entry_points(group=GROUP):
        try:
            found[point.name] = point.load()()
        except Exception as error:  # others' code, which must not keep the operator from its other pools
            log.exception("the provider %s (%s) cannot be loaded", point.name, point.value)
            why = f"the provider {point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
            found[point.name] = Absent(why)
    return found


def cloud_of(clouds: Mapping[str, Cloud], pool: GPUNodePool) -> Cloud | None:
    """What makes the pool's nodes outside of the cluster; None where they are made inside, or exist already."""
    custom = pool.spec.provider.custom
    if custom is None:
        return clouds.get(pool.spec.provider.type)
    if custom.name in clouds:
        return clouds[custom.name]
    known = ", ".join(sorted(name for name in clouds if name.islower())) or "none"
    return Absent(
        f"no provider {custom.name} is installed in the operator (installed: {known}); install the package that has it "
        f"into the operator's image, as an entry point of the group {GROUP}"
    )
