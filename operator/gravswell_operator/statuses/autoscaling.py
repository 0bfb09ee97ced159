"""What the autoscaler of a server says: whether it can scale, what it wants, and what it measured."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from gravswell_operator import conditions
from gravswell_operator.api import ConditionStatus, InferenceServer
from gravswell_operator.api.autoscaling import Autoscaling
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.desired.autoscaling import (
    BY_SERVED_NAME,
    CPU,
    Target,
    asks_prometheus,
    may_sleep,
    targets,
)
from gravswell_operator.state import AutoscalerState, Problem, ScaledObjectState

_TRIGGER = re.compile(r"s([0-9]+)-")
"""How KEDA names what it measures: by the trigger's place, and its type."""

_WAYS_OUT = {
    "resource metrics API": "the API metrics.k8s.io is missing or has nothing of these pods: install metrics-server, "
    "and see that kubectl top pods works",
    "custom metrics API": "the API custom.metrics.k8s.io is missing or does not serve this metric: install "
    "prometheus-adapter with the rules of docs/autoscaling.md, or set autoscaling.keda",
    "external metrics API": "the API external.metrics.k8s.io is missing or has no answer: it is KEDA's "
    "keda-metrics-apiserver, whose log says more",
}
"""By what a HorizontalPodAutoscaler calls the API that it could not read."""
_NO_GPUS = (
    "autoscaling.targetGPUUtilization has nothing to measure, for the server has no GPUs: leave it out, or set gpus "
    "and nodePoolRef"
)


@dataclass(frozen=True)
class Scaling:
    """What is seen of a server's autoscaler."""

    horizontal: AutoscalerState | None = None
    """The HorizontalPodAutoscaler: ours, or the one that KEDA makes."""
    scaled: ScaledObjectState | None = None
    """KEDA's ScaledObject."""
    obstacle: Problem | None = None
    """Why the ScaledObject is not made or changed, where there shall be one."""
    leftover: Problem | None = None
    """Why one is still there, where there shall be none."""

    @property
    def abandoned(self) -> bool:
        """Nobody scales by a ScaledObject any more: what sleeps would never wake."""
        return self.obstacle is not None and self.obstacle.reason is Reason.AUTOSCALER_MISSING

    @property
    def unwatched(self) -> Problem | None:
        """Why it is not known whether anybody would wake the server, if it sleeps."""
        looked = self.obstacle is not None and self.obstacle not in _NO_NEWS
        return self.obstacle if looked and (self.abandoned or self.horizontal is None) else None


LETTING_GO_SECONDS = 30
"""How long KEDA may take to let a ScaledObject go, before it counts as gone itself. It takes a second or two."""
LEAVING = Problem(Reason.AUTOSCALER_WAITING, "its ScaledObject is being deleted, and KEDA has not let it go yet")
NOT_LOOKED = Problem(Reason.AUTOSCALER_WAITING, "nobody has looked yet whether KEDA is installed")


_NO_NEWS = (NOT_LOOKED, LEAVING)
"""What passes by itself, and changes nothing that was said before."""


def obstacle(server: InferenceServer, prometheus: str, missing: Problem | None) -> Problem | None:
    """Why the server's ScaledObject cannot be applied, where it shall have one; ``missing``: why its kind is not there.

    What there is stays as it is meanwhile.
    """
    scaling = server.spec.autoscaling
    if scaling is None or scaling.keda is None:
        return None
    if missing is not None:
        return missing
    if asks_prometheus(scaling) and not prometheus:
        return Problem(
            Reason.NO_PROMETHEUS,
            "the installation names no Prometheus for KEDA to ask: set autoscaling.prometheus of the chart (the "
            "operator's --prometheus) to its URL, or leave wakes of type Query and the targets on Triton's metrics out",
        )
    return None


