"""The development cluster: a real control plane on loopback, one local node with real pods, simulated nodes for scale.

Its law: what is real is real (etcd, API server, controllers, scheduler, the processes of the local node's pods), what
is simulated says so (every GPU here; the nodes and pods of kwok), and everything that was started ends. It needs
neither root nor a container engine, and imports nothing else of the operator.
"""

from gravswell_operator.devcluster.binaries import BackgroundBuild, Binaries, Progress, ensure_binaries
from gravswell_operator.devcluster.cluster import DevCluster
from gravswell_operator.devcluster.controlplane import ControlPlane
from gravswell_operator.devcluster.kwok import KwokNodes
from gravswell_operator.devcluster.localnode import LocalNode

__all__ = [
    "BackgroundBuild",
    "Binaries",
    "ControlPlane",
    "DevCluster",
    "KwokNodes",
    "LocalNode",
    "Progress",
    "ensure_binaries",
]
