"""The GKE provider: a node pool of a cluster of Google's, by the calls of ``gravswell.cloudbreak.google``.

Google's library is imported when the first pool asks for it: who has none need not install it.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gravswell.cloudbreak import errors as cloud
from gravswell.errors import AccessDeniedError, GravswellError, InvalidInputError, NotFoundError, UnsupportedError
from gravswell.kube.backoff import Backoff
from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.gpunodepool import CloudStatus
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers.base import CALL_SECONDS, Ask, CloudState
from gravswell_operator.state import Problem

if TYPE_CHECKING:
    from gravswell.cloudbreak.google import Api
    from gravswell_operator.providers.gke_steps import Steps

Place = tuple[str, str]
"""Project and location."""
Asked = tuple[bool, int | None, Bounds]
"""Whether to release, the generation, and how many nodes: where these are the same, so is the answer."""

RETRY_SECONDS = 300.0
"""After what only people or time can mend: a quota, a zone without machines, a missing permission."""
THROTTLED_SECONDS = 30.0
"""After too many requests."""
LOST_SECONDS = 60.0
"""For which a call without an answer may still be taken; so long nothing is believed to be gone."""
WORKING_SECONDS = 1.0, 10.0
"""Until the first look at what is under way or did not answer, and between later ones; Google takes minutes."""

_ANSWERS: tuple[tuple[type[GravswellError], Reason, float | None], ...] = (
    (cloud.QuotaError, Reason.QUOTA_EXCEEDED, RETRY_SECONDS),
    (cloud.StockoutError, Reason.OUT_OF_STOCK, RETRY_SECONDS),
    (cloud.BusyError, Reason.PROVIDER_STARTING, None),
    (cloud.TakenError, Reason.NAME_TAKEN, RETRY_SECONDS),
    (cloud.ThrottledError, Reason.PROVIDER_UNREACHABLE, THROTTLED_SECONDS),
    (cloud.LostError, Reason.PROVIDER_UNREACHABLE, None),
    (AccessDeniedError, Reason.FORBIDDEN, RETRY_SECONDS),
    (NotFoundError, Reason.PROVIDER_MISSING, RETRY_SECONDS),
    (UnsupportedError, Reason.PROVIDER_MISSING, RETRY_SECONDS),
    (InvalidInputError, Reason.REJECTED, RETRY_SECONDS),
    (GravswellError, Reason.PROVIDER_NOT_READY, RETRY_SECONDS),
)
"""What an answer is told as, the first that fits, and the seconds until the next look.

