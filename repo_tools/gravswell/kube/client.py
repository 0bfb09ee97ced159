"""The verbs of the API server, on plain documents, with typed errors.

aiohttp, not the Kubernetes client: its generated models would be parsed only to be turned back into the
dictionaries that server-side apply takes, and they hide fields that they do not know.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import aiohttp
import orjson

from gravswell.kube import credentials
from gravswell.kube.backoff import Backoff
from gravswell.kube.errors import (
    ApiConflictError,
    ApiExpiredError,
    ApiNotFoundError,
    ApiUnavailableError,
    refusal,
)
from gravswell.kube.resources import LEASE, Resource, Selection, label
from gravswell.kube.watch import BOOKMARK, Body, Change, Listed, changes

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
PAGE = 100
"""Objects of one page of a list: parsed, an object may take 50 kB, and what a page took is mostly kept for the next."""
LIST_ATTEMPTS = 3
"""Beginnings of one list whose pages expire."""
REQUESTS = 32
"""In flight at once; watches, which are never answered in full, do not count, and a Lease is renewed beside them."""
CONNECT_SECONDS = 15
TIMEOUT = aiohttp.ClientTimeout(total=60, connect=CONNECT_SECONDS)
WATCH_SECONDS = 240
"""How long the API server is asked to go on with a watch. Bookmarks come every minute, so it can be resumed."""
SILENCE_SECONDS = 30
"""How much later a watch is given up whose end does not come: its connection is dead."""
LONGEST_PAUSE_SECONDS = 30.0
"""Of those that the API server asks for, the longest that all other requests keep too."""

_FAULTS = (aiohttp.ClientError, OSError, TimeoutError)

log = logging.getLogger(__name__)


class Client:
    """Requests to one API server. Use as an asynchronous context manager.

    ``name`` is the program's: of the fields that it writes, and in the audit log. ``traces`` see each request. Every
    method raises a member of :mod:`gravswell.kube.errors` that names the object.
    """

    def __init__(self, account: credentials.Account, *, name: str, traces: Sequence[aiohttp.TraceConfig] = ()) -> None:
        self._account = account
        self._name = name
        self._traces = traces
        self._session: aiohttp.ClientSession | None = None
        self._free = asyncio.Semaphore(REQUESTS)
        self._asked_again_at = 0.0
        """On the monotonic clock: the API server has asked us to wait until then."""
        self.fence: Callable[[], None] = lambda: None
        """Called before each request that changes anything but a Lease; what it raises keeps the request from being
        sent."""

    async def __aenter__(self) -> Self:
        self._session = await credentials.open_session(self._account, program=self._name, traces=self._traces)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Body:
        """One object."""
        return await self._request("GET", _Target(resource, namespace, name))

    async def list_all(self, selection: Selection) -> Listed:
        """Everything that is selected; in pages, to spare the API server.

        All pages show the cluster at one moment. When the API server has forgotten that moment, the list begins anew.
        """
        for _ in range(LIST_ATTEMPTS - 1):
            with contextlib.suppress(ApiExpiredError):
                return await self._list(selection)
        return await self._list(selection)

    async def _list(self, selection: Selection) -> Listed:
        items, version = [], ""
        async for page in self.pages(selection):
            items += page.items
            version = page.version
        return Listed(items, version)

    async def pages(self, selection: Selection) -> AsyncGenerator[Listed, None]:
        """Everything that is selected, page by page: never all of it in memory. Each page has the list's version.

        Raises :class:`ApiExpiredError` when the API server has forgotten the moment that all pages show.
        """
        resource, version = selection.resource, ""
        # The items of a list do not repeat what kind they are.
        kind = {"kind": resource.kind, "apiVersion": resource.api_version}
        query = selection.query | {"limit": str(PAGE)}
        while True:
            body = await self._request("GET", _Target(resource, selection.namespace, None), str(selection), query=query)
            metadata = body.get("metadata", {})
            version = version or metadata.get("resourceVersion", "")
            yield Listed([{**item, **kind} for item in body.get("items") or ()], version)
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    async def apply(self, resource: Resource, manifest: Mapping[str, Any], *, manager: str = "") -> Body:
        """Server-side apply: creates the object, or makes the fields that we own what ``manifest`` says.

        ``manager`` owns them, if not this program.
        """
        return await self._patch(_Target.of(resource, manifest), manifest, APPLY, manager or self._name)

    async def apply_status(self, resource: Resource, manifest: Mapping[str, Any]) -> Body:
        """Server-side apply of the status alone; what ``manifest`` no longer has, goes."""
        return await self._patch(_Target.of(resource, manifest, "status"), manifest, APPLY, self._name)

    async def merge(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        change: Mapping[str, Any],
        *,
        subresource: str | None = None,
        strategic: bool = False,
    ) -> Body:
        """Merge patch: sets the fields of ``change``, removes those that are null, and leaves the others.

        ``strategic``: lists of a built-in kind merge by their keys; custom resources know no such patch.
        """
        target = _Target(resource, namespace, name, subresource)
        return await self._patch(target, change, STRATEGIC if strategic else MERGE, self._name)

    async def _patch(self, target: "_Target", change: Mapping[str, Any], content_type: str, manager: str) -> Body:
        query = {"fieldManager": manager}
        if content_type == APPLY:
            query["force"] = "true"
        return await self._request("PATCH", target, query=query, body=change, content_type=content_type)

    async def create(self, resource: Resource, manifest: Mapping[str, Any], *, dry_run: bool = False) -> Body:
        """Create; :class:`ApiConflictError` where it exists. A ``dry_run`` is admitted or refused, and not stored."""
        target = _Target.of(resource, manifest)
        query = {"dryRun": "All"} if dry_run else None
        return await self._request("POST", target._replace(name=None), str(target), query=query, body=manifest)

    async def create_under(
        self, resource: Resource, namespace: str | None, name: str, subresource: str, manifest: Mapping[str, Any]
    ) -> Body:
        """Create what an object has below it, such as a ``token`` of a ServiceAccount."""
        return await self._request("POST", _Target(resource, namespace, name, subresource), body=manifest)

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Body:
        """Replace the object; :class:`ApiConflictError` where its resource version is not the one given."""
        return await self._request("PUT", _Target.of(resource, manifest), body=manifest)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        uid: str | None = None,
        *,
        grace_seconds: int | None = None,
    ) -> None:
        """Delete the object; one that is gone already is fine.

        With ``uid`` exactly that one, and another object of the name by now is fine too. ``grace_seconds`` is how long
        a pod may take to end, if not as long as it says itself.
        """
        options: Body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        try:
            await self._request("DELETE", _Target(resource, namespace, name), body=options)
        except ApiNotFoundError:
            return
        except ApiConflictError:
            if uid is None:
                raise

    async def watch(
        self,
        selection: Selection,
        version: str,
        *,
        seconds: int = WATCH_SECONDS,
        answered: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Change, None]:
        """What changes after the resource version ``version``, for ``seconds``; bookmarks are among it.

        ``answered`` is called as soon as the API server has taken it up, which is long before anything may happen.
        Raises :class:`ApiExpiredError` when the version is too old, and :class:`ApiUnavailableError` when the
        connection breaks.
        """
        query = selection.query | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=seconds + SILENCE_SECONDS)
        url = self._account.endpoint.url + selection.resource.path(selection.namespace)
        what = str(selection)
        try:
            async with self._opened().get(url, params=query, timeout=timeout, allow_redirects=False) as response:
                if response.status >= 300:
                    asked = response.headers.get("Retry-After")
                    raise refusal(f"watch of {what}", response.status, await response.read(), asked)
                answered()
                async with contextlib.aclosing(changes(response.content, what)) as read:
                    async for change in read:
                        yield change
        except _FAULTS as error:
            raise ApiUnavailableError(f"watch of {what}: the connection broke: {_words(error)}") from error

    async def follow(self, selection: Selection, version: str = "") -> AsyncGenerator[Listed | Change, None]:
        """Everything that is selected, and then each change of it, for ever; with ``version``, what changes after that.

        A watch that ends is resumed where it was. Where the API server has forgotten that, or cannot be reached, all
        comes again as one :class:`Listed`: what is not in it was deleted meanwhile. What waiting does not mend
        (:class:`ApiForbiddenError`, :class:`ApiNotFoundError`, :class:`ApiRejectedError`) is raised.
        """
        backoff = Backoff()
        answered_at = math.inf

        def answered() -> None:
            nonlocal answered_at
            answered_at = time.monotonic()

        while True:
            heard, answered_at = False, math.inf
            fault: ApiUnavailableError | None = None
            try:
                if not version:
                    listed = await self.list_all(selection)
                    version = listed.version
                    yield listed
                async with contextlib.aclosing(self.watch(selection, version, answered=answered)) as watched:
                    async for change in watched:
                        version, heard = change.version, True
                        if change.type != BOOKMARK:
                            yield change
            except ApiUnavailableError as error:
                fault = error
                if isinstance(error, ApiExpiredError) or not heard:
                    version = ""  # also where nothing came after a fault: a restored server may be behind our version
            lived = max(time.monotonic() - answered_at, 0.0)
            pause = backoff.watch_ended(lived, heard=heard, error=fault)
            if fault is not None:
                log.info("%s; again in %.1f s", fault, pause)
            await asyncio.sleep(pause)

    def _slot(self, target: "_Target") -> contextlib.AbstractAsyncContextManager[None]:
        """The room for one request. A Lease waits for none: behind others that are slow, it would be lost."""
        return contextlib.nullcontext() if target.resource == LEASE else self._free

    async def _wait_as_asked(self, target: "_Target") -> None:
        """A pause that the API server asks for is for all requests of a user; a Lease would be lost by it."""
        if target.resource == LEASE:
            return
        while (pause := self._asked_again_at - time.monotonic()) > 0:  # noqa: ASYNC110  it may move on meanwhile
            await asyncio.sleep(pause)

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the client is used outside its context"
        return self._session

    async def _request(
        self,
        method: str,
        target: "_Target",
        what: str = "",
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Body:
        what = what or str(target)
        try:
            async with self._slot(target):  # before the request, so that its time begins when it is sent
                await self._wait_as_asked(target)
                if method != "GET" and target.resource != LEASE:
                    self.fence()
                async with self._opened().request(
                    method,
                    self._account.endpoint.url + target.path,
                    params=query,
                    data=orjson.dumps(body) if body is not None else None,
                    headers={"Content-Type": content_type} if body is not None else {},
                    timeout=TIMEOUT,
                    allow_redirects=False,  # the credentials are for this server
                ) as response:
                    answer = await response.read()
                    status, retry_after = response.status, response.headers.get("Retry-After")
        except _FAULTS as error:
            raise ApiUnavailableError(
                f"{what}: no answer from the API server {self._account.endpoint.url}: {_words(error)}"
            ) from error
        if status >= 300:
            refused = refusal(what, status, answer, retry_after)
            if status == HTTPStatus.TOO_MANY_REQUESTS and isinstance(refused, ApiUnavailableError):
                pause = min(refused.retry_after or 0.0, LONGEST_PAUSE_SECONDS)
                self._asked_again_at = max(self._asked_again_at, time.monotonic() + pause)
            raise refused
        try:
            document: Body = orjson.loads(answer)
        except ValueError:
            said = answer[:200].decode(errors="replace")
            raise ApiUnavailableError(
                f"{what}: {self._account.endpoint.url} answers as no API server: {said}"
            ) from None
        return document


class _Target(NamedTuple):
    """What a request is about, for its path, messages and counts."""

    resource: Resource
    namespace: str | None
    name: str | None
    subresource: str | None = None

    @classmethod
    def of(cls, resource: Resource, manifest: Mapping[str, Any], subresource: str | None = None) -> Self:
        metadata = manifest["metadata"]
        return cls(resource, metadata.get("namespace"), metadata["name"], subresource)

    @property
    def path(self) -> str:
        return self.resource.path(self.namespace, self.name, self.subresource)

    def __str__(self) -> str:
        return label(self.resource, self.namespace, self.name)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
