"""What the status of an ``InferenceServer`` follows from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gravswell.serving.contracts import Report
from gravswell_operator import conditions
from gravswell_operator.api import ConditionStatus, GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import Resolution
from gravswell_operator.state import PodState, Problem, Unreadable, WorkloadState
from gravswell_operator.statuses.autoscaling import Scaling
from gravswell_operator.statuses.gateway import Routes
from gravswell_operator.statuses.ranks import Group


@dataclass(frozen=True)
class ServerView:
    """Everything that a server's status follows from."""

    server: InferenceServer
    repository: ModelRepository | Unreadable | None
    pool: GPUNodePool | Unreadable | None
    blocker: Problem | None = None
    """Why its children are not applied: what was asked, or the API server's answer."""
    resolution: Resolution | None = None
    workload: WorkloadState | None = None
    """The Deployment, or the StatefulSet of its ranks."""
    scaling: Scaling = field(default_factory=Scaling)
    routes: Routes = field(default_factory=Routes)
    pods: Sequence[PodState] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By pod; of ranks, what they say of whole partitions."""
    group: Group | None = None
    """The ranks, where there are any and what they shall serve is known."""


def pool_words(view: ServerView, problem: Problem) -> str:
    """What the pool says of itself where its nodes are why a pod waits: the scheduler counts nodes and names none."""
    pool = view.pool
    if problem.reason is not Reason.POD_UNSCHEDULABLE or not isinstance(pool, GPUNodePool):
        return ""
    ready = conditions.ready(pool.status)
    if ready is None or ready.status is not ConditionStatus.FALSE:
        return ""
    return f"; GPUNodePool {pool.metadata.name}: {ready.message}"
