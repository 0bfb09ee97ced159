"""The status of an ``InferenceServer``: what stops it, what it waits for, and what it serves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gravswell.serving.contracts import DesiredModel, ModelReport, ModelState, Report
from gravswell_operator import conditions, names
from gravswell_operator.api import ConditionStatus, GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.autoscaling import may_sleep
from gravswell_operator.desired.models import Resolution, not_listed_yet
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.placement import merged_selector, pool_node_selector
from gravswell_operator.desired.source import source
from gravswell_operator.state import PodState, Problem, Unreadable, WorkloadState
from gravswell_operator.statuses import autoscaling
from gravswell_operator.statuses import ranks as ranked
from gravswell_operator.statuses.autoscaling import Scaling
from gravswell_operator.statuses.pods import first_problem, refused
from gravswell_operator.statuses.ranks import Group

SHOWN_MODELS = 100
_NAMED_MODELS = 5


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
    pods: Sequence[PodState] = ()
    reports: Mapping[str, Report] = field(default_factory=dict)
    """By pod; of ranks, what they say of whole partitions."""
    group: Group | None = None
    """The ranks, where there are any and what they shall serve is known."""


def blocker(
    server: InferenceServer, repository: ModelRepository | Unreadable | None, pool: GPUNodePool | Unreadable | None
) -> Problem | None:
    """The first reason not to touch anything for this server; checked before anything is made."""
    if repository is None:
        return _repository_missing(server)
    if isinstance(repository, Unreadable):
        return repository.problem()
    if (problem := _pool_problem(server, pool)) is not None:
        return problem
    assert not isinstance(pool, Unreadable)
    try:
        merged_selector(
            source(repository).node_selector,
            pool_node_selector(pool) if pool is not None else {},
            server.spec.pod_template.node_selector,
        )
    except ValueError as error:
        return Problem(Reason.NODE_SELECTOR_CONFLICT, str(error))
    return None


def forgotten(server: InferenceServer, resolution: Resolution) -> Problem | None:
    """Why nothing may be written though everything that the server refers to is there."""
    repository = server.spec.repository_ref.name
    if resolution.missing:
        missing = "; ".join(f"{entry}: {resolution.unresolved[entry].message}" for entry in resolution.missing)
        return Problem(
            Reason.MODELS_UNRESOLVED,
            f"ModelRepository {repository} has the new url {resolution.moved_to}, which lacks what is served "
            f"({missing}). The server stays on {resolution.desired.repository}, and nothing changes, until it is there",
        )
    if resolution.moved_to:
        return Problem(
            Reason.NOT_RESOLVED_YET,
            f"ModelRepository {repository} has the new url {resolution.moved_to}, which was not listed yet; its own "
            "conditions say why. What is served stays, and nothing is changed until it is listed",
        )
    if resolution.too_new:
        return Problem(
            Reason.OPSET_TOO_NEW,
            f"{'; '.join(resolution.too_new)}. What is served stays, and nothing is changed until then",
        )
    if not resolution.lost:
        return None
    return Problem(
        Reason.NOT_RESOLVED_YET,
        f"ConfigMap {names.desired_configmap(server.metadata.name)} no longer says which versions are served, and "
        f"nothing else does of {', '.join(resolution.lost)}; they stay loaded, and nothing is changed until "
        f"ModelRepository {repository} is listed, or Models say what to serve",
    )


def _repository_missing(server: InferenceServer) -> Problem:
    return Problem(
        Reason.REPOSITORY_NOT_FOUND,
        f"there is no ModelRepository {server.spec.repository_ref.name} in namespace {server.metadata.namespace}; "
        "apply it, or mend repositoryRef",
    )


def _pool_problem(server: InferenceServer, pool: GPUNodePool | Unreadable | None) -> Problem | None:
    reference = server.spec.node_pool_ref
    if reference is None:
        return None
    if pool is None:
        return Problem(
            Reason.NODE_POOL_NOT_FOUND, f"there is no GPUNodePool {reference.name}; apply it, or mend nodePoolRef"
        )
    if isinstance(pool, Unreadable):
        return pool.problem()
    allowed = pool.spec.allowed_namespaces
    if allowed and server.metadata.namespace not in allowed:
        return Problem(
            Reason.NODE_POOL_NOT_ALLOWED,
            f"GPUNodePool {reference.name} allows the namespaces {', '.join(allowed)} and not "
            f"{server.metadata.namespace}; use another pool, or add it to allowedNamespaces",
        )
    if server.spec.gpus > pool.spec.accelerator.count:
        return Problem(
            Reason.TOO_MANY_GPUS,
            f"a replica asks for {server.spec.gpus} GPUs and each node of GPUNodePool {reference.name} has "
            f"{pool.spec.accelerator.count}; lower gpus, or use a pool of larger nodes",
        )
    return None


def findings(view: ServerView) -> list[Finding]:
    """The server's conditions."""
    return [
        _ready(view),
        _available(view),
        _progressing(view),
        *([ranked.finding(view.server, view.group)] if view.group is not None else []),
        *autoscaling.findings(view.server, view.scaling, _wanted(view)),
        _repository(view),
        *_pool(view),
        *_models(view),
        *_loaded(view),
    ]


