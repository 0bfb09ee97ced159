"""Throughput against latency, as a picture."""

from pathlib import Path

from gravswell.errors import UnsupportedError
from gravswell.extras import install
from gravswell.quiver.disk import refusals_told
from gravswell.tuning.report import Measurement, TuneReport
from gravswell.tuning.settings import batching_told


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
    lines: dict[tuple[int, int | None, int], list[Measurement]] = {}
    for m in report.measurements:
        if m.failure is None:
            lines.setdefault((m.instances, m.queue_delay_us, m.rows), []).append(m)
    for (instances, delay, rows), line in sorted(lines.items(), key=lambda item: (item[0][0], str(item[0][1:]))):
        line.sort(key=lambda m: m.concurrency)
        label = f"{instances} inst., batching {batching_told(delay)}, {rows} rows"
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