None: as for what is under way."""


class Gke:
    """One node pool of the cluster for each ``GPUNodePool``, with a name that follows from the object's uid.

    So two calls of a crashed and a new operator name the same node pool, and Google makes it once. Its machines bear
    :attr:`Ask.tag` as Google's labels: what bears the name and not the tag is not touched.

    ``connect`` makes the connection to a project's location; ``now`` is a monotonic clock, in seconds.
    """

    way_out = ""

    def __init__(
        self, connect: "Callable[[str, str], Api] | None" = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect, self._now = connect or _connect, now
        self._apis: dict[Place, Api] = {}
        self._looks: dict[str, Backoff] = {}
        """By the pool's uid, when to look again at what is under way."""
        self._broken: dict[str, float] = {}
        """By the pool's uid, since when its node pool is known to be broken."""
        self._held: dict[str, tuple[Asked, float, CloudState]] = {}
        """By the pool's uid, what an answer was given to, until when it stands, and the answer."""
        self._authorities: dict[tuple[Place, str], tuple[float, frozenset[str]]] = {}
        """By a cluster's place and name, whom its API server's certificate is from, and until when that is believed."""
        self._lost: dict[str, float] = {}
        """By the pool's uid, when a call had no answer, until a look shows the node pool."""

    def objects(self, pool: GPUNodePool, bounds: Bounds) -> list[Manifest]:
        """None: the machines are asked for outside of the cluster."""
        del pool, bounds
        return []

    async def reconcile(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.reconcile`."""
        return await self._pass(ask, self._towards, release=False)

    async def release(self, ask: Ask) -> CloudState:
        """See :meth:`Cloud.release`."""
        return await self._pass(ask, self._away, release=True)

    async def _pass(self, ask: Ask, step: "Callable[[Steps], CloudState]", *, release: bool) -> CloudState:
        """One pass; none while an answer stands that only time or an edit changes, whoever wakes the pool."""
        uid, asked = ask.pool.metadata.uid, (release, ask.pool.metadata.generation, ask.bounds)
        before, until, answer = self._held.get(uid, (None, 0.0, CloudState()))
        if before == asked and self._now() < until:
            return replace(answer, look_again=until - self._now())
        self._held.pop(uid, None)
        state = await asyncio.to_thread(self._told, ask, step)
        if state.look_again is not None:
            self._held[uid] = asked, self._now() + state.look_again, state
        return self._timed(ask, state)

    def _timed(self, ask: Ask, state: CloudState) -> CloudState:
        """With when to look again, where the answer does not say: later and later."""
        uid = ask.pool.metadata.uid
        if state.problem is None or state.gone:
            self._looks.pop(uid, None)
            return state
        if state.look_again is not None:
            return state
        return replace(state, look_again=self._looks.setdefault(uid, Backoff(*WORKING_SECONDS)).failed())

    def _told(self, ask: Ask, step: "Callable[[Steps], CloudState]") -> CloudState:
        try:
            api = self._api(ask)  # says in words where Google's library is not installed
            from gravswell_operator.providers.gke_steps import Steps  # noqa: PLC0415 - imports that

            return step(Steps(api, ask))
        except GravswellError as error:
            return _state(error, ask.pool.status.cloud or CloudStatus())

    def _api(self, ask: Ask) -> "Api":
        gke = ask.pool.spec.provider.gke
        assert gke is not None  # a rule of the union
        place = gke.project, gke.location
        if place not in self._apis:
            self._apis[place] = self._connect(*place)
        return self._apis[place]

    def _towards(self, steps: "Steps") -> CloudState:
        uid = steps.ask.pool.metadata.uid
        try:
            if (elsewhere := self._elsewhere(steps)) is not None:
                return elsewhere
            state = self._mended(steps)
        except cloud.LostError:
            self._lost[uid] = self._now()
            raise
        if state.problem is None:
            self._lost.pop(uid, None)
        return state

    def _elsewhere(self, steps: "Steps") -> CloudState | None:
        """What to say where the operator runs in another cluster than the pool names: then nothing is made or changed.

        Only what is certain counts: where one of the two does not say whom its certificates are from, it is believed.
        """
        ask, gke = steps.ask, steps.gke
        if not ask.authorities:
            return None
        where = (gke.project, gke.location), gke.cluster
        until, theirs = self._authorities.get(where, (-math.inf, frozenset()))
        if self._now() >= until:
            theirs = steps.authorities()
            self._authorities[where] = self._now() + RETRY_SECONDS, theirs
        if not theirs or theirs & ask.authorities:
            return None
        words = (
            f"{steps.api.label(gke.cluster)} is not the cluster that the operator runs in: its API server has its "
            "certificate from another authority than ConfigMap kube-system/kube-root-ca.crt names here. Nodes "
            "there would never join, so nothing is made or changed; name this cluster in provider.gke.cluster of a new "
            "GPUNodePool, or apply the pool in the other one, with an operator there; where it is this cluster all the "
            "same, install the chart with gke.verifyCluster=false"
        )
        remembered = ask.pool.status.cloud or CloudStatus()
        return CloudState(remembered, Problem(Reason.WRONG_CLUSTER, words), look_again=RETRY_SECONDS)

    def _mended(self, steps: "Steps") -> CloudState:
        """One step; of what is broken, after a while, the one that removes it."""
        uid = steps.ask.pool.metadata.uid
        if steps.failed is not None:
            if steps.broken is not None:
                self._broken.setdefault(uid, self._now())
            return _state(steps.failed, steps.remembered())  # without the operation, and without what it did not do
        if steps.broken is None:
            self._broken.pop(uid, None)
            return steps.towards()
        since = self._broken.setdefault(uid, self._now())
        serves = steps.ask.pool.status.nodes > 0 and steps.ask.bounds.maximum > 0
        if serves or self._now() - since < RETRY_SECONDS:
            raise steps.broken
        del self._broken[uid]  # it has no nodes, and Google does not try again by itself
        return steps.away()

    def _away(self, steps: "Steps") -> CloudState:
        uid = steps.ask.pool.metadata.uid
        self._broken.pop(uid, None)
        if steps.deletion_failed is not None:
            return _state(steps.deletion_failed, steps.remembered())  # the next pass deletes again
        state = steps.away()
        if not state.gone:
            self._lost.pop(uid, None)
        elif self._now() - self._lost.get(uid, -LOST_SECONDS) < LOST_SECONDS:
            words = (
                f"{steps.label} is not there; a call had no answer and may still be taken, so it is looked for again"
            )
            return CloudState(remembered=steps.remembered(), problem=Problem(Reason.PROVIDER_UNREACHABLE, words))
        else:
            self._lost.pop(uid, None)
        return state


def _state(error: GravswellError, remembered: CloudStatus) -> CloudState:
    reason, again = next((reason, again) for kind, reason, again in _ANSWERS if isinstance(error, kind))
    return CloudState(remembered=remembered, problem=Problem(reason, str(error)), look_again=again)


def _connect(project: str, location: str) -> "Api":
    from gravswell.cloudbreak.google import Api  # noqa: PLC0415 - imports Google's library

    return Api(project, location, call_seconds=CALL_SECONDS / 4)  # a pass makes four calls at most
