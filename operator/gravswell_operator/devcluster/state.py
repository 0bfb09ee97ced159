"""What is known of a cluster that another process supervises: a state file, and a lock that says who is alive."""

import enum
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

STATE_FILE = "cluster.json"
_LOCK_FILE = "supervisor.lock"


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
    """Hold the supervisor's lock of ``directory`` if it is free, and say whether it was.

    The kernel frees it when its holder dies, so a crash or a reboot leaves nothing that looks alive.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / _LOCK_FILE).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_supervised(directory: Path) -> bool:
    """Whether a living process supervises the cluster in ``directory``."""
    if not directory.exists():
        return False
    with supervising(directory) as free:
        return not free
