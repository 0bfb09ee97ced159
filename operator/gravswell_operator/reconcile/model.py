"""Reconciling a ``Model``: what it resolves to, and what each replica made of it.

What the agents shall load is written by the server's reconcile, which resolves all of its Models in the same way.
"""

from gravswell_operator import names
from gravswell_operator.api import InferenceServer, Model, ModelRepository
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.desired.models import (
    Outcome,
    asks_for_devices,
    contenders,
    is_moved,
    resolve_model,
    resolve_server,
    stays_behind,
    told,
)
from gravswell_operator.reconcile import documents, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import repository_key, server_key
from gravswell_operator.state import Unreadable
from gravswell_operator.statuses import model as statuses


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one Model."""
    model: Model = record.view
    key = server_key(model)
    server: InferenceServer | Unreadable | None = context.view(key)
    outcome = _resolve(context, model, server) if isinstance(server, InferenceServer) else None
    reports = context.child(resources.CONFIG_MAP, key.namespace, names.report_configmap(key.name))
    view = statuses.ModelView(
        model=model,
        server=server,
        outcome=outcome,
        pods=context.pods(key) if server is not None else (),
        reports=documents.reports(reports),
    )
    await status.write(context, record, statuses.findings(view), statuses.fields(view))


def _resolve(context: Context, model: Model, server: InferenceServer) -> Outcome:
    namespace = model.metadata.namespace
    repository = server.spec.repository_ref.name
    found: ModelRepository | Unreadable | None = context.view(repository_key(server))
    listing = documents.holdings(
        context.child(resources.CONFIG_MAP, namespace, names.listing_configmap(repository)),
        found.spec.url if isinstance(found, ModelRepository) else None,
    )
    previous = documents.desired(
        context.child(resources.CONFIG_MAP, namespace, names.desired_configmap(server.metadata.name))
    )
    kept, entry = told(previous), model.spec.entry
    models = context.models(server_key(model))
    rivals = contenders(models, kept).get(entry, [])
    outcome = resolve_model(model, rivals, listing, kept.get(entry), repository)
    if not outcome.resolved or not isinstance(found, ModelRepository):
        return outcome
    moved = is_moved(previous, found.spec.url)
    if not moved and not asks_for_devices(models):
        return outcome  # it depends on no other Model
    resolution = resolve_server(server, models, listing, previous, url=found.spec.url)
    if moved and resolution.missing:
        return stays_behind(server, resolution, kept.get(entry))
    return resolution.outcome(entry)
