"""Whether a roll-out may have an additional replica: only where one is sure to fit."""

import pytest

from gravswell_operator.api import GPUNodePool, InferenceServer
from gravswell_operator.desired.placement import may_surge, merged_selector, must_make_room, present_replicas
from gravswell_operator.state import NodeState, deployment, on_node, pod


def pool(nodes, gpus_per_node, **spec):
    return GPUNodePool.model_validate(
        {
            "metadata": {"name": "p"},
            "spec": {
                "provider": {"type": "Static", "static": {"matchLabels": {"a": "b"}}},
                "accelerator": {"type": "t4", "count": gpus_per_node},
                **spec,
            },
            "status": {"nodes": nodes, "readyNodes": nodes, "allocatableGPUs": nodes * gpus_per_node},
        }
    )


def server(gpus=0, replicas=1, name="s", namespace="n", **spec):
    scale = {} if "autoscaling" in spec else {"replicas": replicas}
    reference = {"nodePoolRef": {"name": "p"}} if gpus else {}
    return InferenceServer.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"repositoryRef": {"name": "r"}, "tag": "24.08", "gpus": gpus, **reference, **scale, **spec},
        }
    )


def present(*servers, **standing):
    """The servers with their replicas: those that stand at a number by their Deployment, by name."""
    seen = {name: deployment({"metadata": {}, "spec": {"replicas": number}}) for name, number in standing.items()}
    return [(s, present_replicas(s, seen.get(s.metadata.name))) for s in servers]


@pytest.mark.parametrize(("replicas", "surges"), [(1, True), (2, False), (10, False)])
def test_on_the_cpu_a_single_replica_is_replaced_without_an_interruption(replicas, surges):
    assert may_surge(server(replicas=replicas), None, []) is surges


@pytest.mark.parametrize(("least", "surges"), [(0, True), (1, True), (2, False)])
def test_on_the_cpu_a_replica_that_the_load_left_alone_is_one_too(least, surges):
    keda = {"keda": {"wakes": [{"name": "w", "type": "Query", "query": {"promql": "x"}}]}}
    assert may_surge(server(autoscaling={"minReplicas": least, "maxReplicas": 6, **keda}), None, []) is surges


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
    assert may_surge(servers[0], pool(nodes, per_node), present(*servers)) is surges


ONE_TO_EIGHT = {"minReplicas": 1, "maxReplicas": 8}


@pytest.mark.parametrize(
    ("standing", "surges"),
    [
        ({"s": 1}, True),
        ({"s": 7}, True),
        ({"s": 8}, False),  # all are taken
        ({"s": 9}, False),  # scaled beyond its bounds, by hand
        ({}, False),  # not seen yet: it may have any number
    ],
)
def test_an_autoscaled_server_takes_what_it_stands_at_and_not_what_it_might(standing, surges):
    scaled = server(1, autoscaling=ONE_TO_EIGHT)
    assert may_surge(scaled, pool(1, 8), present(scaled, **standing)) is surges


@pytest.mark.parametrize(("standing", "surges"), [({"t": 0}, True), ({"t": 6}, True), ({"t": 7}, False), ({}, False)])
def test_what_the_autoscalers_of_others_have_taken_is_not_free(standing, surges):
    fixed, scaled = server(1), server(1, name="t", autoscaling=ONE_TO_EIGHT)
    assert may_surge(fixed, pool(1, 8), present(fixed, scaled, **standing)) is surges


def test_a_number_of_replicas_counts_as_it_was_asked_for_whatever_a_deployment_has_by_now():
    growing = server(1, replicas=8)
    assert not may_surge(growing, pool(1, 8), present(growing, s=1))


def test_a_namespace_that_the_pool_does_not_allow_costs_the_others_nothing():
    greedy = server(8, replicas=100, name="t", namespace="elsewhere")
    assert not may_surge(server(1), pool(1, 8), present(server(1), greedy))
    assert may_surge(server(1), pool(1, 8, allowedNamespaces=["n"]), present(server(1), greedy))


def waiting(message, **other):
    raw = {
        "metadata": {"name": "s-1", **other},
        "status": {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]},
    }
    return pod(raw)


GPUS_ALONE = "0/3 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available: 3 no."
TYPO = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption: not helpful."


@pytest.mark.parametrize(
    ("messages", "makes_room"),
    [
        ([GPUS_ALONE], True),
        (["0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient nvidia.com/gpu."], True),
        ([GPUS_ALONE, GPUS_ALONE], True),
        ([], False),
        ([TYPO], False),
        # The older replica may be on the other one of the two nodes.
        (["0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match Pod's affinity."], False),
        (["0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 2 Insufficient memory."], False),
        (["0/3 nodes are available: 2 Insufficient cpu."], False),
        ([GPUS_ALONE, TYPO], False),
    ],
)
def test_only_missing_gpus_cost_an_older_replica(messages, makes_room):
    assert must_make_room(pool(2, 8), [waiting(message) for message in messages]) is makes_room


def test_the_gpus_of_a_replica_that_goes_are_waited_for_before_one_that_serves_must_go():
    going = pod({"metadata": {"name": "s-2", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert not must_make_room(pool(2, 8), [waiting(GPUS_ALONE), going])
    gone = pod({"metadata": {"name": "s-2", "deletionTimestamp": "x"}, "status": {"phase": "Succeeded"}})
    assert must_make_room(pool(2, 8), [waiting(GPUS_ALONE), gone])
    away = NodeState(name="n", labels={}, ready=False, schedulable=True, allocatable={})
    assert must_make_room(pool(2, 8), [waiting(GPUS_ALONE), on_node(going, away)])


def test_what_goes_or_runs_needs_no_room():
    assert not must_make_room(pool(2, 8), [waiting(GPUS_ALONE, deletionTimestamp="2026-01-01T00:00:00Z")])
    assert not must_make_room(None, [waiting(GPUS_ALONE)])
    crashed = {"name": "triton", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    assert not must_make_room(
        pool(2, 8), [pod({"metadata": {"name": "s"}, "status": {"containerStatuses": [crashed]}})]
    )


def test_labels_that_contradict_each_other_are_named():
    assert merged_selector({"a": "1"}, {"b": "2"}, {"a": "1"}) == {"a": "1", "b": "2"}
    with pytest.raises(ValueError, match="node label a is asked to be both '1' and '2'"):
        merged_selector({"a": "1"}, {"a": "2"})
