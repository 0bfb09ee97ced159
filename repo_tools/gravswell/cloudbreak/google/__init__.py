"""Google Kubernetes Engine: clusters, node pools, and what runs on them, by Google's own messages.

>>> from gravswell.cloudbreak import google as cb
>>> from google.cloud import container_v1 as container
>>> manager = cb.ClusterManager(project="my-project", zone="us-east4-b")
>>> cluster = manager.create_resource(container.Cluster(name="my-cluster", initial_node_count=2))
>>> pool = container.NodePool(
...     name="t4", initial_node_count=1, config=cb.create_gpu_node_pool_config(vcpus=16, gpus=4, gpu_type="t4")
... )
>>> cluster.create_resource(pool)
>>> cluster.delete()

Needs the extra ``gke``. Everything here costs money in the cloud until it is deleted; ``gravswell pools audit`` lists
what there is.
"""

from gravswell.errors import UnsupportedError
from gravswell.extras import install

try:
    from google.cloud import container_v1 as _container  # noqa: F401 - to tell its lack here, in words
except ImportError:  # of a name, where other libraries of Google's are installed
    raise UnsupportedError(
        f"gravswell.cloudbreak.google needs google-cloud-container, which is not installed: {install('gke')}"
    ) from None

from gravswell.cloudbreak.google.api import Api
from gravswell.cloudbreak.google.cluster import Cluster
from gravswell.cloudbreak.google.config import create_gpu_node_pool_config
from gravswell.cloudbreak.google.manager import ClusterManager
from gravswell.cloudbreak.google.nodepool import NodePool

__all__ = ["Api", "Cluster", "ClusterManager", "NodePool", "create_gpu_node_pool_config"]
