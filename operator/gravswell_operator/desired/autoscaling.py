"""What scales a server: a HorizontalPodAutoscaler, or a ScaledObject of KEDA's, and by which of Triton's metrics. Pure.

The names of :data:`METRICS` are what the API ``custom.metrics.k8s.io`` must serve of pods; ``docs/autoscaling.md`` has
the rules by which prometheus-adapter does. KEDA is given the queries themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gravswell import durations
from gravswell_operator import conditions, names
from gravswell_operator.api import InferenceServer
from gravswell_operator.api.autoscaling import Autoscaling, Wake
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.objects import Manifest, Options, child

DEFAULT_CPU = 70
"""Percent of its request, where no target is given."""
POLL_SECONDS = 15
"""How often KEDA asks: that long a request may wait before its server begins to wake."""
NEVER = "1000000000000"
"""As a threshold: no answer comes near it, so it asks for no replica and keeps none."""
CPU = "cpu"


@dataclass(frozen=True)
class Metric:
    """One of Triton's metrics that replicas are scaled by."""

    name: str
    """What the status calls it; the field of the spec is ``target`` and this name."""
    served_as: str
    """Its name in ``custom.metrics.k8s.io``, of each pod."""
    query: str
    """PromQL, of what the selector ``%s`` matches, for each pod (``by (namespace, pod)``)."""
    of_one: bool
    """Whether it is what one replica shows on average. If not, it adds up over the replicas."""
    target: Callable[[Autoscaling], float | None]
    """What is aimed at, in the query's unit, if it is."""


def _rate(series: str) -> str:
    return f"sum by (namespace, pod) (rate({series}{{%s}}[1m]))"


def _microseconds(time: str) -> float:
    return round(durations.fraction(time) * 1e6)


METRICS = (
    Metric(
        "queueTime",
        "triton_queue_microseconds",
        # Of requests that succeeded, and not of executions, which are batches. In microseconds, as Triton counts: an
        # autoscaler takes what it reads in thousandths, rounded up, and of seconds that would be too coarse.
        f"{_rate('nv_inference_queue_duration_us')} / clamp_min({_rate('nv_inference_request_success')}, 1e-9)",
        of_one=True,
        target=lambda scaling: _microseconds(scaling.target_queue_time) if scaling.target_queue_time else None,
    ),
    Metric(
        "gpuUtilization",
        "triton_gpu_utilization",
        "avg by (namespace, pod) (nv_gpu_utilization{%s})",
        of_one=True,
        target=lambda scaling: scaling.target_gpu_utilization / 100 if scaling.target_gpu_utilization else None,
    ),
    Metric(
        "pendingRequests",
        "triton_pending_requests",
        "sum by (namespace, pod) (nv_inference_pending_request_count{%s})",
        of_one=False,
        target=lambda scaling: scaling.target_pending_requests,
    ),
    Metric(
        "requestsPerSecond",
        "triton_requests_per_second",
        _rate("nv_inference_request_success"),
        of_one=False,
        target=lambda scaling: scaling.target_requests_per_second,
    ),
)


@dataclass(frozen=True)
class Target:
    """One thing that replicas are scaled by, in the order in which the autoscaler is told of them."""

    name: str
    """CPU, a metric's or a wake's."""
    metric: Metric | None = None
    value: float = 0.0
    """What is aimed at, in the metric's unit; of the CPU, percent."""
    wake: Wake | None = None


def targets(scaling: Autoscaling) -> list[Target]:
    """What the replicas are scaled by: the CPU where nothing else is asked for."""
    aimed = [Target(m.name, m, value) for m in METRICS if (value := m.target(scaling)) is not None]
    wakes = scaling.keda.wakes if scaling.keda is not None else ()
    cpu = scaling.target_cpu_utilization
    if cpu is None and not aimed and not any(_scales(wake) for wake in wakes):
        cpu = DEFAULT_CPU
    found = [Target(CPU, value=cpu)] if cpu is not None else []
    return [*found, *aimed, *(Target(wake.name, wake=wake) for wake in wakes)]


def _scales(wake: Wake) -> bool:
    return wake.query is not None and wake.query.target is not None


def may_sleep(server: InferenceServer) -> bool:
    """Whether the server may have no replica though it shall serve."""
    return server.spec.autoscaling is not None and server.spec.autoscaling.min_replicas == 0


def sleeps(server: InferenceServer) -> bool:
    """Whether the server has no replica now because none is needed, by what its status said last."""
    ready = conditions.ready(server.status)
    return may_sleep(server) and ready is not None and ready.reason == Reason.SCALED_TO_ZERO


def asks_prometheus(scaling: Autoscaling) -> bool:
    """Whether KEDA needs a Prometheus for it."""
    return scaling.keda is not None and any(t.metric or (t.wake and t.wake.query) for t in targets(scaling))


