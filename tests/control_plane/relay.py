"""A connection to the API server that tests can cut."""

import asyncio


class Relay:
    """A way to the API server that can be cut; TLS goes through as it is."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.address = ("", 0)
        self.passing = True
        self.refused = asyncio.Event()
        """Somebody came while nothing passed."""

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = self._server.sockets[0].getsockname()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.passing:
            self.refused.set()
            writer.transport.abort()
            return
        self._open.add(writer)  # at once: what is cut meanwhile must not pass after all
        there, back = await asyncio.open_connection(self._host, self._port)
        self._open.add(back)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.transport.abort()
        self._open.discard(writer)
