"""What an earlier Triton of a pod had loaded is not taken for what the one of now has."""

from datetime import UTC, datetime, timedelta

import pytest

from gravswell.serving.contracts import ModelState, Report
from gravswell_operator.state import PodTimes
from gravswell_operator.statuses.restarts import DOUBT_SECONDS, present

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def said(report, loaded_at: float | None, **other) -> dict[str, Report]:
    moment = None if loaded_at is None else STARTED + timedelta(seconds=loaded_at)
    return {"p-1": report("p-1", 1, loaded_at=moment, **other)}


@pytest.fixture
def running(pod):
    return [pod(times=PodTimes(triton=int(STARTED.timestamp())))]


@pytest.mark.parametrize(
    ("loaded_at", "seconds_since", "is_old"),
    [
        (-0.001, 1, True),
        (-3600, 1, True),
        (0.0, 1, False),  # Kubernetes cuts off the second that Triton was started in
        (2.5, 3, False),
        (None, 1, False),
        (-5, DOUBT_SECONDS + 1, False),
        (-5, -DOUBT_SECONDS - 1, False),
    ],
    ids=["just before", "long before", "in its second", "after", "an older agent", "long after", "a clock set back"],
)
def test_a_load_that_is_older_than_its_triton_is_none(report, running, loaded_at, seconds_since, is_old):
    reports = said(report, loaded_at)
    found, after = present(reports, running, STARTED + timedelta(seconds=seconds_since))
    model = found["p-1"].models[0]
    if not is_old:
        assert (found, after) == (reports, None)
        return
    assert after == DOUBT_SECONDS - seconds_since
    assert (model.state, model.loaded_version, model.loaded_digest, model.verified) == (
        ModelState.WAITING,
        None,
        None,
        False,
    )
    assert "Triton was started again" in model.message


def test_that_a_version_failed_stays_true(report, running):
    reports = said(report, -5, desired=2, state=ModelState.FAILED, reason="LoadFailed", message="no such device")
    model = present(reports, running, STARTED + timedelta(seconds=1))[0]["p-1"].models[0]
    assert (model.state, model.message, model.loaded_version) == (ModelState.FAILED, "no such device", None)


def test_a_triton_that_does_not_run_is_held_against_nothing(report, pod):
    reports = said(report, -5)
    assert present(reports, [pod(times=PodTimes())], STARTED) == (reports, None)
    assert present({}, [pod(times=PodTimes(triton=int(STARTED.timestamp())))], STARTED) == ({}, None)
