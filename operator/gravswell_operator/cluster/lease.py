"""One active operator at a time, by a Lease.

Whether another holder is alive is judged by whether its Lease *changes* while we watch a monotonic clock: clocks of two
machines are never compared, and a wall clock that jumps makes no second leader. A holder that cannot renew within
:data:`RENEW_SECONDS` of the begin of its last successful request stops, well before anybody else may take over after
:data:`LEASE_SECONDS`.

There is one operator for a cluster and not for a namespace, so the Lease is at one place that all of them know,
wherever they were installed or are started from: :data:`LEASE_NAMESPACE`, which every cluster has, and where only its
administrators may write. To look for Leases in all namespaces instead would leave a race between two that look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from gravswell.errors import GravswellError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiConflictError, ApiForbiddenError, ApiNotFoundError, ApiUnavailableError
from gravswell.kube.resources import LEASE
from gravswell.kube.watch import Body
from gravswell_operator.errors import LeaseLostError

LEASE_NAMESPACE = "kube-system"
LEASE_NAME = "gravswell-operator"
LEASE_SECONDS = 15.0
"""How long a Lease must stay unchanged before another operator may take it."""
RENEW_SECONDS = 10.0
"""How long a holder may fail to renew before it must stop."""
RETRY_SECONDS = 2.0
RELEASE_SECONDS = 5.0
"""How long an operator that ends waits until it has given the Lease back."""

_PASSING = (ApiUnavailableError, ApiForbiddenError)
"""What a holder bears for a while: an API server that starts refuses everybody until it has read the roles."""

log = logging.getLogger(__name__)


class Elector:
    """Takes, renews and gives back one Lease."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._namespace, self._name, self.identity = namespace, name, identity
        self._clock = clock
        """Monotonic seconds: what decisions are made by."""
        self._now = now
        """Wall clock: what people read in the Lease."""
        self._seen: tuple[str, float] | None = None
        self._held: Body | None = None
        self._renewed = clock()
        """When the last request that made the Lease ours was sent: the API server counts from then, at the earliest."""

    async def acquire(self) -> None:
        """Return when the Lease is ours. Waits as long as another operator is alive."""
        waiting_for = ""
        while True:
            try:
                holder = await self._try_acquire()
            except ApiUnavailableError as error:
                log.warning("cannot reach the lease: %s", error)
                holder = None
            else:
                if holder is None:
                    log.info("holding the lease %s/%s as %s", self._namespace, self._name, self.identity)
                    return
            if holder and holder != waiting_for:
                log.info("waiting: %s holds the lease %s/%s", holder, self._namespace, self._name)
                waiting_for = holder
            await asyncio.sleep(RETRY_SECONDS)

    async def _try_acquire(self) -> str | None:
        """None when the Lease is ours now; else who has it."""
        try:
            live = await self._client.get(LEASE, self._namespace, self._name)
        except ApiNotFoundError:
            manifest: Body = {
                "apiVersion": LEASE.api_version,
                "kind": LEASE.kind,
                "metadata": {"namespace": self._namespace, "name": self._name},
            }
            return await self._write(self._client.create(LEASE, self._claimed(manifest, transitions=0)))
        spec = live.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder and holder != self.identity:
            version, now = live["metadata"]["resourceVersion"], self._clock()
            if self._seen is None or self._seen[0] != version:
                self._seen = (version, now)
            if now - self._seen[1] < float(spec.get("leaseDurationSeconds") or LEASE_SECONDS):
                return holder
            log.warning("%s has not renewed the lease for %.0f s; taking it", holder, now - self._seen[1])
        transitions = int(spec.get("leaseTransitions") or 0) + (holder != self.identity)
        return await self._write(self._client.replace(LEASE, self._claimed(live, transitions=transitions)))

    async def _write(self, request: Awaitable[Body]) -> str | None:
        try:
            await self._keep(request)
        except ApiConflictError:
            return "another operator"  # it was faster; look again
        return None

    async def _keep(self, request: Awaitable[Body]) -> None:
        sent = self._clock()
        self._held = await request
        self._renewed = sent

    def _claimed(self, lease: Body, *, transitions: int) -> Body:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {
            **(lease.get("spec") or {}),
            "holderIdentity": self.identity,
            "leaseDurationSeconds": int(LEASE_SECONDS),
            "acquireTime": stamp,
            "renewTime": stamp,
            "leaseTransitions": transitions,
        }
        return {**lease, "spec": spec}

    async def hold(self) -> None:
        """Renew for ever. Raises :class:`LeaseLostError` when that fails for too long or somebody else has it.

        To be started as soon as :meth:`acquire` has returned, beside whatever needs the Lease.
        """
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            left = RENEW_SECONDS - (self._clock() - self._renewed)
            try:
                async with asyncio.timeout(max(left, 0.1)):
                    await self._renew()
            except (*_PASSING, TimeoutError) as error:
                log.warning("cannot renew the lease: %s", error or "no answer in time")
            self.require()

    def require(self) -> None:
        """Raise :class:`LeaseLostError` where the Lease may be somebody else's by now; for who asks before each act."""
        if self._clock() - self._renewed >= RENEW_SECONDS:
            raise LeaseLostError(
                f"the lease {self._namespace}/{self._name} could not be renewed for {RENEW_SECONDS:.0f} s, so "
                "another operator may be active; this one ends and must be started again"
            )

    async def _renew(self) -> None:
        assert self._held is not None
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        lease = {**self._held, "spec": {**self._held["spec"], "renewTime": stamp}}
        try:
            await self._keep(self._client.replace(LEASE, lease))
        except (ApiConflictError, ApiNotFoundError):
            await self._look_again()

    async def _look_again(self) -> None:
        """The Lease is not as we left it: deleted or touched, which is mended, or taken, which is the end."""
        holder = await self._try_acquire()
        if holder is not None:
            raise LeaseLostError(
                f"{holder} took the lease {self._namespace}/{self._name}; this operator ends and must be started again"
            )

    async def release(self) -> None:
        """Give the Lease back, so that the next operator need not wait; a failure only makes it wait."""
        if self._held is None:
            return
        spec = {**self._held["spec"], "holderIdentity": ""}
        try:
            await asyncio.wait_for(self._client.replace(LEASE, {**self._held, "spec": spec}), RELEASE_SECONDS)
        except (GravswellError, TimeoutError) as error:
            log.info("the lease was not given back: %s", str(error) or "no answer in time")
        self._held = None
