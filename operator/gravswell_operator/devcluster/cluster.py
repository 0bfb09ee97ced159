"""The development cluster as a whole, run by a supervisor process: for a ``with`` block, or detached until ``down``."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

from gravswell.cache import CACHE_ENV, cache_dir, locked
from gravswell.errors import (
    ConflictError,
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from gravswell_operator.devcluster.binaries import CONTROL_PLANE, Binaries, ProgressCallback, ensure_binaries
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.devcluster.node.process import end_strays
from gravswell_operator.devcluster.processes import Child, tail
from gravswell_operator.devcluster.state import NODE_FOLDER, ClusterState, Phase, Shape, is_supervised

_START_TIMEOUT = 420.0  # the sum of what the supervisor's parts allow themselves
_STOP_TIMEOUT = 90.0
_REMOVAL_TIMEOUT = 10.0
_ROOM = 300_000_000  # bytes; etcd alone sets 128 MB aside, and dies with a stack trace where it cannot
_SUPERVISOR_LOG = "supervisor.log"

# What a supervisor ended with is raised again where somebody waits for it.
_KINDS: dict[int, type[GravswellError]] = {
    kind.exit_code: kind for kind in (InvalidInputError, NotFoundError, ConflictError, UnsupportedError)
}


class DevCluster:
    """A development cluster that lives as long as the ``with`` block, or this process, whichever ends first.

    ::

        with DevCluster(kwok_nodes=10) as cluster:
            print(cluster.kubectl("get", "nodes"))

    Args:
        directory: an empty or absent folder for its state, kept at the end; a temporary one, removed, when None.
        kwok_nodes: how many simulated nodes to add.
        local_node: whether there is the node ``gravswell-local``, whose pods are real processes.
        gpus: simulated GPUs of each node.
        definitions: custom resource definitions, as of :class:`ControlPlane`.
        binaries: what :func:`ensure_binaries` gave, where the caller built already.
        progress: called while programs are built, which happens once per user.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        kwok_nodes: int = 0,
        local_node: bool = True,
        gpus: int = 8,
        definitions: Path | None = None,
        binaries: Binaries | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self._binaries = binaries
        self._given = directory
        self._shape = Shape(local_node=local_node, kwok_nodes=kwok_nodes, gpus=gpus)
        self._definitions = definitions
        self._progress = progress
        self._directory: Path | None = None
        self._child: Child | None = None
        self._state: ClusterState | None = None
        self._pipe = -1
        self._stopping = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; its context is ``gravswell-dev``."""
        return Path(self.state.kubeconfig)

    @property
    def server_url(self) -> str:
        """The API server's address."""
        return self.state.server

    @property
    def pods(self) -> Path:
        """Where the local node keeps its pods' logs: ``<namespace>/<pod>/<container>.log``."""
        return Path(self.state.pods)

    @property
    def kubectl(self) -> Kubectl:
        """The real kubectl, as administrator: ``cluster.kubectl("get", "nodes")``."""
        return Kubectl.administrator(Path(self.state.kubectl), self.kubeconfig)

    @property
    def state(self) -> ClusterState:
        """What the supervisor says of the cluster."""
        if self._state is None:
            raise UnavailableError("the development cluster is not running; use it in a `with` block")
        return self._state

    def begin(self) -> None:
        """Build what is missing and let it start, while something else is done; :meth:`wait` waits for it.

        Raises:
            UnsupportedError: the programs cannot be had here (no Go).
            UnavailableError: a program cannot be built, or the disk is full.
        """
        if self._binaries is None:
            ensure(self._shape, self._progress)
        self._directory = self._given or Path(tempfile.mkdtemp(prefix="gravswell-cluster-"))
        reader, self._pipe = os.pipe()
        try:
            self._child = _spawn(self._directory, self._shape, attached=reader, definitions=self._definitions)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(reader)

    def start(self) -> None:
        """Build what is missing and start, where that is not begun yet; returns when everything is ready.

        Raises:
            UnsupportedError: the programs cannot be had here (no Go), or the local node does not exist here (macOS).
            UnavailableError: a server did not start; with the end of its log.
        """
        if self._child is None:
            self.begin()
        self.wait()

    def wait(self) -> None:
        """Wait until what was begun is ready.

        Raises:
            UnsupportedError: the local node does not exist here (macOS).
            UnavailableError: a server did not start, with the end of its log; or it was stopped meanwhile.
        """
        with self._stopping:
            child, directory = self._child, self._directory
        if child is None or directory is None:
            raise UnavailableError("the development cluster was stopped while it started")
        try:
            self._state = _await_ready(directory, child.pid, lambda: child.running)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything; bounded and idempotent. From another thread, it ends a start that is waited for."""
        with self._stopping:
            pipe, self._pipe = self._pipe, -1
            child, self._child, self._state = self._child, None, None
            directory, self._directory = self._directory, None
        if pipe >= 0:
            os.close(pipe)  # what the supervisor waits for
        try:
            if child is not None:
                with suppress(subprocess.TimeoutExpired):
                    child.process.wait(_STOP_TIMEOUT)
        finally:  # also when the wait is interrupted
            if child is not None:
                child.stop()
            if directory is not None:
                end_strays(directory / NODE_FOLDER)  # of a supervisor that had no chance to end them
            if directory is not None and self._given is None:
                _remove(directory)


def ensure(shape: Shape, progress: ProgressCallback | None = None) -> None:
    """Build the programs that a cluster of ``shape`` needs."""
    ensure_binaries(progress=progress, names=[*CONTROL_PLANE, *(["kwok"] if shape.kwok_nodes else [])])


def default_directory() -> Path:
    """Return where ``gravswell cluster up`` keeps the user's one detached cluster."""
    return cache_dir() / "cluster"


