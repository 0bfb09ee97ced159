"""What a cluster needs before the examples are applied: the definitions, an operator, and names that are free."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gravswell.errors import ConflictError
from gravswell_operator.api import crd
from gravswell_operator.demo.interruption import first_error_counts
from gravswell_operator.demo.objects import Manifests, applied
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster.kubectl import Kubectl, install_definitions
from gravswell_operator.devcluster.processes import Child

INSTALLED_OPERATOR = "app.kubernetes.io/name=gravswell,app.kubernetes.io/component=operator"
DEFINITIONS_COMMAND = "apply --server-side -f crds/"
"""How definitions are installed, as a reader would type it."""
OPERATOR_STOP_TIMEOUT = 10.0


@contextmanager
def custom_resources(story: Story, kubectl: Kubectl) -> Iterator[None]:
    """The custom resource definitions: those that the cluster lacks are installed, and go again at the end.

    They stay where somebody has made objects of their kinds meanwhile: those would go with them.
    """
    present = _definitions(kubectl)
    missing = [document for document in crd.crds() if document["metadata"]["name"] not in present]
    try:
        if missing:
            with story.step("install the custom resources"):
                story.tell_command(DEFINITIONS_COMMAND)
                names = [document["metadata"]["name"] for document in missing]
                install_definitions(kubectl, yaml.safe_dump_all(missing, sort_keys=False), names)
        else:
            story.say("[dim]the custom resources of this cluster are used as they are[/]")
        yield
    except BaseException:
        with first_error_counts(story, "custom resource definitions"):
            _remove_definitions(story, kubectl, missing)
        raise
    _remove_definitions(story, kubectl, missing)


def _definitions(kubectl: Kubectl) -> set[str]:
    """Names of the custom resource definitions that the cluster has."""
    listed = kubectl("get", "customresourcedefinitions", "--output=name").split()
    return {line.partition("/")[2] for line in listed}


def _remove_definitions(story: Story, kubectl: Kubectl, documents: list[dict[str, Any]]) -> None:
    present = _definitions(kubectl) if documents else set()
    kinds = {d["metadata"]["name"]: d["spec"]["names"]["kind"] for d in documents if d["metadata"]["name"] in present}
    if not kinds:
        return
    with story.step("remove the custom resources") as step:
        used = {item["kind"] for item in kubectl.items(",".join(kinds), "--all-namespaces")}
        unused = [name for name, kind in kinds.items() if kind not in used]
        if unused:
            kubectl("delete", "--ignore-not-found", "customresourcedefinitions", *unused)
        if used:
            step.note = f"but for {', '.join(sorted(used))}, of which the cluster has other objects"


def installed_operator(kubectl: Kubectl) -> str | None:
    """NAMESPACE/NAME of the cluster's own operator, where one is installed."""
    for found in kubectl.items("deployments", "--all-namespaces", f"--selector={INSTALLED_OPERATOR}"):
        return f"{found['metadata']['namespace']}/{found['metadata']['name']}"
    return None


@contextmanager
def running_operator(story: Story, kubectl: Kubectl, log: Path) -> Iterator[Callable[[], None]]:
    """The operator, running: the cluster's own where one is installed, else one of ours. Yields a check that it is."""
    installed = installed_operator(kubectl)
    if installed is not None:
        story.say(f"[dim]the operator {installed} of this cluster does the work[/]")
        yield lambda: None
        return
    with story.step("start the operator") as step:
        operator = start_operator(kubectl, log)
        step.note = f"process {operator.pid}, log in {log}"
    try:
        yield operator.require_running
    finally:
        operator.stop(OPERATOR_STOP_TIMEOUT)


def start_operator(kubectl: Kubectl, log: Path) -> Child:
    """The operator as a process of its own, as ``gravswell operator run`` starts it. It ends with this thread."""
    command = [sys.executable, "-m", "gravswell", "operator", "run"]
    command += ["--kubeconfig", str(kubectl.kubeconfig)] if kubectl.kubeconfig else []
    command += ["--context", kubectl.context] if kubectl.context else []
    return Child("the operator", command, log=log)


def require_free_names(kubectl: Kubectl, manifests: Manifests) -> None:
    """Raise :class:`ConflictError` where the cluster has objects of the user's by the manifests' names."""
    if not _definitions(kubectl).issuperset(document["metadata"]["name"] for document in crd.crds()):
        return  # they come with the demo
    wanted = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    for item in applied(kubectl):
        kind, name = item["kind"], item["metadata"]["name"]
        if (kind, name) in wanted:
            raise ConflictError(
                f"the cluster has a {kind} {name} already, which the demo would take over; delete it "
                f"(kubectl delete {kind} {name}) or use another cluster"
            )
