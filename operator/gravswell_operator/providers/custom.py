"""Providers of others, which are installed beside the operator and found by their entry points."""

import logging
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers.apart import Apart
from gravswell_operator.providers.base import Ask, Cloud, CloudState
from gravswell_operator.state import Problem

GROUP = "gravswell.providers"
"""The group of entry points; each names something that returns a :class:`Cloud` when it is called without arguments."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""As ``spec.provider.custom.name``."""

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
    """The providers of others, by the names of their entry points; one that does not load says why to each pool.

    So does one whose name two packages have. One that no pool can name is left out: what it is called might be the
    name of a type.
    """
    found: dict[str, Cloud] = {}
    values: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        if not _NAME.fullmatch(point.name):
            log.error(
                "the provider %s (%s) is left out: no pool can name it; a name has lower-case letters, digits and '-'",
                point.name,
                point.value,
            )
        elif values.setdefault(point.name, point.value) != point.value:
            both = f"{values[point.name]} and {point.value}"
            found[point.name] = Absent(f"two providers are called {point.name}, {both}: uninstall the package of one")
        elif point.name not in found:
            found[point.name] = _loaded(point)
    return found


def _loaded(point: EntryPoint) -> Cloud:
    try:
        return Apart(point.name, lambda: _checked(point.load()()))
    except (Exception, SystemExit) as error:  # others' code, which must not keep the operator from its other pools
        log.exception("the provider %s (%s) cannot be loaded", point.name, point.value)
        return Absent(
            f"the provider {point.name} ({point.value}) cannot be loaded: {type(error).__name__}: {error}; mend or "
            "uninstall its package in the operator's image"
        )


def _checked(made: Any) -> Cloud:
    lacking = [call for call in ("reconcile", "release") if not callable(getattr(made, call, None))]
    if lacking:
        raise TypeError(f"it makes {type(made).__name__}, which has no {' and no '.join(lacking)}")
    cloud: Cloud = made
    return cloud


def cloud_of(clouds: Mapping[str, Cloud], pool: GPUNodePool) -> Cloud | None:
    """What makes the pool's nodes outside of the cluster; None where they are made inside, or exist already."""
    custom = pool.spec.provider.custom
    if custom is None:
        return clouds.get(pool.spec.provider.type)
    if custom.name in clouds:
        return clouds[custom.name]
    known = ", ".join(sorted(name for name in clouds if _NAME.fullmatch(name))) or "none"
    return Absent(
        f"no provider {custom.name} is installed in the operator (installed: {known}); install the package that has it "
        f"into the operator's image, as an entry point of the group {GROUP}"
    )
