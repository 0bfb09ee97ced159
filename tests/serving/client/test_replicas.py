"""Several replicas: shares, drains, deaths, restarts, names that change, and what stands before a server."""

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gravswell.errors import AccessDeniedError, UnavailableError
from gravswell.serving import AsyncClient, Client
from gravswell.serving.client import replicas
from gravswell.serving.triton import EmbeddedTriton, Ports
from gravswell.serving.triton.ports import ANY_FREE, held_ports
from gravswell_operator.devcluster.certificates import Authority

X = np.arange(4 * 4000, dtype=np.float32).reshape(4000, 4)


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is stopped waits for the connections that there are."""
    monkeypatch.setattr(replicas, "LONGEST_LIFE", 0.2)


def batches(halfway: Callable[[], object]) -> Iterator[Any]:
    """``X`` in fours; ``halfway`` is called, in the source's thread, in the middle."""
    for start in range(0, len(X), 4):
        if start == len(X) // 2:
            halfway()
        yield X[start : start + 4]


def kill(server: EmbeddedTriton) -> None:
    os.killpg(server.process.pid, signal.SIGKILL)
    server.process.wait(60)


@pytest.fixture
def ports() -> Iterator[Ports]:
    """Held also while no server is there: somebody else would be given them meanwhile."""
    with held_ports("127.0.0.1", ANY_FREE) as held:
        yield held


@pytest.fixture
def second(client_models: Path) -> Iterator[EmbeddedTriton]:
    with EmbeddedTriton(client_models, models=["scale"], exit_timeout=30) as server:
        yield server


async def test_each_replica_gets_its_share(server: EmbeddedTriton, second: EmbeddedTriton) -> None:
    async with AsyncClient([server.http_address, second.http_address, server.http_address], in_flight=4) as client:
        shares = []
        while not shares or (min(shares[-1].values()) <= 100 and len(shares) < 20):  # who is slower rightly gets less
            before = dict(client.replicas)
            outputs = await client.infer("scale", X, batch_size=4)
            np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)
            shares.append({address: count - before.get(address, 0) for address, count in client.replicas.items()})
        assert sum(shares[0].values()) == 1000 + 2
        assert min(shares[-1].values()) > 100, shares


@pytest.mark.parametrize("end", [EmbeddedTriton.stop, kill])
def test_a_replica_that_goes_in_the_middle_costs_no_row(
    server: EmbeddedTriton, second: EmbeddedTriton, end: Callable[[EmbeddedTriton], object]
) -> None:
    address = second.http_address
    with Client([server.http_address, address]) as client:
        outputs = client.infer("scale", batches(lambda: end(second)), batch_size=4)
        np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)
        before = client.replicas[address]
        assert before > 0
        np.testing.assert_array_equal(client.infer("scale", X, batch_size=8)["y"], 2 * X)
        assert client.replicas[address] == before


def test_one_that_comes_back_gets_its_share_again(server: EmbeddedTriton, client_models: Path, ports: Ports) -> None:
    with EmbeddedTriton(client_models, models=["scale"], ports=ports) as first:
        address = first.http_address
        with Client([server.http_address, address]) as client:
            assert len(client.infer("scale", batches(first.stop), batch_size=4)["y"]) == len(X)
            before = client.replicas[address]
            with EmbeddedTriton(client_models, models=["scale"], ports=ports):
                for _ in range(600):
                    np.testing.assert_array_equal(client.infer("scale", X, batch_size=8)["y"], 2 * X)
                    if client.replicas[address] > before + 100:
                        break
                else:
                    raise AssertionError("it got no requests")


def test_the_only_one_restarting_is_waited_for(client_models: Path, ports: Ports) -> None:
    first, again = (EmbeddedTriton(client_models, models=["scale"], ports=ports) for _ in range(2))
    with first, Client(first.http_address, retry_for=60) as client:

        def restart() -> None:
            first.stop()
            again.start()

        try:
            outputs = client.infer("scale", batches(restart), batch_size=4)
        finally:
            again.stop()
    np.testing.assert_array_equal(outputs["y"], 2 * X, strict=True)