def keda_missing(kind: str, why: str) -> Problem:
    """Why nothing can be known of ScaledObjects: an empty ``why`` where the API server does not know them."""
    if why:
        return Problem(
            Reason.FORBIDDEN,
            f"{kind} cannot be watched: {why}; let the operator have them (autoscaling.keda of its chart), or leave "
            "autoscaling.keda out here; KEDA goes on by what it was told last",
        )
    return Problem(
        Reason.AUTOSCALER_MISSING,
        f"the API server does not know {kind}: install KEDA, or leave autoscaling.keda out and set minReplicas to 1 or "
        "more; the replicas stay as they are meanwhile, and one that sleeps is woken",
    )


def held_by_keda(server: InferenceServer) -> Problem:
    """Why a ScaledObject that is to go does not: who uninstalls KEDA before its objects leaves them so."""
    name, namespace = server.metadata.name, server.metadata.namespace
    return Problem(
        Reason.AUTOSCALER_MISSING,
        f"ScaledObject {namespace}/{name} is being deleted, and waits for KEDA to let it go: install KEDA again, or "
        f'kubectl -n {namespace} patch scaledobject {name} --type merge -p \'{{"metadata":{{"finalizers":null}}}}\'',
    )


def out_of_sight(server: InferenceServer, why: str) -> Problem:
    """Why the replicas are left alone though KEDA shall no longer scale them: it does, and we may not end that."""
    name, namespace = server.metadata.name, server.metadata.namespace
    return Problem(
        Reason.FORBIDDEN,
        f"KEDA still scales this server, and the operator may not see its ScaledObject {namespace}/{name} ({why}): "
        f"kubectl -n {namespace} delete scaledobject {name}, or let the operator do so (autoscaling.keda of its chart)",
    )


def findings(server: InferenceServer, seen: Scaling, wanted: int) -> list[Finding]:
    """The condition Autoscaling; none without an autoscaler. ``wanted`` is the Deployment's number of replicas.

    Also without one, while a ScaledObject of before does not go: its kind cannot go before it, nor can KEDA's chart.
    """
    scaling = server.spec.autoscaling
    if seen.leftover is not None:
        return [Finding(conditions.AUTOSCALING, False, seen.leftover.reason, seen.leftover.message)]
    if scaling is None:
        return []
    if seen.obstacle is not None:
        return [_obstructed(server, seen.obstacle)]
    if scaling.target_gpu_utilization is not None and server.spec.gpus == 0:
        return [Finding(conditions.AUTOSCALING, False, Reason.AUTOSCALER_FAILING, _NO_GPUS)]
    if scaling.keda is not None and (found := _of_keda(server, seen, wanted)) is not None:
        return [found]
    return [_of_horizontal(scaling, seen.horizontal)]


def _of_horizontal(scaling: Autoscaling, state: AutoscalerState | None) -> Finding:
    if state is None or state.scales is None:
        message = "the HorizontalPodAutoscaler has not decided yet"
        return Finding(conditions.AUTOSCALING, None, Reason.AUTOSCALER_WAITING, message)
    if not state.scales:
        return Finding(conditions.AUTOSCALING, False, Reason.AUTOSCALER_FAILING, _way_out(state.message))
    message = f"{scaling.min_replicas} to {scaling.max_replicas} replicas by load"
    return Finding(conditions.AUTOSCALING, True, Reason.AUTOSCALER_ACTIVE, message)


def _obstructed(server: InferenceServer, obstacle: Problem) -> Finding:
    if obstacle not in _NO_NEWS:
        return Finding(conditions.AUTOSCALING, False, obstacle.reason, obstacle.message)
    # An operator that starts anew has no news until it has looked.
    said = next((c for c in server.status.conditions if c.type == conditions.AUTOSCALING), None)
    if said is None:
        return Finding(conditions.AUTOSCALING, None, obstacle.reason, obstacle.message)
    status = {ConditionStatus.TRUE: True, ConditionStatus.FALSE: False}.get(said.status)
    return Finding(said.type, status, said.reason, said.message)


