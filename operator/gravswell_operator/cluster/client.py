"""The API server's client: the few verbs that the operator uses, with typed errors.

aiohttp on the Kubernetes client's configuration: the client's own models would be parsed only to be turned back into
the dictionaries that server-side apply takes.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import aiohttp
from kubernetes.aio.client import Configuration

from gravswell_operator import errors, names
from gravswell_operator.cluster import credentials
from gravswell_operator.cluster.resources import ResourceType

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
PAGE = 500
"""Objects of one page of a list."""
LIST_ATTEMPTS = 3
"""Beginnings of one list whose pages expire."""
CONNECTIONS = 32
"""Requests in flight at once."""
TIMEOUT = aiohttp.ClientTimeout(total=60, connect=15)

Body = dict[str, Any]


class Client:
    """Requests to one API server. Use as an asynchronous context manager.

    Every method raises a member of :mod:`gravswell_operator.errors` that names the object.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._session: aiohttp.ClientSession | None = None
        self.requests = 0
        """Requests sent so far."""
        self.writes: Counter[str] = Counter()
        """Of these, by kind, the ones that may change something."""

    async def __aenter__(self) -> Self:
        self._session = await credentials.open_session(self._configuration, connections=CONNECTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def list_all(self, resource: ResourceType) -> tuple[list[Body], str]:
        """Every watched object of a kind, and the list's resource version; in pages, to spare the API server.

        All pages show the cluster at one moment. When the API server has forgotten that moment, the list begins anew.
        """
        for _ in range(LIST_ATTEMPTS - 1):
            with contextlib.suppress(errors.ApiExpiredError):
                return await self._list(resource)
        return await self._list(resource)

    async def _list(self, resource: ResourceType) -> tuple[list[Body], str]:
        items: list[Body] = []
        version = ""
        query = {"limit": str(PAGE)}
        if resource.selector:
            query["labelSelector"] = resource.selector
        while True:
            body = await self._request("GET", resource.path(), _Target(resource, None, "(all)"), query=query)
            metadata = body.get("metadata", {})
            # The items of a list do not repeat what kind they are.
            kind = {"kind": resource.kind, "apiVersion": resource.api_version}
            items += [{**item, **kind} for item in body.get("items") or ()]
            version = version or metadata.get("resourceVersion", "")
            if not metadata.get("continue"):
                return items, version
            query["continue"] = metadata["continue"]

    async def get(self, resource: ResourceType, namespace: str | None, name: str) -> Body:
        """One object."""
        return await self._request("GET", resource.path(namespace, name), _Target(resource, namespace, name))

    async def apply(
        self, resource: ResourceType, manifest: Mapping[str, Any], *, manager: str = names.FIELD_MANAGER
    ) -> Body:
        """Server-side apply: creates the object, or makes the fields that we own what ``manifest`` says."""
        return await self._apply(resource, manifest, None, manager)

    async def apply_status(self, resource: ResourceType, manifest: Mapping[str, Any]) -> Body:
        """Server-side apply of the status alone; what ``manifest`` no longer has, goes."""
        return await self._apply(resource, manifest, "status", names.FIELD_MANAGER)

    async def _apply(
        self, resource: ResourceType, manifest: Mapping[str, Any], subresource: str | None, manager: str
    ) -> Body:
        metadata = manifest["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        return await self._request(
            "PATCH",
            resource.path(namespace, name, subresource),
            _Target(resource, namespace, name),
            query={"fieldManager": manager, "force": "true"},
            body=manifest,
            content_type=APPLY,
        )

    async def merge(self, resource: ResourceType, namespace: str | None, name: str, change: Mapping[str, Any]) -> Body:
        """Merge patch, for the fields that others own and the operator only clears."""
        return await self._request(
            "PATCH",
            resource.path(namespace, name),
            _Target(resource, namespace, name),
            query={"fieldManager": names.FIELD_MANAGER},
            body=change,
            content_type=MERGE,
        )

    async def create(self, resource: ResourceType, manifest: Mapping[str, Any]) -> Body:
        """Create; :class:`ApiConflictError` where it exists."""
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace")
        target = _Target(resource, namespace, metadata["name"])
        return await self._request("POST", resource.path(namespace), target, body=manifest)

    async def replace(self, resource: ResourceType, manifest: Mapping[str, Any]) -> Body:
        """Replace the object; :class:`ApiConflictError` where its resource version is not the one given."""
        metadata = manifest["metadata"]
        namespace, name = metadata.get("namespace"), metadata["name"]
        target = _Target(resource, namespace, name)
        return await self._request("PUT", resource.path(namespace, name), target, body=manifest)

    async def delete(self, resource: ResourceType, namespace: str | None, name: str, uid: str) -> None:
        """Delete exactly the object with this ``uid``; one that is gone already is fine."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            await self._request(
                "DELETE", resource.path(namespace, name), _Target(resource, namespace, name), body=options
            )
        except (errors.ApiNotFoundError, errors.ApiConflictError):
            return  # gone, or another object of that name by now

    async def _request(
        self,
        method: str,
        path: str,
        target: "_Target",
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Body:
        assert self._session is not None, "the client is used outside its context"
        self.requests += 1
        if method != "GET":
            self.writes[target.resource.kind] += 1
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            async with self._session.request(
                method,
                self._configuration.host + path,
                params=query,
                data=json.dumps(body) if body is not None else None,
                headers=headers,
                timeout=TIMEOUT,
            ) as response:
                answer = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (TimeoutError, aiohttp.ClientError, ConnectionError) as error:
            reason = str(error) or type(error).__name__
            raise errors.ApiUnavailableError(
                f"{target}: no answer from the API server {self._configuration.host}: {reason}"
            ) from error
        if status < 300:
            result: Body = json.loads(answer)
            return result
        raise _error(status, answer, str(target), retry_after)


class _Target(NamedTuple):
    """What a request is about, for messages and counts."""

    resource: ResourceType
    namespace: str | None
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource.kind} {where}{self.name}"


def _error(status: int, answer: bytes, target: str, retry_after: str | None) -> errors.GravswellError:
    """The API server's answer as an error; its own message says more than the number."""
    try:
        message = json.loads(answer).get("message", "")
    except (ValueError, AttributeError):
        message = answer[:200].decode(errors="replace")
    text = f"{target}: {message or f'HTTP {status}'}"
    if status in (401, 403):
        return errors.ApiForbiddenError(text)
    if status == 404:
        return errors.ApiNotFoundError(text)
    if status in (409, 412):
        return errors.ApiConflictError(text)
    if status == 410:
        return errors.ApiExpiredError(text)
    if status == 429 or status >= 500:
        return errors.ApiUnavailableError(
            text, float(retry_after) if retry_after is not None and retry_after.isdigit() else None
        )
    return errors.ApiRejectedError(text)
