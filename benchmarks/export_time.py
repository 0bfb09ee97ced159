"""Export time beside ``torch.onnx.export`` alone, in one run on one machine: what the proof and the publication cost.

    python benchmarks/export_time.py [--repeat 5] [--output json]

The bar: of a small network all of it takes at most 1.5 times as long as the exporter alone; it exits with 1 otherwise.
Compare the ratios; seconds on a shared machine vary from run to run. ``export`` is torch's exporter with the arguments
that gravswell gives it; ``gravswell`` is all of ``entry.export_version``: finding inputs, the same exporter, stripping,
three batches through torch and ONNX Runtime, hashing, golden tensors, manifest, fsync and rename. The two alternate, so
that load from outside meets both.
"""

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from bars import at_most, hold
from rich.progress import track
from rich.table import Table

from gravswell import quiver as qv
from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.notebook import MLP

BAR, SMALL = 1.5, "MLP 64-256-128-64-1"

Shapes = dict[str, tuple[int | None, ...]]


def models() -> dict[str, tuple[torch.nn.Module, Shapes]]:
    """The notebook's network, a wide one (67 MB) and a convolutional one."""
    conv = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, 2, 1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(32, 64, 3, 2, 1),
        torch.nn.BatchNorm2d(64),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 10),
    )
    return {
        SMALL: (MLP(64, [256, 128, 64]), {"x": (None, 64)}),
        "MLP 1024-4096-4096-1": (MLP(1024, [4096, 4096]), {"x": (None, 1024)}),
        "conv 3x64x64": (conv, {"x": (None, 3, 64, 64)}),
    }


def alone(model: torch.nn.Module, shapes: Shapes, path: Path) -> None:
    """``torch.onnx.export`` to a file, with a dynamic batch."""
    shape = [2 if dim is None else dim for dim in shapes["x"]]
    chatter = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(chatter), contextlib.redirect_stderr(chatter):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (torch.randn(shape),),
            str(path),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["x"],
            output_names=["y"],
            opset_version=18,
            verbose=False,
            external_data=False,
        )


def seconds(work: Callable[[], Any]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(repeat: int, folder: Path) -> list[dict[str, Any]]:
    """Medians of ``repeat`` alternating runs of each model, after one of each to warm up."""
    repo = qv.ModelRepository(folder / "repo")
    rows = []
    for k, (name, (model, shapes)) in enumerate(models().items()):
        entry = repo.add(f"m{k}")

        def ours(entry: qv.Entry = entry, model: torch.nn.Module = model, shapes: Shapes = shapes) -> str:
            return entry.export_version(model, input_shapes=shapes, output_names=["y"])

        def theirs(model: torch.nn.Module = model, shapes: Shapes = shapes) -> None:
            alone(model, shapes, folder / "alone.onnx")

        cold = seconds(theirs), seconds(ours)
        runs = [(seconds(theirs), seconds(ours)) for _ in track(range(repeat), name, console=stderr, transient=True)]
        export, total = (statistics.median(column) for column in zip(*runs, strict=True))
        rows.append(
            {
                "model": name,
                "bytes": entry.versions[-1].size,
                "export_seconds": export,
                "gravswell_seconds": total,
                "ratio": total / export,
                "first_export_seconds": cold[0],
                "first_gravswell_seconds": cold[1],
            }
        )
    return rows


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """The line for the small network, where it misses the bar."""
    small = next(row["ratio"] for row in rows if row["model"] == SMALL)
    return at_most(f"{SMALL}, seconds of those of torch.onnx.export", small, BAR)


def main(
    repeat: Annotated[int, typer.Option(min=1, help="Measured runs of each.")] = 5,
    output: OutputOption = Output.TEXT,
) -> None:
    """Measure, and print a table or JSON."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(repeat, Path(folder))

    def text() -> Table:
        table = Table("model", "version", "torch.onnx.export", "gravswell", "ratio", box=None)
        for row in rows:
            size = f"{row['bytes'] / 1e6:.1f} MB"
            times = (f"{row['export_seconds'] * 1e3:.0f} ms", f"{row['gravswell_seconds'] * 1e3:.0f} ms")
            bar = "" if row["model"] != SMALL else f": {'met' if row['ratio'] <= BAR else f'over {BAR}'}"
            table.add_row(row["model"], size, *times, f"{row['ratio']:.2f}{bar}")
        return table

    emit(output, rows, text)
    hold(missed(rows))


if __name__ == "__main__":
    typer.run(main)
