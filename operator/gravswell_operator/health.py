"""The operator's own endpoint: ``/healthz`` (the process answers), ``/readyz`` (it reconciles), ``/metrics``."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client.aiohttp import make_aiohttp_handler
from prometheus_client.registry import Collector

from gravswell import addresses
from gravswell.errors import UnavailableError

STOP_SECONDS = 2.0
"""How long an answer that is under way may take once the operator ends: whoever reads it slowly must not hold it up."""


@asynccontextmanager
async def serve(listen: str, ready: Callable[[], bool], metrics: Collector) -> AsyncIterator[str]:
    """Serve the endpoint for as long as the context lasts; yields its address, ``HOST:PORT``.

    Raises :class:`UnavailableError` where the address cannot be had, :class:`InvalidInputError` where it is none.
    """
    host, port = addresses.split(listen)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        if ready():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="waiting for the lease, or for the first look at the cluster\n")

    app = web.Application()
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", make_aiohttp_handler(metrics))]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_SECONDS)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {listen}: {error.strerror or error}; choose another address with --listen"
            ) from None
        yield addresses.join(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
