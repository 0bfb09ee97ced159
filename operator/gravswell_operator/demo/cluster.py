"""The demo's second half: the operator serves the same repository on a real control plane, and all goes again."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from gravswell.errors import ConflictError, GravswellError, UnavailableError
from gravswell_operator.api import crd
from gravswell_operator.demo.fitting import Fitted
from gravswell_operator.demo.interruption import first_error_counts
from gravswell_operator.demo.local import ENTRY, Lab, classify, publish
from gravswell_operator.demo.objects import (
    NAMESPACE,
    Manifests,
    Watch,
    Watched,
    applied,
    children,
    until_gone,
    with_repository,
)
from gravswell_operator.demo.reach import SERVER, replicas
from gravswell_operator.demo.traffic import traffic
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.devcluster.processes import Child

INSTALLED_OPERATOR = "app.kubernetes.io/name=gravswell,app.kubernetes.io/component=operator"
ARRIVAL_TIMEOUT = 120.0
"""Seconds for a published version to answer on the cluster: the repository is listed every few seconds."""

DISCOVERY_TIMEOUT = 30.0


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
                manifests = yaml.safe_dump_all(missing, sort_keys=False)
                shown = "apply --server-side -f crds/"
                story.command(kubectl, "apply", "--server-side", "--filename=-", shown=shown, stdin=manifests)
                kubectl("wait", "--for=condition=Established", "--timeout=60s", "--filename=-", stdin=manifests)
                _until_discovered(kubectl)
        else:
            story.say("[dim]the custom resources of this cluster are used as they are[/]")
        yield
    except BaseException:
        with first_error_counts(story, "custom resource definitions"):
            _remove_definitions(story, kubectl, missing)
        raise
    _remove_definitions(story, kubectl, missing)


def _until_discovered(kubectl: Kubectl) -> None:
    """Wait until the API server lists the new kinds, which it does a moment after they are established."""
    deadline = time.monotonic() + DISCOVERY_TIMEOUT
    while True:
        try:
            applied(kubectl)
        except GravswellError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


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
    """The operator, running: the cluster's own where one is installed, else one of ours. Yields a check that it is.

    Ours is a process of its own, as ``gravswell operator run`` starts it.
    """
    installed = installed_operator(kubectl)
    if installed is not None:
        story.say(f"[dim]the operator {installed} of this cluster does the work[/]")
        yield lambda: None
        return
    command = [sys.executable, "-m", "gravswell", "operator", "run"]
    command += ["--kubeconfig", str(kubectl.kubeconfig)] if kubectl.kubeconfig else []
    command += ["--context", kubectl.context] if kubectl.context else []
    with story.step("start the operator") as step:
        operator = Child("the operator", command, log=log)
        step.note = f"process {operator.pid}, log in {log}"
    try:
        yield operator.require_running
    finally:
        operator.stop(timeout=10)


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


def apply_examples(story: Story, kubectl: Kubectl, fit: Fitted, url: str, still_well: Callable[[], None]) -> None:
    """Apply what fits of ``examples/`` for the repository at ``url`` and show how everything becomes Ready."""
    manifests = with_repository(fit.manifests, url, ENTRY)
    without = ", without GPUNodePool and GPUs" if fit.without else ""
    story.say(f"[dim]examples/ with the repository's url set to {escape(url)}{without}[/]")
    watch = Watch(kubectl, [Watched(m["kind"], m["metadata"]["name"]) for m in manifests])
    shown = "apply -f examples/"
    story.command(kubectl, "apply", "--filename=-", shown=shown, stdin=yaml.safe_dump_all(manifests))
    with story.step("everything is Ready", spinner=False) as step:
        watch.until_ready(story, still_well=still_well)
        slowest = max(watch.objects, key=lambda w: w.seconds or 0).kind
        step.note = "; ".join([f"slowest: {slowest}", *(w.account for w in watch.objects if w.account)])
    made = children(kubectl, manifests)
    table = Table(title="What the operator made", title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("kind")
    table.add_column("objects", justify="right")
    for kind, count in sorted(made.items()):
        table.add_row(kind, str(count))
    story.console.print(table)


async def roll(story: Story, lab: Lab, kubectl: Kubectl, *, epochs: int) -> None:
    """Publish the next version while requests flow, and show it arriving without a failed one."""
    with ExitStack() as stack:
        [address] = replicas(kubectl, stack)
        await _roll(story, lab, address, epochs=epochs)


async def _roll(story: Story, lab: Lab, address: str, *, epochs: int) -> None:
    async with traffic(address, ENTRY, lab.input_name, lab.data.test_images) as seen:
        before = lab.entry.versions[-1]
        async with asyncio.timeout(ARRIVAL_TIMEOUT):
            await seen.first_answer(int(before))
        number = await asyncio.to_thread(publish, story, lab, epochs=epochs)
        published = time.monotonic()
        with story.step(f"version {number} arrives by itself") as step:
            try:
                async with asyncio.timeout(ARRIVAL_TIMEOUT):
                    arrived = await seen.first_answer(number)
            except TimeoutError:
                raise UnavailableError(
                    f"version {number} did not answer within {ARRIVAL_TIMEOUT:.0f} s; kubectl describe mdl says why"
                ) from None
            await asyncio.sleep(1)  # a little longer, for requests that the change might have broken
            if seen.failures:
                raise UnavailableError(f"{len(seen.failures)} requests failed, the first with: {seen.failures[0]}")
            counts = ", ".join(f"version {v}: {n}" for v, n in sorted(seen.answers.items()))
            step.note = f"{arrived - published:.1f} s after publication; no request failed ({counts})"


def scale(story: Story, kubectl: Kubectl, still_well: Callable[[], None], replicas: int) -> None:
    """Scale the server through ``/scale`` and wait until every replica answers."""
    story.command(kubectl, "scale", f"isrv/{SERVER}", f"--replicas={replicas}", f"--namespace={NAMESPACE}")
    with story.step(f"{replicas} replicas are ready") as step:
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while True:
            status = kubectl.items("isrv", SERVER, f"--namespace={NAMESPACE}")[0].get("status", {})
            if status.get("readyReplicas") == replicas:
                break
            still_well()
            if time.monotonic() > deadline:
                raise UnavailableError(f"{SERVER} has {status.get('readyReplicas')} of {replicas} replicas ready")
            time.sleep(0.3)
        step.note = ", ".join(_names(kubectl))


def _names(kubectl: Kubectl) -> list[str]:
    pods = kubectl.items("pods", f"--namespace={NAMESPACE}", f"--selector=gravswell.dev/server={SERVER}")
    return sorted(pod["metadata"]["name"] for pod in pods)


def infer(story: Story, lab: Lab, kubectl: Kubectl, *, title: str) -> None:
    """Send the test set through every ready replica."""
    with ExitStack() as stack:
        asyncio.run(classify(story, lab, replicas(kubectl, stack), title=title))


def delete(story: Story, kubectl: Kubectl, manifests: Manifests) -> None:
    """Delete what was applied, and show that nothing of the operator's is left."""
    with story.step("delete everything") as step:
        story.command(kubectl, "delete", "--filename=-", shown="delete -f examples/", stdin=_references(manifests))
        until_gone(kubectl, manifests)
        step.note = "nothing is left: no object, no pod, no process"


