"""What a cluster serves, as its operator wants it and its agents report it: for whoever is about to remove versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from gravswell.errors import VerificationError
from gravswell.kube import credentials
from gravswell.kube.client import Client
from gravswell.kube.resources import CONFIG_MAP, Selection
from gravswell.serving.contracts import DESIRED_KEY, Desired, Report

T = TypeVar("T", bound=BaseModel)

LABEL = "gravswell.dev/server"
"""What the ConfigMaps between the operator and a server's agents bear: the server's name."""


async def look(kubeconfig: Path | None = None, context: str | None = None) -> dict[str, list[str]]:
    """:func:`served_digests` of the cluster of a kubeconfig; errors as of :func:`gravswell.kube.credentials.load`."""
    account = await credentials.load(kubeconfig, context)
    async with Client(account, name="gravswell") as client:
        return await served_digests(client)


async def served_digests(client: Client) -> dict[str, list[str]]:
    """The digests of all versions that any server of the cluster serves or shall serve, each with those servers' names.

    A digest is that of one version wherever it lies, so it does not matter by which URL the cluster reads a repository.
    AccessDeniedError if we may not list ConfigMaps in all namespaces, VerificationError for a document that cannot be
    read: what it says may be in use.
    """
    found: dict[str, set[str]] = {}
    for body in (await client.list_all(Selection(CONFIG_MAP, labels=LABEL))).items:
        metadata = body["metadata"]
        server = f"{metadata['namespace']}/{metadata['labels'][LABEL]}"
        for digest in _digests(body.get("data") or {}, f"ConfigMap {metadata['namespace']}/{metadata['name']}"):
            found.setdefault(digest, set()).add(server)
    return {digest: sorted(servers) for digest, servers in found.items()}


def _digests(data: Mapping[str, str], where: str) -> set[str]:
    found: set[str | None] = set()
    for key, text in data.items():
        if key == DESIRED_KEY:
            found |= {model.digest for model in _parsed(Desired, text, f"{where}, {key}").models}
        else:
            for model in _parsed(Report, text, f"{where}, {key}").models:
                found |= {model.desired_digest, model.loaded_digest}
    return {digest for digest in found if digest is not None}


def _parsed(kind: type[T], text: str, where: str) -> T:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise VerificationError(
            f"{where} cannot be read ({error.errors()[0]['msg']}), and may name versions in use: it is of another "
            f"release, or damaged; upgrade gravswell, or delete the ConfigMap if its server is gone"
        ) from None
