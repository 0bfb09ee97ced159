"""``tune`` on the real Triton: what it measures is real, what it chooses follows from its own table."""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gravswell import quiver as qv
from gravswell.errors import InvalidInputError, NotFoundError, UnavailableError, UnsupportedError
from gravswell.quiver.reader import RepositoryReader
from gravswell.serving.triton import EmbeddedTriton
from gravswell.serving.verification import verify_served
from gravswell.tuning import Progress, TuneReport, tune
from gravswell.tuning.plot import plot
from gravswell.tuning.report import CSV_FILE, JSON_FILE, PLOT_FILE
from gravswell.tuning.search import choose

from ..networks import FEATURES, classifier

HOURS = 3600.0
"""A limit that every answer keeps, however busy the machine is."""

COMMENT = "# by hand: of the team\n"


class Tuned(NamedTuple):
    entry: qv.Entry
    report: TuneReport
    folder: Path
    progress: list[Progress]


def _entry(root: Path, *, max_batch_size: int = 8) -> qv.Entry:
    entry = qv.ModelRepository(root).add("m")
    entry.export_version(classifier(), max_batch_size=max_batch_size)
    path = root / "m/config.pbtxt"
    path.write_text(COMMENT + path.read_text() + 'parameters { key: "k" value { string_value: "v" } }\n')
    return entry


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    folder = tmp_path_factory.mktemp("tune")
    entry, seen = _entry(folder / "r"), list[Progress]()
    report = tune(
        entry,
        latency_limit=HOURS,
        batch_sizes=[8],
        instances=[1],
        concurrency=[1, 4],
        duration=0.2,
        folder=folder / "out",
        on_progress=seen.append,
    )
    return Tuned(entry, report, folder / "out", seen)


def test_every_point_has_figures(tuned: Tuned) -> None:
    report = tuned.report
    assert (report.entry, report.version, report.device, report.complete) == ("m", 1, "cpu", True)
    assert {(m.models[0].instances, m.rows) for m in report.measurements} == {(1, 8)}
    assert {m.models[0].queue_delay_us for m in report.measurements} > {None}
    for m in report.measurements:
        (model,) = m.models
        assert m.failure is None
        assert m.requests > 0
        assert 0 < m.rows_per_second <= m.requests * 8 / 0.2 * 1.001
        assert 0 < m.p50_ms <= m.p95_ms <= m.p99_ms == m.latency_ms
        assert m.limiting == model.model == "m"
        assert model.compute_ms > 0
        assert 0 < model.busy <= 1.01
        assert model.rows_per_run == pytest.approx(8)  # what the requests have, and all that max_batch_size allows


def test_the_choice_is_the_tables_and_is_written(tuned: Tuned) -> None:
    chosen = tuned.report.chosen
    assert chosen is not None
    assert chosen == choose(tuned.report.measurements, HOURS)
    assert tuned.report.applied
    config = tuned.entry.config
    assert config.instance_group[0].count == 1
    assert config.message.HasField("dynamic_batching") == (chosen.models[0].queue_delay_us is not None)
    text = Path(RepositoryReader(tuned.entry.repository_url).store.location("m/config.pbtxt")).read_text()
    assert text.startswith(COMMENT)
    assert config.parameters["k"].string_value == "v"
    assert "count for CPUs" in tuned.report.notes[0]


def test_what_is_served_stays_as_it_was(tuned: Tuned) -> None:
    published = RepositoryReader(tuned.entry.repository_url).version_config("m", 1)
    assert published is not None
    assert "instance_group" not in published


def test_the_table_and_the_plot_are_kept(tuned: Tuned) -> None:
    assert TuneReport.model_validate_json((tuned.folder / JSON_FILE).read_text()) == tuned.report
    with (tuned.folder / CSV_FILE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["concurrency"]) for row in rows] == [m.concurrency for m in tuned.report.measurements]
    assert (tuned.folder / PLOT_FILE).read_bytes().startswith(b"\x89PNG")
    assert len(list(tuned.folder.iterdir())) == 3


def test_progress_counts_up_to_a_bound(tuned: Tuned) -> None:
    assert [p.done for p in tuned.progress] == list(range(len(tuned.report.measurements)))
    assert all(p.done < p.most <= tuned.report.budget and p.seconds_left > 0 for p in tuned.progress)


