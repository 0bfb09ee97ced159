"""Reconciling an ``InferenceServer``: its desired models, its children, and what its pods and agents say."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gravswell.errors import GravswellError
from gravswell.kube import errors
from gravswell.serving.contracts import Desired, Report
from gravswell_operator import names, state
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.desired.models import Resolution, resolve_server
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.desired.placement import may_surge, must_make_room, present_replicas
from gravswell_operator.desired.ranks import is_stopping, may_be_told, rolling
from gravswell_operator.desired.reports import divided
from gravswell_operator.desired.repository import what_is_served
from gravswell_operator.desired.server import ServerPlan, children
from gravswell_operator.reconcile import apply, documents, gates, gateway, jumps, scaling, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import pool_key, repository_key
from gravswell_operator.statuses import deadline, references, restarts, startup
from gravswell_operator.statuses import ranks as rank_statuses
from gravswell_operator.statuses import server as statuses
from gravswell_operator.statuses.autoscaling import Scaling
from gravswell_operator.statuses.gateway import Routes
from gravswell_operator.statuses.serverview import ServerView

ReportMaps = Mapping[str, state.ConfigMapState | None]
"""The ConfigMaps of a server's reports, by name."""

FIRST_STATUS_SECONDS = 1.0
"""How long a server whose workload was just created says nothing, unless that says something earlier: often it is Ready
by then, and a status costs the API server twice as much as a child does."""

