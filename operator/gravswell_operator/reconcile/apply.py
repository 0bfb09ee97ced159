"""Children: apply what differs, delete what is no longer wanted, take nothing that belongs to others."""

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence

from gravswell.errors import GravswellError
from gravswell.kube import errors
from gravswell.kube.watch import Body
from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Key, Record, version_of
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.diff import difference
from gravswell_operator.desired.objects import Manifest
from gravswell_operator.providers.base import ProviderError
from gravswell_operator.reconcile.context import Context
from gravswell_operator.state import Problem

_BEFORE_PODS = (("ConfigMap", "ServiceAccount", "Role"), ("RoleBinding",))
"""What pods need when they start, step by step: a binding is refused while its Role is not stored."""
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_AUTOSCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
"""What scales a workload by its name: where that is somebody else's, none is made."""
_ROUTES = ("HTTPRoute", "GRPCRoute")
"""What sends requests to Services and their endpoints: they come after these, and go before them."""

log = logging.getLogger(__name__)


class NameTakenError(errors.ApiConflictError):
    """An object of the child's name exists and is somebody else's."""


class FormerOwnerError(errors.ApiConflictError):
    """The child of a former owner of the same name is still there; the garbage collector takes it."""


_AS_IT_SAYS: Mapping[type[GravswellError], Reason] = {
    NameTakenError: Reason.NAME_TAKEN,
    FormerOwnerError: Reason.STARTING,
    ProviderError: Reason.PROVIDER_NOT_READY,
    errors.NamespaceNotFoundError: Reason.NAMESPACE_NOT_FOUND,
}
_EPHEMERAL_PORT = re.compile(r":\d+(?=->)")
"""As in ``read tcp 10.0.0.1:40123->10.0.0.2:443: i/o timeout``: of a webhook's connection, another one each time."""


def problem(error: GravswellError) -> Problem:
    """Why children could not be applied, in words for a condition: the same words for the same failure."""
    text = _EPHEMERAL_PORT.sub("", str(error))
    for kind, reason in _AS_IT_SAYS.items():
        if isinstance(error, kind):
            return Problem(reason, text)
    if isinstance(error, errors.ApiRejectedError):
        return Problem(Reason.REJECTED, f"the API server refuses what follows from the spec: {text}")
    if isinstance(error, errors.QuotaExceededError):
        return Problem(Reason.QUOTA_EXCEEDED, f"{text}; raise the ResourceQuota, or free something of it")
    if isinstance(error, errors.AdmissionDeniedError):
        way_out = "change the spec so that it is admitted, or have whoever runs that make an exception"
        return Problem(
            Reason.REJECTED, f"the cluster's admission refuses what follows from the spec: {text}; {way_out}"
        )
    if isinstance(error, errors.ApiForbiddenError):
        ending = isinstance(error, errors.NamespaceTerminatingError)  # the drivers': ours are left alone then
        return Problem(Reason.FORBIDDEN, text if ending else f"the operator may not do this: {text}")
    return Problem(Reason.API_ERROR, f"tried again soon: {text}")


async def apply_children(
    context: Context, owner: Record, wanted: Sequence[Manifest], keep: Iterable[Manifest] = ()
) -> None:
    """Make the children of ``owner`` what is wanted, and delete the others, but for those in ``keep``.

    What pods need comes before pods, and where that fails, the workloads stay as they are; what scales a workload comes
    after it, and only where that is there and ours; routes come after what they name. Everything else is tried whatever
    fails: a Service that is refused holds up no pod. What is no longer wanted stays as long as a workload could not be
    changed, which may still use it. The first failure is raised at the end.
    """
    pending = [manifest for manifest in wanted if not is_settled(context, owner, manifest)]
    failures, beside = await _apply_in_order(context, owner, pending) if pending else ([], [])
    if not failures:
        await _delete_unwanted(context, owner, {key_of(manifest) for manifest in (*wanted, *keep)})
    failures += beside
    if failures:
        raise failures[0]


def is_settled(context: Context, owner: Record, manifest: Manifest) -> bool:
    """Whether the child is what is wanted, and nobody has changed it since that was seen: most are, most of the time,
    and a task for each would be what a reconcile costs that has nothing to do."""
    record = context.cache.get(key_of(manifest))
    if record is None or record.deleted:
        return False
    return record.owner == owner.uid and record.checked == _digest(manifest)


async def _apply_in_order(
    context: Context, owner: Record, manifests: Sequence[Manifest]
) -> tuple[list[BaseException], list[BaseException]]:
    """What failed of what pods need and of the workloads, and what failed beside them."""
    failures: list[BaseException] = []
    for kinds in _BEFORE_PODS:
        if not failures:
            failures += await _all(context, owner, [m for m in manifests if m["kind"] in kinds])
    before = [kind for kinds in _BEFORE_PODS for kind in kinds]
    workloads = [m for m in manifests if m["kind"] in _WORKLOADS] if not failures else []
    others = [m for m in manifests if m["kind"] not in (*before, *_WORKLOADS, *_AUTOSCALERS, *_ROUTES)]
    with_pods, beside = await asyncio.gather(_all(context, owner, workloads), _all(context, owner, others))
    if not beside:
        beside += await _all(context, owner, [m for m in manifests if m["kind"] in _ROUTES])
    failures += with_pods
    if not failures:
        failures += await _all(context, owner, [m for m in manifests if m["kind"] in _AUTOSCALERS])
    return failures, beside


