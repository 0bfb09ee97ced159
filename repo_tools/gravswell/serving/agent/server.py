"""The HTTP endpoints of the agent (``/readyz``, ``/livez``, ``/report``, ``/metrics``) and of the lister (two)."""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Self

from aiohttp import web

from gravswell import addresses
from gravswell.errors import UnavailableError
from gravswell.serving.agent.ledger import Ledger
from gravswell.serving.agent.lister import Lister
from gravswell.serving.agent.reconciler import Reconciler
from gravswell.serving.agent.reporting import build_report
from gravswell.serving.contracts import ModelState, Report

STUCK_SECONDS = 300.0
"""A loop that has not come round for so long is stuck: each of its waits is shorter."""


Handler = Callable[[web.Request], Awaitable[web.Response]]


class Endpoint:
    """An HTTP server on ``listen`` (``host:port``) for a few GET ``routes``. An async context manager."""

    def __init__(self, listen: str, routes: Mapping[str, Handler]) -> None:
        self._host, self._port = addresses.split(listen)
        app = web.Application()
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)

    @property
    def address(self) -> str:
        """``host:port`` that is listened on."""
        host, port = self._runner.addresses[0][:2]
        return addresses.join(host, port)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            wanted = addresses.join(self._host, self._port)
            raise UnavailableError(
                f"{wanted} cannot be listened on: {error.strerror}; choose another --listen"
            ) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


class AgentServer(Endpoint):
    """Serves the state of one reconciler."""

    def __init__(self, reconciler: Reconciler, listen: str, *, pod: str, simulated_gpus: bool) -> None:
        self._reconciler = reconciler
        self._ledger = reconciler.ledger
        self._pod = pod
        self._simulated_gpus = simulated_gpus
        routes = {
            "/readyz": self._readyz,
            "/livez": self._livez,
            "/report": self._report,
            "/metrics": self._metrics,
        }
        super().__init__(listen, routes)

    def report(self) -> Report:
        """The report of this moment."""
        return build_report(self._ledger, pod=self._pod, simulated_gpus=self._simulated_gpus)

    async def _readyz(self, _: web.Request) -> web.Response:
        if await self._reconciler.is_ready():
            return web.Response(text="ready\n")
        return web.Response(status=503, text=_why_not(self._ledger) + "\n")

    async def _livez(self, _: web.Request) -> web.Response:
        silent = time.monotonic() - self._reconciler.beat
        return _live("the agent's loop", silent if silent > STUCK_SECONDS else None)

    async def _report(self, _: web.Request) -> web.Response:
        return web.Response(text=self.report().to_json(), content_type="application/json")

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=metrics(self.report()), content_type="text/plain")


class ListerServer(Endpoint):
    """Serves the state of one lister: ``/readyz`` once it has listed, ``/livez`` while its loop turns."""

    def __init__(self, lister: Lister, listen: str) -> None:
        self._lister = lister
        super().__init__(listen, {"/readyz": self._readyz, "/livez": self._livez})

    async def _readyz(self, _: web.Request) -> web.Response:
        if self._lister.has_listed:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="no listing was made and stored yet\n")

    async def _livez(self, _: web.Request) -> web.Response:
        return _live("the listing loop", self._lister.stuck_for)


def _live(loop: str, stuck_for: float | None) -> web.Response:
    if stuck_for is None:
        return web.Response(text="live\n")
    return web.Response(status=503, text=f"{loop} has not come round for {stuck_for:.0f} s\n")


def metrics(report: Report) -> str:
    """The report in Prometheus' text form."""
    names = [(f'model="{_escaped(model.name)}"', model) for model in report.models]
    families: list[tuple[str, str, Iterable[tuple[str, float]]]] = [
        ("gravswell_agent_ready", "Whether the pod is ready.", [("", float(report.ready))]),
        ("gravswell_agent_triton_up", "Whether Triton answers.", [("", float(bool(report.triton)))]),
        (
            "gravswell_model_desired_version",
            "Version that shall serve.",
            [(label, float(model.desired_version)) for label, model in names],
        ),
        (
            "gravswell_model_loaded_version",
            "Version that takes traffic; 0 for none.",
            [(label, float(model.loaded_version or 0)) for label, model in names],
        ),
        (
            "gravswell_model_failed",
            "Whether the desired version failed to verify or load.",
            [(label, float(model.state is ModelState.FAILED)) for label, model in names],
        ),
        (
            "gravswell_model_stage_seconds",
            "Seconds that the last download, verification and load took.",
            [
                (f'{label},stage="{stage}"', seconds)
                for label, model in names
                for stage, seconds in sorted(model.seconds.items())
            ],
        ),
    ]
    lines = []
    for name, text, samples in families:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge"]
        lines += [f"{name}{{{labels}}} {value:g}" if labels else f"{name} {value:g}" for labels, value in samples]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _why_not(ledger: Ledger) -> str:
    if not ledger.triton_version:
        return ledger.triton_problem
    if ledger.desired is None:
        return "no desired state has been seen yet"
    if not ledger.works:
        return "no model is desired"
    if not ledger.was_attempted:
        return "the first load is under way"
    if ledger.ready:
        return "Triton has lost what it served"
    return "no desired model serves"