def test_all_gone_is_told_with_the_rows(second: EmbeddedTriton) -> None:
    with (
        Client(second.http_address, retry_for=0.5) as client,
        pytest.raises(
            UnavailableError,
            match=r"model 'scale' did not answer rows \d+ to \d+ at 127\.0\.0\.1:\d+: .*\(tried for 0.5 s\); see",
        ),
    ):
        client.infer("scale", batches(lambda: kill(second)), batch_size=4)


async def test_a_replica_without_the_model_leaves_it_to_the_others(server: EmbeddedTriton, client_models: Path) -> None:
    with EmbeddedTriton(client_models, model_control="explicit") as empty:
        async with AsyncClient([empty.http_address, server.http_address]) as client:
            np.testing.assert_array_equal((await client.infer("scale", X, batch_size=8))["y"], 2 * X)
            assert client.replicas[empty.http_address] == 0


async def test_a_name_stands_for_its_addresses_and_is_resolved_again(
    server: EmbeddedTriton, client_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = server.http_address.rpartition(":")
    here = [host]
    resolve = socket.getaddrinfo

    def scaled(name: str, *args: Any, **options: Any) -> list[Any]:
        hosts = [*here, *here] if name == "replicas.test" else [name]
        return [row for one in hosts for row in resolve(one, *args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", scaled)
    monkeypatch.setattr(replicas, "RESOLVE_SECONDS", 0.05)
    with EmbeddedTriton(client_models, models=["scale"], host="127.0.0.2", ports=Ports(http=int(port))):
        async with AsyncClient(f"replicas.test:{port}") as client:
            await client.infer("scale", X[:8], batch_size=4)
            assert list(client.replicas) == [f"127.0.0.1:{port}"]
            here.append("127.0.0.2")
            async with asyncio.timeout(120):
                while not client.replicas.get(f"127.0.0.2:{port}"):
                    np.testing.assert_array_equal((await client.infer("scale", X, batch_size=4))["y"], 2 * X)
                here.remove("127.0.0.1")
                while len(client.replicas) > 1:
                    np.testing.assert_array_equal((await client.infer("scale", X, batch_size=4))["y"], 2 * X)
            assert list(client.replicas) == [f"127.0.0.2:{port}"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the certificate of ``localhost``, its key and its authority are."""
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue("localhost", "localhost", hosts=["localhost"])
    return authority.directory


@asynccontextmanager
async def gate(server: EmbeddedTriton, certificate: Path) -> AsyncIterator[int]:
    """TLS before a server, as an Ingress: it wants a token, and lets answers through in small pieces."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
        while data := await reader.read(size):
            if b" HTTP/1.1\r\n" in data and b"\r\nAuthorization: Bearer let-me-in\r\n" not in data:
                break
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"\r\nAuthorization: Bearer let-me-in\r\n" not in head:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 4\r\n\r\nno!\n")
            writer.close()
            return
        host, _, port = server.http_address.rpartition(":")
        back, forth = await asyncio.open_connection(host, int(port))
        forth.write(head)
        await asyncio.gather(pipe(reader, forth, 1 << 16), pipe(back, writer, 7), return_exceptions=True)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "localhost.crt", certificate / "localhost.key")
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as listening:
        yield listening.sockets[0].getsockname()[1]


async def test_tls_and_headers(server: EmbeddedTriton, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=certificate / "ca.crt")
    token = {"Authorization": "Bearer let-me-in"}
    async with gate(server, certificate) as port:
        url = f"https://localhost:{port}"
        async with AsyncClient(url, headers=token, context=trusting) as client:
            np.testing.assert_array_equal((await client.infer("scale", X[:80], batch_size=8))["y"], 2 * X[:80])
        async with AsyncClient(url, context=trusting) as client:
            with pytest.raises(AccessDeniedError, match=r"'scale' refused at 127.0.0.1:\d+: no!"):
                await client.infer("scale", X)
        async with AsyncClient(url, headers=token, retry_for=0) as client:
            with pytest.raises(UnavailableError, match="certificate"):
                await client.infer("scale", X)
