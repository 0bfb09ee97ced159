"""Events on transitions, written behind the reconciler's back: a lost event never fails or delays a reconcile."""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from gravswell.errors import GravswellError
from gravswell.kube.client import Client
from gravswell_operator.cluster.resources import EVENT
from gravswell_operator.conditions import Transition

REPORTER = "gravswell.dev/operator"
BACKLOG = 1000
"""Events that wait to be written; above, the newest are dropped and counted."""
NOTE_LENGTH = 1024

log = logging.getLogger(__name__)


class Recorder:
    """Writes events.k8s.io Events. ``instance`` names this operator; ``now`` is the wall clock."""

    def __init__(self, client: Client, instance: str, now: Callable[[], datetime]) -> None:
        self._client, self._instance, self._now = client, instance, now
        self._backlog: asyncio.Queue[dict[str, Any]] = asyncio.Queue(BACKLOG)
        self.dropped = 0

    def transition(self, regarding: Mapping[str, Any], transition: Transition) -> None:
        """Note that a condition of the object ``regarding`` (an object reference) changed."""
        note = f"{transition.type} is {transition.status}: {transition.message}"
        self._record(regarding, transition.reason, note, warning=transition.warning)

    def _record(self, regarding: Mapping[str, Any], reason: str, note: str, *, warning: bool) -> None:
        stamp = self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "name": f"{regarding['name'][:200]}.{uuid.uuid4().hex[:16]}",
                # Events of cluster-scoped objects live in the default namespace.
                "namespace": regarding.get("namespace") or "default",
            },
            "eventTime": stamp,
            "reportingController": REPORTER,
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "reason": reason[:128],
            "note": note[:NOTE_LENGTH],
            "type": "Warning" if warning else "Normal",
            "regarding": dict(regarding),
        }
        try:
            self._backlog.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1

    async def write(self) -> None:
        """Write events for ever."""
        while True:
            event = await self._backlog.get()
            try:
                await self._client.create(EVENT, event)
            except GravswellError as error:
                # Of no consequence for what the event is about; its namespace may just have gone.
                log.info("event not written: %s", error)
            finally:
                self._backlog.task_done()
