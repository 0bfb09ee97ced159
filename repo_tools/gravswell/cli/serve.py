"""``gravswell serve``: the real Triton on a repository, in the foreground."""

import ipaddress
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from gravswell.cli.output import Output, OutputOption, emit, stderr
from gravswell.cli.shared import OnlyEntries, check_file_to_write
from gravswell.errors import UnavailableError

if TYPE_CHECKING:
    from gravswell.serving.triton import EmbeddedTriton, ServedModel

WATCH_SECONDS = 0.5


def serve(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="The repository: a path or a file:// URL.")],
    *,
    entry: OnlyEntries = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback, Triton's control APIs are closed.")
    ] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8001,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8002,
    keep_going: Annotated[bool, typer.Option("--keep-going", help="Serve what loads when something does not.")] = False,
    log: Annotated[Path | None, typer.Option(help="Keep Triton's log in this file.")] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Serve a repository with the real Triton, on this machine's CPU, until Ctrl-C.

    It serves what there is when it starts: versions that are exported meanwhile are taken up by the next start.
    """
    from gravswell.serving.triton import EmbeddedTriton, Ports  # noqa: PLC0415  imports protobuf and gRPC

    if log is not None:
        check_file_to_write(log)
    with _terminated_as_interrupted(), _installation() as progress:
        server = EmbeddedTriton(
            repo,
            models=entry or None,
            allow_failures=keep_going,
            host=host,
            ports=Ports(http=http_port, grpc=grpc_port, metrics=metrics_port),
            key=None if _is_loopback(host) else secrets.token_hex(16),
            log=log,
            progress=progress,
        )
        with server:
            try:
                _announce(server, output)
                while not server.process.wait(WATCH_SECONDS):
                    pass
            except KeyboardInterrupt:
                stderr.print("stopping Triton …")
                return
            raise UnavailableError(
                f"Triton ended by itself with status {server.process.returncode}; "
                f"start it again with --log FILE, which then says why"
            )


def _announce(server: "EmbeddedTriton", output: Output) -> None:
    for name, reason in server.failures.items():
        stderr.print(Text.assemble(("not served: ", "bold yellow"), f"{name}: {reason}"), soft_wrap=True)
    models = server.served()
    emit(output, _data(server, models), lambda: _text(server, models))


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does, so that a service manager's stop is as clean as a person's."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _installation() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar that appears when something has to be installed, and goes when it is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bar = Progress(*columns, console=stderr, transient=True)
    tasks = {}

    def report(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = bar.add_task(step, total=total)
            bar.start()
        bar.update(tasks[step], completed=done)
        if bar.finished:
            bar.stop()

    try:
        yield report
    finally:
        if bar.live.is_started:  # a second stop would write an empty line where this is no terminal
            bar.stop()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _data(server: "EmbeddedTriton", models: "list[ServedModel]") -> dict[str, Any]:
    return {
        "http": server.http_address,
        "grpc": server.grpc_address,
        "metrics": f"http://{server.metrics_address}/metrics",
        "models": [asdict(model) for model in models],
        "members": sorted(server.members.values()),
        "failures": server.failures,
    }


def _text(server: "EmbeddedTriton", models: "list[ServedModel]") -> Group:
    table = Table(title=f"Served on the CPU: {server.repository}", title_justify="left")
    for column in ("model", "versions", "inputs", "outputs"):
        table.add_column(column)
    for model in models:
        tensors = ["\n".join(map(_tensor, side)) for side in (model.inputs, model.outputs)]
        table.add_row(model.name, ", ".join(map(str, model.versions)), *tensors)
    endpoints = Table.grid(padding=(0, 2))
    endpoints.add_row("gRPC", server.grpc_address)
    endpoints.add_row("HTTP", f"http://{server.http_address}")
    endpoints.add_row("metrics", f"http://{server.metrics_address}/metrics")
    parts: list[RenderableType] = [table]
    if server.members:
        parts.append(Text(f"Kept for pipelines, not for clients: {', '.join(sorted(server.members.values()))}"))
    parts.append(Padding(endpoints, (1, 0)))
    if models:
        from rich.syntax import Syntax  # noqa: PLC0415 - brings every language that there is

        # Highlighted text, no block: a block fills its lines with spaces, which are copied along.
        snippet = Syntax("", "python").highlight(client_snippet(server.grpc_address, models[0]))
        snippet.rstrip()
        snippet.justify = None  # "left" would pad it too
        parts += [Text("A client, to copy:"), snippet]
    return Group(*parts, Text("Ctrl-C stops it."))


def _tensor(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']} {tensor['datatype']}{list(map(int, tensor['shape']))}"


def client_snippet(grpc_address: str, model: "ServedModel") -> str:
    """Python that runs as it stands: one request to ``model`` with zeros, one where any size may stand."""
    from tritonclient.utils import triton_to_np_dtype  # noqa: PLC0415  heavy

    lines = [
        "import numpy as np",
        "import tritonclient.grpc as triton",
        "",
        'direct = [("grpc.enable_http_proxy", 0)]  # no proxy reaches a server on this machine',
        f'client = triton.InferenceServerClient("{grpc_address}", channel_args=direct)',
        "inputs = []",
    ]
    for tensor in model.inputs:
        shape = tuple(max(int(dim), 1) for dim in tensor["shape"])
        if tensor["datatype"] == "BYTES":
            value = f'np.full({shape}, b"text", dtype=object)'
        else:
            value = f"np.zeros({shape}, dtype=np.{triton_to_np_dtype(tensor['datatype']).__name__})"
        lines += [
            f"value = {value}",
            f'inputs.append(triton.InferInput("{tensor["name"]}", value.shape, "{tensor["datatype"]}"))',
            "inputs[-1].set_data_from_numpy(value)",
        ]
    lines.append(f'print(client.infer("{model.name}", inputs).as_numpy("{model.outputs[0]["name"]}"))')
    return "\n".join(lines)