def autoscaler(server: InferenceServer, options: Options) -> list[Manifest]:
    """What scales the server; nothing where its replicas are a number."""
    scaling = server.spec.autoscaling
    if scaling is None:
        return []
    return [_horizontal(server, scaling) if scaling.keda is None else _scaled_object(server, scaling, options)]


def _target_of(server: InferenceServer) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": server.metadata.name}


def _behavior(scaling: Autoscaling) -> Mapping[str, Any]:
    if scaling.scale_down_delay is None:
        return {}
    seconds = durations.seconds(scaling.scale_down_delay)
    return {"behavior": {"scaleDown": {"stabilizationWindowSeconds": seconds}}}


def _horizontal(server: InferenceServer, scaling: Autoscaling) -> Manifest:
    spec = {
        "scaleTargetRef": _target_of(server),
        "minReplicas": scaling.min_replicas,
        "maxReplicas": scaling.max_replicas,
        "metrics": [_metric(target) for target in targets(scaling)],
        **_behavior(scaling),
    }
    name = server.metadata.name
    return child(server, "autoscaling/v2", "HorizontalPodAutoscaler", name, role=names.ROLE_TRITON, spec=spec)


def _metric(target: Target) -> Manifest:
    if target.metric is None:
        # Of Triton alone: the agent's use says nothing about load.
        aim = {"type": "Utilization", "averageUtilization": int(target.value)}
        return {
            "type": "ContainerResource",
            "containerResource": {"name": "cpu", "container": "triton", "target": aim},
        }
    aim = {"type": "AverageValue", "averageValue": _quantity(target.value)}
    return {"type": "Pods", "pods": {"metric": {"name": target.metric.served_as}, "target": aim}}


def _quantity(value: float) -> str:
    """As Kubernetes writes a number: whole, or in thousandths."""
    return str(int(value)) if value == int(value) else f"{round(value * 1000)}m"


def _scaled_object(server: InferenceServer, scaling: Autoscaling, options: Options) -> Manifest:
    assert scaling.keda is not None
    idle = durations.seconds(scaling.keda.idle_after)
    behavior = _behavior(scaling)
    spec: Manifest = {
        "scaleTargetRef": _target_of(server),
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": scaling.max_replicas,
        "pollingInterval": POLL_SECONDS,
        "cooldownPeriod": idle,
        # A new server proves its models before it sleeps.
        "initialCooldownPeriod": idle,
        "triggers": [_trigger(server, target, options) for target in targets(scaling)],
    }
    if behavior:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": dict(behavior)}
    return child(server, "keda.sh/v1alpha1", "ScaledObject", server.metadata.name, role=names.ROLE_TRITON, spec=spec)


def _trigger(server: InferenceServer, target: Target, options: Options) -> Manifest:
    wake = target.wake
    if wake is not None and wake.schedule is not None:
        metadata = {
            "timezone": wake.schedule.time_zone,
            "start": wake.schedule.start,
            "end": wake.schedule.end,
            "desiredReplicas": str(wake.schedule.replicas),
        }
        return {"type": "cron", "name": wake.name, "metadata": metadata}
    if wake is not None:
        assert wake.query is not None
        threshold = NEVER if wake.query.target is None else str(wake.query.target)
        return _prometheus(wake.name, wake.query.promql, threshold, str(wake.query.above), options)
    if target.metric is None:
        metadata = {"value": str(int(target.value)), "containerName": "triton"}
        return {"type": "cpu", "name": CPU, "metricType": "Utilization", "metadata": metadata}
    threshold = f"{target.value:.9f}".rstrip("0").rstrip(".")
    made = _prometheus(target.name, server_query(server, target.metric), threshold, NEVER, options)
    if not may_sleep(server):
        # By its default KEDA takes no answer for no load. While a replica runs, nobody scrapes it then.
        made["metadata"]["ignoreNullValues"] = "false"
    # What adds up is divided by the replicas; an average is not.
    return {**made, "metricType": "Value" if target.metric.of_one else "AverageValue"}


def server_query(server: InferenceServer, metric: Metric) -> str:
    """``metric`` of all the server's replicas as one number; nothing runs, nothing is answered."""
    metadata = server.metadata
    selector = f'namespace="{metadata.namespace}",server="{metadata.name}"'
    return f"{'avg' if metric.of_one else 'sum'}({metric.query.replace('%s', selector)})"


def _prometheus(name: str, query: str, threshold: str, activation: str, options: Options) -> Manifest:
    metadata = {
        "serverAddress": options.prometheus,
        "query": query,
        "threshold": threshold,
        "activationThreshold": activation,
    }
    return {"type": "prometheus", "name": name, "metricType": "AverageValue", "metadata": metadata}


BY_SERVED_NAME: Mapping[str, Metric] = MappingProxyType({metric.served_as: metric for metric in METRICS})
"""For reading what a HorizontalPodAutoscaler says."""
