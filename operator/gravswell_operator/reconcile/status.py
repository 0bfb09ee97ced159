"""The status: written once for each reconcile, only when it says something new, with an event for each transition."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from gravswell.kube import errors
from gravswell_operator import conditions
from gravswell_operator.api import Condition, GPUNodePool, InferenceServer, Model, ModelRepository
from gravswell_operator.api.common import Status
from gravswell_operator.cluster.cache import Record
from gravswell_operator.conditions import Finding, Reason
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Unreadable

Own = GPUNodePool | ModelRepository | InferenceServer | Model


def stamp(context: Context) -> str:
    """Now, as conditions write it."""
    return conditions.stamp(context.now())


async def write(context: Context, record: Record, findings: Iterable[Finding], fields: Mapping[str, object]) -> None:
    """Write what was found of the object, unless that is what its status says already."""
    view: Own = record.view
    before = view.status.conditions
    merged = conditions.merge(before, findings, generation=view.metadata.generation, now=stamp(context))
    status = {"observedGeneration": view.metadata.generation, **fields, "conditions": [c.to_dict() for c in merged]}
    await _apply(context, record, status, before, merged)


async def write_suspended(context: Context, record: Record) -> None:
    """Say that the object is suspended, and leave everything else that its status says."""
    view: Own = record.view
    before = view.status.conditions
    finding = Finding(
        conditions.SUSPENDED, True, Reason.SUSPENDED, "spec.suspend is true: the operator changes nothing here"
    )
    generation = view.metadata.generation
    merged = conditions.merge(before, [finding], generation=generation, now=stamp(context))
    after = (*(c for c in before if c.type != conditions.SUSPENDED), *merged)
    # The others keep the generation that they were decided on; the status as a whole has seen this one.
    said = {"observedGeneration": generation, "conditions": [c.to_dict() for c in after]}
    await _apply(context, record, {**view.status.to_dict(), **said}, before, after)


async def write_invalid(context: Context, record: Record) -> None:
    """Say that the object cannot be read, and leave everything else that its status says."""
    view: Unreadable = record.view
    try:
        status, before = view.status, Status.model_validate(view.status).conditions
    except ValidationError:
        status, before = {}, ()
    finding = Finding(conditions.READY, False, Reason.INVALID_SPEC, f"this operator cannot read the object: {view.why}")
    merged = conditions.merge(before, [finding], generation=view.generation, now=stamp(context))
    after = (*merged, *(c for c in before if c.type != conditions.READY))
    said = {"observedGeneration": view.generation, "conditions": [c.to_dict() for c in after]}
    await _apply(context, record, {**status, **said}, before, after)


async def write_fault(context: Context, record: Record, error: Exception) -> None:
    """Say that a fault of the operator's own keeps it from looking after the object; what was said else stays."""
    view: Own = record.view
    before = view.status.conditions
    message = f"a fault of the operator, whose log says more; tried again: {type(error).__name__}: {error}"
    finding = Finding(conditions.READY, False, Reason.OPERATOR_FAULT, message)
    merged = conditions.merge(before, [finding], generation=view.metadata.generation, now=stamp(context))
    after = (*merged, *(c for c in before if c.type != conditions.READY))
    said = {"conditions": [c.to_dict() for c in after]}
    await _apply(context, record, {**view.status.to_dict(), **said}, before, after)


async def _apply(
    context: Context,
    record: Record,
    status: Mapping[str, Any],
    before: tuple[Condition, ...],
    after: tuple[Condition, ...],
) -> None:
    view = record.view
    decided = status if isinstance(view, Unreadable) else type(view.status).model_validate(status)
    if decided == view.status:
        return
    context.writing[record.key] = decided
    try:
        if not await _send(context, record, status):
            return
    finally:
        del context.writing[record.key]
    for transition in conditions.transitions(before, after):
        context.recorder.transition(reference(record), transition)


def reference(record: Record) -> dict[str, str]:
    """What an event says that it is about."""
    found = {
        "apiVersion": record.key.resource.api_version,
        "kind": record.key.resource.kind,
        "name": record.key.name,
        "uid": record.uid,
    }
    return {**found, "namespace": record.key.namespace} if record.key.namespace else found


async def _send(context: Context, record: Record, status: Mapping[str, Any]) -> bool:
    """False when the object has gone meanwhile."""
    # With its uid: an object of the same name that was made since then is another one.
    metadata = {"name": record.key.name, "uid": record.uid}
    if record.key.namespace:
        metadata["namespace"] = record.key.namespace
    resource = record.key.resource
    manifest = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "status": status}
    try:
        body = await context.client.apply_status(resource, manifest)
    except errors.ApiNotFoundError:
        context.forget(record)
        return False
    context.observe(resource, body)
    return True
