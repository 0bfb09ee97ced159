"""A real node beside the development control plane: kubelet, containerd, kube-proxy, kube-router, for end-to-end tests.

Its law: the node is a machine of its own. Its processes, mounts, addresses and rules live in kernel namespaces that
end with their first process, and that one ends with us: a crash leaves folders and empty control groups, which the next
run removes, and never a process, a mount or a route. It needs root, and no container engine, registry or network.
"""

from gravswell_operator.devcluster.realnode.machine import ADDRESS, Machine
from gravswell_operator.devcluster.realnode.node import RealNode
from gravswell_operator.devcluster.realnode.packages import node_packages
from gravswell_operator.devcluster.realnode.registry import Registry
from gravswell_operator.devcluster.realnode.staticimage import static_image

__all__ = ["ADDRESS", "Machine", "RealNode", "Registry", "node_packages", "static_image"]
