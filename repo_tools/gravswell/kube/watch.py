"""What lists and watches say, and how a watch's bytes are read."""

from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import aiohttp
import orjson

from gravswell.kube.errors import ApiUnavailableError, told

Body = dict[str, Any]
"""An object of the API, as it stands in JSON."""

LINE_BYTES = 16 * 2**20
"""Of one event at most: it is a whole object, of which etcd takes 1.5 MiB in a denser form."""

BOOKMARK = "BOOKMARK"
"""The type of a change that is none: its object has nothing but the version from which a watch can be resumed."""
DELETED = "DELETED"


class Listed(NamedTuple):
    """All that there is, at one moment: whatever else was known is gone."""

    items: list[Body]
    version: str


class Change(NamedTuple):
    """One object that was ``ADDED``, ``MODIFIED`` or :data:`DELETED`, as it is since then; or a :data:`BOOKMARK`."""

    type: str
    object: Body

    @property
    def version(self) -> str:
        """The resource version, from which a watch can go on."""
        return str(self.object["metadata"]["resourceVersion"])


async def changes(content: aiohttp.StreamReader, what: str) -> AsyncGenerator[Change, None]:
    """The events in the body of a watch of ``what``.

    Raises :class:`ApiExpiredError` when the server says that its history is gone, and what else it says by its kind;
    :class:`ApiUnavailableError` for what is no event.
    """
    async for line in lines(content, what):
        try:
            event = orjson.loads(line)
            change = Change(str(event["type"]), dict(event["object"]))
        except (ValueError, KeyError, TypeError):
            raise ApiUnavailableError(f"watch of {what}: no event: {line[:200].decode(errors='replace')}") from None
        if change.type == "ERROR":
            raise told(f"watch of {what}", int(change.object.get("code") or 500), change.object)
        yield change


async def lines(content: aiohttp.StreamReader, what: str) -> AsyncGenerator[bytes, None]:
    """The lines in the body of a watch of ``what``, without their ends; each is an event.

    Raises :class:`ApiUnavailableError` for one that is too long, or cut.
    """
    # The stream's own readline is bound to the session's buffers, and says in many ways that a line is too long.
    begun: list[bytes] = []
    size = 0
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            yield b"".join((*begun, end))
            begun.clear()
            size = 0
        begun.append(rest)
        size += len(rest)
        if size > LINE_BYTES:
            raise ApiUnavailableError(f"watch of {what}: an event of more than {LINE_BYTES} bytes")
    if size:
        raise ApiUnavailableError(f"watch of {what}: cut in the middle of an event")
