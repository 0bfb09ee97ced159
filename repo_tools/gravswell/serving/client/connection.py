"""One HTTP/1.1 connection to one replica: a request at a time, and its answer.

Its law: it parses nothing of the answer beyond HTTP and decides nothing; who asked is told how it went. The parser is
``httptools`` (Node's, in C): beside it, what asyncio costs for a request is two system calls and little more.
"""

import asyncio
from typing import Any, Protocol

import httptools

RECEIVE_BYTES = 1 << 18

_JSON_SIZE = b"inference-header-content-length"

JOINED = 1 << 16
"""Bytes up to which head and payload are put together for one system call; beyond, copying costs more than a call."""


class Asker(Protocol):
    """Who is told. Exactly one of the two is called for every request that was sent."""

    def answered(self, connection: "Connection", status: int, body: bytes, json_size: int | None) -> None:
        """A whole response came; ``json_size`` is how much of the body is JSON before the binary tensors."""

    def broken(self, connection: "Connection", reason: str) -> None:
        """The connection ended before the response did."""


class Connection(asyncio.BufferedProtocol):
    """An open connection; ``asker`` is set while it is busy.

    It receives into ``buffer``, which all connections of a loop may share: what arrives is parsed before the loop turns
    to the next. A view, because asyncio's TLS writes into slices of it, and a slice of a bytearray is a copy.
    """

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self.asker: Asker | None = None
        self.reusable = True
        """Whether the server keeps it open after the response."""
        self.foreign = False
        """Whether something else than HTTP/1.1 is spoken there."""
        self.opened_at = 0.0
        """The loop's time at which it was opened."""
        self.sent_at = 0.0
        """The loop's time at which the request was sent."""
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._json_size: int | None = None
        self._body: list[bytes] = []
        self._complete = False
        self._reason = ""

    def send(self, asker: Asker, head: bytes, payload: list[bytes | memoryview], size: int, now: float) -> None:
        """Send one request, of about ``size`` bytes; its answer goes to ``asker``."""
        self.asker, self.sent_at = asker, now
        transport = self._transport
        if transport is None or transport.is_closing():
            self._end("the server closed the connection")
            return
        if size <= JOINED:
            transport.write(b"".join((head, *payload)))
            return
        transport.write(head)
        for part in payload:
            transport.write(part)

    def close(self, reason: str = "") -> None:
        """Close at once, whatever is under way; ``reason`` is what its asker is told."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()
        self._end(reason or "the connection was closed")

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what we write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.opened_at = asyncio.get_running_loop().time()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the protocol's signature
        """Where to receive."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came."""
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            self.foreign = True
            self.close(str(error))
            return
        if self._complete:  # told from here: what is raised inside the parser's callbacks comes out as its own error
            self._complete = False
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, or :meth:`close`, ended it."""
        self._transport = None
        self._end(self._reason or (str(exc) if exc else "the server closed the connection"))

    # httptools' side

    def on_message_begin(self) -> None:
        """Start over."""
        self._json_size = None
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Only one header matters here."""
        if len(name) == len(_JSON_SIZE) and name.lower() == _JSON_SIZE:
            self._json_size = int(value)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The whole response is there."""
        self._complete = True
        self.reusable = self._parser.should_keep_alive()  # it is known here only: the parser starts over after this

    def _answered(self) -> None:
        asker, self.asker = self.asker, None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if asker is not None:
            asker.answered(self, self._parser.get_status_code(), body, self._json_size)

    def _end(self, reason: str) -> None:
        asker, self.asker = self.asker, None
        self.reusable = False
        if asker is not None:
            asker.broken(self, reason)