def status(directory: Path | None = None) -> ClusterState | None:
    """Return the state of the detached cluster, or None if none runs; what a crash left behind does not count."""
    folder = directory or default_directory()
    return ClusterState.read(folder) if is_supervised(folder) else None


def up(
    shape: Shape, *, directory: Path | None = None, progress: ProgressCallback | None = None
) -> tuple[ClusterState, bool]:
    """Start the detached cluster; return its state and whether it was started now (False: it ran already).

    Raises:
        ConflictError: one of another shape runs.
        UnsupportedError, UnavailableError: as :meth:`DevCluster.start`.
    """
    folder = directory or default_directory()
    ensure(shape, progress)
    with locked(folder):
        running = status(folder)
        if running is not None:
            if running.shape != shape:
                raise ConflictError(
                    f"a development cluster runs already with {describe(running.shape)}, and {describe(shape)} was "
                    "asked for; stop it first: gravswell cluster down"
                )
            # One that still starts belongs to a command that was interrupted: the supervisor goes on.
            return _await_ready(folder, running.pid, lambda: is_supervised(folder)), False
        _clear(folder)  # what a crash or a reboot left: its servers are gone
        child = _spawn(folder, shape, attached=None)
        try:
            return _await_ready(folder, child.pid, lambda: child.running), True
        except BaseException:
            child.stop(_STOP_TIMEOUT)
            raise


def down(directory: Path | None = None) -> bool:
    """Stop the detached cluster and remove everything of it; False if there was none."""
    folder = directory or default_directory()
    with locked(folder):
        state = status(folder)
        if state is not None:
            with suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
            end = time.monotonic() + _STOP_TIMEOUT
            while is_supervised(folder) and time.monotonic() < end:
                time.sleep(0.05)
            if is_supervised(folder):
                with suppress(ProcessLookupError):
                    os.kill(state.pid, signal.SIGKILL)  # its servers die with it
        _clear(folder)
    return state is not None


def _clear(folder: Path) -> None:
    """Remove what a cluster that no longer runs left behind: processes of its pods, and its folder."""
    end_strays(folder / NODE_FOLDER)
    _remove(folder)


def _remove(folder: Path) -> None:
    """Remove it, again where a server still wrote there: it dies with its supervisor, but a moment later."""
    end = time.monotonic() + _REMOVAL_TIMEOUT
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)


def require(directory: Path | None = None) -> ClusterState:
    """Return the detached cluster's state once it is ready.

    Raises:
        NotFoundError: none runs.
        UnavailableError: it is starting.
    """
    state = status(directory)
    if state is not None and state.phase is Phase.STARTING:
        raise UnavailableError("the development cluster is starting; `gravswell cluster up` waits until it is ready")
    if state is None or state.phase is not Phase.READY:
        raise NotFoundError("no development cluster runs; start one: gravswell cluster up")
    return state


def describe(shape: Shape) -> str:
    """Say a shape in words."""
    parts = ["the local node" if shape.local_node else "no local node"]
    if shape.kwok_nodes:
        parts.append(f"{shape.kwok_nodes} kwok nodes")
    return f"{' and '.join(parts)}, {shape.gpus} simulated GPUs each"


def _spawn(directory: Path, shape: Shape, *, attached: int | None, definitions: Path | None = None) -> Child:
    argv = [
        sys.executable,
        "-m",
        "gravswell_operator.devcluster.supervisor",
        f"--directory={directory}",
        f"--shape={shape.model_dump_json()}",
        *([f"--definitions={definitions}"] if definitions is not None else []),
    ]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    free = shutil.disk_usage(directory).free
    if free < _ROOM:
        raise UnavailableError(
            f"a development cluster needs {_ROOM / 1e6:.0f} MB and the disk of {directory} has {free / 1e6:.0f} MB "
            f"free; make room, or set {'TMPDIR' if attached is not None else CACHE_ENV} to a folder on a larger disk"
        )
    log = directory / _SUPERVISOR_LOG
    if attached is None:
        return Child("the cluster's supervisor", argv, log=log, with_parent=False)
    # Not tied to our thread but to our pipe: a caller may start it in one thread and stop it in another.
    return Child("the cluster's supervisor", [*argv, "--attached"], log=log, stdin=attached, with_parent=False)


def _await_ready(directory: Path, pid: int, alive: Callable[[], bool]) -> ClusterState:
    end = time.monotonic() + _START_TIMEOUT
    while True:
        ended = not alive()  # read before the state, which it may write last
        state = ClusterState.read(directory)
        if state is not None and state.pid == pid:
            if state.phase is Phase.READY:
                return state
            if state.phase is Phase.FAILED:
                kind = _KINDS.get(state.exit_code, UnavailableError)
                raise kind(f"the development cluster did not start: {state.message}")
        if ended:
            raise UnavailableError(f"the development cluster did not start; {tail(directory / _SUPERVISOR_LOG)}")
        if time.monotonic() > end:
            raise UnavailableError(f"the development cluster was not ready after {_START_TIMEOUT:.0f} s")
        time.sleep(0.05)