def _wanted(view: ServerView) -> int:
    if view.server.spec.ranks is not None:
        return view.server.spec.ranks
    if view.workload is not None:
        return view.workload.desired
    return view.server.spec.replicas or 0


def _asleep(view: ServerView) -> bool:
    """Whether no replica is wanted, by the spec and by the Deployment."""
    if may_sleep(view.server):
        return view.workload is not None and view.workload.desired == 0
    return view.server.spec.replicas == 0 and _wanted(view) == 0


def _ready(view: ServerView) -> Finding:  # noqa: PLR0911  an ordered list of facts, one return each
    if view.blocker is not None:
        return Finding(conditions.READY, False, view.blocker.reason, view.blocker.message)
    workload = view.workload
    if workload is None or not (workload.generation_seen or _was_ready(view.server)):
        return Finding(conditions.READY, False, Reason.STARTING, _not_looked(view))
    wanted = _wanted(view)
    if _asleep(view) and workload.total == 0:
        words = "no replica is wanted, and none runs"
        message = autoscaling.asleep(view.server) if may_sleep(view.server) else words
        return Finding(conditions.READY, True, Reason.SCALED_TO_ZERO, message)
    ready = _in_traffic(view)
    counts = f"{ready} of {count(wanted, 'replica')} ready"
    nothing = _nothing_to_serve(view)
    settled = workload.complete or not workload.generation_seen
    together = view.group is None or view.group.in_service
    if wanted and ready >= wanted and settled and together and nothing is None:
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
    if (failed := _failed(view)) is not None:
        pod, model = failed
        return Finding(
            conditions.READY,
            False,
            Reason.LOAD_FAILED,
            f"{counts}; model {model.name} on pod {pod}: {model.reason}: {model.message}",
        )
    reason = Reason.ROLLING_OUT if ready else Reason.STARTING
    return Finding(conditions.READY, False, reason, counts)


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


def pool_words(view: ServerView, problem: Problem) -> str:
    """What the pool says of itself where its nodes are why a pod waits: the scheduler counts nodes and names none."""
    pool = view.pool
    if problem.reason is not Reason.POD_UNSCHEDULABLE or not isinstance(pool, GPUNodePool):
        return ""
    ready = conditions.ready(pool.status)
    if ready is None or ready.status is not ConditionStatus.FALSE:
        return ""
    return f"; GPUNodePool {pool.metadata.name}: {ready.message}"


