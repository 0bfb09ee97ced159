"""Whether a roll-out may have an additional replica: only where one is sure to fit."""

import pytest

from gravswell_operator.api import GPUNodePool, InferenceServer
from gravswell_operator.desired.placement import may_surge, merged_selector


def pool(nodes, gpus_per_node):
    return GPUNodePool.model_validate(
        {
            "metadata": {"name": "p"},
            "spec": {
                "provider": {"type": "Static", "static": {"matchLabels": {"a": "b"}}},
                "accelerator": {"type": "t4", "count": gpus_per_node},
            },
            "status": {"nodes": nodes, "readyNodes": nodes, "allocatableGPUs": nodes * gpus_per_node},
        }
    )


def server(gpus=0, replicas=1, name="s", **spec):
    scale = {} if "autoscaling" in spec else {"replicas": replicas}
    reference = {"nodePoolRef": {"name": "p"}} if gpus else {}
    return InferenceServer.model_validate(
        {
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"repositoryRef": {"name": "r"}, "tag": "24.08", "gpus": gpus, **reference, **scale, **spec},
        }
    )


@pytest.mark.parametrize(("replicas", "surges"), [(1, True), (2, False), (10, False)])
def test_on_the_cpu_a_single_replica_is_replaced_without_an_interruption(replicas, surges):
    assert may_surge(server(replicas=replicas), None, []) is surges


@pytest.mark.parametrize(
    ("nodes", "per_node", "servers", "surges"),
    [
        (1, 8, [server(1)], True),
        (1, 1, [server(1)], False),
        (1, 8, [server(1, replicas=8)], False),
        (2, 8, [server(1, replicas=15)], True),
        # 8 of 16 are free, but perhaps 4 on each of the two nodes: one of 5 need not fit anywhere.
        (2, 8, [server(5), server(3, name="t")], False),
        (2, 8, [server(4), server(4, name="t")], True),
        (1, 8, [server(1, autoscaling={"minReplicas": 1, "maxReplicas": 8})], False),
        (0, 8, [server(1)], False),
    ],
)
def test_with_gpus_only_where_some_node_must_have_room(nodes, per_node, servers, surges):
    assert may_surge(servers[0], pool(nodes, per_node), servers) is surges


def test_labels_that_contradict_each_other_are_named():
    assert merged_selector({"a": "1"}, {"b": "2"}, {"a": "1"}) == {"a": "1", "b": "2"}
    with pytest.raises(ValueError, match="node label a is asked to be both '1' and '2'"):
        merged_selector({"a": "1"}, {"a": "2"})
