"""``tune`` of a whole ensemble on the real Triton: a network, and a member that sleeps over every request."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.config import parse_config
from gravswell.tuning import TuneReport, run, tune
from gravswell.tuning.report import CSV_FILE, JSON_FILE, PLOT_FILE
from gravswell.tuning.search import choose
from gravswell.tuning.subject import subject

from ..networks import FEATURES, classifier

HOURS = 3600.0
SECONDS = 1.0
"""For which each point is measured."""
ROWS = {"x": np.ones((4, FEATURES), np.float32)}
SLEEPS = """\
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        time.sleep(0.03 * len(requests))
        given = [pb_utils.get_input_tensor_by_name(request, "scores").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in given]
"""
SLOW = """\
# asleep
backend: "python"
max_batch_size: 8
input { name: "scores" data_type: TYPE_FP32 dims: 4 }
output { name: "y" data_type: TYPE_FP32 dims: 4 }
"""
WHOLE = f"""\
platform: "ensemble"
max_batch_size: 8
input {{ name: "x" data_type: TYPE_FP32 dims: {FEATURES} }}
output {{ name: "y" data_type: TYPE_FP32 dims: 4 }}
"""


def _step(model: str, version: int, given: str, made: str) -> str:
    (source, tensor), (output, target) = given.split("="), made.split("=")
    return (
        f'step {{ model_name: "{model}" model_version: {version} input_map {{ key: "{source}" value: "{tensor}" }} '
        f'output_map {{ key: "{output}" value: "{target}" }} }} '
    )


def _config(steps: str) -> str:
    return f'name: "whole"\n{WHOLE}ensemble_scheduling {{ {steps} }}\n'


CHAIN = _step("fast", 1, "x=x", "scores=between") + _step("slow", -1, "scores=between", "y=y")


def _repository(root: Path, steps: str = CHAIN) -> qv.ModelRepository:
    repository = qv.ModelRepository(root)
    fast = repository.add("fast")
    for _ in range(2):
        fast.export_version(classifier(), max_batch_size=8)
    for name, text in (("slow", f'name: "slow"\n{SLOW}'), ("whole", _config(steps))):
        (root / name / "1").mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(text)
    (root / "slow/1/model.py").write_text(SLEEPS)
    return qv.ModelRepository.open(root)


class Tuned(NamedTuple):
    repository: qv.ModelRepository
    root: Path
    report: TuneReport
    folder: Path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tune")
    repository = _repository(folder / "r")
    report = tune(
        repository.models["whole"],
        latency_limit=HOURS,
        batch_sizes=[4],
        instances=[1, 2],
        concurrency=[4],
        dynamic_batching="off",
        duration=SECONDS,
        sample_inputs=ROWS,
        folder=folder / "out",
    )
    return Tuned(repository, folder / "r", report, folder / "out")


def test_every_setting_of_the_members_answers(tuned: Tuned) -> None:
    report = tuned.report
    assert (report.entry, report.version, report.complete) == ("whole", 1, True)
    assert report.members == {"fast": [1], "slow": [1]}
    counts = {tuple(model.instances for model in m.models) for m in report.measurements}
    assert {(1, 1), (2, 2)} < counts  # alike at first, and then not
    for m in report.measurements:
        assert m.failure is None
        assert m.requests > 0
        assert [model.model for model in m.models] == ["fast", "slow"]
        assert m.limiting in report.members
        slow = m.models[1]
        assert slow.compute_ms >= 30
        assert 0 < slow.busy <= 1.05
        # No more than its sleep leaves time for, but for what was under way when the time began.
        assert m.rows_per_second * SECONDS <= 4 * (slow.instances * (SECONDS / 0.03 + 1) + m.concurrency)


def test_the_choice_is_written_to_the_members(tuned: Tuned) -> None:
    report = tuned.report
    assert report.chosen is not None
    assert report.chosen == choose(report.measurements, HOURS)
    assert (report.chosen.models[1].model, report.chosen.models[1].instances) == ("slow", 2), "it sleeps twice as often"
    assert report.chosen.limiting == "slow"
    assert report.applied
    for model in report.chosen.models:
        group = tuned.repository.models[model.model].config.instance_group
        assert [one.count for one in group] == [model.instances]
        assert f"instance_group count: {model.instances} (was unset)" in report.changes[model.model]
    assert (tuned.root / "slow/config.pbtxt").read_text().startswith('name: "slow"\n# asleep\n')
    assert (tuned.root / "whole/config.pbtxt").read_text() == _config(CHAIN)
    assert report.notes[-1].startswith(f"{report.chosen.limiting} limits the whole: its instances compute ")


def test_the_table_and_the_plot_are_kept(tuned: Tuned) -> None:
    assert TuneReport.model_validate_json((tuned.folder / JSON_FILE).read_text()) == tuned.report
    with (tuned.folder / CSV_FILE).open() as stream:
        lines = list(csv.DictReader(stream))
    assert [line["model"] for line in lines] == ["fast", "slow"] * len(tuned.report.measurements)
    assert (tuned.folder / PLOT_FILE).read_bytes().startswith(b"\x89PNG")


def test_a_member_within_an_ensemble_within_it_in_every_version_that_a_step_names(tmp_path: Path) -> None:
    twice = _step("inner", -1, "x=x", "scores=between") + _step("fast", 2, "x=x", "scores=y")
    repository = _repository(tmp_path / "r", twice)
    inner = _config(_step("fast", 1, "x=x", "scores=y")).replace("whole", "inner")
    (tmp_path / "r/inner/1").mkdir(parents=True)
    (tmp_path / "r/inner/config.pbtxt").write_text(inner)
    found = subject(repository.models["whole"], None)
    assert [(part.name, part.versions) for part in found.tuned] == [("fast", (1, 2))]
    assert [part.name for part in found.ensembles] == ["inner", "whole"]


@pytest.mark.parametrize(
    ("steps", "error", "words"),
    [
        (_step("absent", -1, "x=x", "y=y"), NotFoundError, "whole has a step 'absent', and .* has no such entry"),
        (_step("fast", 7, "x=x", "scores=y"), NotFoundError, "fast has no version 7"),
        (_step("whole", -1, "x=x", "y=y"), InvalidInputError, "whole is made of itself: whole → whole"),
        (CHAIN, InvalidInputError, "whole/1 has no golden batches to ask it with: give one"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, steps: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        tune(_repository(tmp_path / "r", steps).models["whole"], latency_limit=1)


def test_a_member_that_has_not_one_number_is_named(tmp_path: Path) -> None:
    repository = _repository(tmp_path / "r")
    with (tmp_path / "r/slow/config.pbtxt").open("a") as stream:
        stream.write("sequence_batching { }\n")
    with pytest.raises(InvalidInputError, match="slow batches sequences"):
        tune(repository.models["whole"], latency_limit=1, sample_inputs=ROWS)


def test_what_was_written_before_an_error_is_told(tmp_path: Path) -> None:
    repository = _repository(tmp_path / "r")
    fast, slow = subject(repository.models["whole"], None).tuned
    repository.remove("slow")
    made = [(fast, parse_config('name: "fast" instance_group { count: 3 }')), (slow, parse_config('name: "slow"'))]
    with pytest.raises(NotFoundError, match=r"slow.* \(written before: the settings of fast\)"):
        run._write(made)
