"""One ConfigMap of the API server, read, watched and merged into: all that the agent and the lister need of it."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import aiohttp

from gravswell.errors import AccessDeniedError, NotFoundError, UnavailableError
from gravswell.serving import incluster

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient, V1ConfigMap

REQUEST_SECONDS = 20.0
WATCH_SECONDS = 120
"""How long one watch lasts. Its end makes the caller list again, which heals whatever a watch can miss."""


class Snapshot(NamedTuple):
    """What a ConfigMap held at one moment."""

    data: dict[str, str]
    resource_version: str


class ConfigMap:
    """A ConfigMap by name. Every method raises :class:`UnavailableError` when the API server does not answer,
    :class:`AccessDeniedError` when the Role does not allow it, and :class:`NotFoundError` when it is not there.
    """

    def __init__(self, client: "ApiClient", namespace: str, name: str) -> None:
        from kubernetes.aio.client import CoreV1Api  # noqa: PLC0415  heavy, and only needed in a cluster

        self._api = CoreV1Api(client)
        self.namespace = namespace
        self.name = name

    async def read(self) -> Snapshot:
        """Its present content."""
        try:
            found = await self._api.read_namespaced_config_map(
                self.name, self.namespace, _request_timeout=REQUEST_SECONDS
            )
        except Exception as error:  # noqa: BLE001  translated or raised again
            self._translate(error)
        return _snapshot(found)

    async def merge(self, data: Mapping[str, str | None]) -> Snapshot:
        """Set these keys and leave the others; None removes a key."""
        try:
            found = await self._api.patch_namespaced_config_map(
                self.name,
                self.namespace,
                {"data": dict(data)},
                _content_type="application/merge-patch+json",
                _request_timeout=REQUEST_SECONDS,
            )
        except Exception as error:  # noqa: BLE001  translated or raised again
            self._translate(error)
        return _snapshot(found)

    async def watch(self, resource_version: str) -> AsyncIterator[Snapshot]:
        """Its changes after ``resource_version``, for :data:`WATCH_SECONDS`, or less when that version is too old."""
        try:
            # The name as a field selector: a Role with resourceNames allows a watch in no other form.
            response = await self._api.list_namespaced_config_map_without_preload_content(
                self.namespace,
                field_selector=f"metadata.name={self.name}",
                watch=True,
                resource_version=resource_version,
                timeout_seconds=WATCH_SECONDS,
                _request_timeout=WATCH_SECONDS + REQUEST_SECONDS,
            )
            try:
                if response.status != 200:
                    self._refused(response.status, await response.text())
                while line := await response.content.readline():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        return  # 410 and its like: list again
                    if event["type"] == "DELETED":
                        raise NotFoundError(f"ConfigMap {self.namespace}/{self.name} was deleted")
                    found = event["object"]
                    yield Snapshot(found.get("data") or {}, found["metadata"]["resourceVersion"])
            finally:
                response.close()
        except (NotFoundError, UnavailableError):
            raise
        except Exception as error:  # noqa: BLE001  translated or raised again
            self._translate(error)

    def _translate(self, error: Exception) -> NoReturn:
        from kubernetes.aio.client.exceptions import ApiException  # noqa: PLC0415

        if isinstance(error, ApiException) and error.status:
            self._refused(int(error.status), str(_message(error.body) or error.reason))
        if isinstance(error, ApiException | aiohttp.ClientError | OSError | TimeoutError | ValueError):
            told = str(error) or type(error).__name__
            raise UnavailableError(
                f"the API server does not answer for ConfigMap {self.namespace}/{self.name}: {told}"
            ) from None
        raise error

    def _refused(self, status: int, text: str) -> NoReturn:
        where = f"ConfigMap {self.namespace}/{self.name}"
        if status == 404:
            raise NotFoundError(f"{where} is not there; the operator makes it")
        if status in (401, 403):
            raise AccessDeniedError(f"{where}: the API server refuses this ServiceAccount: {text}")
        raise UnavailableError(f"{where}: the API server answers {status}: {text}")


@asynccontextmanager
async def api_client() -> AsyncIterator["ApiClient"]:
    """A client of the API server, with the pod's own credentials."""
    configuration = incluster.load()
    from kubernetes.aio.client import ApiClient  # noqa: PLC0415  heavy, and only needed in a cluster

    async with ApiClient(configuration) as client:
        yield client


def _snapshot(found: "V1ConfigMap") -> Snapshot:
    metadata = found.metadata
    assert metadata is not None, "the API server always answers with metadata"
    return Snapshot(dict(found.data or {}), str(metadata.resource_version))


def _message(body: Any) -> str | None:
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return None
