"""``EmbeddedTriton``: the real Triton on a repository, for as long as a ``with`` block lasts."""

import asyncio
import os
import re
import secrets
import shutil
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
from gravswell.names import MEMBER_PREFIX
from gravswell.quiver.config import config_to_json, parse_config
from gravswell.quiver.layout import CONFIG
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.triton.control import ControlAPI
from gravswell.serving.triton.environments import ensure_environment
from gravswell.serving.triton.flags import ModelControl, http_threads, key_headers, server_flags
from gravswell.serving.triton.install import ensure_triton
from gravswell.serving.triton.modelnames import why_unservable
from gravswell.serving.triton.overlay import (
    Overlay,
    broken_pipelines,
    build_overlay,
    repository_folder,
    run_on_cpu,
    unservable_names,
)
from gravswell.serving.triton.packages import Progress
from gravswell.serving.triton.pipelines import MemberFolders, is_ours, settled
from gravswell.serving.triton.ports import ANY_FREE, Ports, held_ports
from gravswell.serving.triton.process import ServerProcess
from gravswell.serving.triton.reasons import tidy_reason
from gravswell.serving.triton.workspace import Workspace

POLL_SECONDS = 0.05


@dataclass(frozen=True)
class ServedModel:
    """A model that answers. ``inputs`` and ``outputs`` are Triton's: name, datatype (``FP32``…) and shape (-1: any)."""

    name: str
    versions: list[int]
    platform: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


