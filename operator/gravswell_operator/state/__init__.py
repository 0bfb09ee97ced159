"""What the operator sees of the cluster, as small typed objects made from what the API server sends. Pure.

Its law: they hold what decisions need and nothing else: a watched pod costs some hundred bytes, not its whole body.
Whoever uses them imports them from here.

===================  =====================================================================
:mod:`.base`         of every kind: problems, and objects that cannot be read
:mod:`.kubernetes`   Kubernetes' own kinds: nodes, workloads, autoscalers, ConfigMaps
:mod:`.pods`         pods
:mod:`.others`       kinds that others install: KEDA's, Karpenter's, the GPU Operator's, the Gateway API's
===================  =====================================================================
"""

from gravswell_operator.state.base import Problem, Raw, Unreadable, unreadable
from gravswell_operator.state.kubernetes import (
    AutoscalerState,
    ConfigMapState,
    NodeState,
    WorkloadState,
    autoscaler,
    configmap,
    daemonset,
    deployment,
    node,
    statefulset,
)
from gravswell_operator.state.others import (
    ClusterPolicyState,
    MachineState,
    MakerState,
    RouteState,
    ScaledObjectState,
    cluster_policy,
    machine,
    maker,
    route,
    scaled_object,
)
from gravswell_operator.state.pods import PodState, PodTimes, RankState, on_node, pod

__all__ = [
    "AutoscalerState",
    "ClusterPolicyState",
    "ConfigMapState",
    "MachineState",
    "MakerState",
    "NodeState",
    "PodState",
    "PodTimes",
    "Problem",
    "RankState",
    "Raw",
    "RouteState",
    "ScaledObjectState",
    "Unreadable",
    "WorkloadState",
    "autoscaler",
    "cluster_policy",
    "configmap",
    "daemonset",
    "deployment",
    "machine",
    "maker",
    "node",
    "on_node",
    "pod",
    "route",
    "scaled_object",
    "statefulset",
    "unreadable",
]
