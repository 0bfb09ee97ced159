"""Whether an installation works: its definitions are served and judge, and its operator is ready. Writes nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gravswell.errors import GravswellError
from gravswell.kube.client import Client
from gravswell.kube.errors import ApiRejectedError
from gravswell.kube.resources import Resource
from gravswell_operator.api import InferenceServer
from gravswell_operator.api.common import API_VERSION, GROUP, VERSION
from gravswell_operator.cluster.resources import DEPLOYMENT, INFERENCE_SERVER, OWN

DEFINITION = Resource("CustomResourceDefinition", "customresourcedefinitions", "apiextensions.k8s.io", namespaced=False)
NAME = "gravswell-check"
"""Of the servers that are asked about; a dry run stores none of them."""


@dataclass(frozen=True)
class Check:
    """One fact that must hold of an installation."""

    what: str
    ok: bool
    message: str
    """What was found, or what is wrong and the way out."""


async def check(client: Client, namespace: str, deployment: str) -> list[Check]:
    """Look at the definitions, at the operator's Deployment in ``namespace``, and at what is admitted there.

    What cannot be asked counts as what does not hold, with the API server's reason.
    """
    asked: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("definitions", lambda: _definitions(client)),
        ("operator", lambda: _operator(client, namespace, deployment)),
        ("a good InferenceServer", lambda: _admitted(client, namespace)),
        ("a bad InferenceServer", lambda: _refused(client, namespace)),
    ]
    return [await _checked(what, ask) for what, ask in asked]


class _DoesNotHoldError(Exception):
    """The message says what is wrong."""


async def _checked(what: str, ask: Callable[[], Awaitable[str]]) -> Check:
    try:
        return Check(what, True, await ask())
    except (_DoesNotHoldError, GravswellError) as error:
        return Check(what, False, str(error))


async def _definitions(client: Client) -> str:
    for resource in OWN:
        name = f"{resource.plural}.{GROUP}"
        body = await client.get(DEFINITION, None, name)
        conditions = {c["type"]: c["status"] for c in body.get("status", {}).get("conditions", ())}
        served = {version["name"] for version in body["spec"]["versions"] if version["served"]}
        if conditions.get("Established") != "True" or VERSION not in served:
            raise _DoesNotHoldError(f"{name} does not serve {VERSION}; kubectl describe crd {name} says why")
    return f"{len(OWN)} definitions serve {API_VERSION}"


async def _operator(client: Client, namespace: str, deployment: str) -> str:
    body = await client.get(DEPLOYMENT, namespace, deployment)
    if not body.get("status", {}).get("availableReplicas"):
        raise _DoesNotHoldError(
            f"no pod of Deployment {namespace}/{deployment} is ready: it waits for the Lease or for the cluster; "
            f"kubectl -n {namespace} logs deployment/{deployment} says for what"
        )
    return f"Deployment {namespace}/{deployment} holds the Lease and has seen the cluster"


async def _admitted(client: Client, namespace: str) -> str:
    await client.create(INFERENCE_SERVER, _server(namespace), dry_run=True)
    return "admitted by a dry run"


async def _refused(client: Client, namespace: str) -> str:
    server = _server(namespace, autoscaling={"minReplicas": 1, "maxReplicas": 2})
    try:
        InferenceServer.model_validate(server)
    except ValidationError as error:
        words: str = error.errors()[0]["ctx"]["message"]
    try:
        await client.create(INFERENCE_SERVER, server, dry_run=True)
    except ApiRejectedError as error:
        if words in str(error):
            return f"refused: {words}"
        raise _DoesNotHoldError(
            f"refused in other words than this release's ({words}): {error}; upgrade the definitions"
        ) from None
    raise _DoesNotHoldError(f"a server against a rule is admitted ({words}): the definitions are of another release")


def _server(namespace: str, **spec: Any) -> dict[str, Any]:
    """A server with one replica, and with what ``spec`` says besides."""
    return {
        "apiVersion": API_VERSION,
        "kind": INFERENCE_SERVER.kind,
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"repositoryRef": {"name": NAME}, "tag": "24.08", "replicas": 1, **spec},
    }