class EmbeddedTriton:
    """A Triton that serves ``repository`` (a path or ``file://`` URL) on the CPU, as a child of this process.

    >>> with EmbeddedTriton("my-repo") as server:
    ...     client = tritonclient.grpc.InferenceServerClient(server.grpc_address)

    ``model_control="none"`` serves every entry, or those named in ``models``, and is ready when they are; a model that
    does not load is an error that names it and Triton's reason, or with ``allow_failures`` an item of :attr:`failures`
    while the others serve. What a pipeline keeps private is a part of it only, unless ``models`` names it too.
    ``"explicit"`` serves the folder as it stands and loads nothing until :meth:`load` or a client asks. In both, what
    asks for a GPU runs on the CPU and the repository is never written to.

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
        ports: Ports = ANY_FREE,
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
        self.members: dict[str, str] = {}
        """Members of pipelines by the names that they have here: ``denoise/3``."""
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
        self._members_key = secrets.token_hex(16)
        self._shelf: MemberFolders | None = None

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
        """The models that answer clients now, by name."""
        ready = {status.name for status in self.control.index() if status.state == "READY"}
        found = []
        for name in sorted(name for name in ready if not name.startswith(MEMBER_PREFIX)):
            try:
                model = self.control.metadata(name)
            except InvalidInputError:  # it was unloaded since
                continue
            found.append(
                ServedModel(
                    name=model["name"],
                    versions=sorted(map(int, model["versions"])),
                    platform=model["platform"],
                    inputs=model["inputs"],
                    outputs=model["outputs"],
                )
            )
        return found

    def load(self, model: str, *, timeout: float = 120.0) -> None:
        """Load or reload a model of the repository (explicit control), on the CPU whatever its config asks for.

        Raises :class:`InvalidInputError` with Triton's reason when it does not load; what was loaded before stays.
        """
        if unservable := why_unservable(model):
            raise unservable_names(self._root, {model: unservable})
        path = self._root / model / CONFIG
        config, before = None, self._shelf.users.get(model, set()) if self._shelf else set()
        try:
            if path.is_file():
                message = parse_config(path.read_text(), where=str(path))
                if self._shelf is not None and is_ours(message):
                    message = self._load_members(self._shelf, model, message, timeout)
                run_on_cpu(message)
                config = config_to_json(message)
            self.control.load(model, config, timeout)
        except GravswellError as error:
            if self._shelf is not None:
                self._unload_members(self._shelf.keep(model, before), timeout)
            if isinstance(error, InvalidInputError):
                raise InvalidInputError(self._in_your_words(str(error))) from None
            raise
        if self._shelf is not None:
            self._unload_members(before.difference(*self._shelf.users.values()), timeout)

    def unload(self, model: str, *, timeout: float = 120.0) -> None:
        """Unload a model (explicit control), and with a pipeline the members that no other has."""
        self.control.unload(model, timeout)
        if self._shelf is not None:
            self._unload_members(self._shelf.keep(model), timeout)

    def _load_members(self, shelf: MemberFolders, pipeline: str, config: Any, timeout: float) -> Any:
        """Load the members of a pipeline; return its config, which calls them by the names that they have here."""
        reader = RepositoryReader(self._root)
        numbers = {version.number for version in reader.versions(pipeline)}
        number, config = settled(reader, self._root, pipeline, config, numbers)
        made = shelf.place(pipeline, number, config, apart=True)
        made.version_policy.specific.versions[:] = [number]
        self.members = shelf.told
        for name in sorted(shelf.users[pipeline]):
            self.control.load(name, None, timeout)
        return made

    def _unload_members(self, names: set[str], timeout: float) -> None:
        loaded = {status.name for status in self.control.index() if status.state == "READY"} if names else set()
        for name in sorted(loaded.intersection(names)):  # of those that a failed load wanted, some may not be there
            self.control.unload(name, timeout)

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
                overlay = build_overlay(
                    self._root, self._served_folder, self._models, key=self._members_key, environment=self._environment
                )
                if overlay.refused and not self._allow_failures:
                    raise unservable_names(self._root, overlay.refused)
                if overlay.broken and not self._allow_failures:
                    raise broken_pipelines(overlay.broken)
                self.members = dict(overlay.members)
                if overlay.complete:
                    extra.insert(0, "--disable-auto-complete-config")
            else:
                # Under a path of ours, because the Python backend hands paths to a shell: yours may hold a space.
                self._served_folder.symlink_to(self._root, target_is_directory=True)
                (folder / "members").mkdir()
                extra.insert(0, f"--model-repository={folder / 'members'}")
                self._shelf = MemberFolders(
                    RepositoryReader(self._root),
                    self._root,
                    folder / "members",
                    key=self._members_key,
                    adapt=run_on_cpu,
                    environment=self._environment,
                )
            with held_ports(self.host, self._wanted_ports) as self._ports:
                self._launch(installation.program, folder, extra)
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
        threads = http_threads(self._model_control, len(os.sched_getaffinity(0)))
        flags = server_flags(
            model_repository=str(self._served_folder),
            address=self.host,
            http_port=self._ports.http,
            grpc_port=self._ports.grpc,
            metrics_port=self._ports.metrics,
            model_control=self._model_control,
            key=self._key,
            exit_timeout_seconds=self._exit_timeout,
            extra=[f"--id={identity}", "--allow-gpu-metrics=false", *threads, *extra],
        )
        self._process = ServerProcess.start([str(program), *flags], log, exit_timeout=self._exit_timeout)
        deadline = time.monotonic() + self._start_timeout
        while not self._answers(identity):
            if self._process.returncode is not None:
                raise self._ended(self._process)
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"Triton was not ready within {self._start_timeout:.0f} s: {self._process.last_words()}; "
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
        return UnavailableError(f"Triton ended while it started: {process.last_words()}; {self._keep(process.log)}")

    def _judge(self, overlay: Overlay) -> None:
        statuses = self.control.index()
        ready = {status.name for status in statuses if status.state == "READY"}
        reasons = {status.name: status.reason for status in statuses if status.reason and status.state != "READY"}
        log = self.process.log
        self.failures = {
            name: self._in_your_words(reasons.get(name) or tidy_reason(self.process.poll_failure(name)))
            for name in [*overlay.models, *overlay.members]
            if name not in ready
        }
        for pipeline, members in overlay.users.items():
            failed = sorted(members & self.failures.keys())
            if failed:  # business logic is ready all the same: its members are asked for when it is called
                whys = [f"its member {overlay.members[name]} does not load: {self.failures[name]}" for name in failed]
                self.failures[pipeline] = "; ".join(whys)
        self.failures = {name: why for name, why in self.failures.items() if name not in overlay.members}
        self.failures |= overlay.broken
        self.failures |= {ascii(name)[1:-1]: why for name, why in overlay.refused.items()}  # it may be no text
        if self.failures and not self._allow_failures:
            told = "; ".join(f"model '{name}' does not load: {reason}" for name, reason in self.failures.items())
            raise UnavailableError(f"{told}; {self._keep(log)}")

    def _in_your_words(self, words: str) -> str:
        """Triton's words with the repository's folder and names in place of those that it was shown."""
        for name, told in self.members.items():
            words = re.sub(rf"\S*/{name}/", f"{self._root}/{told.rpartition('/')[0]}/", words).replace(name, told)
        return words.replace(str(self._served_folder), str(self._root))

    def _environment(self, requirements: str, whose: str) -> Path:
        return ensure_environment(requirements, whose, self._progress)

    def _keep(self, log: Path) -> str:
        """Bring the log of a failed server out of the folder that goes with it, and say where it is."""
        if log != self._wanted_log:
            kept = Path(tempfile.gettempdir()) / f"{log.parent.name}.log"
            shutil.copyfile(log, kept)
            log = kept
        return f"Triton's log is {log}"