async def _delete_unwanted(context: Context, owner: Record, keep: set[Key]) -> None:
    for record in sorted(context.children(owner), key=lambda child: child.key.resource.kind not in _ROUTES):
        if record.key not in keep and not record.going:
            log.info("%s: deleting %s, which is no longer wanted", owner.key, record.key)
            await context.client.delete(record.key.resource, record.key.namespace, record.key.name, record.uid)
            record.deleted = True


async def apply_each(context: Context, owner: Record, manifests: Sequence[Manifest]) -> None:
    """Make these children what is wanted, and nothing else. The first failure is raised when all were tried."""
    for failure in await _all(context, owner, manifests):
        raise failure


async def _all(context: Context, owner: Record, manifests: Sequence[Manifest]) -> list[BaseException]:
    """Apply all of them; what failed, in their order."""
    results = await asyncio.gather(*(_apply(context, owner, m) for m in manifests), return_exceptions=True)
    return [result for result in results if isinstance(result, BaseException)]


def key_of(manifest: Manifest) -> Key:
    """Which object a manifest is of."""
    metadata = manifest["metadata"]
    return Key(resources.of(manifest), metadata.get("namespace", ""), metadata["name"])


def _digest(manifest: Manifest) -> str:
    digest: str = manifest["metadata"]["annotations"][names.ANNOTATION_DIGEST]
    return digest


async def _apply(context: Context, owner: Record, manifest: Manifest) -> None:
    key, digest = key_of(manifest), _digest(manifest)
    record = context.cache.get(key)
    if record is None:
        log.info("%s: creating %s", owner.key, key)
        body = await _create(context, owner, key, manifest)
    else:
        _check_owner(owner, key, record.owner, record.labels)
        if record.checked == digest and not record.deleted:
            return
        live = record.body()
        where = difference(manifest, live) if live is not None else "digest"
        if record.deleted:
            where = "everything"
        if where is None:
            record.found_equal(digest)
            return
        log.info("%s: applying %s (%s differs)", owner.key, key, where)
        body = await context.client.apply(key.resource, _only(manifest, record.uid))
    context.observe(key.resource, body)
    applied = context.cache.get(key)
    if applied is not None and applied.version == version_of(body):
        # What still differs in the answer is how the API server writes it, not drift. Only in the answer: what a watch
        # has brought meanwhile is somebody else's doing, and was not compared yet.
        applied.found_equal(digest)


_NO_VERSION = "1"
"""The resource version of no object: etcd's first revision is that of the empty store."""


async def _create(context: Context, owner: Record, key: Key, manifest: Manifest) -> Body:
    """Apply a child that was not seen yet, and never over an object that a user made.

    Server-side apply would quietly take that over. One that names a version changes no object of another version, and
    none has this one: in one request it creates what is not there, and conflicts with what is.
    """
    metadata = {**manifest["metadata"], "resourceVersion": _NO_VERSION}
    try:
        return await context.client.apply(key.resource, {**manifest, "metadata": metadata})
    except errors.ApiConflictError:
        uid = await _check_live(context, owner, key)
        return await context.client.apply(key.resource, _only(manifest, uid) if uid else manifest)


def _only(manifest: Manifest, uid: str) -> Manifest:
    """``manifest`` for the object that was looked at: one that somebody puts in its place meanwhile is a conflict."""
    return {**manifest, "metadata": {**manifest["metadata"], "uid": uid}}


def may_write(owner: Record, record: Record) -> bool:
    """Whether ``record``, which bears the name of a child of ``owner``, is that child and nobody else's."""
    try:
        _check_owner(owner, record.key, record.owner, record.labels)
    except errors.ApiConflictError:
        return False
    return True


def _check_owner(owner: Record, key: Key, controller: str, labels: Mapping[str, str]) -> None:
    """Whether the child ``key`` with this controller (its uid, or empty) and these labels may be written."""
    if controller == owner.uid:
        return
    label = names.OWNER_LABELS[owner.key.resource.kind]
    ours = labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY and labels.get(label) == owner.key.name
    if ours and not controller:
        return  # left behind on purpose (--cascade=orphan): adopted, so that what runs goes on
    if ours:
        raise FormerOwnerError(f"waiting until {key}, of a former {owner.key}, is gone")
    raise NameTakenError(
        f"{key} exists and does not belong to {owner.key}; delete or rename it, or give {owner.key} another name"
    )


async def _check_live(context: Context, owner: Record, key: Key) -> str:
    """The uid of the child that is there, which may be written though no watch has shown it; empty if it has gone."""
    try:
        live = await context.client.get(key.resource, key.namespace, key.name)
    except errors.ApiNotFoundError:
        return ""
    metadata = live["metadata"]
    controllers = (r["uid"] for r in metadata.get("ownerReferences") or () if r.get("controller"))
    _check_owner(owner, key, next(controllers, ""), metadata.get("labels") or {})
    return str(metadata["uid"])
