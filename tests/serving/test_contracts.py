"""The documents between operator, agents and listers are read by other releases than those that wrote them."""

import json

import pytest
from pydantic import ValidationError

from gravswell.serving.contracts import ModelReport, ModelState, Report, Start, StartStage

MOMENT = "2026-01-02T03:04:05Z"
LATER = {
    "schema": "gravswell.dev/report/v1",
    "pod": "p",
    "ready": True,
    "start": {
        "began": MOMENT,
        "stage": "Compile",
        "since": MOMENT,
        "seconds": {"Download": 2.5, "Compile": 40.0},
        "engine": "a field of a later release",
    },
    "models": [
        {
            "name": "m",
            "state": "Compiling",
            "desiredVersion": 2,
            "loadedVersion": 1,
            "reason": "EngineMissing",
            "message": "building it",
            "seconds": {"compile": 1.0},
        }
    ],
}


def test_a_report_of_a_later_agent_is_read_as_far_as_it_is_known():
    """A replica whose report cannot be read would count as one that has loaded nothing."""
    report = Report.model_validate_json(json.dumps(LATER))
    assert report.ready
    assert report.start is not None
    assert report.start.stage is StartStage.START
    assert report.start.seconds == {StartStage.DOWNLOAD: 2.5}
    (model,) = report.models
    assert (model.state, model.loaded_version) == (ModelState.WAITING, 1)
    assert (model.reason, model.message) == ("EngineMissing", "building it")


@pytest.mark.parametrize("state", list(ModelState))
def test_the_states_that_are_known_are_kept(state):
    report = ModelReport(name="m", state=state, desired_version=1)
    assert ModelReport.model_validate_json(report.to_json()).state is state


@pytest.mark.parametrize("stage", [*StartStage, None])
def test_the_stages_that_are_known_are_kept(stage):
    seconds = dict.fromkeys(StartStage, 1.5)
    start = Start(began=MOMENT, since=MOMENT, stage=stage, seconds=seconds)
    assert Start.model_validate_json(start.to_json()) == start


@pytest.mark.parametrize("wrong", [{"state": 3}, {"state": None}])
def test_what_is_no_name_at_all_is_still_refused(wrong):
    with pytest.raises(ValidationError):
        ModelReport.model_validate({"name": "m", "state": "Serving", "desiredVersion": 1, **wrong})
    with pytest.raises(ValidationError):
        Start.model_validate({"began": MOMENT, "since": MOMENT, "stage": 3})
    with pytest.raises(ValidationError):
        Start.model_validate({"began": MOMENT, "since": MOMENT, "seconds": 3})
