"""One HTTP/1.1 connection to one replica: a request at a time, and its answer.

Its law: it parses nothing of the answer beyond HTTP and decides nothing; who asked is told how it went. The parser is
``httptools`` (Node's, in C), and an answer whose head is that of the last one is not even parsed.
"""

import asyncio
from typing import Any, NamedTuple, Protocol, cast

import httptools

RECEIVE_BYTES = 1 << 18

_JSON_SIZE = b"inference-header-content-length"
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
_HEAD_END = b"\r\n\r\n"

JOINED = 1 << 16
"""Bytes up to which head and payload are put together for one system call; beyond, copying costs more than a call."""


class Asker(Protocol):
    """Who is told. Exactly one of the two is called for every request that was sent."""

    def answered(self, connection: "Connection", status: int, body: bytes, json_size: int | None) -> None:
        """A whole response came; ``json_size`` is how much of the body is JSON before the binary tensors."""

    def broken(self, connection: "Connection", reason: str) -> None:
        """The connection ended before the response did."""


class _Seen(NamedTuple):
    """A response that came in one piece: another with the same head is as long, and is cut in the same place."""

    head: bytes
    size: int
    status: int
    json_size: int | None


_NONE = _Seen(b"", -1, 0, None)


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
        self._seen = _NONE
        self._begun = False
        """Whether the parser is within a response."""
        self._complete = False
        self._length_known = False
        self._until_end = False
        """Whether only the end of the connection ends the response."""
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
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it
        self.opened_at = asyncio.get_running_loop().time()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  the protocol's signature
        """Where to receive."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what came."""
        if self.asker is None:  # a proxy that tells of its time-out, or a server that says more than it was asked
            self.close()
            return
        seen = self._seen
        if nbytes == seen.size and not self._begun and self._buffer[: len(seen.head)] == seen.head:
            self._tell(seen.status, bytes(self._buffer[len(seen.head) : nbytes]), seen.json_size)
            return
        whole, self._begun = not self._begun, True
        try:
            self._parser.feed_data(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            self.foreign = True
            self.close(str(error))
            return
        if self._complete:  # told from here: what is raised inside the parser's callbacks comes out as its own error
            self._answered(nbytes if whole else 0)

    def connection_lost(self, exc: Exception | None) -> None:
        """The server, or :meth:`close`, ended it."""
        self._transport = None
        if exc is None and self._until_end and self.asker is not None:
            self.reusable = False
            self._answered(0)
        self._end(self._reason or (str(exc) if exc else "the server closed the connection"))

    # httptools' side

    def on_message_begin(self) -> None:
        """Start over."""
        if self._complete:
            raise ValueError("two responses to one request")
        self._json_size = None
        self._length_known = self._until_end = False
        self._body.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Few headers matter here."""
        name = name.lower()
        if name == _JSON_SIZE:
            self._json_size = int(value)
        elif name in _LENGTHS:
            self._length_known = True

    def on_headers_complete(self) -> None:
        """Some proxies' own answers have no length: they end with the connection."""
        self._until_end = not self._length_known

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """The whole response is there, or one that says that another will follow."""
        self._until_end = False
        if self._parser.get_status_code() >= 200:
            self._complete = True
            self.reusable = self._parser.should_keep_alive()  # it is known here only: the parser starts over after this

    def _answered(self, received: int) -> None:
        """Tell the response; ``received`` is its size where it came in one piece, and 0 otherwise."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        status, json_size = self._parser.get_status_code(), self._json_size
        self._body.clear()
        self._begun = self._complete = False
        head = bytes(self._buffer[: received - len(body)]) if received and self.reusable else b""
        # Nothing lies between this head and its body, no chunk and no other response: its length is in the head.
        if head.find(_HEAD_END) == len(head) - len(_HEAD_END) >= 0:
            self._seen = _Seen(head, received, status, json_size)
        self._tell(status, body, json_size)

    def _tell(self, status: int, body: bytes, json_size: int | None) -> None:
        asker, self.asker = self.asker, None
        if asker is not None:
            asker.answered(self, status, body, json_size)

    def _end(self, reason: str) -> None:
        asker, self.asker = self.asker, None
        self.reusable = False
        if asker is not None:
            asker.broken(self, reason)
