"""Events about pods, counted where they repeat."""

import asyncio
import logging
import secrets
from datetime import UTC, datetime
from typing import Any

from gravswell.errors import GravswellError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiNotFoundError
from gravswell.kube.resources import Resource

log = logging.getLogger(__name__)

Document = dict[str, Any]

COMPONENT = "gravswell-local-node"
EVENT = Resource("Event", "events")
"""The older of the two kinds: of its series ``kubectl`` shows the count."""


class Events:
    """Writes events in the background; a lost event is logged and costs nothing else."""

    def __init__(self, client: Client, host: str) -> None:
        self._client = client
        self._host = host
        self._known: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._queue: asyncio.Queue[tuple[Document, str, str, str]] = asyncio.Queue()

    def tell(self, pod: Document, reason: str, message: str, *, warning: bool = False) -> None:
        """Record that ``reason`` (such as ``Started``) happened to ``pod``."""
        self._queue.put_nowait((pod, reason, message[:1024], "Warning" if warning else "Normal"))

    def forget(self, uid: str) -> None:
        """Drop what is remembered of the pod with ``uid``."""
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    async def run(self) -> None:
        """Write what is told, for ever."""
        while True:
            item = await self._queue.get()
            try:
                await self._write(*item)
            except GravswellError as error:
                log.info("event not written: %s", error)

    async def _write(self, pod: Document, reason: str, message: str, kind: str) -> None:
        metadata = pod["metadata"]
        key = (metadata["uid"], reason, message)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if key in self._known:
            name, count = self._known[key]
            try:
                change = {"count": count + 1, "lastTimestamp": now}
                await self._client.merge(EVENT, metadata["namespace"], name, change)
            except ApiNotFoundError:  # events expire after an hour
                del self._known[key]
            else:
                self._known[key] = (name, count + 1)
                return
        name = f"{metadata['name']}.{secrets.token_hex(8)}"
        await self._client.create(
            EVENT,
            {
                "apiVersion": EVENT.api_version,
                "kind": EVENT.kind,
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": metadata["name"],
                    "namespace": metadata["namespace"],
                    "uid": metadata["uid"],
                },
                "reason": reason,
                "message": message,
                "type": kind,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": COMPONENT, "host": self._host},
                "reportingComponent": COMPONENT,
                "reportingInstance": self._host,
            },
        )
        self._known[key] = (name, 1)
