"""What stands on the other side of a connection, byte for byte: servers and proxies of every manner."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from gravswell.errors import GravswellError, NotFoundError, UnavailableError
from gravswell.serving import AsyncClient
from gravswell.serving.client.connection import Connection

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nInference-Header-Content-Length: 2\r\n\r\nhello"
ENDLESS = b"HTTP/1.0 403 Forbidden\r\nContent-Type: text/html\r\n\r\n<p>\n no <b>way</b>"
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno route\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


class Noted:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: asyncio.Future[tuple[object, ...]] = asyncio.get_running_loop().create_future()

    def answered(self, connection: Connection, status: int, body: bytes, json_size: int | None) -> None:
        self.told.set_result((status, body, json_size, connection.reusable))

    def broken(self, connection: Connection, reason: str) -> None:
        self.told.set_result((reason, connection.foreign))


@asynccontextmanager
async def serving(*answers: bytes | list[bytes]) -> AsyncIterator[Connection]:
    """A connection to a server that answers so, one after the other, in pieces where they are lists."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"?")
            for piece in answer if isinstance(answer, list) else [answer]:
                writer.write(piece)
                await asyncio.sleep(0.05)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        buffer = memoryview(bytearray(1 << 10))
        _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(buffer), host, port)
        yield connection
        connection.close()


async def asked(connection: Connection) -> tuple[object, ...]:
    noted = Noted()
    connection.send(noted, b"?", [], 1, 0.0)
    return await asyncio.wait_for(noted.told, 60)


async def test_answers_that_begin_alike_and_those_that_do_not() -> None:
    empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    other = HELLO.replace(b"hello", b"world")
    pieces = [HELLO[:20], HELLO[20:-2], HELLO[-2:]]
    async with serving(
        HELLO, other, pieces, CHUNKED, CHUNKED, MISSING, MISSING, HELLO, empty, empty, other
    ) as connection:
        hello, world = (200, b"hello", 2, True), (200, b"world", 2, True)
        chunks = (200, b"hello", None, True)
        assert [await asked(connection) for _ in range(5)] == [hello, world, hello, chunks, chunks]
        assert [await asked(connection) for _ in range(3)] == [(404, b"no route\n", None, True)] * 2 + [hello]
        assert [await asked(connection) for _ in range(3)] == [(200, b"", None, True)] * 2 + [world]


async def test_more_than_one_head_and_none_that_ends() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    proceed = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with serving(proceed + HELLO, [proceed, hints, HELLO], ENDLESS) as connection:
        assert await asked(connection) == await asked(connection) == (200, b"hello", 2, True)
        assert await asked(connection) == (403, b"<p>\n no <b>way</b>", None, False)
        assert await asked(connection) == ("the server closed the connection", False)


async def test_what_nobody_asked_for_is_no_answer_to_the_next_request() -> None:
    async with serving([HELLO, HELLO]) as connection:
        assert (await asked(connection))[0] == 200
        async with asyncio.timeout(60):
            while connection.reusable:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.01)
    async with serving(HELLO + HELLO) as connection:
        assert (await asked(connection))[1] is True
    async with serving(HELLO[:-1]) as connection:
        assert await asked(connection) == ("the server closed the connection", False)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (MISSING, NotFoundError, "'m' refused at .*: no route$"),
        (ENDLESS, UnavailableError, r"'m' refused at .*: <p> no <b>way</b>$"),
        (CHUNKED, GravswellError, r"'m' did not answer at .*: what it sent is no JSON"),
    ],
)
async def test_words_of_others_than_triton(answer: bytes, kind: type[Exception], told: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        async with AsyncClient(f"{host}:{port}", retry_for=0) as client:
            with pytest.raises(kind, match=told):
                await client.infer("m", np.zeros((1, 1)))
