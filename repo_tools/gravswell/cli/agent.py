"""``gravswell agent``: the programs of the one image that run beside servers; seen mostly in pods' command lines."""

import os
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gravswell import logs
from gravswell.cli.output import Output, OutputOption, emit
from gravswell.durations import seconds
from gravswell.errors import InvalidInputError
from gravswell.logs import LogFormat, LogLevel

app = typer.Typer(
    name="agent", help="Programs that run in pods: the agent beside a Triton, the lister.", no_args_is_help=True
)

Repository = Annotated[str, typer.Option("--repository", help="URL or path of the repository.")]
Namespace = Annotated[
    str | None, typer.Option("--namespace", envvar="POD_NAMESPACE", help="Namespace of the ConfigMaps.")
]
LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="How it is logged.")]


@app.command()
def run(
    *,
    repository: Repository,
    models: Annotated[Path, typer.Option("--models", help="Folder that Triton serves; only the agent writes to it.")],
    triton_http: Annotated[str, typer.Option("--triton-http", help="host:port of Triton's HTTP.")] = "127.0.0.1:8000",
    triton_grpc: Annotated[
        str | None, typer.Option("--triton-grpc", help="host:port of Triton's gRPC; it must answer too.")
    ] = None,
    triton_metrics: Annotated[
        str | None,
        typer.Option("--triton-metrics", help="host:port of Triton's metrics: no load that its GPUs have no room for."),
    ] = None,
    listen: Annotated[str, typer.Option("--listen", help="host:port of /readyz, /livez, /report and /metrics.")] = (
        "127.0.0.1:8090"
    ),
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="File with the key of Triton's control APIs.")
    ] = None,
    desired: Annotated[str | None, typer.Option("--desired", help="ConfigMap that says what shall be served.")] = None,
    desired_file: Annotated[
        Path | None, typer.Option("--desired-file", help="File with the same document, outside a cluster.")
    ] = None,
    follow_latest: Annotated[
        bool, typer.Option("--follow-latest", help="Serve every entry at its latest version.")
    ] = False,
    report: Annotated[
        str | None, typer.Option("--report", help="ConfigMap for the report, or the first of several.")
    ] = None,
    namespace: Namespace = None,
    pod: Annotated[str | None, typer.Option("--pod", envvar="POD_NAME", help="Key of the report.")] = None,
    pod_uid: Annotated[str, typer.Option("--pod-uid", envvar="POD_UID", help="The pod's uid, in the report.")] = "",
    rank: Annotated[
        int | None, typer.Option("--rank", min=0, help="Serve this rank's parts of partitions, in their place.")
    ] = None,
    interval: Annotated[
        float, typer.Option("--interval", min=0.1, help="Seconds between looks at a file or a repository.")
    ] = 10.0,
    storage_limit: Annotated[
        str | None, typer.Option("--storage-limit", help="Size that --models may reach, as in a pod: 10Gi.")
    ] = None,
    memory_limit: Annotated[
        str | None,
        typer.Option("--memory-limit", help="Memory that Triton may take, as in a pod: 16Gi."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option("--cache", help="Folder on a volume that outlives the pod: versions come from there first."),
    ] = None,
    cache_limit: Annotated[
        str | None, typer.Option("--cache-limit", help="Size that --cache may reach: 100Gi; else its volume's.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto: as the configs say; cpu: on the CPU whatever they say.")
    ] = "auto",
    log_format: LogFormatOption = LogFormat.TEXT,
) -> None:
    """Make one Triton serve what is desired, verified version by version, until SIGTERM."""
    from gravswell.serving.agent import program  # noqa: PLC0415  late: heavy

    if device not in ("auto", "cpu"):
        raise InvalidInputError(f"--device {device} is not known; use auto or cpu")
    simulated = os.environ.get(program.SIMULATED_GPUS_ENV) == "1"
    options = program.AgentOptions(
        repository=repository,
        models=models,
        listen=listen,
        triton_http=triton_http,
        triton_grpc=triton_grpc,
        triton_metrics=triton_metrics,
        key_file=key_file,
        desired_configmap=desired,
        desired_file=desired_file,
        follow_latest=follow_latest,
        report_configmap=report,
        namespace=namespace,
        pod=pod or socket.gethostname(),
        uid=pod_uid,
        rank=rank,
        interval=interval,
        storage_limit=None if storage_limit is None else parse_bytes(storage_limit),
        memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
        cache=cache,
        cache_limit=None if cache_limit is None else parse_bytes(cache_limit),
        cpu_only=simulated or device == "cpu",
        simulated_gpus=simulated,
    )
    logs.configure(LogLevel.INFO, log_format)
    program.run_program(program.run_agent(options))


@app.command()
def init(
    key_file: Annotated[Path, typer.Option("--key-file", help="File to make, readable by its owner and group.")],
) -> None:
    """Make the random key with which this pod's Triton closes its control APIs to everyone but its agent."""
    from gravswell.serving.agent.key import make_key  # noqa: PLC0415  late: heavy

    typer.echo(f"{key_file} made" if make_key(key_file) else f"{key_file} is there already and stays")


@app.command(name="list")
def list_(
    *,
    repository: Repository,
    listing: Annotated[
        str | None, typer.Option("--listing", help="ConfigMap that the listing is written into.")
    ] = None,
    known_as: Annotated[
        str | None, typer.Option("--known-as", help="URL that the listing names, where pods see another one.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the listing and end; needs no cluster.")] = False,
    interval: Annotated[str, typer.Option("--interval", help="Between two looks: 30s, 5m, 1h.")] = "30s",
    listen: Annotated[str | None, typer.Option("--listen", help="host:port of /readyz and /livez.")] = None,
    namespace: Namespace = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    output: OutputOption = Output.TEXT,
) -> None:
    """List a repository for the operator, again and again, until SIGTERM."""
    from gravswell.serving.agent.lister import read_repository, render  # noqa: PLC0415  late: heavy
    from gravswell.serving.agent.program import run_lister, run_program  # noqa: PLC0415  late: heavy

    if once:
        found = read_repository(repository, datetime.now(UTC), known_as=known_as)
        emit(output, found, lambda: render(found))
        return
    if listing is None:
        raise InvalidInputError("--listing names the ConfigMap to write; --once prints instead")
    logs.configure(LogLevel.INFO, log_format)
    pause = seconds(interval, at_least=1)
    run_program(run_lister(repository, listing, pause, known_as=known_as, namespace=namespace, listen=listen))


def parse_bytes(text: str) -> int:
    """Bytes in a quantity as Kubernetes writes it: ``10Gi``, ``500M``, ``1.5Gi``, ``1073741824``."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(?:([KMGT])(i?)|k)?", text)
    if match is None:
        raise InvalidInputError(f"{text!r} is no size: write 10Gi, 500Mi or a number of bytes")
    number, prefix, binary = match.groups()
    power = "KMGT".index(prefix) + 1 if prefix else int(text.endswith("k"))
    return int(float(number) * (1024 if binary else 1000) ** power)
