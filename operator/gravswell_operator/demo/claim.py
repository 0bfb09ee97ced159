"""One demo at a time on a cluster of the user's: a second one would take over the objects of the first.

Two that begin within seconds both find the names free, for the objects are applied only after the training. So each
creates a ConfigMap first, which the API server lets only one of them do.
"""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import yaml

from gravswell.errors import ConflictError, GravswellError
from gravswell_operator.demo.interruption import first_error_counts
from gravswell_operator.demo.objects import NAMESPACE, Manifests
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster.kubectl import Kubectl

NAME = "gravswell-demo"


@contextmanager
def claimed(story: Story, kubectl: Kubectl, manifests: Manifests) -> Iterator[None]:
    """Hold the cluster's claim while the block runs; ``manifests`` are what it may apply.

    Raises :class:`ConflictError` that names the demo that has it, and its objects.
    """
    claim = {
        "id": uuid.uuid4().hex,
        "program": f"process {os.getpid()} on {socket.gethostname()}",
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "objects": ", ".join(f"{m['kind']} {m['metadata']['name']}" for m in manifests),
    }
    try:
        _take(kubectl, claim)
        yield
    except BaseException:
        with first_error_counts(story, f"ConfigMap {NAME} of the namespace {NAMESPACE}"):
            _give_back(kubectl, claim)
        raise
    _give_back(kubectl, claim)


def _take(kubectl: Kubectl, claim: dict[str, str]) -> None:
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": claim,
    }
    try:
        kubectl("create", "--filename=-", stdin=yaml.safe_dump(document))
    except GravswellError:
        holder = _holder(kubectl)
        if holder is None:
            raise
        raise ConflictError(
            f"a demo runs on this cluster already ({holder.get('program')}, since {holder.get('since')}), with "
            f"{holder.get('objects')}: wait for its end; if it was killed, delete those and its claim "
            f"(kubectl delete configmap {NAME} --namespace={NAMESPACE})"
        ) from None


def _give_back(kubectl: Kubectl, claim: dict[str, str]) -> None:
    """Remove the claim if it is ours: where none was taken, or ours was removed by hand, another demo may have one."""
    holder = _holder(kubectl)
    if holder is not None and holder.get("id") == claim["id"]:
        kubectl("delete", "--ignore-not-found", f"configmap/{NAME}", f"--namespace={NAMESPACE}")


def _holder(kubectl: Kubectl) -> dict[str, str] | None:
    found = kubectl.items("configmaps", f"--namespace={NAMESPACE}", f"--field-selector=metadata.name={NAME}")
    return found[0].get("data", {}) if found else None
