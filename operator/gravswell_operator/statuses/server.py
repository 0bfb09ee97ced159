"""The status of an ``InferenceServer``: what stops it, what it waits for, and what it serves."""

from gravswell.serving.contracts import Report
from gravswell_operator import conditions, names
from gravswell_operator.api import ConditionStatus, InferenceServer
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.autoscaling import may_sleep
from gravswell_operator.statuses import autoscaling, gateway, loading, references
from gravswell_operator.statuses import ranks as ranked
from gravswell_operator.statuses.pods import first_problem, refused
from gravswell_operator.statuses.serverview import ServerView, pool_words


def findings(view: ServerView) -> list[Finding]:
    """The server's conditions."""
    return [
        _ready(view),
        _available(view),
        _progressing(view),
        *([ranked.finding(view.server, view.group)] if view.group is not None else []),
        *autoscaling.findings(view.server, view.scaling, _wanted(view)),
        *gateway.findings(view.server, view.routes),
        *references.findings(view.server, view.repository, view.pool),
        *loading.findings(view),
    ]


def _wanted(view: ServerView) -> int:
    if view.server.spec.ranks is not None:
        return view.server.spec.ranks
    if view.workload is not None:
        return view.workload.desired
    return view.server.spec.replicas or 0


def _asleep(view: ServerView) -> bool:
    """Whether no replica is wanted, by the spec and by the Deployment."""
    may = may_sleep(view.server) or view.server.spec.replicas == 0
    return may and view.workload is not None and view.workload.desired == 0


def _ready(view: ServerView) -> Finding:  # noqa: PLR0911  an ordered list of facts, one return each
    if view.blocker is not None:
        return Finding(conditions.READY, False, view.blocker.reason, view.blocker.message)
    if _asleep(view):
        return _ready_asleep(view)
    workload = view.workload
    if workload is None or not (workload.generation_seen or _was_ready(view.server)):
        return Finding(conditions.READY, False, Reason.STARTING, _not_looked(view))
    wanted = _wanted(view)
    ready = _in_traffic(view)
    counts = f"{ready} of {count(wanted, 'replica')} ready"
    nothing = loading.nothing_to_serve(view)
    unserved = loading.not_loaded(view)
    settled = workload.complete or not workload.generation_seen
    together = view.group is None or view.group.in_service
    if wanted and ready >= wanted and settled and together and nothing is None and unserved is None:
        return Finding(conditions.READY, True, Reason.SERVING, counts)
    if workload.failure_message:
        return Finding(conditions.READY, False, Reason.PODS_REFUSED, f"{counts}; {refused(workload.failure_message)}")
    if (problem := first_problem(view.pods)) is not None:
        message = f"{counts}; {problem.message}{pool_words(view, problem)}"
        return Finding(conditions.READY, False, problem.reason, message)
    if nothing is not None:
        return Finding(conditions.READY, False, nothing.reason, f"{counts}; {nothing.message}")
    if view.group is not None and not view.group.in_service:
        ranks = ranked.finding(view.server, view.group)
        return Finding(conditions.READY, False, ranks.reason, ranks.message)
    if unserved is None and (failed := loading.failed_model(view)) is not None:
        unserved = loading.load_failed(*failed)
    if unserved is not None:
        return Finding(conditions.READY, False, unserved.reason, f"{counts}; {unserved.message}")
    reason = Reason.ROLLING_OUT if ready else Reason.STARTING
    return Finding(conditions.READY, False, reason, counts)


def _ready_asleep(view: ServerView) -> Finding:
    """As soon as no replica is wanted: that the last ones are still on their way out is no trouble."""
    if not may_sleep(view.server):
        return Finding(conditions.READY, True, Reason.SCALED_TO_ZERO, "no replica is wanted")
    if (problem := view.scaling.unwatched) is not None:
        message = f"it sleeps, and perhaps nobody wakes it: {problem.message}"
        return Finding(conditions.READY, False, problem.reason, message)
    return Finding(conditions.READY, True, Reason.SCALED_TO_ZERO, autoscaling.asleep(view.server))


