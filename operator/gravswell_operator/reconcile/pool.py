"""Reconciling a ``GPUNodePool``: count its nodes, run its device plugin where that is asked for."""

from gravswell.errors import GravswellError
from gravswell_operator import names, state
from gravswell_operator.api import GPUNodePool
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.desired.device_plugin import device_plugin
from gravswell_operator.providers import nodes_of
from gravswell_operator.reconcile import apply, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.statuses import pool as statuses


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one pool."""
    pool: GPUNodePool = record.view
    wanted = [device_plugin(pool, context.options)] if pool.spec.drivers.install else []
    failure: GravswellError | None = None
    try:
        await apply.apply_children(context, record, wanted)
    except GravswellError as error:
        failure = error
    nodes = nodes_of(pool, (r.view for r in context.cache.all(resources.NODE) if r.view is not None))
    plugin: state.WorkloadState | None = context.child(
        resources.DAEMON_SET, context.options.drivers_namespace, names.device_plugin(pool.metadata.name)
    )
    problem = apply.problem(failure) if failure is not None else None
    await status.write(context, record, statuses.findings(pool, nodes, plugin, problem), statuses.fields(pool, nodes))
    if failure is not None:
        raise failure
