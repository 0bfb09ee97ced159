"""Reconciling a ``Model``: what it resolves to, and what each replica made of it.

What the agents shall load is written by the server's reconcile, which resolves all of its Models in the same way.
"""

from gravswell.serving.contracts import Desired, DesiredModel
from gravswell_operator import names
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.desired.models import Outcome, resolve_model
from gravswell_operator.reconcile import documents, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import server_key
from gravswell_operator.statuses import model as statuses


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one Model."""
    model: Model = record.view
    key = server_key(model)
    server: InferenceServer | None = context.view(key)
    outcome = _resolve(context, model, server) if server is not None else None
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
    listing, _ = documents.listing(context.child(resources.CONFIG_MAP, namespace, names.listing_configmap(repository)))
    previous = documents.desired(
        context.child(resources.CONFIG_MAP, namespace, names.desired_configmap(server.metadata.name))
    )
    siblings = context.referrers(server_key(model), resources.MODEL)
    rivals = [m for m in siblings if m.spec.entry == model.spec.entry and m.metadata.deletion_timestamp is None]
    return resolve_model(model, rivals, listing, _kept(previous, model.spec.entry), repository)


def _kept(previous: Desired | None, entry: str) -> DesiredModel | None:
    return next((m for m in previous.models if m.name == entry), None) if previous is not None else None