def _references(manifests: Manifests) -> str:
    return yaml.safe_dump_all({key: m[key] for key in ("apiVersion", "kind", "metadata")} for m in manifests)


@contextmanager
def _swept(story: Story, kubectl: Kubectl, manifests: Manifests) -> Iterator[None]:
    """Leave nothing behind when the block is interrupted or fails; when it ends well it has deleted all itself."""
    try:
        yield
    except BaseException:
        with first_error_counts(story, "what examples/ describes"), story.step("clean up"):
            kubectl("delete", "--ignore-not-found", "--filename=-", stdin=_references(manifests))
        raise


def serve_on_cluster(
    story: Story, lab: Lab, kubectl: Kubectl, fit: Fitted, url: str, *, hold: Callable[[], None] | None = None
) -> None:
    """All of the second half, on the cluster that ``kubectl`` reaches, with what ``fit`` says that it can run.

    ``url`` is the repository as the cluster's nodes see it; ``hold`` is called before everything is taken away.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="gravswell-demo-"))
        stack.enter_context(custom_resources(story, kubectl))
        require_free_names(kubectl, fit.manifests)
        still_well = stack.enter_context(running_operator(story, kubectl, Path(scratch) / "operator.log"))
        stack.enter_context(_swept(story, kubectl, fit.manifests))
        apply_examples(story, kubectl, fit, url, still_well)
        infer(story, lab, kubectl, title="the test set through the operator's server")
        asyncio.run(roll(story, lab, kubectl, epochs=20))
        scale(story, kubectl, still_well, 2)
        infer(story, lab, kubectl, title="the test set through both replicas")
        if hold is not None:
            hold()
        delete(story, kubectl, fit.manifests)
