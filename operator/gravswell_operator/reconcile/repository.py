"""Reconciling a ``ModelRepository``: run its lister, and say what that lister sees."""

from collections.abc import Iterable, Iterator

from gravswell.errors import GravswellError
from gravswell.kube import errors
from gravswell.serving.contracts import Desired, Report, Served
from gravswell_operator import names, state
from gravswell_operator.api import InferenceServer, ModelRepository
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record
from gravswell_operator.desired.repository import children, what_is_served
from gravswell_operator.reconcile import apply, documents, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.statuses import repository as statuses


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one repository."""
    repository: ModelRepository = record.view
    name, namespace = repository.metadata.name, repository.metadata.namespace
    failure: GravswellError | None = None
    try:
        accounts = context.accounts(record.key)
        wanted = children(repository, context.options, _served(context, record), accounts)
        await apply.apply_children(context, record, wanted)
    except errors.NamespaceTerminatingError:
        raise  # no failure, and nobody reads what it would say
    except GravswellError as error:
        failure = error
    listing, unreadable = documents.listing(
        context.child(resources.CONFIG_MAP, namespace, names.listing_configmap(name)), repository.spec.url
    )
    lister: state.WorkloadState | None = context.child(resources.DEPLOYMENT, namespace, names.lister(name))
    problem = apply.problem(failure) if failure is not None else None
    view = statuses.RepositoryView(
        repository, listing, unreadable, lister, pods=context.pods(record.key), problem=problem
    )
    await status.write(context, record, statuses.findings(view), statuses.fields(repository, listing))
    if failure is not None:
        raise failure


def _served(context: Context, record: Record) -> Served:
    servers: Iterator[InferenceServer] = context.referrers(record.key, resources.INFERENCE_SERVER)
    repository: ModelRepository = record.view

    def said(name: str) -> tuple[Desired | None, Iterable[Report]]:
        server = Key(resources.INFERENCE_SERVER, repository.metadata.namespace, name)
        maps = documents.report_maps(context, server)
        return documents.told(context, server), documents.reports(maps.values()).values()

    return what_is_served(repository.spec.url, (said(server.metadata.name) for server in servers))
