"""``gravswell infer``: the rows of a file through a running model, and its answers in another."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.cli.shared import check_file_to_write


def infer(
    server: Annotated[
        str, typer.Argument(metavar="SERVER", help="host:port of Triton's HTTP, or a URL; several, with commas.")
    ],
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    inputs: Annotated[Path, typer.Option(metavar="FILE.npz", help="An array for each input, under its name.")],
    out: Annotated[Path, typer.Option(metavar="FILE.npz", help="Where the outputs go, under their names.")],
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows in a request.", show_default="as many as suit the model")
    ] = None,
    in_flight: Annotated[int, typer.Option(min=1, help="Requests under way at each replica.")] = 32,
    version: Annotated[str, typer.Option(help="The model's version.", show_default="the server's choice")] = "",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="OUTPUT", help="Only this output; may be repeated.")
    ] = None,
    retry_for: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long a replica that is away is waited for.")
    ] = 30.0,
    metrics_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where each replica tells how much its GPUs are used.")
    ] = 8002,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send the rows of a file through a model that is served, and write its outputs, row for row."""
    from gravswell.cli.loading import load_samples  # noqa: PLC0415 - keeps --help fast, here and below
    from gravswell.quiver.arrays import write_arrays  # noqa: PLC0415
    from gravswell.serving import Client  # noqa: PLC0415
    from gravswell.utils import GpuUtilProgress, metrics_urls  # noqa: PLC0415

    check_file_to_write(out)
    [given] = load_samples([inputs])
    rows = max((len(array) for array in given.values() if array.ndim), default=0)
    with Client(server.split(","), in_flight=in_flight, retry_for=retry_for) as client:
        with stderr.status(Text(f"asking {server}, for up to {retry_for:g} s where nobody answers")):
            client.model(model, version)  # what cannot be reached or is unknown is told before anything is shown
        with GpuUtilProgress(
            metrics_url=metrics_urls(client.replicas, metrics_port),
            console=stderr,
            transient=True,
            disable=not stderr.is_terminal,
        ) as progress:
            task = progress.add_task(model, total=rows)
            began = time.perf_counter()
            answered = client.infer(
                model,
                given,
                batch_size=batch_size,
                version=version,
                outputs=only or None,
                on_rows=lambda n: progress.advance(task, n),
            )
            seconds = time.perf_counter() - began
        replicas = client.replicas
    outputs = write_arrays(out, answered)
    data = {
        "model": model,
        "rows": rows,
        "seconds": round(seconds, 3),
        "rowsPerSecond": round(rows / seconds),
        "outputs": {name: {"dtype": str(array.dtype), "shape": list(array.shape)} for name, array in outputs.items()},
        "replicas": replicas,
        "out": str(out),
    }
    emit(output, data, lambda: _text(data))


def _text(data: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("rows", f"{data['rows']:,} in {data['seconds']:.2f} s, {data['rowsPerSecond']:,} rows/s")
    for name, array in data["outputs"].items():
        table.add_row("output", Text(f"{name} {array['dtype']}{array['shape']}"))
    table.add_row("written", Text(data["out"]))
    return table
