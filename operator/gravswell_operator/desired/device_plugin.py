"""NVIDIA's device plugin on the nodes of a pool: what makes their GPUs visible to Kubernetes."""

from gravswell_operator import names
from gravswell_operator.api import GPUNodePool
from gravswell_operator.desired.objects import Manifest, Options, child, labels
from gravswell_operator.desired.placement import pool_node_selector, pool_tolerations

_PLUGIN_FOLDER = "/var/lib/kubelet/device-plugins"


def device_plugin(pool: GPUNodePool, options: Options) -> Manifest:
    """The pool's DaemonSet, in the drivers' own namespace, because it mounts a folder of the host.

    The plugin itself needs no privileges beyond that folder: every capability is dropped.
    """
    name = names.device_plugin(pool.metadata.name)
    selector = {names.LABEL_ROLE: names.ROLE_DEVICE_PLUGIN, names.LABEL_POOL: pool.metadata.name}
    container = {
        "name": "device-plugin",
        "image": pool.spec.drivers.image or names.DEVICE_PLUGIN_IMAGE,
        "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "false"}],
        "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "device-plugins", "mountPath": _PLUGIN_FOLDER}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "nodeSelector": pool_node_selector(pool),
        "tolerations": pool_tolerations(pool),
        "containers": [container],
        "volumes": [{"name": "device-plugins", "hostPath": {"path": _PLUGIN_FOLDER, "type": ""}}],
    }
    spec = {
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector},
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {"metadata": {"labels": labels(pool, names.ROLE_DEVICE_PLUGIN)}, "spec": pod},
    }
    return child(
        pool,
        "apps/v1",
        "DaemonSet",
        name,
        role=names.ROLE_DEVICE_PLUGIN,
        namespace=options.drivers_namespace,
        spec=spec,
    )
