"""A small asynchronous REST client for the API server: plain documents in and out, watches that resume.

The local node handles pods as the documents they are; a typed client would cost a second of imports and megabytes, and
hide fields that it does not know.
"""

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, UnavailableError

Document = dict[str, Any]

_WATCH_SECONDS = 240
_LINE_LIMIT = 16 * 1024 * 1024  # bytes of one watch event; objects are at most 1.5 MiB in etcd

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class WatchExpiredError(GravswellError):
    """The server no longer has the history that a watch asked for: list again."""


class Api:
    """The API server that ``kubeconfig``'s current context names; use as an asynchronous context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _named(config["clusters"], context["cluster"])["cluster"]
        user = _named(config["users"], context["user"]).get("user") or {}
        self.server: str = cluster["server"].rstrip("/")
        self.authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = _tls(self.authority, user)
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(ssl=self._context, limit=64),
            timeout=aiohttp.ClientTimeout(total=30),
            read_bufsize=_LINE_LIMIT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **query: str) -> Document:
        """GET ``path`` (such as ``/api/v1/nodes/a``)."""
        return await self.request("GET", path, query=query)

    async def create(self, path: str, body: Document) -> Document:
        """POST ``body`` to the collection ``path``."""
        return await self.request("POST", path, body=body)

    async def patch(self, path: str, body: Document, *, kind: str = MERGE, **query: str) -> Document:
        """PATCH ``path``; ``kind`` is the patch's content type."""
        return await self.request("PATCH", path, body=body, query=query, content_type=kind)

    async def delete(self, path: str, body: Document | None = None) -> None:
        """DELETE ``path``; what is gone already is fine."""
        try:
            await self.request("DELETE", path, body=body)
        except NotFoundError:
            return

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Document:
        """Send one request and return the answer's document.

        Raises:
            NotFoundError, ConflictError, InvalidInputError: by the answer's status 404, 409, 400 or 422.
            UnavailableError: nothing answered, or a 5xx or 429.
            GravswellError: any other refusal.
        """
        data = None if body is None else json.dumps(body).encode()
        try:
            async with self._open().request(
                method, self.server + path, params=query, data=data, headers={"Content-Type": content_type}
            ) as answer:
                text = await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{method} {path}: the API server does not answer: {error!r}") from error
        if status >= 400:
            raise _refusal(method, path, status, text)
        document: Document = json.loads(text)
        return document

    async def watch(self, path: str, version: str, **query: str) -> AsyncIterator[tuple[str, Document]]:
        """Yield ``(type, object)`` of every change after resource version ``version`` until the server ends the watch.

        Bookmarks are yielded too: their object carries the version to resume from.

        Raises:
            WatchExpiredError: the version is too old.
            UnavailableError: the connection broke.
        """
        query |= {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_WATCH_SECONDS + 30)
        try:
            async with self._open().get(self.server + path, params=query, timeout=timeout) as answer:
                if answer.status == 410:
                    raise WatchExpiredError(f"watch of {path}: version {version} is too old")
                if answer.status >= 400:
                    raise _refusal("WATCH", path, answer.status, await answer.read())
                async for line in answer.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _watch_error(path, event["object"])
                    yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"watch of {path} broke: {error!r}") from error

    async def follow(self, path: str, **query: str) -> AsyncIterator[tuple[str, Document]]:
        """Yield ``("SYNC", list)`` and then every change, for ever: relisting and reconnecting as needed."""
        while True:
            try:
                listed = await self.get(path, **query)
                yield "SYNC", listed
                version = listed["metadata"]["resourceVersion"]
                while True:
                    async for kind, thing in self.watch(path, version, **query):
                        version = thing["metadata"]["resourceVersion"]
                        if kind != "BOOKMARK":
                            yield kind, thing
            except WatchExpiredError:
                continue
            except UnavailableError:
                await asyncio.sleep(1)

    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use it as an asynchronous context manager"
        return self._session


def _named(entries: list[Document], name: str) -> Document:
    return next(entry for entry in entries if entry["name"] == name)


def _tls(authority: str, user: Document) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    if "client-certificate-data" in user:
        with tempfile.TemporaryDirectory() as folder:  # the ssl module loads key pairs from files only; mode 0700
            certificate, key = Path(folder) / "crt", Path(folder) / "key"
            certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
            key.write_bytes(base64.b64decode(user["client-key-data"]))
            context.load_cert_chain(certificate, key)
    return context


def _watch_error(path: str, status: Document) -> GravswellError:
    if status.get("code") == 410:
        return WatchExpiredError(f"watch of {path}: {status.get('message')}")
    return UnavailableError(f"watch of {path}: {status.get('message')}")


def _refusal(method: str, path: str, status: int, body: bytes) -> GravswellError:
    try:
        said = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        said = body[:300].decode(errors="replace")
    message = f"{method} {path}: {said} (HTTP {status})"
    if status >= 500 or status == 429:
        return UnavailableError(message)
    kinds: dict[int, type[GravswellError]] = {
        400: InvalidInputError,
        404: NotFoundError,
        409: ConflictError,
        422: InvalidInputError,
    }
    return kinds.get(status, GravswellError)(message)
