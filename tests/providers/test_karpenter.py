"""What Karpenter is told of a pool."""

import pytest

from gravswell_operator.desired.pools import Bounds
from gravswell_operator.providers import PROVIDERS

UP_TO_4 = Bounds(0, 4)
AWS = {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gpus"}


@pytest.fixture
def node_pool(resource):
    def make(bounds=UP_TO_4, *, karpenter=None, **spec):
        change = {
            "autoscaling": {"max": 4},
            "provider": {"type": "Karpenter", "static": None, "karpenter": {"nodeClassRef": AWS, **(karpenter or {})}},
            "accelerator": {"type": "t4"},
        }
        pool = resource("GPUNodePool", {"spec": {**change, **spec}, "metadata": {"uid": "u-1"}})
        (made,) = PROVIDERS["Karpenter"].objects(pool, bounds)
        return made

    return make


def requirements(made):
    return {r["key"]: r.get("values") for r in made["spec"]["template"]["spec"]["requirements"]}


def test_it_is_of_the_whole_cluster_and_goes_with_its_pool(node_pool):
    made = node_pool()
    assert (made["apiVersion"], made["kind"]) == ("karpenter.sh/v1", "NodePool")
    metadata = made["metadata"]
    assert metadata["name"] == "pool"
    assert "namespace" not in metadata
    assert metadata["ownerReferences"][0]["uid"] == "u-1"
    assert metadata["labels"]["gravswell.dev/pool"] == "pool"


def test_retained_it_stays_without_its_pool(node_pool):
    assert "ownerReferences" not in node_pool(deletionPolicy="Retain")["metadata"]


def test_nodes_carry_the_label_by_which_servers_select_them(node_pool):
    assert node_pool()["spec"]["template"]["metadata"]["labels"] == {"gravswell.dev/pool": "pool"}


def test_machines_are_chosen_by_gpus_and_vcpus(node_pool):
    assert requirements(node_pool(vcpus=16)) == {
        "karpenter.k8s.aws/instance-gpu-name": ["t4"],
        "karpenter.k8s.aws/instance-gpu-count": ["4"],
        "karpenter.k8s.aws/instance-cpu": ["16"],
    }


def test_labels_of_another_cloud_and_more_requirements(node_pool):
    karpenter = {
        "nodeClassRef": {"group": "karpenter.example.com", "kind": "NodeClass", "name": "gpus"},
        "instanceLabels": {"acceleratorType": "example.com/gpu", "acceleratorCount": "example.com/gpus"},
        "requirements": [
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
            {"key": "example.com/slow", "operator": "DoesNotExist"},
        ],
    }
    made = node_pool(karpenter=karpenter)
    assert requirements(made) == {
        "example.com/gpu": ["t4"],
        "example.com/gpus": ["4"],
        "karpenter.sh/capacity-type": ["spot"],
        "example.com/slow": None,
    }
    assert made["spec"]["template"]["spec"]["nodeClassRef"]["group"] == "karpenter.example.com"


def test_a_taint_without_effect_keeps_others_off(node_pool):
    taints = [{"key": "nvidia.com/gpu"}, {"key": "team", "value": "a", "effect": "NoExecute"}]
    assert node_pool(taints=taints)["spec"]["template"]["spec"]["taints"] == [
        {"key": "nvidia.com/gpu", "effect": "NoSchedule"},
        {"key": "team", "value": "a", "effect": "NoExecute"},
    ]


def test_autoscaling_is_a_limit_of_nodes_and_of_gpus(node_pool):
    spec = node_pool()["spec"]
    assert spec["limits"] == {"nodes": "4", "nvidia.com/gpu": "16"}
    assert "replicas" not in spec
    assert (spec["disruption"]["consolidationPolicy"], spec["disruption"]["consolidateAfter"]) == ("WhenEmpty", "10m")


def test_idle_time_is_how_long_an_empty_node_stays(node_pool):
    assert node_pool(idleAfter="30m")["spec"]["disruption"]["consolidateAfter"] == "30m"


@pytest.mark.parametrize("nodes", [0, 3])
def test_a_fixed_size_is_kept_as_replicas(node_pool, nodes):
    spec = node_pool(Bounds(nodes, nodes), size=3, autoscaling=None)["spec"]
    assert spec["replicas"] == nodes
    assert "limits" not in spec
    assert spec["disruption"]["consolidateAfter"] == "Never"


def test_draining_is_bounded_and_replacement_goes_one_by_one(node_pool):
    made = node_pool()
    assert made["spec"]["template"]["spec"]["terminationGracePeriod"] == "1h"
    assert node_pool(drainTimeout="5m")["spec"]["template"]["spec"]["terminationGracePeriod"] == "5m"
    assert {"nodes": "1", "reasons": ["Drifted", "Underutilized"]} in made["spec"]["disruption"]["budgets"]
