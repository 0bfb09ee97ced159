"""The part of a kubelet's HTTPS API that ``kubectl logs`` needs, and a reasoned refusal of the rest."""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from aiohttp import web

from gravswell_operator.devcluster.node.pod import folder_of

_POLL_SECONDS = 0.2
_CHUNK = 64 * 1024

_WITHOUT_TIMES = (
    "the local node keeps a container's output as it was written, without times or streams, so {name} is not offered "
    "(kubectl's --since, --since-time and --timestamps); --tail, --limit-bytes, --follow and --previous are"
)
_REFUSED = {
    "exec": "the local node offers no exec: a container is a process of this machine, whose id stands in the pod's "
    "status as its containerID and whose files stand below the folder that `gravswell cluster status` calls podLogs",
    "attach": "the local node offers no attach: a container has no terminal; read it with kubectl logs --follow",
    "portForward": "the local node offers no port-forward and needs none: a pod's address (kubectl get pod -o wide) is "
    "one of this machine's loopback addresses, so connect to it directly",
}


class LogServer:
    """Serves ``/containerLogs/<namespace>/<pod>/<container>`` to clients with a certificate of the cluster's authority.

    What it does not offer is refused, with what to do instead: options of logs, and ``exec``, ``attach``,
    ``port-forward``.

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
        for verb, message in _REFUSED.items():
            app.router.add_route("*", f"/{verb}/{{rest:.+}}", partial(_refuse, message))
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
        for name in ("sinceSeconds", "sinceTime", "timestamps", "stream"):
            if request.query.get(name, "false") not in {"false", "All"}:
                return web.Response(status=400, text=_WITHOUT_TIMES.format(name=name))
        lines, limit = (_number(request.query.get(name)) for name in ("tailLines", "limitBytes"))
        follow = request.query.get("follow") == "true" and not previous
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        alive: Callable[[], bool] = lambda: follow and self._running(namespace, pod, container)  # noqa: E731
        async for chunk in read(path, lines, alive, limit):
            await answer.write(chunk)
        await answer.write_eof()
        return answer


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _refuse(message: str, _: web.Request) -> web.Response:
    return web.Response(status=501, text=message)


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


async def read(
    path: Path, lines: int | None, alive: Callable[[], bool], limit: int | None = None
) -> AsyncIterator[bytes]:
    """Yield the content of log ``path``, and what is added while ``alive``.

    Args:
        path: the log file.
        lines: begin with the last so many lines; None begins at the start.
        alive: whether more may come.
        limit: end after so many bytes; None has no end.
    """
    left = limit
    async for chunk in _read(path, lines, alive):
        if left is None:
            yield chunk
            continue
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


async def _read(path: Path, lines: int | None, alive: Callable[[], bool]) -> AsyncIterator[bytes]:
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
