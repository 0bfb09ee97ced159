"""``gravswell operator run``: the operator, in the foreground."""

import re
from typing import Annotated

import typer

from gravswell.cli.output import Output, OutputOption, emit
from gravswell.cli.shared import Context, Kubeconfig, Panel
from gravswell.errors import InvalidInputError, VerificationError
from gravswell.logs import LogFormat, LogLevel

topic = typer.Typer(help="The operator that serves models on Kubernetes.", no_args_is_help=True)


@topic.callback()
def _topic() -> None:
    """The operator that serves models on Kubernetes."""


@topic.command()
def run(
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    image: Annotated[str | None, typer.Option(help="gravswell image of agents and listers.")] = None,
    triton_repository: Annotated[str | None, typer.Option(help="Where Triton's images are, without a tag.")] = None,
    drivers_namespace: Annotated[str | None, typer.Option(help="Namespace of the device plugins.")] = None,
    image_pull_secret: Annotated[
        list[str] | None,
        typer.Option(
            help="Secret with which agents and listers pull their image, where their namespace has it; may be repeated."
        ),
    ] = None,
    lease: Annotated[
        bool, typer.Option(help="Take the Lease, so that one operator at a time is active.", show_default=True)
    ] = True,
    lease_namespace: Annotated[
        str | None,
        typer.Option(
            help="Namespace of the Lease; absent: kube-system. Operators with different ones do not know of each other."
        ),
    ] = None,
    listen: Annotated[str, typer.Option(help="HOST:PORT of /healthz, /readyz and /metrics.")] = "127.0.0.1:0",
    log_level: Annotated[LogLevel, typer.Option(help="What is logged.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="How it is logged.")] = LogFormat.TEXT,
    agent_log_format: Annotated[
        LogFormat,
        typer.Option(help="How agents and listers log; another one replaces the pods of every server and lister."),
    ] = LogFormat.TEXT,
    network_policies: Annotated[
        bool, typer.Option("--network-policies", help="Make NetworkPolicies for the pods of servers and listers.")
    ] = False,
    metrics_from: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE of the namespaces that may read the metrics of servers where there are NetworkPolicies; "
            "may be repeated: all must hold. Absent: none may."
        ),
    ] = None,
    prometheus: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Where KEDA asks for the metrics of servers that it scales, such as http://prometheus.monitoring:9090.",
        ),
    ] = "",
    verify_cluster: Annotated[
        bool,
        typer.Option(
            help="Refuse pools in a cluster of Google's that has another certificate authority than this one; else "
            "its name is believed."
        ),
    ] = True,
) -> None:
    """Run the operator until SIGTERM or Ctrl-C.

    In a pod, it runs against that pod's cluster unless told otherwise.
    """
    import uvloop  # noqa: PLC0415  `gravswell --help` must not wait for it, nor for kopf

    from gravswell_operator import names, runtime  # noqa: PLC0415
    from gravswell_operator.cluster.lease import LEASE_NAMESPACE  # noqa: PLC0415
    from gravswell_operator.desired.objects import Options  # noqa: PLC0415
    from gravswell_operator.handlers import logs  # noqa: PLC0415

    logs.configure(log_level, log_format)
    config = runtime.Config(
        kubeconfig=kubeconfig,
        context=context,
        options=Options(
            image=image or runtime.DEFAULT_IMAGE,
            triton_image=triton_repository or names.TRITON_IMAGE,
            drivers_namespace=drivers_namespace or names.DRIVERS_NAMESPACE,
            image_pull_secrets=tuple(image_pull_secret or ()),
            agent_log_format=agent_log_format,
            prometheus=_url(prometheus),
            network_policies=tuple(map(_label, metrics_from or ())) if network_policies else None,
        ),
        listen=listen,
        lease_namespace=(lease_namespace or LEASE_NAMESPACE) if lease else None,
        verify_cluster=verify_cluster,
    )
    uvloop.run(runtime.run_until_signalled(config))


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidInputError(
            f"--metrics-from {text}: write KEY=VALUE, such as kubernetes.io/metadata.name=monitoring"
        )
    return key, value


def _url(text: str) -> str:
    if text and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise InvalidInputError(f"--prometheus {text}: write a URL without a password, such as http://HOST:9090")
    return text


@topic.command()
def check(
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Where the operator is.")] = "gravswell-system",
    deployment: Annotated[str, typer.Option(help="Its Deployment.")] = "gravswell",
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Look whether an installation works: definitions, operator, and what is admitted (by dry runs).

    Exit code 5 where something does not hold. helm test runs this.
    """
    import asyncio  # noqa: PLC0415  `gravswell --help` must not wait for these

    from gravswell.kube import credentials  # noqa: PLC0415
    from gravswell.kube.client import Client  # noqa: PLC0415
    from gravswell_operator import check as checking  # noqa: PLC0415

    async def run() -> list[checking.Check]:
        account = await credentials.load(kubeconfig, context)
        async with Client(account, name="gravswell-check") as client:
            return await checking.check(client, namespace, deployment)

    found = asyncio.run(run())
    emit(output, found, lambda: "\n".join(f"{'ok' if c.ok else 'FAILED'}  {c.what}: {c.message}" for c in found))
    if wrong := [c.what for c in found if not c.ok]:
        raise VerificationError(f"{deployment} in {namespace}: {', '.join(wrong)}: not as it must be")


def register(app: typer.Typer) -> None:
    """Add ``operator`` to the command line."""
    app.add_typer(topic, name="operator", rich_help_panel=Panel.KUBERNETES)
