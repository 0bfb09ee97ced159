"""The operator's own endpoint: ``/healthz`` (the process answers), ``/readyz`` (it reconciles), ``/metrics``."""

import resource
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from gravswell import addresses
from gravswell.errors import UnavailableError

Metrics = dict[str, float]
"""Name, with labels if it has some, to value."""


def exposition(metrics: Metrics) -> str:
    """``metrics`` as Prometheus reads them: every digit, and what is a counter (``_total``) and what a gauge."""
    lines: list[str] = []
    told: set[str] = set()
    for name, value in sorted(metrics.items()):
        family = name.partition("{")[0]
        if family not in told:
            told.add(family)
            lines.append(f"# TYPE {family} {'counter' if family.endswith('_total') else 'gauge'}")
        lines.append(f"{name} {float(value)!r}")
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def serve(listen: str, ready: Callable[[], bool], metrics: Callable[[], Metrics]) -> AsyncIterator[str]:
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

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(text=exposition(metrics()), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None)
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


def memory_bytes() -> float:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
