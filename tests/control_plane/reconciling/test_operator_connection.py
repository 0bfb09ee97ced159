"""The operator where its connection to the API server breaks: nothing is lost, and the log stays readable."""

import asyncio
from urllib.parse import urlsplit

import pytest
import yaml

from ..operating import OperatorProcess, install, wait_until
from ..relay import Relay

SHORT_SECONDS = 4
"""Less than the lease lasts."""


@pytest.fixture
async def relayed(cluster, operator, tmp_path_factory):
    """The operator behind a relay, in place of the one of all tests."""
    url = urlsplit(cluster.server_url)
    kubeconfig = await asyncio.to_thread(install, cluster, tmp_path_factory)
    assert await asyncio.to_thread(operator.stop) == 0
    async with Relay(str(url.hostname), int(url.port or 443)) as relay:
        body = yaml.safe_load(kubeconfig.read_text())
        body["clusters"][0]["cluster"]["server"] = "https://{}:{}".format(*relay.address)
        kubeconfig.write_text(yaml.safe_dump(body))
        process = OperatorProcess(kubeconfig, kubeconfig.with_name("relayed.log"))
        process.start(wait=False)  # from this thread: the process would end with another one
        await asyncio.to_thread(wait_until, process.is_ready)
        yield relay, process
        assert await asyncio.to_thread(process.stop) == 0
    operator.start()


async def test_what_was_deleted_while_nothing_passed_comes_back(world, relayed):
    relay, process = relayed
    await asyncio.to_thread(world.make_repository)
    await asyncio.to_thread(world.make_server, replicas=0)
    service = await asyncio.to_thread(world.until, lambda: world.get("service", "server"))
    await asyncio.to_thread(world.condition, "inferenceserver", "server", status="True")
    relay.passing = False
    relay.cut()
    await asyncio.to_thread(world.delete, "service", "server")  # at once: a kubectl takes of the lease's time
    await asyncio.wait_for(relay.refused.wait(), 90)
    await asyncio.sleep(SHORT_SECONDS)
    relay.passing = True

    def is_back():
        found = world.get("service", "server")
        return found is not None and found["metadata"]["uid"] != service["metadata"]["uid"]

    await asyncio.to_thread(world.until, is_back)
    log = process.log.read_text()
    assert log.count("Request attempt #") == 0, log
    assert "Traceback" not in log
