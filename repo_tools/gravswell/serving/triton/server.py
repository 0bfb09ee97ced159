"""``EmbeddedTriton``: the real Triton on a repository, for as long as a ``with`` block lasts."""

import asyncio
import errno
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gravswell import addresses
from gravswell.errors import ConflictError, GravswellError, InvalidInputError, UnavailableError
from gravswell.quiver.config import config_to_json, parse_config
from gravswell.quiver.layout import CONFIG
from gravswell.serving.triton.control import ControlAPI, tidy_reason
from gravswell.serving.triton.flags import ModelControl, key_headers, server_flags
from gravswell.serving.triton.install import ensure_triton
from gravswell.serving.triton.modelnames import why_unservable
from gravswell.serving.triton.overlay import Overlay, build_overlay, repository_folder, run_on_cpu, unservable_names
from gravswell.serving.triton.packages import Progress
from gravswell.serving.triton.process import ServerProcess
from gravswell.serving.triton.workspace import Workspace

POLL_SECONDS = 0.05
PORT_ATTEMPTS = 3
"""Free ports are found by binding and letting go; another program may take one in between."""


@dataclass(frozen=True)
class ServedModel:
    """A model that answers. ``inputs`` and ``outputs`` are Triton's: name, datatype (``FP32``…) and shape (-1: any)."""

    name: str
    versions: list[int]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


@dataclass(frozen=True)
class Ports:
    """The three ports of a server; 0 asks for any free one."""

    http: int = 0
    grpc: int = 0
    metrics: int = 0


