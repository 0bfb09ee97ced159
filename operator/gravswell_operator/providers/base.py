"""What a provider of nodes answers, and what a provider in a cloud does besides.

A provider is one module with one class. To write one:

1. Give ``spec.provider`` a member: its type, its field, and their rules (``api.providers``).
2. Write the class. :class:`Provider` is its pure part: from the pool, and from how many nodes it shall have now, follow
   the objects *in the cluster* that make the nodes. They are applied, compared and deleted like every child of the
   operator's, and go with the pool by their owner reference: nothing is left to hang when the operator is away.
3. Where things live *outside* the cluster, it is a :class:`Cloud` too. Its calls are made in ``reconcile``, one pass
   after the other for each pool, within :data:`CALL_SECONDS`, and any pass may be the last one of its process.
4. Enter it in ``providers.PROVIDERS``, and a :class:`Cloud` where the operator starts (``reconcile.context.Context``).

Who is not of this project writes a :class:`Cloud` alone, and pools name it with the type Custom: ``providers.custom``
finds it, ``providers.apart`` runs it, and ``docs/providers.md`` says how.

Nodes that are made for a pool carry the label ``gravswell.dev/pool`` with its name: the pods of its servers select them
by it, and the pool counts them by it (``desired.placement.pool_node_selector``).
"""

import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import Protocol

from gravswell.cloudbreak.tags import CLUSTER_ID, POOL_ID, RETAINED
from gravswell.errors import GravswellError
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.state import Problem

__all__ = [
    "CALLS",
    "CALL_SECONDS",
    "Ask",
    "Bounds",
    "Cloud",
    "CloudState",
    "CloudStatus",
    "GPUNodePool",
    "Problem",
    "Provider",
    "ProviderError",
    "Reason",
    "fingerprints",
]

CALL_SECONDS = 30.0
"""How long one pass of a :class:`Cloud` over a pool may take; one of twice that is cut, and the pool says so."""
CALLS = 4
"""Passes over pools at once, of all clouds together: one that does not answer must not hold every worker."""
LOOK_SECONDS = 600.0
"""Until the next pass over a pool of which nothing else asks for one: what somebody does in the cloud is seen then."""
SOONEST_SECONDS = 1.0
"""Until the next pass at least: an answer that asks for less must not keep a worker busy."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def fingerprints(pem: str) -> frozenset[str]:
    """The SHA-256 of each certificate in a PEM text."""
    return frozenset(hashlib.sha256(base64.b64decode(body)).hexdigest() for body in _CERTIFICATE.findall(pem))


class ProviderError(GravswellError):
    """A pass of a :class:`Cloud` that ended without an answer; the message names the provider."""


class Provider(Protocol):
    """Where the nodes of pools of one type come from. Pure."""

    way_out: str
    """What to do where the API server does not know the kinds of :meth:`objects`, in words for a condition."""

    def objects(self, pool: GPUNodePool, bounds: Bounds) -> list[Manifest]:
        """The objects in the cluster that make the pool's nodes; of nodes that are made elsewhere, none.

        Each comes from ``desired.objects.child``. With the deletion policy Retain they have no owner reference, so that
        they outlive the pool.
        """


@dataclass(frozen=True)
class Ask:
    """What a cloud is asked for one pool, with everything that it may know."""

    pool: GPUNodePool
    """Its ``status.cloud`` is what the last pass remembered; lost with a crash between a call and the status, so what
    is there is found by the tag, and never by the status alone."""
    bounds: Bounds
    """How many nodes it shall have now."""
    cluster: str
    """Identity of the cluster: the uid of its namespace kube-system."""
    authorities: frozenset[str] = frozenset()
    """:func:`fingerprints` of the certificate authorities of its API server: another cluster has others. Empty where
    nobody knows."""

    @property
    def tag(self) -> dict[str, str]:
        """What everything that is made for the pool is labelled with there, so that it is found again by it.

        Lower-case letters, digits, '-' and '_' only, which every cloud takes as a label.
        """
        return {POOL_ID: self.pool.metadata.uid, CLUSTER_ID: self.cluster}

    @property
    def node_labels(self) -> dict[str, str]:
        """What every node of the pool must carry in the cluster."""
        return pool_node_selector(self.pool)

    @property
    def mark(self) -> dict[str, str]:
        """The label that it has beside :attr:`tag` where it outlives the pool; otherwise none."""
        return {RETAINED: "true"} if self.pool.spec.deletion_policy == "Retain" else {}


@dataclass(frozen=True)
class CloudState:
    """What one pass over a pool found in the cloud, or did there."""

    remembered: CloudStatus = field(default_factory=CloudStatus)
    """For ``status.cloud``."""
    problem: Problem | None = None
    """What is under way, or what blocks it (a quota, a limit of calls, a missing permission): a reason and words that
    name the object and the way out. None: the cloud has what is wanted."""
    look_again: float | None = None
    """Seconds until the next pass, :data:`SOONEST_SECONDS` at least; None: when something changes, and after
    :data:`LOOK_SECONDS`."""
    gone: bool = False
    """Of :meth:`Cloud.release`: nothing of the pool is left there, or what is left stays on purpose."""


class Cloud(Protocol):
    """A provider whose things live outside the cluster.

    Every call is idempotent by :attr:`Ask.tag`, and none waits for a long-running operation: its name is remembered,
    and the next pass looks at it again. Nothing is raised for what the cloud answers: that is a
    :attr:`CloudState.problem`. A :class:`gravswell.errors.GravswellError` is for what has no answer at all; it is told
    in the pool's condition, and the pass is made again with a growing delay. So it is with any other exception and with
    what is no :class:`CloudState`, which are told as faults of the provider.
    """

    async def reconcile(self, ask: Ask) -> CloudState:
        """One step towards what the pool asks for; when that is there, nothing but a look."""

    async def release(self, ask: Ask) -> CloudState:
        """One step towards nothing being left. What is not there, or an API that does not exist, is gone.

        Called while the pool has its finalizer and is being deleted; with the deletion policy Retain it is not called.
        """
