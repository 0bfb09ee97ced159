"""Throughput against latency, as a picture."""

from pathlib import Path

from gravswell.errors import UnsupportedError
from gravswell.extras import install
from gravswell.quiver.disk import refusals_told
from gravswell.tuning.report import Measurement, TuneReport


def plot(report: TuneReport, path: Path) -> None:
    """Draw every setting's points, the limit and the chosen one into ``path``, by its suffix ``.png`` or ``.svg``.

    UnsupportedError, naming the extra, without matplotlib.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError:
        raise UnsupportedError(f"the plot needs matplotlib: {install('plot')}") from None
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.add_subplot()
    lines: dict[tuple[str, int], list[Measurement]] = {}
    for m in report.measurements:
        if m.failure is None:
            lines.setdefault((m.told, m.rows), []).append(m)
    for (told, rows), line in sorted(lines.items()):
        line.sort(key=lambda m: m.concurrency)
        label = f"{told}, {rows} rows"
        axes.plot([m.latency_ms for m in line], [m.rows_per_second for m in line], marker=".", label=label)
    axes.axvline(report.latency_limit_ms, color="black", linestyle="--", label="limit")
    if report.chosen is not None:
        at = report.chosen
        axes.plot([at.latency_ms], [at.rows_per_second], marker="*", markersize=16, color="black", linestyle="none")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(f"p{report.percentile:g} latency, ms")
    axes.set_ylabel("rows/s")
    axes.set_title(f"{report.entry}/{report.version} on {report.cpus} CPUs")
    if lines:
        axes.legend(fontsize="x-small")
    with refusals_told(path.parent):
        figure.savefig(path)
