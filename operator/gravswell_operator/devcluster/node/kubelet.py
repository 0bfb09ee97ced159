"""The part of a kubelet's HTTPS API that ``kubectl logs`` needs."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from aiohttp import web

from gravswell_operator.devcluster.node.pod import folder_of

_POLL_SECONDS = 0.2
_CHUNK = 64 * 1024


class LogServer:
    """Serves ``/containerLogs/<namespace>/<pod>/<container>`` to clients with a certificate of the cluster's authority.

    Args:
        pods: the folder of the pods' folders.
        running: whether a container of (namespace, pod, container) still writes; a follower ends when it does not.
    """

    def __init__(self, pods: Path, pki: Path, running: Callable[[str, str, str], bool]) -> None:
        self._pods = pods
        self._running = running
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "node.crt", pki / "node.key")
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._runner: web.AppRunner | None = None

    async def start(self, host: str) -> int:
        """Serve on ``host`` and a free port, which is returned."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/healthz", _healthy)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, 0, ssl_context=self._context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        namespace, pod, container = (request.match_info[key] for key in ("namespace", "pod", "container"))
        previous = request.query.get("previous") == "true"
        path = folder_of(self._pods, namespace, pod) / f"{container}{'.previous' if previous else ''}.log"
        if "/" in container or not path.is_file():
            return web.Response(status=404, text=f"no log of container {container!r} in pod {namespace}/{pod} here")
        lines = request.query.get("tailLines")
        follow = request.query.get("follow") == "true" and not previous
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        alive: Callable[[], bool] = lambda: follow and self._running(namespace, pod, container)  # noqa: E731
        async for chunk in read(path, None if lines is None else int(lines), alive):
            await answer.write(chunk)
        await answer.write_eof()
        return answer


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def read(path: Path, lines: int | None, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
    """Yield the content of log ``path``, its last ``lines`` only if given, and what is added while ``alive``."""
    with path.open("rb") as file:
        if lines is not None:
            for line in deque(file, maxlen=lines):
                yield line
        while True:
            last = not alive()
            while chunk := file.read(_CHUNK):
                yield chunk
            if last:
                return
            await asyncio.sleep(_POLL_SECONDS)
