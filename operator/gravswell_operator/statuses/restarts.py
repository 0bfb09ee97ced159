"""Reports of before a restart: what an earlier Triton of a pod had loaded, the one that runs now has not."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from gravswell.serving.contracts import ModelReport, ModelState, Reason, Report
from gravswell_operator.state import PodState

DOUBT_SECONDS = 60.0
"""How long after its start a Triton is held against the report. Its agent sees it within seconds. Later, a load that
seems to be older was noted by a clock that was set since, and nothing would ever mend that."""


def present(
    reports: Mapping[str, Report], pods: Sequence[PodState], now: datetime
) -> tuple[Mapping[str, Report], float | None]:
    """``reports``, without what they say is loaded in a Triton that was started later; and for how many seconds.

    None: they are as the agents wrote them.
    """
    left: dict[str, float] = {}
    for pod in pods:
        started, report = pod.times.triton, reports.get(pod.name)
        if started is None or report is None:
            continue
        doubt = DOUBT_SECONDS - (now.timestamp() - started)
        if 0 < doubt <= 2 * DOUBT_SECONDS and any(_is_older(model, started) for model in report.models):
            left[pod.name] = doubt
    if not left:
        return reports, None
    started_at = {pod.name: pod.times.triton for pod in pods}
    cleared = {name: _cleared(reports[name], started_at[name] or 0) for name in left}
    return {**reports, **cleared}, min(left.values())


def _is_older(model: ModelReport, started: int) -> bool:
    return model.loaded_at is not None and model.loaded_at.timestamp() < started


def _cleared(report: Report, started: int) -> Report:
    models = tuple(_lost(model) if _is_older(model, started) else model for model in report.models)
    return report.model_copy(update={"models": models})


def _lost(model: ModelReport) -> ModelReport:
    changes: dict[str, object] = {"loaded_version": None, "loaded_digest": None, "loaded_at": None, "verified": False}
    if model.state is not ModelState.FAILED:
        message = "Triton was started again, and has not loaded it yet"
        changes |= {"state": ModelState.WAITING, "reason": Reason.TRITON_UNAVAILABLE.value, "message": message}
    return model.model_copy(update=changes)