def _nothing_to_serve(view: ServerView) -> Problem | None:
    """Why the replicas have no model at all, if they have none: whatever they say of themselves, nobody is served."""
    resolution = view.resolution
    if resolution is None or resolution.desired.models:
        return None
    if resolution.unresolved:
        return _unresolved(resolution.unresolved)
    repository = view.server.spec.repository_ref.name
    if view.server.spec.models != "All":
        name = view.server.metadata.name
        wanted = f"apply one with serverRef.name: {name}, or set models: All"
        return Problem(Reason.NO_MODELS, f"no Model names this server; {wanted}")
    if not resolution.listed:
        return Problem(Reason.NOT_RESOLVED_YET, not_listed_yet(repository))
    return Problem(Reason.NO_MODELS, f"ModelRepository {repository} has no published version; publish one there")


def _failed(view: ServerView) -> tuple[str, ModelReport] | None:
    active = {pod.name for pod in view.pods if pod.active}
    for pod, report in sorted(view.reports.items()):
        for model in report.models:
            if pod in active and model.state is ModelState.FAILED:
                return pod, model
    return None


def _available(view: ServerView) -> Finding:
    if ready := _in_traffic(view):
        return Finding(conditions.AVAILABLE, True, Reason.REPLICAS_READY, f"{count(ready, 'replica')} in traffic")
    if _asleep(view) and view.blocker is None:
        return Finding(conditions.AVAILABLE, False, Reason.SCALED_TO_ZERO, "no replica is wanted")
    return Finding(conditions.AVAILABLE, False, Reason.NO_REPLICA_READY, "no replica takes traffic")


def _progressing(view: ServerView) -> Finding:
    workload = view.workload
    if view.blocker is not None:
        return Finding(conditions.PROGRESSING, False, view.blocker.reason, "nothing is changed until this is mended")
    if workload is None or not workload.generation_seen:
        return Finding(conditions.PROGRESSING, True, Reason.STARTING, _not_looked(view))
    if workload.complete and workload.ready >= _wanted(view):
        return Finding(conditions.PROGRESSING, False, Reason.ROLLED_OUT, "every replica is of the latest specification")
    if workload.progressing_reason == "ProgressDeadlineExceeded":
        if (nothing := _nothing_to_serve(view)) is not None:  # no replica can become ready, and none is late
            return Finding(conditions.PROGRESSING, False, nothing.reason, nothing.message)
        return Finding(conditions.PROGRESSING, False, Reason.PROGRESS_DEADLINE_EXCEEDED, workload.progressing_message)
    return Finding(
        conditions.PROGRESSING,
        True,
        Reason.ROLLING_OUT,
        f"{workload.updated} of {count(_wanted(view), 'replica')} of the latest specification, {workload.ready} ready",
    )


def _repository(view: ServerView) -> Finding:
    name = view.server.spec.repository_ref.name
    if view.repository is None or isinstance(view.repository, Unreadable):
        problem = view.repository.problem() if view.repository is not None else _repository_missing(view.server)
        return Finding(conditions.REPOSITORY_RESOLVED, False, problem.reason, problem.message)
    message = f"ModelRepository {name}: {view.repository.spec.url}"
    return Finding(conditions.REPOSITORY_RESOLVED, True, Reason.REPOSITORY_FOUND, message)


def _pool(view: ServerView) -> list[Finding]:
    reference = view.server.spec.node_pool_ref
    if reference is None:
        return []
    if (problem := _pool_problem(view.server, view.pool)) is not None:
        return [Finding(conditions.NODE_POOL_RESOLVED, False, problem.reason, problem.message)]
    return [Finding(conditions.NODE_POOL_RESOLVED, True, Reason.NODE_POOL_FOUND, f"GPUNodePool {reference.name}")]