log = logging.getLogger(__name__)


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one server."""
    server: InferenceServer = record.view
    name, namespace = server.metadata.name, server.metadata.namespace
    repository: ModelRepository | state.Unreadable | None = context.view(repository_key(server))
    pool: GPUNodePool | state.Unreadable | None = context.view(pool_key(server))
    pods = context.pods(record.key)
    report_maps = documents.report_maps(context, record.key)
    problem = references.blocker(server, repository, pool)
    resolution: Resolution | None = None
    failure: GravswellError | None = None
    if isinstance(repository, ModelRepository):
        resolution = _resolve(context, server, repository, pods)
        problem = problem or references.forgotten(server, resolution)
    problem = problem or scaling.contested(context, server)
    new = not server.status.conditions and context.child(_workload_of(server), namespace, name) is None
    scaled, routes = scaling.seen(context, server), gateway.seen(context, server)
    group, reports = None, _reports(context, record, report_maps, pods)
    if server.spec.ranks is not None:
        group, told = _grouped(context, record, pods, reports, resolution if problem is None else None)
        if resolution is not None and told is not None:
            resolution = replace(resolution, desired=told)
        reports = rank_statuses.wholes(told, pods, reports)
    try:
        if group is not None:  # before the ranks are told anything new, and whatever else cannot be done
            await gates.write(context, record, pods, is_open=group.in_service)
        if problem is None:
            assert isinstance(repository, ModelRepository)
            assert not isinstance(pool, state.Unreadable)
            assert resolution is not None
            tell, split = gateway.divide(context, record, resolution.desired, pods, reports, routes=routes)
            plan = ServerPlan(
                server,
                repository,
                pool,
                divided(tell, server, documents.told(context, record.key)),
                _surge(context, server, pool, pods),
                context.options,
                _accounts_in_use(context, record),
                group is not None and group.stopping,
                pods,
                split,
                gateway.in_use(context, server, routes),
            )
            await _apply(context, record, children(plan), scaled, routes)
            await _forget_gone_pods(context, record, report_maps, pods)
        else:
            await gateway.keep_endpoints(context, record, pods, reports)
    except errors.NamespaceTerminatingError:
        raise  # no failure, and nobody reads what it would say
    except GravswellError as error:
        failure, problem = error, problem or apply.problem(error)
    view = ServerView(
        server=server,
        repository=repository,
        pool=pool,
        blocker=problem,
        resolution=resolution,
        workload=context.child(_workload_of(server), namespace, name),
        scaling=scaled,
        routes=routes,
        pods=pods,
        reports=reports,
        group=group,
    )
    if new and problem is None:
        context.queue.add(record.key, FIRST_STATUS_SECONDS)
    else:
        await _write_status(context, record, view)
    if isinstance(repository, ModelRepository):
        _tell_lister(context, record.key, repository, report_maps)
    if failure is not None:
        raise failure


async def _write_status(context: Context, record: Record, view: ServerView) -> None:
    started = startup.advance(view, context.now())
    view, left = _held(context, record.key, view)
    for after in (started.after, left):
        if after is not None:
            context.queue.add(record.key, after)
    account = {"startup": started.status.to_dict()} if started.status is not None else {}
    await status.write(context, record, statuses.findings(view), {**statuses.fields(view), **account})


def _held(context: Context, key: Key, view: ServerView) -> tuple[ServerView, float | None]:
    """The view, whose ranks may be overdue, and when to look again whether they are."""
    begun = deadline.begun(view, context.now())
    now = jumps.steady(context, key, begun)
    return deadline.held(view, begun, now) if begun is not None else (view, None)


async def _apply(context: Context, record: Record, made: Sequence[Manifest], scaled: Scaling, routes: Routes) -> None:
    await gateway.lower(context, record, made)
    left_alone = gateway.out_of_reach(context, routes)
    if gateway.settling(context, record, made):
        left_alone = (*left_alone, *resources.ROUTES)
    await scaling.apply_children(context, record, made, scaled, left_alone)
    left = gateway.settling(context, record, made)  # what was applied only now, from now on
    if left:
        context.queue.add(record.key, left)


def _workload_of(server: InferenceServer) -> resources.ResourceType:
    return resources.DEPLOYMENT if server.spec.ranks is None else resources.STATEFUL_SET


async def keep_in_traffic(context: Context, record: Record) -> None:
    """Of a server that is otherwise left alone: ranks that go and come back still close and open their gates, and the
    replicas of a canary with weights still leave and enter the endpoints of its routes."""
    pods = context.pods(record.key)
    reports = _reports(context, record, documents.report_maps(context, record.key), pods)
    group, _ = _grouped(context, record, pods, reports, None)
    if group is not None:
        await gates.write(context, record, pods, is_open=group.in_service)
    await gateway.keep_endpoints(context, record, pods, reports)


def _reports(
    context: Context, record: Record, report_maps: ReportMaps, pods: Sequence[state.PodState]
) -> Mapping[str, Report]:
    """What the agents say that is true of the Tritons that run now; looked at again when that may be more."""
    found, after = restarts.present(documents.reports(report_maps.values()), pods, context.now())
    if after is not None:
        context.queue.add(record.key, after)
    return found


def _grouped(
    context: Context,
    record: Record,
    pods: list[state.PodState],
    reports: Mapping[str, Report],
    resolution: Resolution | None,
) -> tuple[rank_statuses.Group | None, Desired | None]:
    """The ranks of a server, and what they may be told now: what they were told before, while they must close first.

    Without a ``resolution`` nothing may be changed, and that stays. Where it is lost, nothing is known of the ranks.
    """
    name, namespace = record.key.name, record.key.namespace
    previous = documents.told(context, record.key)
    told = previous
    pending, stopping = list[str](), False
    if resolution is not None:
        told, stopping = resolution.desired, is_stopping(context.child(resources.STATEFUL_SET, namespace, name), pods)
        if previous is not None and not may_be_told(previous, told, pods):
            told, pending = previous, rolling(previous, told)
    if record.view.spec.ranks is None or told is None:
        return None, told
    return rank_statuses.group_of(record.view, told, pods, reports, pending, stopping=stopping), told


def _tell_lister(context: Context, server: Key, repository: ModelRepository, report_maps: ReportMaps) -> None:
    """Let the repository's own reconcile tell its lister what is served, where this server serves what is not told.

    What is served no more waits for whatever wakes the repository next: that it is kept for longer harms nobody.
    """
    desired, reports = documents.told(context, server), documents.reports(report_maps.values())
    own = what_is_served(repository.spec.url, [(desired, reports.values())]).entries
    listing = names.listing_configmap(repository.metadata.name)
    said = documents.served(context.child(resources.CONFIG_MAP, server.namespace, listing))
    told = said.entries if said is not None else {}
    if any(not set(versions) <= set(told.get(entry, ())) for entry, versions in own.items()):
        context.queue.add(Key(resources.MODEL_REPOSITORY, server.namespace, repository.metadata.name))


def _resolve(
    context: Context, server: InferenceServer, repository: ModelRepository, pods: list[state.PodState]
) -> Resolution:
    name, namespace = server.metadata.name, server.metadata.namespace
    url = repository.spec.url
    listing = documents.holdings(
        context.child(resources.CONFIG_MAP, namespace, names.listing_configmap(repository.metadata.name)), url
    )
    key = Key(resources.INFERENCE_SERVER, namespace, name)
    return resolve_server(
        server,
        context.models(key),
        listing,
        documents.told(context, key),
        url=url,
        pods=pods,
        verification=repository.spec.verification,
    )


def _surge(context: Context, server: InferenceServer, pool: GPUNodePool | None, pods: list[state.PodState]) -> bool:
    """Whether a roll-out may start with an additional pod; not while one waits for the GPUs of an older one.

    What autoscalers of other servers on the pool do wakes nobody here: a roll-out begins with a look of its own.
    """
    if must_make_room(pool, pods):
        return False
    key = pool_key(server)
    others: Iterable[InferenceServer] = context.referrers(key, resources.INFERENCE_SERVER) if key is not None else ()
    return may_surge(server, pool, ((other, _present(context, other)) for other in others))


def _present(context: Context, server: InferenceServer) -> int:
    metadata = server.metadata
    return present_replicas(server, context.child(resources.DEPLOYMENT, metadata.namespace, metadata.name))


def _accounts_in_use(context: Context, record: Record) -> tuple[str, ...]:
    """The ServiceAccounts that a replica runs as, or may run as again: they keep their rights until the last is gone.

    In a roll-out that waits (for an account that is not there, too) a replica of before that is evicted comes back, and
    needs our account to be there.
    """
    name, namespace = record.key.name, record.key.namespace
    found, own = context.accounts(record.key), names.agent_account(name)
    workload: state.WorkloadState | None = context.child(_workload_of(record.view), namespace, name)
    account = context.cache.get(Key(resources.SERVICE_ACCOUNT, namespace, own))
    is_ours = account is not None and account.owner == record.uid
    if own not in found and is_ours and workload is not None and not workload.complete:
        found.append(own)
    return tuple(found)


async def _forget_gone_pods(
    context: Context, record: Record, report_maps: ReportMaps, pods: list[state.PodState]
) -> None:
    """Drop the reports of pods that are gone: their agents cannot any more."""
    known = {pod.name for pod in pods}
    for name, found in report_maps.items():
        stale = [pod for pod in (found.data if found is not None else {}) if pod not in known]
        gone = [pod for pod in stale if await _is_gone(context, record.key.namespace, pod)]
        if not gone:
            continue
        log.info("%s: forgetting the reports of %s", record.key, ", ".join(gone))
        change = {"data": dict.fromkeys(gone)}
        body = await context.client.merge(resources.CONFIG_MAP, record.key.namespace, name, change)
        context.observe(resources.CONFIG_MAP, body)


async def _is_gone(context: Context, namespace: str, pod: str) -> bool:
    """Asked of the API server: the report of a pod may reach us before the pod itself does."""
    try:
        await context.client.get(resources.POD, namespace, pod)
    except errors.ApiNotFoundError:
        return True
    return False
