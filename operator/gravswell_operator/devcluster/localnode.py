"""Starts and stops the local node's agent as a process of its own."""

import sys
from ipaddress import IPv4Network
from pathlib import Path

from gravswell.errors import UnsupportedError
from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.node.addresses import LOOPBACK
from gravswell_operator.devcluster.node.process import end_strays
from gravswell_operator.devcluster.processes import Servers


class LocalNode(Servers):
    """The local node of a running control plane, named ``gravswell-local``: its agent and the processes of its pods.

    ``start`` returns when the node is registered and watches for pods; it raises :class:`UnsupportedError` on anything
    but Linux, where there is only one loopback address. ``stop`` ends every process of its pods; their objects stay.

    Args:
        control_plane: a started one.
        directory: the node's own folder; ``pods/<namespace>/<pod>/<container>.log`` below it are the logs.
        gpus: how many GPUs it pretends to have.
        addresses: its pods', all of which this machine must have. EndpointSlices refuse loopback ones, the default.
    """

    def __init__(
        self, control_plane: ControlPlane, directory: Path, *, gpus: int = 8, addresses: IPv4Network = LOOPBACK
    ) -> None:
        # The agent gives containers five seconds and itself as many again.
        super().__init__(control_plane.logs, ready_timeout=120.0, stop_timeout=20.0)
        self.directory = directory
        self._control_plane = control_plane
        self._gpus = gpus
        self._addresses = addresses

    def _start(self) -> None:
        if sys.platform != "linux":
            raise UnsupportedError(
                f"the local node gives each pod a loopback address of its own, which {sys.platform} does not have; "
                "use the control plane alone (--no-local-node), or a cluster such as kind (--context NAME)"
            )
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        ready = self.directory / "ready"
        ready.unlink(missing_ok=True)
        child = self._spawn(
            "the local node",
            [
                sys.executable,
                "-m",
                "gravswell_operator.devcluster.node",
                f"--kubeconfig={self._control_plane.node_kubeconfig}",
                f"--directory={self.directory}",
                f"--pki={self._control_plane.pki}",
                f"--gpus={self._gpus}",
                f"--addresses={self._addresses}",
                f"--ready-file={ready}",
            ],
            log="local-node.log",
        )
        self._wait(child, ready.exists)

    def stop(self) -> None:
        """Stop the agent and with it every process of its pods; the pods' objects stay. Idempotent."""
        super().stop()
        end_strays(self.directory)

    def kill(self) -> None:
        """End the agent as a crash would: without a chance to clean up."""
        while self._children:
            process = self._children.pop().process
            process.kill()
            process.wait()
