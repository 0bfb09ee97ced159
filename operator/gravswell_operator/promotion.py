"""Roll-outs by hand: look at the one of a Model, promote it, end it, or try a version again. What a user may do, too.

Each is a field of ``spec.rollout``, so that a manifest can say the same; nothing of it is an annotation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiForbiddenError, ApiNotFoundError
from gravswell.kube.resources import CONFIG_MAP
from gravswell_operator import conditions, names, state
from gravswell_operator.api import Model
from gravswell_operator.api.rollout import UNDER_WAY, RolloutState, RolloutStatus, Strategy
from gravswell_operator.cluster import resources
from gravswell_operator.desired.judge import Requests
from gravswell_operator.desired.models import told
from gravswell_operator.reconcile import documents

_OPEN = (*UNDER_WAY, RolloutState.WAITING)
"""Where a canary stands of which somebody can decide."""


@dataclass(frozen=True)
class ModelRollout:
    """The roll-out of one Model."""

    namespace: str
    model: str
    entry: str
    strategy: Strategy
    """Of the next change of the version."""
    version: int | None
    """What the replicas serve that are not part of a canary."""
    ready: bool
    reason: str
    message: str
    """Of the condition Ready."""
    rollout: RolloutStatus | None
    """The last change of the version; None before the first."""
    attempt: int
    new: Requests | None = None
    """What clients asked of the new version in the present step of a canary, as far as its replicas have told; None
    where no canary is under way, or its counts may not be read."""
    old: Requests | None = None
    """And of the old version, in the same time."""


async def look(client: Client, namespace: str, name: str) -> ModelRollout:
    """The roll-out of the Model ``name``. Raises :class:`NotFoundError` where there is none, and as ``client`` does."""
    with _missing_told(namespace, name):
        body = await client.get(resources.MODEL, namespace, name)
    seen = _of(body)
    if seen.rollout is None or seen.rollout.state not in UNDER_WAY or seen.rollout.strategy is not Strategy.CANARY:
        return seen
    new, old = await _asked(client, namespace, body["spec"]["serverRef"]["name"], seen.entry)
    return replace(seen, new=new, old=old)


async def _asked(
    client: Client, namespace: str, server: str, entry: str
) -> tuple[Requests, Requests] | tuple[None, None]:
    """What clients asked of the new version and of the old one, by what the operator and the agents tell each other."""
    try:
        desired = documents.desired(await _configmap(client, namespace, names.desired_configmap(server)))
        model = told(desired).get(entry)
        if desired is None or model is None or model.canary is None:
            return None, None
        parts = names.report_configmaps(server, desired.reports)
        reports = documents.reports([await _configmap(client, namespace, name) for name in parts])
    except (ApiNotFoundError, ApiForbiddenError):
        return None, None  # a user may see Models and no ConfigMaps
    canary = model.canary
    said = {pod: report.of(entry) for pod, report in sorted(reports.items())}
    new = Requests.told((report for pod, report in said.items() if pod in canary.pods), canary, canary.window)
    old = Requests.told((report for pod, report in said.items() if pod not in canary.pods), model, canary.window)
    return new, old


async def _configmap(client: Client, namespace: str, name: str) -> state.ConfigMapState:
    return state.configmap(await client.get(CONFIG_MAP, namespace, name))


async def promote(client: Client, namespace: str, name: str, version: int | None = None) -> ModelRollout:
    """Serve ``version``, or the one that waits, is under way or was rolled back, everywhere, whatever is judged.

    Raises :class:`InvalidInputError` where no version is on its way and none is given.
    """
    version = (
        version
        if version is not None
        else _subject(await look(client, namespace, name), *_OPEN, RolloutState.ROLLED_BACK)
    )
    return await _change(client, namespace, name, promote=version, abort=None)


async def abort(client: Client, namespace: str, name: str, version: int | None = None) -> ModelRollout:
    """End the canary of ``version``, or the one that waits or is under way: the version before serves everywhere.

    Raises :class:`InvalidInputError` where there is none and no version is given.
    """
    version = version if version is not None else _subject(await look(client, namespace, name), *_OPEN)
    return await _change(client, namespace, name, abort=version, promote=None)


async def retry(client: Client, namespace: str, name: str) -> ModelRollout:
    """Try the version again that was rolled back.

    Raises :class:`InvalidInputError` where none was.
    """
    seen = await look(client, namespace, name)
    _subject(seen, RolloutState.ROLLED_BACK)
    return await _change(client, namespace, name, attempt=seen.attempt + 1, abort=None, promote=None)


def _subject(seen: ModelRollout, *states: RolloutState) -> int:
    """The version that the last roll-out is about, if it stands at one of ``states``."""
    rollout = seen.rollout
    if rollout is not None and rollout.strategy is Strategy.CANARY and rollout.state in states:
        return rollout.to
    if rollout is None:
        stands = "no version of it was rolled out yet"
    else:
        stands = f"its last roll-out, {rollout.strategy} to version {rollout.to}, stands at {rollout.state}"
    wanted = " or ".join(states)
    raise InvalidInputError(f"Model {seen.model} has no canary that is {wanted}: {stands}")


async def _change(client: Client, namespace: str, name: str, **rollout: int | None) -> ModelRollout:
    with _missing_told(namespace, name):
        return _of(await client.merge(resources.MODEL, namespace, name, {"spec": {"rollout": rollout}}))


@contextmanager
def _missing_told(namespace: str, name: str) -> Iterator[None]:
    try:
        yield
    except ApiNotFoundError:
        raise NotFoundError(
            f"there is no Model {name} in namespace {namespace}; kubectl get mdl -A shows all"
        ) from None


def _of(body: Any) -> ModelRollout:
    try:
        model = Model.model_validate(body)
    except ValidationError as error:
        raise InvalidInputError(
            f"Model {body['metadata']['name']} is of another release of gravswell: {error.errors()[0]['msg']}"
        ) from None
    ready = conditions.ready(model.status)
    return ModelRollout(
        namespace=model.metadata.namespace,
        model=model.metadata.name,
        entry=model.spec.entry,
        strategy=model.spec.rollout.strategy,
        version=model.status.desired_version,
        ready=ready is not None and ready.status == "True",
        reason=ready.reason if ready is not None else "",
        message=ready.message if ready is not None else "the operator has not looked at it yet",
        rollout=model.status.rollout,
        attempt=model.spec.rollout.attempt,
    )
