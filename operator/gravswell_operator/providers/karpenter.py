"""The Karpenter provider: a NodePool of Karpenter's, which makes nodes of a node class and removes them again.

It drains a node before it removes it: the budgets of the pods on it are respected for as long as ``drainTimeout`` says.
With its owner the NodePool goes, and Karpenter drains and removes its nodes; the operator need not be there for that.
"""

from gravswell_operator.api import GPUNodePool
from gravswell_operator.api.providers import KarpenterProvider
from gravswell_operator.desired.objects import Manifest, child
from gravswell_operator.desired.placement import pool_node_selector
from gravswell_operator.desired.pools import Bounds, drain_timeout

API_VERSION = "karpenter.sh/v1"
ROLE = "node-pool"
EMPTY_FOR = "10m"
"""How long a node that autoscaling added stands empty before it goes, where ``idleAfter`` does not say."""
TAINT_EFFECT = "NoSchedule"
"""Of a taint that the pool gives without one: its nodes must have one."""


class Karpenter:
    """One NodePool for each pool, of its name."""

    way_out = (
        "install Karpenter with the provider of your cloud (https://karpenter.sh), or make the pool with another "
        "provider type; looked for again and again, so nothing needs a restart"
    )

    def objects(self, pool: GPUNodePool, bounds: Bounds) -> list[Manifest]:
        """The NodePool: with a fixed number of replicas, or with a limit."""
        karpenter = pool.spec.provider.karpenter
        assert karpenter is not None  # a rule of the union
        fixed = pool.spec.autoscaling is None
        spec: Manifest = {
            "template": {"metadata": {"labels": pool_node_selector(pool)}, "spec": _node(pool, karpenter)},
            "disruption": {
                # A server would move to another node only to save one: its clients pay for that with a cold start.
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": "Never" if fixed else pool.spec.idle_after or EMPTY_FOR,
                # Empty nodes go at once, whatever their number; nodes with servers are replaced one after the other.
                "budgets": [{"nodes": "1", "reasons": ["Drifted", "Underutilized"]}, {"nodes": "100%"}],
            },
        }
        if fixed:
            spec["replicas"] = bounds.minimum
        else:
            gpus = bounds.maximum * pool.spec.accelerator.count
            # Releases before the limit on nodes know the one on resources.
            spec["limits"] = {"nodes": str(bounds.maximum), pool.spec.accelerator.resource_name: str(gpus)}
        keep = pool.spec.deletion_policy == "Retain"
        return [child(pool, API_VERSION, "NodePool", pool.metadata.name, role=ROLE, owned=not keep, spec=spec)]


def _node(pool: GPUNodePool, karpenter: KarpenterProvider) -> Manifest:
    """What every node of the pool is."""
    labels = karpenter.labels
    assert labels is not None  # a rule of the member
    accelerator = pool.spec.accelerator
    wanted = [(labels.accelerator_type, accelerator.type), (labels.accelerator_count, str(accelerator.count))]
    if pool.spec.vcpus is not None:
        assert labels.vcpus is not None  # a rule of the pool
        wanted.append((labels.vcpus, str(pool.spec.vcpus)))
    requirements: list[Manifest] = [{"key": key, "operator": "In", "values": [value]} for key, value in wanted]
    requirements += [requirement.to_dict() for requirement in karpenter.requirements]
    taints = []
    for taint in pool.spec.taints:
        made = {"key": taint.key, "effect": taint.effect or TAINT_EFFECT}
        taints.append(made | ({"value": taint.value} if taint.value is not None else {}))
    return {
        "nodeClassRef": karpenter.node_class_ref.to_dict(),
        "requirements": [r if r.get("values") else {k: v for k, v in r.items() if k != "values"} for r in requirements],
        "taints": taints,
        "terminationGracePeriod": drain_timeout(pool),
    }
