"""The operator's own endpoint: it is gone soon after the operator ends, whoever still reads from it."""

import asyncio
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.registry import Collector

from gravswell_operator import health

WAIT_SECONDS = 90


class Large(Collector):
    """More than the buffers on the way to a reader hold."""

    def collect(self) -> Iterator[Metric]:
        metric = Metric("large", "x" * 1000, "gauge")
        for number in range(200_000):
            metric.add_sample("large", {"number": str(number)}, number)
        yield metric


async def test_a_reader_that_does_not_read_holds_up_no_end() -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        async with health.serve("127.0.0.1:0", lambda: True, Large()) as address:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port), limit=1000)
            writer.write(f"GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