class EmbeddedTriton:
    """A Triton that serves ``repository`` (a path or ``file://`` URL) on the CPU, as a child of this process.

    >>> with EmbeddedTriton("my-repo") as server:
    ...     client = tritonclient.grpc.InferenceServerClient(server.grpc_address)

    ``model_control="none"`` serves every entry, or those named in ``models``, and is ready when they are; a model that
    does not load is an error that names it and Triton's reason, or with ``allow_failures`` an item of :attr:`failures`
    while the others serve. ``"explicit"`` serves the folder as it stands and loads nothing until :meth:`load` or a
    client asks. In both, what asks for a GPU runs on the CPU and the repository is never written to.

    ``host`` is what the server binds, on loopback by default; ``key`` closes the control APIs to callers without it.
    ``log`` keeps the server's log in a file of yours; otherwise it goes when the server stops, unless it failed.
    ``start_timeout`` and ``exit_timeout`` are in seconds. Blocking; in a coroutine use ``async with``.
    """

    def __init__(
        self,
        repository: str | Path,
        *,
        model_control: ModelControl = "none",
        models: Iterable[str] | None = None,
        allow_failures: bool = False,
        host: str = "127.0.0.1",
        ports: Ports = Ports(),
        key: str | None = None,
        log: Path | None = None,
        start_timeout: float = 120.0,
        exit_timeout: int = 10,
        extra_flags: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> None:
        if model_control == "explicit" and models is not None:
            raise InvalidInputError("models= goes with model_control='none'; in explicit control, load() them")
        self.repository = repository
        self._root = repository_folder(repository)
        self.host = host
        self.failures: dict[str, str] = {}
        """Models that did not load, and Triton's reasons."""
        self._models = None if models is None else list(models)
        self._model_control: ModelControl = model_control
        self._allow_failures = allow_failures
        self._wanted_ports, self._ports = ports, ports
        self._key = key
        self._wanted_log = log
        self._start_timeout = start_timeout
        self._exit_timeout = exit_timeout
        self._extra = list(extra_flags)
        self._progress = progress
        self._process: ServerProcess | None = None
        self._workspace: Workspace | None = None
        self._served_folder = self._root

    # Where it is

    @property
    def http_address(self) -> str:
        """``host:port`` of HTTP, as a client on this machine dials it."""
        return addresses.join(self._dial_host, self._ports.http)

    @property
    def grpc_address(self) -> str:
        """``host:port`` of gRPC."""
        return addresses.join(self._dial_host, self._ports.grpc)

    @property
    def metrics_address(self) -> str:
        """``host:port`` of the Prometheus metrics, under ``/metrics``."""
        return addresses.join(self._dial_host, self._ports.metrics)

    @property
    def process(self) -> ServerProcess:
        """The running server. Raises :class:`UnavailableError` before the start and after the stop."""
        if self._process is None:
            raise UnavailableError("the embedded Triton is not running")
        return self._process

    @property
    def control(self) -> ControlAPI:
        """Triton's HTTP API, with the key of this server."""
        return ControlAPI(self.http_address, key_headers(self._key)[0] if self._key else {})

    @property
    def _dial_host(self) -> str:
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104  compared, not bound

    # What it serves

    def served(self) -> list[ServedModel]:
        """The models that answer now, by name."""
        names = sorted({status.name for status in self.control.index() if status.state == "READY"})
        found = [self.control.metadata(name) for name in names]
        return [
            ServedModel(
                name=model["name"],
                versions=sorted(map(int, model["versions"])),
                platform=model["platform"],
                inputs=model["inputs"],
                outputs=model["outputs"],
            )
            for model in found
        ]

    def load(self, model: str, *, timeout: float = 120.0) -> None:
        """Load or reload a model of the repository (explicit control), on the CPU whatever its config asks for.

        Raises :class:`InvalidInputError` with Triton's reason when it does not load; what was loaded before stays.
        """
        if unservable := why_unservable(model):
            raise unservable_names(self._root, {model: unservable})
        path = self._root / model / CONFIG
        config = None
        if path.is_file():
            message = parse_config(path.read_text(), where=str(path))
            run_on_cpu(message)
            config = config_to_json(message)
        try:
            self.control.load(model, config, timeout)
        except InvalidInputError as error:
            raise InvalidInputError(self._in_your_paths(str(error))) from None

    def unload(self, model: str, *, timeout: float = 120.0) -> None:
        """Unload a model (explicit control)."""
        self.control.unload(model, timeout)

    # Its life

    def start(self) -> Self:
        """Install what is missing, start the server and return when it answers and every model has loaded or failed."""
        installation = ensure_triton(self._progress)
        with ExitStack() as undo:
            self._workspace = Workspace.create()
            undo.callback(self.stop)
            folder = self._workspace.path
            extra = list(self._extra)
            self._served_folder = folder / "models"
            overlay = Overlay([], complete=False)
            if self._model_control == "none":
                overlay = build_overlay(self._root, self._served_folder, self._models)
                if overlay.refused and not self._allow_failures:
                    raise unservable_names(self._root, overlay.refused)
                if overlay.complete:
                    extra.insert(0, "--disable-auto-complete-config")
            else:
                # Under a path of ours, because the Python backend hands paths to a shell: yours may hold a space.
                self._served_folder.symlink_to(self._root, target_is_directory=True)
            for attempt in range(PORT_ATTEMPTS):
                self._ports = _choose_ports(self.host, self._wanted_ports)
                try:
                    self._launch(installation.program, folder, extra)
                    break
                except ConflictError:
                    if attempt + 1 == PORT_ATTEMPTS or 0 not in vars(self._wanted_ports).values():
                        raise
            self._judge(overlay)
            undo.pop_all()
        return self

    def stop(self) -> None:
        """Stop the server; nothing of it is left. Harmless when it is not running."""
        process, self._process = self._process, None
        workspace, self._workspace = self._workspace, None
        if process is not None:
            process.stop()
        if workspace is not None:
            workspace.remove()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    # Inside

    def _launch(self, program: Path, folder: Path, extra: list[str]) -> None:
        identity = f"gravswell-{secrets.token_hex(8)}"
        log = self._wanted_log or folder / "server.log"
        flags = server_flags(
            model_repository=str(self._served_folder),
            address=self.host,
            http_port=self._ports.http,
            grpc_port=self._ports.grpc,
            metrics_port=self._ports.metrics,
            model_control=self._model_control,
            key=self._key,
            exit_timeout_seconds=self._exit_timeout,
            extra=[f"--id={identity}", "--allow-gpu-metrics=false", *extra],
        )
        self._process = ServerProcess.start([str(program), *flags], log, exit_timeout=self._exit_timeout)
        deadline = time.monotonic() + self._start_timeout
        while not self._answers(identity):
            if self._process.returncode is not None:
                raise self._ended(self._process)
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"Triton was not ready within {self._start_timeout:.0f} s: {_last_words(self._process)}; "
                    f"{self._keep(log)}"
                )
            time.sleep(POLL_SECONDS)

    def _answers(self, identity: str) -> bool:
        try:
            # By its identity: on a taken port another server may answer, ready and not ours.
            return self.control.server_id() == identity
        except UnavailableError:
            return False

    def _ended(self, process: ServerProcess) -> GravswellError:
        taken = re.search(r"Socket '([^']+)' already in use", process.told())
        if taken:
            return ConflictError(f"Triton cannot listen on {taken[1]}: another program does; choose another port")
        return UnavailableError(f"Triton ended while it started: {_last_words(process)}; {self._keep(process.log)}")

    def _judge(self, overlay: Overlay) -> None:
        statuses = self.control.index()
        ready = {status.name for status in statuses if status.state == "READY"}
        reasons = {status.name: status.reason for status in statuses if status.reason and status.state != "READY"}
        log = self.process.log
        self.failures = {
            name: self._in_your_paths(reasons.get(name) or _poll_failure(self.process, name))
            for name in overlay.models
            if name not in ready
        }
        self.failures |= {ascii(name)[1:-1]: why for name, why in overlay.refused.items()}  # it may be no text
        if self.failures and not self._allow_failures:
            told = "; ".join(f"model '{name}' does not load: {reason}" for name, reason in self.failures.items())
            raise UnavailableError(f"{told}; {self._keep(log)}")

    def _in_your_paths(self, words: str) -> str:
        """Triton's words with the repository's folder in place of the one that it was shown in."""
        return words.replace(str(self._served_folder), str(self._root))

    def _keep(self, log: Path) -> str:
        """Bring the log of a failed server out of the folder that goes with it, and say where it is."""
        if log != self._wanted_log:
            kept = Path(tempfile.gettempdir()) / f"{log.parent.name}.log"
            shutil.copyfile(log, kept)
            log = kept
        return f"Triton's log is {log}"


