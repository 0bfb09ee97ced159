"""What the operator's benchmarks read off an operator, of metrics as it serves them."""

from types import ModuleType

import prometheus_client as prometheus
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from gravswell_operator.cluster.metrics import Metrics


async def test_an_operators_own_writes_are_counted_by_verb_and_kind(benchmark: ModuleType) -> None:
    metrics = Metrics()

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    model, nodes = "/apis/gravswell.dev/v1alpha1/namespaces/a/models/m/status", "/api/v1/nodes"
    asked = [("PATCH", model), ("PATCH", model), ("POST", "/api/v1/namespaces/a/events"), ("GET", nodes)]
    async with TestServer(application) as server, ClientSession(trace_configs=[metrics.trace()]) as session:
        for method, path in asked:
            async with session.request(method, server.make_url(path)):
                pass
    found = benchmark.own_writes(prometheus.generate_latest(metrics.registry).decode())
    assert found == {"PATCH Model/status": 2, "CREATE events": 1}
