"""Kubeconfig files: for people and client libraries with a token, for the components with certificates."""

import base64
import os
from pathlib import Path
from typing import Any

import yaml

CONTEXT = "gravswell-dev"
"""Name of the context, cluster and user in every kubeconfig of the development cluster."""


def write_token_kubeconfig(path: Path, *, server: str, authority: Path, token: str) -> None:
    """Write a kubeconfig that stands alone: the authority is embedded, the credential is a bearer token."""
    _write(path, server, authority, {"token": token})


def write_certificate_kubeconfig(path: Path, *, server: str, authority: Path, client: Path) -> None:
    """Write a kubeconfig whose credential is the pair ``<client>.crt`` and ``<client>.key``, by their paths.

    The Python client would write an embedded key into a temporary file.
    """
    _write(
        path,
        server,
        authority,
        {
            "client-certificate": str(client.with_name(f"{client.name}.crt").absolute()),
            "client-key": str(client.with_name(f"{client.name}.key").absolute()),
        },
    )


def _embedded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _write(path: Path, server: str, authority: Path, user: dict[str, Any]) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CONTEXT,
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": CONTEXT, "namespace": "default"}}],
        "clusters": [
            {"name": CONTEXT, "cluster": {"server": server, "certificate-authority-data": _embedded(authority)}}
        ],
        "users": [{"name": CONTEXT, "user": user}],
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        yaml.safe_dump(document, file, sort_keys=False)
