"""What is known of a cluster that another process supervises: a state file, and a lock that says who is alive."""

import enum
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

STATE_FILE = "cluster.json"
NODE_FOLDER = "node"
"""The local node's folder below a cluster's."""

_LOCK_FILE = "supervisor.lock"
_PATIENCE_SECONDS = 1.0  # somebody who asks whether there is a supervisor holds the lock for microseconds


class Phase(enum.StrEnum):
    """Where a supervisor is."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


class Shape(BaseModel):
    """What a development cluster consists of beside its control plane."""

    model_config = ConfigDict(frozen=True)

    local_node: bool = True
    kwok_nodes: int = 0
    gpus: int = 8
    """Simulated GPUs of each node."""


class ClusterState(BaseModel):
    """The document in :data:`STATE_FILE`, written by the supervisor alone."""

    phase: Phase
    pid: int
    shape: Shape
    message: str = ""
    exit_code: int = 0
    server: str = ""
    kubeconfig: str = ""
    kubectl: str = ""
    logs: str = ""
    pods: str = ""
    """Folder of the local node's pods: ``<namespace>/<pod>/<container>.log``."""

    def write(self, directory: Path) -> None:
        """Replace the state file."""
        new = directory / f".{STATE_FILE}.new"
        new.write_text(self.model_dump_json(indent=2) + "\n")
        new.replace(directory / STATE_FILE)

    @classmethod
    def read(cls, directory: Path) -> "ClusterState | None":
        """Return the state, or None where there is none that can be read."""
        try:
            return cls.model_validate_json((directory / STATE_FILE).read_text())
        except (FileNotFoundError, ValidationError):
            return None


@contextmanager
def supervising(directory: Path) -> Iterator[bool]:
    """Hold the supervisor's lock of ``directory`` if no other supervisor does, and say whether we hold it.

    The kernel frees it when its holder dies, so a crash or a reboot leaves nothing that looks alive.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / _LOCK_FILE).open("a") as handle:
        end = time.monotonic() + _PATIENCE_SECONDS
        while not (free := _try_lock(handle, fcntl.LOCK_EX)) and time.monotonic() < end:
            time.sleep(0.005)
        yield free


def is_supervised(directory: Path) -> bool:
    """Whether a living process supervises the cluster in ``directory``; changes nothing there."""
    try:
        handle = (directory / _LOCK_FILE).open("rb")
    except FileNotFoundError:
        return False
    with handle:
        return not _try_lock(handle, fcntl.LOCK_SH)  # shared, so that those who ask at the same time do not see another


def _try_lock(handle: IO[Any], kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
