"""``spec.autoscaling`` and ``status.autoscaling`` of an ``InferenceServer``: how many replicas its load asks for."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gravswell_operator.api.common import ApiModel, DnsLabel, Duration
from gravswell_operator.api.rules import Rule, matching

MAX_REPLICAS = 100
"""Of one server. Its agents report into one ConfigMap, which takes 1 MiB, and each model of each takes some 500 bytes
there: 100 replicas of 20 models. Beyond that, use several servers of the same repository."""

MAX_WAKES = 8

_CRON = "[0-9A-Za-z*/,?-]{1,64}( [0-9A-Za-z*/,?-]{1,64}){4}"

Cron = Annotated[
    str,
    Field(max_length=255),
    matching(_CRON, "must be five fields of cron, such as 0 8 * * 1-5: minute, hour, day, month, day of the week"),
]


class QueryWake(ApiModel):
    """A PromQL query on the installation's Prometheus that answers with one number."""

    promql: Annotated[str, Field(min_length=1, max_length=1024)]
    """The query. While no replica runs, Triton counts nothing: ask for what is counted elsewhere, such as the requests
    of a gateway or the length of a queue."""
    above: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Replicas are kept while the answer is above this number."""
    target: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """The answer that one replica is to account for: there are as many replicas as that needs. Absent: the query keeps
    the server awake and says nothing of how many replicas it needs."""


class ScheduleWake(ApiModel):
    """Times at which there shall be replicas."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.start != self.end",
            "start and end must not be the same",
            lambda schedule: schedule.start != schedule.end,
            ".end",
        ),
    )

    time_zone: Annotated[
        str,
        Field(max_length=64),
        matching("[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*", "timeZone must be a name such as Europe/Berlin or UTC"),
    ] = "UTC"
    """The time zone of start and end, by its IANA name."""
    start: Cron
    """When it begins, as five fields of cron, such as 0 8 * * 1-5."""
    end: Cron
    """When it ends, in the same form."""
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)] = 1
    """Replicas between the two, at least."""


class Wake(ApiModel):
    """Why there shall be a replica, though Triton itself cannot tell while it does not run: the type, and the field of
    that name with a small first letter."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.type == 'Query') == has(self.query)",
            "a wake of type Query needs the field query, and no other has it",
            lambda wake: (wake.type == "Query") == (wake.query is not None),
        ),
        Rule(
            "(self.type == 'Schedule') == has(self.schedule)",
            "a wake of type Schedule needs the field schedule, and no other has it",
            lambda wake: (wake.type == "Schedule") == (wake.schedule is not None),
        ),
    )

    name: Annotated[
        DnsLabel,
        Rule(
            "self != 'cpu'",
            "a wake cannot be called cpu, as a target is; name it otherwise",
            lambda name: name != "cpu",
        ),
    ]
    """What it is called in the status."""
    type: Literal["Query", "Schedule"]
    """Query: a PromQL query. Schedule: times of the week."""
    query: QueryWake | None = None
    """For the type Query."""
    schedule: ScheduleWake | None = None
    """For the type Schedule."""


class Keda(ApiModel):
    """Replicas by a ScaledObject of KEDA's, which must be installed in the cluster."""

    idle_after: Duration = "5m"
    """With minReplicas 0: how long none of the wakes must hold until the last replica goes."""
    wakes: Annotated[
        tuple[Wake, ...],
        Field(
            max_length=MAX_WAKES,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """What brings a server of no replicas back, and keeps it: it sleeps when none of them holds."""


Percent = Annotated[int, Field(ge=1, le=100)]


class Autoscaling(ApiModel):
    """Replicas by load: through a HorizontalPodAutoscaler on the Deployment, or through KEDA. Of several targets the
    one that asks for the most replicas counts."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "minReplicas must not be above maxReplicas",
            lambda scaling: scaling.min_replicas <= scaling.max_replicas,
            ".minReplicas",
        ),
        Rule(
            "self.minReplicas > 0 || (has(self.keda) && has(self.keda.wakes) && self.keda.wakes.size() > 0)",
            "minReplicas 0 needs keda.wakes: while no replica runs, something else must see that one is needed",
            lambda scaling: scaling.min_replicas > 0 or (scaling.keda is not None and len(scaling.keda.wakes) > 0),
            ".minReplicas",
        ),
    )

    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)]
    """Fewest replicas, at no load. 0 needs keda, and something in its wakes that brings the server back."""
    max_replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    """Most replicas, at any load; at most 100, as with fixed replicas."""
    target_cpu_utilization: Percent | None = Field(default=None, alias="targetCPUUtilization")
    """Average CPU use of Triton, in percent of its request, that is aimed at; 70 where no other target is given. It
    needs the API metrics.k8s.io, mostly from metrics-server, and says little of a model that computes on GPUs."""
    target_queue_time: (
        Annotated[
            str,
            Field(max_length=16),
            matching(
                "[1-9][0-9]{0,5}(us|ms|s)",
                "targetQueueTime must be a number and us, ms or s, such as 20ms",
            ),
        ]
        | None
    ) = None
    """How long a request may wait in Triton's queues on average, such as 20ms: over all models, in the last minute.
    Like the targets below it needs Triton's metrics: the API custom.metrics.k8s.io, or keda and Prometheus."""
    target_gpu_utilization: Percent | None = Field(default=None, alias="targetGPUUtilization")
    """Average duty of the replicas' GPUs that is aimed at, in percent of the time."""
    target_pending_requests: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Requests per replica that wait for their execution to begin, at the times that Triton is asked."""
    target_requests_per_second: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Requests per second that one replica is to answer, all models together, in the last minute."""
    scale_down_delay: (
        Annotated[
            str,
            Field(max_length=16),
            matching(
                "1h|[1-5]?[0-9]m|(3600|3[0-5][0-9]{2}|[12]?[0-9]{1,3})s",
                "scaleDownDelay must be at most one hour, in one unit, such as 30s, 5m or 1h",
            ),
        ]
        | None
    ) = None
    """How long fewer replicas must be enough until some go, at most 1h; absent: 5m, as Kubernetes has it."""
    keda: Keda | None = None
    """Scale by KEDA in place of a HorizontalPodAutoscaler of our own; the only one that goes to 0 and back."""


class MetricStatus(ApiModel):
    """One target, and where the replicas stand."""

    name: Annotated[str, Field(max_length=63)]
    """The target, such as queueTime, or the name of a wake."""
    current: Annotated[str, Field(max_length=32)] = ""
    """What was measured last, to two digits; empty where nothing was."""
    target: Annotated[str, Field(max_length=32)] = ""
    """What is aimed at."""


class AutoscalingStatus(ApiModel):
    """What the autoscaler says."""

    desired_replicas: int = 0
    """Replicas that it wants now."""
    metrics: Annotated[
        tuple[MetricStatus, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """Its targets, and what was measured."""
