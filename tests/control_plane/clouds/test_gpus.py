"""When a pool is Ready: its GPUs are allocatable, whoever makes them so. On kwok nodes that say what they are told."""

from typing import Any

from gravswell_operator.devcluster import ControlPlane

from ..operating import OperatorProcess, conditions, wait_until
from ..reconciling.test_operator_rights import granted, used
from .conftest import Pools, have_nodes

POLICY = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "cluster-policy"}}
"""As the GPU Operator has it; of its definition only what anybody reads."""
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "clusterpolicies.nvidia.com"},
    "spec": {
        "group": "nvidia.com",
        "scope": "Cluster",
        "names": {"kind": "ClusterPolicy", "plural": "clusterpolicies", "singular": "clusterpolicy"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "devicePlugin": {
                                        "type": "object",
                                        "properties": {"enabled": {"type": "boolean"}},
                                    }
                                },
                            },
                            "status": {"type": "object", "properties": {"state": {"type": "string"}}},
                        },
                    }
                },
            }
        ],
    },
}


def static(pools: Pools, name: str, **spec: Any) -> None:
    pools.names.add(name)
    whole = {
        "provider": {"type": "Static", "static": {"matchLabels": {"rack": name}}},
        "accelerator": {"type": "t4", "count": 4},
        **spec,
    }
    kind = {"apiVersion": "gravswell.dev/v1alpha1", "kind": "GPUNodePool"}
    pools.api.apply("", {**kind, "metadata": {"name": name}, "spec": whole})


def offer(pools: Pools, node: str, gpus: int) -> None:
    """As a device plugin does through the kubelet."""
    amounts = {"nvidia.com/gpu": str(gpus)}
    pools.api.patch("node", "", node, {"status": {"capacity": amounts, "allocatable": amounts}}, subresource="status")


def test_a_pool_is_ready_when_its_gpus_are_allocatable_and_not_when_its_nodes_are(pools: Pools) -> None:
    have_nodes(pools.api, "bare", {"rack": "bare"}, 1)
    try:
        offer(pools, "bare-0", 0)
        static(pools, "bare")
        message = conditions(pools.until("bare", Ready="NoGPUs", readyNodes=1, allocatableGPUs=0))["Ready"]["message"]
        assert "nodes without nvidia.com/gpu: bare-0; install the GPU drivers and device plugin there" in message
        offer(pools, "bare-0", 2)
        pools.until("bare", Ready="FewerGPUs", allocatableGPUs=2)
        offer(pools, "bare-0", 4)
        pools.until("bare", Ready="NodesReady", allocatableGPUs=4)
        pools.delete("bare")
        pools.until_gone("bare")
        assert pools.api.get("node", "", "bare-0") is not None
    finally:
        have_nodes(pools.api, "bare", {}, 0)


def test_drivers_are_left_to_a_gpu_operator_that_comes_later(
    pools: Pools, cluster: ControlPlane, operator: OperatorProcess
) -> None:
    def plugin() -> dict[str, Any] | None:
        return pools.api.get("daemonset", "gravswell-drivers", "driven-device-plugin")

    have_nodes(pools.api, "driven", {"rack": "driven"}, 1)
    try:
        static(pools, "driven", drivers={"install": True}, taints=[])
        pools.until("driven", DriversInstalled="PluginRunning")
        assert plugin() is not None
        pools.api.apply("", DEFINITION)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/clusterpolicies.nvidia.com")
        pools.api.apply("", POLICY)
        message = conditions(pools.until("driven", DriversInstalled="GPUOperatorNotReady"))["DriversInstalled"][
            "message"
        ]
        assert "ClusterPolicy cluster-policy is not looked at yet" in message
        wait_until(lambda: plugin() is None)
        pools.api.patch("clusterpolicy", "", "cluster-policy", {"status": {"state": "ready"}}, subresource="status")
        pools.until("driven", DriversInstalled="GPUOperatorReady", Ready="NodesReady")
        pools.api.patch("clusterpolicy", "", "cluster-policy", {"spec": {"devicePlugin": {"enabled": False}}})
        pools.until("driven", DriversInstalled="PluginRunning")
        assert plugin() is not None
        pools.api.patch("clusterpolicy", "", "cluster-policy", {"spec": {"devicePlugin": {"enabled": True}}})
        pools.until("driven", DriversInstalled="GPUOperatorReady")
        wait_until(lambda: plugin() is None)
        answered = {request for request, codes in used(operator).items() if "200" in codes}
        rights = {(verb, where) for verb, where in granted(cluster) if where.startswith("nvidia.com/")}
        assert rights == {request for request in answered if request[1].startswith("nvidia.com/")} != set()
        cluster.kubectl("delete", "crd", "clusterpolicies.nvidia.com")
        pools.until("driven", DriversInstalled="PluginRunning")
        assert plugin() is not None
    finally:
        cluster.kubectl("delete", "crd", "clusterpolicies.nvidia.com", "--ignore-not-found")
        have_nodes(pools.api, "driven", {}, 0)
