"""Credentials of the pod's own ServiceAccount, for the asyncio half of the Kubernetes client.

The client's own loader knows one fixed folder. A development node has no mount namespaces and puts each pod's projected
token into a folder of its own, named by ``GRAVSWELL_SERVICEACCOUNT``; everywhere else the well-known folder is used.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gravswell.errors import InvalidInputError, NotFoundError, UnsupportedError

if TYPE_CHECKING:
    from kubernetes.aio.client import Configuration

FOLDER_ENV = "GRAVSWELL_SERVICEACCOUNT"
WELL_KNOWN_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")

RELOAD_SECONDS = 10.0
"""How long a token is used before its file is read again; the kubelet rotates it minutes before it expires."""


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder with ``token``, ``ca.crt`` and ``namespace``."""
    return Path(environ.get(FOLDER_ENV) or WELL_KNOWN_FOLDER)


def namespace(environ: Mapping[str, str] = os.environ) -> str:
    """The pod's namespace: ``POD_NAMESPACE`` when the pod sets it, else what is projected beside the token.

    Raises :class:`NotFoundError` outside a pod.
    """
    return environ.get("POD_NAMESPACE") or _read(folder(environ) / "namespace")


def load(environ: Mapping[str, str] = os.environ) -> "Configuration":
    """A client configuration for the API server of the cluster that this process runs in.

    The token is read anew every :data:`RELOAD_SECONDS`, because projected tokens rotate.

    Raises :class:`NotFoundError` outside a pod (no token, or no ``KUBERNETES_SERVICE_HOST``), and
    :class:`UnsupportedError` where the ``agent`` extra is not installed.
    """
    try:
        from kubernetes.aio.client import Configuration  # noqa: PLC0415  heavy, and only an extra installs it
    except ImportError:
        raise UnsupportedError(
            "the Kubernetes client is not installed; install it with: pip install 'gravswell[agent]'"
        ) from None
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NotFoundError(
            "KUBERNETES_SERVICE_HOST is not set, so this process runs in no pod; "
            "outside a cluster, use the options that need no API server"
        )
    secrets = folder(environ)
    token_file, ca_file = secrets / "token", secrets / "ca.crt"
    _read(ca_file)

    configuration = Configuration(host=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    configuration.ssl_ca_cert = str(ca_file)
    token, read_at = "", float("-inf")

    def refresh(current: "Configuration") -> None:
        # The client copies configurations; the token is kept here so that every copy gets the fresh one.
        nonlocal token, read_at
        now = time.monotonic()
        if now - read_at >= RELOAD_SECONDS:
            token, read_at = _read(token_file), now
        current.api_key["BearerToken"] = f"Bearer {token}"

    refresh(configuration)  # an unreadable token is reported at the start, not at the first request
    configuration.refresh_api_key_hook = refresh  # type: ignore[assignment]  # the client declares it as None
    return configuration


def _read(path: Path) -> str:
    try:
        content = path.read_text().strip()
    except OSError as error:
        raise NotFoundError(
            f"{path} cannot be read ({error.strerror}): this process runs in no pod, or its pod projects no "
            f"ServiceAccount token into this container; {FOLDER_ENV} names another folder"
        ) from None
    if not content:
        raise InvalidInputError(
            f"{path} is empty: the pod's projected ServiceAccount volume is broken; recreate the pod"
        )
    return content
