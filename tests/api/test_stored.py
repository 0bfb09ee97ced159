"""Objects that earlier definitions stored mean the same under today's."""

import pytest

from gravswell_operator.api import GPUNodePool
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.desired.pools import Bounds, Idleness, bounds

SPEC = {
    "provider": {"type": "Static", "static": {"matchLabels": {"nvidia.com/gpu.product": "Tesla-T4"}}},
    "accelerator": {"type": "nvidia-tesla-t4", "count": 4, "resourceName": "nvidia.com/gpu"},
    "taints": [{"key": "nvidia.com/gpu"}],
    "drivers": {"install": False},
    "allowedNamespaces": [],
    "suspend": False,
}
"""What an API server has of a pool that was applied under the first definitions, with their defaults."""
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "NodesReady",
    "message": "2 ready nodes: 8 nvidia-tesla-t4 GPUs",
    "lastTransitionTime": "2026-11-21T23:40:00Z",
    "observedGeneration": 3,
}
STATUS = {
    "observedGeneration": 3,
    "nodes": 2,
    "readyNodes": 2,
    "allocatableGPUs": 8,
    "selector": "nvidia.com/gpu.product=Tesla-T4",
    "conditions": [READY],
}
FIRST = {
    "apiVersion": "gravswell.dev/v1alpha1",
    "kind": "GPUNodePool",
    "metadata": {"name": "t4", "uid": "0a1b2c3d-1111-2222-3333-444455556666", "generation": 3},
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"size": 0},
        {"size": 1000},
        {"taints": [{"key": "team", "value": "ml", "effect": "NoExecute"}], "allowedNamespaces": ["ns"]},
        {"drivers": {"install": True, "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"}, "suspend": True},
    ],
)
def test_a_pool_of_the_first_definitions(change: dict[str, object]) -> None:
    pool = GPUNodePool.model_validate({**FIRST, "spec": {**SPEC, **change}, "status": STATUS})
    size = change.get("size", 1)
    assert not pool.spec.managed
    assert bounds(pool, Idleness()) == Bounds(size, size)
    assert pool_node_selector(pool) == {"nvidia.com/gpu.product": "Tesla-T4"}
    assert (pool.spec.deletion_policy, pool.spec.idle_after, pool.spec.autoscaling) == ("Delete", None, None)
    assert pool.status.to_dict() == {**STATUS, "pendingNodes": 0}
    assert {**SPEC, **change}.items() <= pool.spec.to_dict().items()


def test_an_empty_status_is_read_too() -> None:
    assert GPUNodePool.model_validate({**FIRST, "spec": SPEC}).status.cloud is None