def test_interrupted_it_keeps_the_table_and_changes_nothing(tmp_path: Path) -> None:
    entry = _entry(tmp_path / "r", max_batch_size=0)
    before = str(entry.config)

    def interrupt(progress: Progress) -> None:
        if progress.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(entry, latency_limit=HOURS, duration=0.1, instances=[1], folder=tmp_path / "out", on_progress=interrupt)
    kept = TuneReport.model_validate_json((tmp_path / "out" / JSON_FILE).read_text())
    assert (len(kept.measurements), kept.complete, kept.chosen) == (1, False, None)
    assert "dynamic batching was not tried" in kept.notes[0]
    assert str(entry.config) == before


def test_nothing_within_the_limit_tells_the_nearest(tmp_path: Path) -> None:
    entry = _entry(tmp_path / "r")
    before = str(entry.config)
    with pytest.raises(InvalidInputError, match=r"keeps p99 within 0.001 ms .*The nearest: .* ms and .* 1 clients"):
        tune(
            entry, latency_limit=1e-6, duration=0.1, instances=[1], concurrency=[1], batch_sizes=[1],
            dynamic_batching="off", folder=tmp_path / "out",
        )  # fmt: skip
    assert len(TuneReport.model_validate_json((tmp_path / "out" / JSON_FILE).read_text()).measurements) == 1
    assert str(entry.config) == before


def test_what_was_measured_is_kept_where_it_cannot_be_written(tmp_path: Path) -> None:
    entry, config = _entry(tmp_path / "r"), tmp_path / "r/m/config.pbtxt"

    def meddle(_: Progress) -> None:
        config.write_text(config.read_text() + "sequence_batching { }\n")

    with pytest.raises(InvalidInputError, match="m batches sequences"):
        tune(
            entry, latency_limit=HOURS, duration=0.1, instances=[1], concurrency=[1], batch_sizes=[8], budget=1,
            folder=tmp_path / "out", on_progress=meddle,
        )  # fmt: skip
    kept = TuneReport.model_validate_json((tmp_path / "out" / JSON_FILE).read_text())
    assert (kept.chosen, kept.complete, kept.applied) == (kept.measurements[0], True, False)
    assert (tmp_path / "out" / PLOT_FILE).is_file()


def test_a_request_that_the_model_refuses_is_told(tmp_path: Path) -> None:
    wrong = {"x": np.zeros((8, FEATURES + 1), np.float32)}
    with pytest.raises(InvalidInputError, match=r"m/1 answered under no setting: Triton refused the request: .*shape"):
        tune(
            _entry(tmp_path / "r"), latency_limit=1, duration=0.1, instances=[1], concurrency=[1], budget=1,
            sample_inputs=wrong,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"latency_limit": 0.0}, "latency_limit=0.0"),
        ({"duration": float("inf")}, "duration=inf"),
        ({"percentile": 0.0}, "percentile=0.0"),
        ({"budget": 0}, "budget=0"),
        ({"sample_inputs": {"z": np.zeros(3)}}, "has inputs z; m/1 takes x"),
        ({"folder": Path(__file__)}, "test_tune.py is, or lies under, a file: name another"),
    ],
)
def test_arguments_that_cannot_be_meant(tuned: Tuned, how: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        tune(tuned.entry, **{"latency_limit": 1.0, **how})  # type: ignore[arg-type]


def test_a_table_that_cannot_be_kept_is_told(tuned: Tuned, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match=r"file/below: Not a directory; check the file system"):
        tuned.report.save(tmp_path / "file/below")


def test_an_entry_without_a_version(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no version yet"):
        tune(qv.ModelRepository(tmp_path / "r").add("m"), latency_limit=1.0)


def test_without_matplotlib_the_plot_names_its_extra(
    tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UnsupportedError, match=r"the plot needs matplotlib: pip install .*\[plot\]"):
        plot(tuned.report, tmp_path / "plot.png")


async def test_variants_answer_on_triton_within_what_they_promise(tmp_path: Path) -> None:
    """There another ONNX Runtime computes them than the one that proved them, and a batch goes in pieces."""
    entry = _entry(tmp_path / "r", max_batch_size=4)
    rows = {"x": np.random.default_rng(1).standard_normal((64, FEATURES)).astype(np.float32)}
    entry.quantize("fp16")
    entry.quantize("int8", version=1)
    entry.quantize("int8", version=1, calibration=rows)
    entry.config.version_policy.all.SetInParent()
    reader = RepositoryReader(entry.repository_url)
    async with EmbeddedTriton(tmp_path / "r") as server:
        found = [row async for row in verify_served(reader, server.http_address, ["m"])]
    assert [(row.version, row.result, row.message) for row in found] == [(n, "verified", "") for n in (1, 2, 3, 4)]
