"""One ConfigMap of the API server, read, watched and merged into: all that the agent and the lister need of it."""

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import NamedTuple

from gravswell.errors import AccessDeniedError, NotFoundError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiExpiredError, ApiForbiddenError, ApiNotFoundError
from gravswell.kube.resources import CONFIG_MAP, Selection
from gravswell.kube.watch import BOOKMARK, DELETED, Body

WATCH_SECONDS = 120
"""How long one watch lasts. Its end makes the caller read again, which heals whatever a watch can miss."""


class Snapshot(NamedTuple):
    """What a ConfigMap held at one moment."""

    data: dict[str, str]
    resource_version: str
    uid: str = ""
    """Of the ConfigMap: another one of the same name has another."""


class ConfigMap:
    """A ConfigMap by name. Every method raises :class:`UnavailableError` when the API server does not answer,
    :class:`AccessDeniedError` when the Role does not allow it, and :class:`NotFoundError` when it is not there.
    """

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self.namespace = namespace
        self.name = name

    async def read(self) -> Snapshot:
        """Its present content."""
        with self._explained():
            return _snapshot(await self._client.get(CONFIG_MAP, self.namespace, self.name))

    async def merge(self, data: Mapping[str, str | None]) -> Snapshot:
        """Set these keys and leave the others; None removes a key."""
        with self._explained():
            change = {"data": dict(data)}
            return _snapshot(await self._client.merge(CONFIG_MAP, self.namespace, self.name, change))

    async def watch(self, resource_version: str) -> AsyncGenerator[Snapshot, None]:
        """Its changes after ``resource_version``, for :data:`WATCH_SECONDS`, or less when that version is too old."""
        # Selected by name: a Role with resourceNames allows a watch in no other form.
        mine = Selection(CONFIG_MAP, self.namespace, name=self.name)
        watching = self._client.watch(mine, resource_version, seconds=WATCH_SECONDS)
        with self._explained():
            try:
                async with aclosing(watching) as changes:
                    async for change in changes:
                        if change.type == DELETED:
                            raise NotFoundError(f"ConfigMap {self.namespace}/{self.name} was deleted")
                        if change.type != BOOKMARK:
                            yield _snapshot(change.object)
            except ApiExpiredError:
                return

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What to do about an answer, where we know."""
        try:
            yield
        except ApiNotFoundError:
            raise NotFoundError(f"ConfigMap {self.namespace}/{self.name} is not there; the operator makes it") from None
        except ApiForbiddenError as error:
            raise AccessDeniedError(f"the API server refuses this ServiceAccount: {error}") from None


def _snapshot(found: Body) -> Snapshot:
    metadata = found["metadata"]
    return Snapshot(dict(found.get("data") or {}), str(metadata["resourceVersion"]), str(metadata["uid"]))
