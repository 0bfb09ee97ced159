"""How a Triton is started: one argument list, for the pod that the operator makes and for the embedded server.

Its law: data in, strings out, and only the standard library, so that anything may import it.

Triton takes the key of its closed APIs from its command line and from nowhere else, so every process in its PID
namespace reads the key in ``/proc/PID/cmdline``, whatever user it runs as: its own Python models, a debug container
that targets it, and with ``shareProcessNamespace``, which gravswell never sets, every container of the pod.
"""

import shlex
from collections.abc import Iterable
from typing import Literal

CLOSED_APIS = ("model-repository", "shared-memory", "trace", "logging")
"""Triton's control APIs, by its own names. Health, metadata, inference, model-config and statistics stay open.

The last two tell what the private members of pipelines are called. Triton closes an API for all models or for none, and
clients need these: PyTriton's reads a model's config before it sends anything, perf_analyzer the config and the
statistics, those of an ensemble's members too. So they are closed by whoever asks for it (``also_closed``).
"""

HTTP_KEY_HEADER = "X-Gravswell-Key"
"""HTTP header in which a caller of a closed API sends the key."""

GRPC_KEY_NAME = "gravswell-key"
"""Name of the key in Triton's gRPC flag; callers send it as :data:`GRPC_KEY_HEADER`."""

GRPC_KEY_HEADER = f"triton-grpc-protocol-{GRPC_KEY_NAME}"
"""gRPC metadata key in which a caller of a closed API sends the key: Triton puts its own prefix before the name."""

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
"""The ports that every Triton client expects."""

ModelControl = Literal["none", "explicit"]

MOST_HTTP_THREADS = 8
"""Triton's own number, whatever the machine."""


def server_flags(
    *,
    model_repository: str,
    address: str | tuple[str, str],
    http_port: int = HTTP_PORT,
    grpc_port: int = GRPC_PORT,
    metrics_port: int = METRICS_PORT,
    model_control: ModelControl = "explicit",
    key: str | None = None,
    also_closed: Iterable[str] = (),
    exit_timeout_seconds: int = 30,
    extra: Iterable[str] = (),
) -> list[str]:
    """Return the arguments of ``tritonserver``, without the program's own name.

    ``address`` is the IP address that all three servers bind, or :func:`bound` of it: Triton's default is every
    interface. ``key``, where given, closes :data:`CLOSED_APIS` and the APIs ``also_closed`` to callers that do not send
    it. A model that fails to load never ends the server (``--exit-on-error=false``) and never makes it unready
    (``--strict-readiness=false``): what must serve is for the caller to judge, model by model. ``extra`` is appended as
    it is, and Triton takes the last of a repeated flag.
    """
    http_address, grpc_address = bound(address) if isinstance(address, str) else address
    flags = [
        f"--model-repository={model_repository}",
        f"--model-control-mode={model_control}",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--exit-timeout-secs={exit_timeout_seconds}",
        f"--http-address={http_address}",
        f"--http-port={http_port}",
        f"--grpc-address={grpc_address}",
        f"--grpc-port={grpc_port}",
        f"--metrics-address={http_address}",
        f"--metrics-port={metrics_port}",
    ]
    if key is not None:
        closed = ",".join(dict.fromkeys((*CLOSED_APIS, *also_closed)))
        flags += [
            f"--http-restricted-api={closed}:{HTTP_KEY_HEADER}={key}",
            f"--grpc-restricted-protocol={closed}:{GRPC_KEY_NAME}={key}",
        ]
    return [*flags, *extra]


def http_threads(model_control: ModelControl, cpus: int) -> list[str]:
    """The arguments for HTTP: with more threads than CPUs a small request costs a sixth more.

    None in explicit control: a load holds the thread that it came to, and every connection of that thread, until it is
    done, so that with one or two of them inference and readiness would wait for it.
    """
    if model_control == "explicit":
        return []
    return [f"--http-thread-count={min(MOST_HTTP_THREADS, cpus)}"]


def bound(address: str) -> tuple[str, str]:
    """How an IP address is written for Triton's HTTP and metrics servers, and for its gRPC server.

    The HTTP library takes an IPv6 address behind a word of its own and never in brackets; gRPC wants the brackets, and
    wants none around an IPv4 address.
    """
    return (f"ipv6:{address}", f"[{address}]") if ":" in address else (address, address)


def pod_command(
    *,
    model_repository: str = "/models",
    key_file: str = "/run/gravswell/key",
    address: str = "$(POD_IP)",
    also_closed: Iterable[str] = (),
    exit_timeout_seconds: int = 30,
    extra: Iterable[str] = (),
) -> str:
    """Return the one argument of the pod's ``["/bin/sh", "-c"]``.

    A shell is there to read the pod's key from its file, so that the key stands in no object of the API server; an
    absent or empty file ends the container, because an empty key would open what it should close. The kubelet expands
    ``$(POD_IP)``, because the container has that variable, and leaves ``$(cat …)`` to the shell, which also makes of it
    what :func:`bound` does. ``extra`` comes from users and is quoted whole.
    """
    flags = server_flags(
        model_repository=model_repository,
        address=("$http", "$grpc"),
        key="${key:?is empty}",
        also_closed=also_closed,
        exit_timeout_seconds=exit_timeout_seconds,
    )
    # Our own flags hold nothing that double quotes do not protect, but for the substitutions that are meant.
    quoted = [f'"{flag}"' if "$" in flag else shlex.quote(flag) for flag in flags]
    start = " ".join(["exec tritonserver", *quoted, *(shlex.quote(flag) for flag in extra)])
    address_forms = f'ip="{address}"; case "$ip" in *:*) http="ipv6:$ip" grpc="[$ip]";; *) http="$ip" grpc="$ip";; esac'
    return f'set -e; key="$(cat {shlex.quote(key_file)})"; {address_forms}; {start}'


def key_headers(key: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the HTTP headers and the gRPC metadata with which a caller reaches the closed APIs."""
    return {HTTP_KEY_HEADER: key}, {GRPC_KEY_HEADER: key}