def _choose_ports(host: str, wanted: Ports) -> Ports:
    """Free ports for those that are 0. Raises :class:`ConflictError` naming a wanted port that is taken."""
    chosen = []
    with ExitStack() as held:  # all are held until all are found, so that no two are the same
        for name, port in vars(wanted).items():
            probe = held.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise ConflictError(
                        f"port {port} on {host} is taken by another program; "
                        f"choose another port for {name}, or 0 for any that is free"
                    ) from error
                raise InvalidInputError(
                    f"{addresses.join(host, port)} cannot be listened on for {name}: {error.strerror or error}"
                ) from error
            chosen.append(probe.getsockname()[1])
    return Ports(*chosen)


def _poll_failure(process: ServerProcess, model: str) -> str:
    """Why Triton left a model out of its index: a config that it cannot read is told in its log only."""
    found = re.search(rf"Poll failed for model directory '{re.escape(model)}': ([^\n]*)", process.told())
    return tidy_reason(found[1].rstrip('"')) if found else "Triton gave no reason"


def _last_words(process: ServerProcess) -> str:
    """The errors in a server's log, else its last line."""
    lines = [line for line in process.told().splitlines() if line and line[0] not in "+|"]
    errors = [line for line in lines if re.match(r"E\d{4} |error:|\S*tritonserver: ", line)]
    return " / ".join((errors or lines or ["its log is empty"])[-3:])
