"""What is read of pods, nodes and workloads, from what the API server sends."""

import pytest

from gravswell_operator import state
from gravswell_operator.conditions import Reason


def pod(**status):
    return state.pod({"metadata": {"name": "p", "namespace": "ns", "labels": {}}, "status": status})


def waiting(reason, message="", **container):
    return {
        "containerStatuses": [{"name": "c", "state": {"waiting": {"reason": reason, "message": message}}, **container}]
    }


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
            Reason.POD_UNSCHEDULABLE,
            "pod p cannot be scheduled: 0/3 nodes are available",
        ),
        (waiting("ErrImagePull", "no such image"), Reason.IMAGE_PULL_FAILED, "container c of pod p: no such image"),
        (waiting("ImagePullBackOff"), Reason.IMAGE_PULL_FAILED, "container c of pod p: ImagePullBackOff"),
        (
            waiting("CreateContainerConfigError", 'secret "keys" not found'),
            Reason.CONTAINER_CONFIG_ERROR,
            'secret "keys" not found',
        ),
        (
            waiting("CrashLoopBackOff", "back-off", lastState={"terminated": {"exitCode": 3, "message": "no key"}}),
            Reason.CRASH_LOOP,
            "back-off; it ended with exit code 3 (no key); its log says why",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, Reason.POD_FAILED, "pod p failed: Evicted"),
    ],
)
def test_what_keeps_a_pod_from_running(status, reason, says):
    problem = pod(**status).problem
    assert problem is not None
    assert problem.reason is reason
    assert says in problem.message


@pytest.mark.parametrize("status", [{}, {"phase": "Pending"}, waiting("ContainerCreating"), waiting("PodInitializing")])
def test_a_pod_that_only_starts_has_no_problem(status):
    assert pod(**status).problem is None


def test_an_init_container_is_a_container():
    failing = waiting("CrashLoopBackOff", "x")["containerStatuses"]
    assert pod(initContainerStatuses=failing).problem is not None


@pytest.mark.parametrize(
    ("ready", "finished", "node", "named"),
    [
        (False, False, False, True),
        (False, False, True, False),
        (True, False, False, False),
        (False, True, False, False),
    ],
    ids=["the node is away", "the node is well", "not marked yet", "ended before"],
)
def test_a_pod_on_a_node_that_is_away(ready, finished, node, named):
    seen = state.PodState("p", ready=ready, terminating=False, finished=finished, problem=None, node="n")
    where = state.NodeState("n", labels={}, ready=node, schedulable=True, allocatable={})
    problem = state.on_node(seen, where).problem
    assert (problem is not None) is named
    if problem is not None:
        assert problem.reason is Reason.NODE_NOT_READY
        assert "pod p is on node n, which is not ready" in problem.message


def test_a_pod_whose_node_is_not_known_says_what_it_said():
    crashing = pod(**waiting("CrashLoopBackOff"))
    assert state.on_node(crashing, None) is crashing


@pytest.mark.parametrize(("phase", "active"), [("Running", True), ("Pending", True), ("Failed", False)])
def test_active(phase, active):
    assert pod(phase=phase).active is active


def test_a_terminating_pod_is_not_active():
    made = state.pod({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}})
    assert not made.active


def test_node():
    made = state.node(
        {
            "metadata": {"name": "n", "labels": {"a": "b"}},
            "spec": {"unschedulable": True},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "allocatable": {"nvidia.com/gpu": "4", "memory": "8Gi"},
            },
        }
    )
    assert (made.ready, made.schedulable) == (True, False)
    assert made.allocatable["nvidia.com/gpu"] == 4


@pytest.mark.parametrize(
    ("change", "schedulable"),
    [
        ({}, True),
        ({"spec": {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}}, True),
        ({"spec": {"unschedulable": True}}, False),
        ({"spec": {"taints": [{"key": "karpenter.sh/unregistered", "effect": "NoExecute"}]}}, False),
        ({"metadata": {"name": "n", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, False),
    ],
)
def test_on_which_nodes_pods_can_start(change, schedulable):
    assert state.node({"metadata": {"name": "n"}, **change}).schedulable is schedulable


@pytest.mark.parametrize(
    ("status", "complete"),
    [
        ({}, False),
        ({"observedGeneration": 1, "updatedReplicas": 2, "replicas": 2}, False),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 2}, True),
        ({"observedGeneration": 2, "updatedReplicas": 2, "replicas": 3}, False),
        ({"observedGeneration": 2, "updatedReplicas": 1, "replicas": 2}, False),
    ],
)
def test_a_deployment_is_complete_when_only_the_latest_runs(status, complete):
    made = state.deployment({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
    assert made.complete is complete


def test_a_daemonset_that_no_node_wants_is_ready():
    made = state.daemonset({"metadata": {"generation": 1}, "status": {"observedGeneration": 1}})
    assert made.generation_seen
    assert (made.desired, made.ready) == (0, 0)


@pytest.mark.parametrize(
    ("conditions", "scales", "says"),
    [
        ([], None, ""),
        ([("AbleToScale", "True", "ReadyForNewScale")], None, ""),
        ([("AbleToScale", "True", "ReadyForNewScale"), ("ScalingActive", "True", "ValidMetricFound")], True, ""),
        (
            [("AbleToScale", "True", "SucceededGetScale"), ("ScalingActive", "False", "FailedGetMetric")],
            False,
            "Failed",
        ),
        ([("AbleToScale", "False", "FailedGetScale")], False, "FailedGetScale"),
        ([("AbleToScale", "True", "SucceededGetScale"), ("ScalingActive", "False", "ScalingDisabled")], None, ""),
    ],
)
def test_an_autoscaler_scales_once_it_has_read_what_it_scales_by(conditions, scales, says):
    status = {"conditions": [{"type": t, "status": s, "reason": r, "message": "m"} for t, s, r in conditions]}
    made = state.autoscaler({"metadata": {}, "status": status})
    assert made.scales is scales
    assert says in made.message
