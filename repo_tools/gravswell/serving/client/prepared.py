"""One request, packed once, and connections to send it over again and again: for who measures a server.

Its law: nothing is tried again, balanced or read of an answer: the client must not be what is measured.
"""

import asyncio
from collections.abc import Mapping

from tritonclient.utils import np_to_triton_dtype

from gravswell import addresses
from gravswell.serving.client.connection import RECEIVE_BYTES, Connection
from gravswell.serving.client.replicas import Endpoint, header_lines
from gravswell.serving.client.wire import Array, Packer
from gravswell.serving.triton.modelnames import model_path


def packed(address: str, model: str, version: str | int, inputs: Mapping[str, Array]) -> bytes:
    """The request for these arrays to the server at ``address`` (``host:port`` of HTTP), as it goes over the wire."""
    types = {name: "BYTES" if a.dtype.kind in "SUO" else np_to_triton_dtype(a.dtype) for name, a in inputs.items()}
    head, payload = Packer(types, None).pack(inputs)
    line = f"POST {model_path(model, str(version))}/infer HTTP/1.1\r\n".encode()
    return b"".join([line, header_lines(Endpoint.parse(address), {}), head, *payload])


async def connected(address: str, count: int) -> list[Connection]:
    """So many connections to ``address``, of this loop. OSError, and none of them, where one cannot be made."""
    host, port = addresses.split(address)
    loop = asyncio.get_running_loop()
    received = memoryview(bytearray(RECEIVE_BYTES))  # all of them receive there, one after the other
    made: list[Connection] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(lambda: Connection(received), host, port)
            made.append(connection)
    except BaseException:
        for connection in made:
            connection.close()
        raise
    return made
