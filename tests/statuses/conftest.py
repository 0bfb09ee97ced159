"""Typed objects for tables: pods, workloads and reports with what matters."""

from collections.abc import Callable
from typing import Any

import pytest

from gravswell.serving.contracts import ModelReport, ModelState, Report
from gravswell_operator.state import PodState, Problem, WorkloadState

DIGESTS = {number: f"{number:064x}" for number in range(1, 10)}


@pytest.fixture
def pod() -> Callable[..., PodState]:
    def make(name: str = "p-1", *, ready: bool = True, problem: Problem | None = None, **other: Any) -> PodState:
        fields: dict[str, Any] = {"terminating": False, "finished": False, **other}
        return PodState(name=name, ready=ready, problem=problem, **fields)

    return make


@pytest.fixture
def workload() -> Callable[..., WorkloadState]:
    def make(desired: int = 1, ready: int = 1, **other: Any) -> WorkloadState:
        fields = {"generation_seen": True, "total": desired, "updated": desired, **other}
        return WorkloadState(desired=desired, ready=ready, **fields)

    return make


@pytest.fixture
def report() -> Callable[..., Report]:
    """``report(pod, loaded, desired=loaded, state=Serving, ...)`` of the one model ``my-model``."""

    def make(
        pod: str = "p-1",
        loaded: int | None = 1,
        desired: int | None = None,
        *,
        state: ModelState = ModelState.SERVING,
        **other: Any,
    ) -> Report:
        wanted = desired if desired is not None else loaded
        assert wanted is not None
        said = ModelReport(
            name="my-model",
            state=state,
            desired_version=wanted,
            desired_digest=DIGESTS[wanted],
            loaded_version=loaded,
            loaded_digest=DIGESTS[loaded] if loaded is not None else None,
            verified=other.pop("verified", state is ModelState.SERVING),
            **other,
        )
        return Report(pod=pod, ready=loaded is not None, models=(said,))

    return make
