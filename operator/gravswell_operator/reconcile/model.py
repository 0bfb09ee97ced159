"""Reconciling a ``Model``: what it resolves to, and what each replica made of it.

What the agents shall load is written by the server's reconcile, which resolves all of its Models in the same way.
"""

from collections.abc import Mapping, Sequence

from gravswell.serving.contracts import Report
from gravswell_operator import conditions, names
from gravswell_operator.api import ConditionStatus, InferenceServer, Model, ModelRepository
from gravswell_operator.api.rollout import RolloutState, RolloutStatus, Strategy
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Record
from gravswell_operator.conditions import Reason, Transition
from gravswell_operator.desired.models import (
    asks_for_devices,
    contenders,
    is_moved,
    remembered,
    resolve_model,
    resolve_server,
    stays_behind,
    told,
)
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.rollouts import staged
from gravswell_operator.desired.targets import target
from gravswell_operator.desired.weights import is_weighted
from gravswell_operator.reconcile import documents, gateway, jumps, status
from gravswell_operator.reconcile.context import Context
from gravswell_operator.reconcile.index import repository_key, server_key
from gravswell_operator.state import PodState, Unreadable
from gravswell_operator.statuses import model as statuses
from gravswell_operator.statuses import restarts
from gravswell_operator.statuses.gateway import Weighing
from gravswell_operator.statuses.ranks import wholes
from gravswell_operator.statuses.replica import replicas_of
from gravswell_operator.statuses.rollout import Look, Next, advance, resumed


async def reconcile(context: Context, record: Record) -> None:
    """One pass over one Model."""
    model = resumed(jumps.undone(context, record), context.now())
    key = server_key(model)
    server: InferenceServer | Unreadable | None = context.view(key)
    pods = context.pods(key) if server is not None else []
    told = documents.reports(documents.report_maps(context, key).values())
    reports, doubted = restarts.present(told, pods, context.now())
    outcome, rollout = None, Next(model.status.rollout)
    if isinstance(server, InferenceServer):
        wish = _Wish(context, model, server, pods)
        if server.spec.ranks is not None:
            reports = wholes(wish.previous, pods, reports)
        rollout = wish.rollout(reports)
        outcome = wish.outcome(rollout.status)
        if rollout.refused is not None:
            outcome = Outcome(outcome.desired, rollout.refused.reason, rollout.refused.message)
    view = statuses.ModelView(
        model=model, server=server, outcome=outcome, pods=pods, reports=reports, rollout=rollout.status
    )
    jumps.remember(context, record.key, record.view.status.rollout, rollout.status)
    await status.write(context, record, statuses.findings(view), statuses.fields(view))
    for after in filter(None, (rollout.after, doubted)):
        context.queue.add(record.key, after)
    _tell(context, record, model.status.rollout, rollout.status)


class _Wish:
    """What a Model asks of its server, and what the server was told."""

    def __init__(self, context: Context, model: Model, server: InferenceServer, pods: Sequence[PodState]) -> None:
        namespace, repository = model.metadata.namespace, server.spec.repository_ref.name
        found: ModelRepository | Unreadable | None = context.view(repository_key(server))
        self._context, self._model, self._server, self._pods = context, model, server, pods
        self._url = found.spec.url if isinstance(found, ModelRepository) else None
        self._listing = documents.holdings(
            context.child(resources.CONFIG_MAP, namespace, names.listing_configmap(repository)), self._url
        )
        self.previous = documents.told(context, server_key(model))
        told_before, entry = told(self.previous), model.spec.entry
        self._told = told_before.get(entry)
        self._kept = self._told or remembered(model)
        self._models = context.models(server_key(model))
        rivals = contenders(self._models, told_before).get(entry, [])
        self._target = resolve_model(model, rivals, self._listing, self._told, repository, triton=target(server))

    def rollout(self, reports: Mapping[str, Report]) -> Next:
        """Where the roll-out stands now. While the wish is unresolved or suspended, it stands where it stood; one that
        waits for its turn lets others go before."""
        model, target = self._model, self._target
        if not target.resolved or target.desired is None or model.spec.suspend or self._url is None:
            before = model.status.rollout
            return Next(before if before is None or before.state is not RolloutState.WAITING else None)
        # All ranks are one replica: there is nothing to share.
        strategy = model.spec.rollout.strategy if self._server.spec.ranks is None else Strategy.IMMEDIATE
        together = self._server.spec.ranks is not None
        now = self._context.now()
        replicas = replicas_of(model.spec.entry, self._pods, reports)
        weighing = Weighing()
        if strategy is Strategy.CANARY and is_weighted(model):
            weighing = gateway.weighing(self._context, model, self._server, self._pods, reports)
        return advance(Look(model, strategy, target.desired, self._kept, replicas, now, together, weighing))

    def outcome(self, rollout: RolloutStatus | None) -> Outcome:
        """What became of the wish, by a roll-out that stands there."""
        model, target, url = self._model, self._target, self._url
        if not target.resolved or url is None:
            return target
        model = model.model_copy(update={"status": model.status.model_copy(update={"rollout": rollout})})
        moved = is_moved(self.previous, url)
        if not moved and not asks_for_devices(self._models) and self._server.spec.ranks is None:
            return staged(model, target, self._kept, self._pods)  # it depends on no other Model
        models = [model if m is self._model else m for m in self._models]
        resolution = resolve_server(self._server, models, self._listing, self.previous, url=url, pods=self._pods)
        if moved and resolution.missing:
            return stays_behind(self._server, resolution, self._told)
        return resolution.outcome(model.spec.entry)


def _tell(context: Context, record: Record, before: RolloutStatus | None, now: RolloutStatus | None) -> None:
    """An event for each step of a canary. That it was rolled back, the condition Ready says."""
    if now is None or now.strategy is not Strategy.CANARY:
        return
    if before is not None and (before.started, before.state, before.step) == (now.started, now.state, now.step):
        return
    reason = _EVENTS.get(now.state)
    if reason is not None:
        event = Transition(conditions.PROGRESSING, ConditionStatus.TRUE, reason, now.message)
        context.recorder.transition(status.reference(record), event)


_EVENTS = {
    RolloutState.PROGRESSING: Reason.ROLLING_OUT,
    RolloutState.PAUSED: Reason.ROLLOUT_PAUSED,
    RolloutState.PROMOTED: Reason.PROMOTED,
}
