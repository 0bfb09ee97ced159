"""What an ``InferenceServer`` says of its models: whether they are known, and what its replicas make of them."""

from collections.abc import Mapping, Sequence

from gravswell.serving.contracts import DesiredModel, ModelReport, ModelState, Report
from gravswell_operator import conditions
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.models import not_listed_yet
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.state import Problem
from gravswell_operator.statuses.serverview import ServerView

SHOWN_MODELS = 100
_NAMED_MODELS = 5


def findings(view: ServerView) -> list[Finding]:
    """The conditions about the models that the replicas shall serve."""
    return [*_models(view), *_loaded(view)]


def nothing_to_serve(view: ServerView) -> Problem | None:
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


def failed_model(view: ServerView) -> tuple[str, ModelReport] | None:
    """The first replica's pod that could not serve what it shall, and what its agent says."""
    active = {pod.name for pod in view.pods if pod.active}
    for pod, report in sorted(view.reports.items()):
        for model in report.models:
            if pod in active and model.state is ModelState.FAILED:
                return pod, model
    return None


def not_loaded(view: ServerView) -> Problem | None:
    """What a replica in traffic shall serve and has no version of; one that has an earlier one serves the model.

    Who has not reported at all is taken at its probe's word, which asks for one model, until it does.
    """
    if view.resolution is None or view.group is not None:  # ranks are served together or not at all, and say so
        return None
    for pod in sorted(pod.name for pod in view.pods if pod.ready and pod.active):
        if (report := view.reports.get(pod)) is None:
            continue
        for model in view.resolution.desired.models:
            own = model.on(pod)
            said = report.of(own.name)
            if said is not None and said.loaded_version is not None:
                continue
            if said is not None and said.state is ModelState.FAILED:
                return load_failed(pod, said)
            return Problem(Reason.LOADING, f"pod {pod} has not loaded version {own.version} of {own.name} yet")
    return None


def load_failed(pod: str, model: ModelReport) -> Problem:
    """What :func:`failed_model` found, in words."""
    return Problem(Reason.LOAD_FAILED, f"model {model.name} on pod {pod}: {model.reason}: {model.message}")


def _models(view: ServerView) -> list[Finding]:
    if view.resolution is None:
        return []
    if (nothing := nothing_to_serve(view)) is not None:
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
    none_wanted = view.workload is not None and not view.workload.desired
    if not wanted or (not pods and none_wanted):
        return []
    if (failed := failed_model(view)) is not None:
        pod, said = failed
        message = f"version {said.desired_version} of {said.name} on pod {pod}: {said.reason}: {said.message}"
        if said.loaded_version is not None:
            message += f"; version {said.loaded_version} still serves there"
        return [Finding(conditions.MODELS_LOADED, False, Reason.LOAD_FAILED, message)]
    behind = [m.name for m in wanted if not pods or not all(serves(m.on(pod), view.reports.get(pod)) for pod in pods)]
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


def served(view: ServerView, active: Sequence[str]) -> list[dict[str, object]]:
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


def devices(view: ServerView) -> list[dict[str, object]]:
    """Who was given which device; nothing where nobody asks for any."""
    resolution = view.resolution
    if resolution is None or resolution.lost:
        return [device.to_dict() for device in view.server.status.devices]
    placed = [model for model in resolution.desired.models if model.gpus is not None]
    return [
        {"device": device, "models": [m.name for m in placed if device in (m.gpus or ())][:SHOWN_MODELS]}
        for device in (range(view.server.spec.gpus) if placed else ())
    ]