def _in_traffic(view: ServerView) -> int:
    """Replicas that are ready, as their controller counts them and as they say themselves: it may not have looked yet.

    One that says that it has nothing loaded is none, though its probes may still be about to see that.
    """
    if view.workload is None:
        return 0
    pods = (pod for pod in view.pods if pod.ready and pod.active)
    return min(view.workload.ready, sum(not _is_empty(view.reports.get(pod.name)) for pod in pods))


def _is_empty(report: Report | None) -> bool:
    return report is not None and bool(report.models) and all(model.loaded_version is None for model in report.models)


def _not_looked(view: ServerView) -> str:
    return f"the {'Deployment' if view.server.spec.ranks is None else 'StatefulSet'} has not been acted upon yet"


def _was_ready(server: InferenceServer) -> bool:
    """Whether the latest specification was Ready already: then a Deployment that changes for another reason, such as a
    pool that has no room for a surge any more, takes nothing away before its controller has looked."""
    ready = conditions.ready(server.status)
    return (
        ready is not None
        and ready.status is ConditionStatus.TRUE
        and ready.observed_generation == server.metadata.generation
    )


def _available(view: ServerView) -> Finding:
    if ready := _in_traffic(view):
        return Finding(conditions.AVAILABLE, True, Reason.REPLICAS_READY, f"{count(ready, 'replica')} in traffic")
    if _asleep(view) and view.blocker is None:
        return Finding(conditions.AVAILABLE, False, Reason.SCALED_TO_ZERO, "no replica is wanted")
    return Finding(conditions.AVAILABLE, False, Reason.NO_REPLICA_READY, "no replica takes traffic")


def _progressing(view: ServerView) -> Finding:  # noqa: PLR0911  an ordered list of facts, one return each
    workload = view.workload
    if view.blocker is not None:
        return Finding(conditions.PROGRESSING, False, view.blocker.reason, "nothing is changed until this is mended")
    if workload is None or not workload.generation_seen:
        return Finding(conditions.PROGRESSING, True, Reason.STARTING, _not_looked(view))
    if workload.complete and workload.ready >= _wanted(view):
        return Finding(conditions.PROGRESSING, False, Reason.ROLLED_OUT, "every replica is of the latest specification")
    if view.group is not None and (nothing := loading.nothing_to_serve(view)) is not None:  # nor does their time run
        return Finding(conditions.PROGRESSING, False, nothing.reason, nothing.message)
    if view.group is not None and view.group.overdue is not None:
        late = ranked.finding(view.server, view.group)
        return Finding(conditions.PROGRESSING, False, late.reason, late.message)
    if workload.progressing_reason == "ProgressDeadlineExceeded":
        if (nothing := loading.nothing_to_serve(view)) is not None:  # no replica can become ready, and none is late
            return Finding(conditions.PROGRESSING, False, nothing.reason, nothing.message)
        return Finding(conditions.PROGRESSING, False, Reason.PROGRESS_DEADLINE_EXCEEDED, workload.progressing_message)
    return Finding(
        conditions.PROGRESSING,
        True,
        Reason.ROLLING_OUT,
        f"{workload.updated} of {count(_wanted(view), 'replica')} of the latest specification, {workload.ready} ready",
    )


def fields(view: ServerView) -> dict[str, object]:
    """The status beside the conditions, by the names of the API."""
    server, workload = view.server, view.workload
    name, namespace = server.metadata.name, server.metadata.namespace
    active = [pod.name for pod in view.pods if pod.active]
    return {
        "replicas": workload.total if workload is not None else 0,
        "readyReplicas": workload.ready if workload is not None else 0,
        "selector": names.selector_text(names.server_selector(name)),
        # Ranks have one each, and nobody asks any of them.
        "address": names.address(name, namespace) if server.spec.ranks is None else "",
        "httpAddress": names.http_address(name, namespace) if server.spec.ranks is None else "",
        "models": loading.served(view, active),
        "devices": loading.devices(view),
        **autoscaling.fields(server, view.scaling, _wanted(view)),
        **(ranked.fields(server, view.group) if view.group is not None else {"ranks": []}),
        "simulatedGPUs": any(view.reports[pod].simulated_gpus for pod in active if pod in view.reports),
    }
