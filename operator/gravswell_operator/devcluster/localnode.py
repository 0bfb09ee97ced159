"""Starts and stops the local node's agent as a process of its own."""

import sys
from pathlib import Path
from typing import Self

from gravswell.errors import UnavailableError, UnsupportedError
from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.node.process import end_strays
from gravswell_operator.devcluster.processes import Child, tail, wait_until

_READY_TIMEOUT = 120.0
_STOP_TIMEOUT = 20.0  # the agent gives containers five seconds and itself as many again


class LocalNode:
    """The local node of a running control plane, named ``gravswell-local``; a context manager.

    Args:
        control_plane: a started one.
        directory: the node's own folder; ``pods/<namespace>/<pod>/<container>.log`` below it are the logs.
        gpus: how many GPUs it pretends to have.

    Start it from a thread that outlives it, as :class:`ControlPlane`.
    """

    def __init__(self, control_plane: ControlPlane, directory: Path, *, gpus: int = 8) -> None:
        self.directory = directory
        self._control_plane = control_plane
        self._gpus = gpus
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the agent and wait until the node is registered and watches for pods.

        Raises:
            UnsupportedError: on anything but Linux, where there is only one loopback address.
            UnavailableError: the agent ended or was not ready in time; with the end of its log.
        """
        if sys.platform != "linux":
            raise UnsupportedError(
                f"the local node gives each pod a loopback address of its own, which {sys.platform} does not have; "
                "use the control plane alone (--no-local-node), or a cluster such as kind (--context NAME)"
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        child = Child(
            "the local node",
            [
                sys.executable,
                "-m",
                "gravswell_operator.devcluster.node",
                f"--kubeconfig={self._control_plane.node_kubeconfig}",
                f"--directory={self.directory}",
                f"--pki={self._control_plane.pki}",
                f"--gpus={self._gpus}",
                f"--ready-file={ready}",
            ],
            log=self._control_plane.logs / "local-node.log",
        )
        self._child = child

        def registered() -> bool:
            child.require_running()
            return ready.exists()

        try:
            wait_until(registered, what=child.name, timeout=_READY_TIMEOUT)
        except UnavailableError as error:
            running = child.running
            self.stop()
            raise UnavailableError(f"{error}; {tail(child.log)}" if running else str(error)) from error
        except BaseException:
            self.stop()
            raise

    def require_running(self) -> None:
        """Raise :class:`UnavailableError` with the log's end if the agent has ended."""
        if self._child is not None:
            self._child.require_running()

    def stop(self) -> None:
        """Stop the agent and with it every process of its pods; the pods' objects stay. Idempotent."""
        if self._child is not None:
            self._child.stop(_STOP_TIMEOUT)
            self._child = None
        end_strays(self.directory)

    def kill(self) -> None:
        """End the agent as a crash would: without a chance to clean up."""
        if self._child is not None:
            self._child.process.kill()
            self._child.process.wait()
            self._child = None
