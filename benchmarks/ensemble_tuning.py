"""``tune`` on a whole ensemble: the notebook's noise removal (torch) before a classifier (scikit-learn), in one run.

``python benchmarks/ensemble_tuning.py [--latency-limit 0.1] [--duration 2] [--budget 40] [--output json]``

The network costs many times what the classifier does, so on a machine with idle processors it should end with more
instances than the classifier, which is the bar, and with as many rows/s as where both have that many. What is compared
is of one run: the most rows/s within the limit of each pair of counts that was tried.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bars import hold
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from gravswell import quiver as qv
from gravswell.cli.output import Output, emit, stderr
from gravswell.notebook import NoiseRemovalModel
from gravswell.serving.triton import ensure_triton
from gravswell.tuning import Progress, TuneReport, tune
from gravswell.tuning.search import fits

INPUT_SIZE, HIDDEN_SIZES, MAX_BATCH_SIZE = 64, [1024, 512], 32


def published(root: Path) -> qv.Entry:
    """The two models and the pipeline over them."""
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(256, INPUT_SIZE)).astype(np.float32)
    repository = qv.ModelRepository(root)
    repository.add("denoise").export_version(
        NoiseRemovalModel(INPUT_SIZE, HIDDEN_SIZES).eval(),
        input_shapes={"x": (None, INPUT_SIZE)},
        output_names=["clean"],
        max_batch_size=MAX_BATCH_SIZE,
    )
    classifier = LogisticRegression().fit(rows, rows.sum(axis=1) > 0)
    repository.add("classify").export_version(classifier, max_batch_size=MAX_BATCH_SIZE)
    scores = list(repository.models["classify"].outputs)[-1]

    @qv.pipeline(output_names=["scores"], inputs={"x": ("FP32", (None, INPUT_SIZE))})
    def chain(x: Any, *, denoise: Any, classify: Any) -> Any:
        return classify(denoise(x))[scores]

    entry = repository.add("chain", qv.Platform.PIPELINE)
    entry.export_version(chain, max_batch_size=MAX_BATCH_SIZE)
    return entry


def measure(latency_limit: float, duration: float, budget: int) -> dict[str, Any]:
    """What ``tune`` chose, and rows/s by the counts that it tried."""
    ensure_triton()
    with tempfile.TemporaryDirectory(prefix="gravswell-benchmark-") as scratch:
        report = tune(
            published(Path(scratch) / "repository"),
            latency_limit=latency_limit,
            duration=duration,
            budget=budget,
            apply=False,
            on_progress=_told,
        )
    chosen = report.chosen
    assert chosen is not None  # no choice is an error
    rates = _by_counts(report, latency_limit)
    return {
        "members": [model.model for model in chosen.models],
        "chosen": (counts := [model.instances for model in chosen.models]),
        "unequal": counts[0] > counts[1],
        "limiting": chosen.limiting,
        "busy": [round(model.busy, 2) for model in chosen.models],
        "rowsPerSecond": {"+".join(map(str, counts)): round(rate) for counts, rate in sorted(rates.items())},
        "ratioToOneEach": round(chosen.rows_per_second / rates[1, 1], 2) if (1, 1) in rates else None,
        "measurements": len(report.measurements),
    }


def _by_counts(report: TuneReport, limit: float) -> dict[tuple[int, ...], float]:
    rates: dict[tuple[int, ...], float] = {}
    for m in report.measurements:
        if fits(m, limit):
            counts = tuple(model.instances for model in m.models)
            rates[counts] = max(rates.get(counts, 0.0), m.rows_per_second)
    return rates


def _told(progress: Progress) -> None:
    stderr.print(f"{progress.done} of at most {progress.most}: {progress.now}", highlight=False, markup=False)


def missed(figures: dict[str, Any]) -> list[str]:
    """The line that says that the costlier member did not get more instances, where it is so."""
    (first, second), (more, fewer) = figures["members"], figures["chosen"]
    told = f"instances of {first} and {second}: {more} and {fewer}, and the bar is more of {first}"
    return [] if figures["unequal"] else [told]


def table(figures: dict[str, Any]) -> Table:
    """The figures for a person."""
    members, chosen = figures["members"], "+".join(map(str, figures["chosen"]))
    ratio, total = figures["ratioToOneEach"], figures["measurements"]
    told = f"; what was chosen has {ratio} x the rows/s of one instance each" if ratio is not None else ""
    told += f"; more instances of {members[0]} than of {members[1]}: {'met' if figures['unequal'] else 'missed'}"
    shown = Table(title=f"{figures['limiting']} limits; {total} measurements{told}", title_justify="left")
    shown.add_column(f"instances of {' + '.join(members)}")
    shown.add_column("rows/s within the limit", justify="right")
    for counts, rate in figures["rowsPerSecond"].items():
        shown.add_row(f"{counts}{' (chosen)' if counts == chosen else ''}", f"{rate:,}")
    return shown


def main() -> None:
    """Measure and print; exits with 1 if the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-limit", type=float, default=0.1, help="seconds, of 99 %% of the answers")
    parser.add_argument("--duration", type=float, default=2.0, help="seconds for each measurement")
    parser.add_argument("--budget", type=int, default=40, help="measurements at most")
    parser.add_argument("--output", choices=["text", "json"], default="text")
    options = parser.parse_args()
    figures = measure(options.latency_limit, options.duration, options.budget)
    emit(Output(options.output), figures, lambda: table(figures))
    hold(missed(figures))


if __name__ == "__main__":
    main()