def _models(view: ServerView) -> list[Finding]:
    if view.resolution is None:
        return []
    if (nothing := _nothing_to_serve(view)) is not None:
        return [Finding(conditions.MODELS_RESOLVED, False, nothing.reason, nothing.message)]
    # What was rolled back is known, and its Model says so.
    unresolved = {e: o for e, o in view.resolution.unresolved.items() if o.reason is not Reason.ROLLED_BACK}
    if unresolved:
        problem = _unresolved(unresolved)
        return [Finding(conditions.MODELS_RESOLVED, False, problem.reason, problem.message)]
    known = count(len(view.resolution.desired.models), "model")
    return [Finding(conditions.MODELS_RESOLVED, True, Reason.MODELS_KNOWN, f"{known} resolved to versions")]


def _loaded(view: ServerView) -> list[Finding]:
    """Whether every replica serves every model as it was told: of servers without Models nothing else says so."""
    wanted = view.resolution.desired.models if view.resolution is not None else ()
    pods = [pod.name for pod in view.pods if pod.active]
    if not wanted or not pods:
        return []
    if (failed := _failed(view)) is not None:
        pod, said = failed
        message = f"version {said.desired_version} of {said.name} on pod {pod}: {said.reason}: {said.message}"
        if said.loaded_version is not None:
            message += f"; version {said.loaded_version} still serves there"
        return [Finding(conditions.MODELS_LOADED, False, Reason.LOAD_FAILED, message)]
    behind = [m.name for m in wanted if not all(serves(m.on(pod), view.reports.get(pod)) for pod in pods)]
    if not behind:
        message = f"{count(len(wanted), 'model')} on {count(len(pods), 'replica')}"
        return [Finding(conditions.MODELS_LOADED, True, Reason.LOADED, message)]
    more = ", …" if len(behind) > _NAMED_MODELS else ""
    message = f"not on every replica yet: {', '.join(behind[:_NAMED_MODELS])}{more}"
    return [Finding(conditions.MODELS_LOADED, False, Reason.LOADING, message)]


def _unresolved(unresolved: Mapping[str, Outcome]) -> Problem:
    """What could not be resolved, and why. That the repository is not listed yet is no fault of anybody."""
    text = "; ".join(f"{entry}: {outcome.message}" for entry, outcome in unresolved.items())
    waiting = all(outcome.reason is Reason.NOT_RESOLVED_YET for outcome in unresolved.values())
    return Problem(Reason.NOT_RESOLVED_YET if waiting else Reason.MODELS_UNRESOLVED, text)


def serves(model: DesiredModel, report: Report | None) -> bool:
    """Whether the replica of ``report`` serves exactly this version."""
    said = report.of(model.name) if report is not None else None
    return said is not None and said.has_loaded(model)


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
        "models": _served(view, active),
        "devices": _devices(view),
        **autoscaling.fields(server, view.scaling, _wanted(view)),
        **(ranked.fields(server, view.group) if view.group is not None else {"ranks": []}),
        "simulatedGPUs": any(view.reports[pod].simulated_gpus for pod in active if pod in view.reports),
    }


def _served(view: ServerView, active: Sequence[str]) -> list[dict[str, object]]:
    """What the pods ``active`` were told to serve. Where nothing can be resolved, they were told nothing new."""
    resolution = view.resolution
    if resolution is None or resolution.lost:
        return [model.to_dict() for model in view.server.status.models]
    return [
        {
            "name": model.name,
            "version": model.version,
            "replicas": sum(serves(model, view.reports.get(pod)) for pod in active),
        }
        for model in resolution.desired.models[:SHOWN_MODELS]
    ]


def _devices(view: ServerView) -> list[dict[str, object]]:
    """Who was given which device; nothing where nobody asks for any."""
    resolution = view.resolution
    if resolution is None or resolution.lost:
        return [device.to_dict() for device in view.server.status.devices]
    placed = [model for model in resolution.desired.models if model.gpus is not None]
    return [
        {"device": device, "models": [m.name for m in placed if device in (m.gpus or ())][:SHOWN_MODELS]}
        for device in (range(view.server.spec.gpus) if placed else ())
    ]
