"""An agent beside a Triton on an IPv6 address, told of it as a pod is: without brackets."""

from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from gravswell.serving.contracts import DesiredModel
from gravswell.serving.triton import EmbeddedTriton

from .running import MakeAgent, start_triton, until
from .traffic import Traffic
from .versions import publish


@pytest.fixture
def triton(models: Path) -> Iterator[EmbeddedTriton]:
    with start_triton(models, host="::1") as server:
        yield server


async def test_a_model_is_served_on_ipv6(agent: MakeAgent, triton: EmbeddedTriton, repository: Path):
    assert triton.http_address.startswith("[::1]:")
    as_in_a_pod = {
        "listen": "::1:0",
        "triton_http": triton.http_address.replace("[::1]", "::1"),
        "triton_grpc": triton.grpc_address.replace("[::1]", "::1"),
    }
    digest = publish(repository, "scale", 1, 1.0)
    async with agent(**as_in_a_pod) as running, aiohttp.ClientSession() as session:
        running.desire(DesiredModel(name="scale", version=1, digest=digest))
        report = await running.serves("scale", 1)
        assert report.verified
        async with session.get(f"http://{running.server.address}/readyz") as answer:
            assert answer.status == 200
        async with session.get(f"http://{triton.metrics_address}/metrics") as answer:
            assert answer.status == 200
        with Traffic("scale", http_address=triton.http_address, grpc_address=triton.grpc_address) as traffic:
            await until(lambda: len(traffic.answers) > 4, "answers flow over both protocols")
        assert traffic.errors == []