def _of_keda(server: InferenceServer, seen: Scaling, wanted: int) -> Finding | None:
    """What KEDA says itself; None where its HorizontalPodAutoscaler says more."""
    scaled = seen.scaled
    if scaled is None or scaled.ready is None:
        return Finding(conditions.AUTOSCALING, None, Reason.AUTOSCALER_WAITING, "KEDA has not looked yet")
    if scaled.paused:
        message = "the ScaledObject is paused by an annotation of KEDA's, and nothing scales"
        return Finding(conditions.AUTOSCALING, False, Reason.AUTOSCALER_FAILING, message)
    if not scaled.ready:
        message = f"KEDA: {scaled.message}; kubectl describe scaledobject {server.metadata.name} says more"
        return Finding(conditions.AUTOSCALING, False, Reason.AUTOSCALER_FAILING, message)
    if may_sleep(server) and wanted == 0:
        return Finding(conditions.AUTOSCALING, True, Reason.SCALED_TO_ZERO, asleep(server))
    return None


def asleep(server: InferenceServer) -> str:
    """That a server has no replica, and what brings it back."""
    scaling = server.spec.autoscaling
    assert scaling is not None
    wakes = ", ".join(wake.name for wake in scaling.keda.wakes) if scaling.keda is not None else ""
    return f"it sleeps: no replica is needed, and KEDA starts one when one of its wakes holds ({wakes})"


def _way_out(message: str) -> str:
    found = next((way for api, way in _WAYS_OUT.items() if api in message), None)
    return f"{message}; {found}" if found else message


def fields(server: InferenceServer, seen: Scaling, wanted: int) -> dict[str, object]:
    """``autoscaling`` of the status: what is wanted, and where each target stands. Empty where nobody said anything."""
    scaling, state = server.spec.autoscaling, seen.horizontal
    sleeping = may_sleep(server) and wanted == 0
    if scaling is None or state is None or not (state.desired or sleeping):
        return {}
    aimed = targets(scaling)
    measured = _by_target(aimed, state.metrics)
    metrics = [{"name": t.name, "current": _shown(t, measured.get(t.name)), "target": _aim(t)} for t in aimed]
    return {"autoscaling": {"desiredReplicas": 0 if sleeping else state.desired, "metrics": metrics}}


def _by_target(aimed: list[Target], metrics: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """What was measured, by the target that it is of. KEDA leaves a trigger for the CPU to Kubernetes."""
    found: dict[str, Decimal] = {}
    for name, value in metrics.items():
        metric, trigger = BY_SERVED_NAME.get(name), _TRIGGER.match(name)
        if metric is not None:
            found[metric.name] = value
        elif name == CPU:
            found[CPU] = value
        elif trigger is not None and int(trigger[1]) < len(aimed):
            found[aimed[int(trigger[1])].name] = value
    return found


def _shown(target: Target, value: Decimal | None) -> str:
    return "" if value is None else _in_words(target, value)


def _aim(target: Target) -> str:
    if target.wake is None:
        return _in_words(target, Decimal(str(target.value)))
    query = target.wake.query
    if query is None:
        return "1"  # KEDA answers with the number of replicas, of which each accounts for one
    return str(query.target) if query.target is not None else ""


def _in_words(target: Target, value: Decimal) -> str:
    if target.name == CPU:
        return f"{_plain(value)}%"
    if target.metric is not None and target.metric.name == "gpuUtilization":
        return f"{_plain(value * 100)}%"
    if target.metric is not None and target.metric.name == "queueTime":
        return _time(value / 10**6)
    return _plain(value)


def _time(seconds: Decimal) -> str:
    for unit, size in (("s", 1), ("ms", 1000)):
        if seconds * size >= 1:
            return f"{_plain(seconds * size)}{unit}"
    return f"{_plain(seconds * 10**6)}us" if seconds else "0ms"


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
