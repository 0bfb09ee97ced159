"""The demo's second half: the operator serves the same repository on a real control plane, and all goes again."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import yaml
from rich.markup import escape
from rich.table import Table

from gravswell.errors import UnavailableError
from gravswell_operator.demo.fitting import Fitted
from gravswell_operator.demo.interruption import first_error_counts
from gravswell_operator.demo.local import ENTRY, Lab, classify, publish
from gravswell_operator.demo.objects import (
    NAMESPACE,
    Manifests,
    Watch,
    Watched,
    children,
    until_gone,
    with_repository,
)
from gravswell_operator.demo.reach import SERVER, replicas
from gravswell_operator.demo.traffic import Traffic, traffic
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster.kubectl import Kubectl

ARRIVAL_TIMEOUT = 120.0
"""Seconds for a published version to answer on the cluster: the repository is listed every few seconds."""


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


async def change_under_load(
    story: Story, lab: Lab, kubectl: Kubectl, still_well: Callable[[], None], *, epochs: int, count: int
) -> None:
    """Publish the next version and then scale to ``count`` replicas, while requests flow of which none may fail."""
    with ExitStack() as stack:
        [address] = replicas(kubectl, stack)
        async with traffic(address, ENTRY, lab.input_name, lab.data.test_images) as seen:
            await _roll(story, lab, seen, epochs=epochs)
            await _scale(story, kubectl, still_well, seen, count)


async def _roll(story: Story, lab: Lab, seen: Traffic, *, epochs: int) -> None:
    before = lab.entry.versions[-1]
    await _first_answer(seen, int(before))
    number = await asyncio.to_thread(publish, story, lab, epochs=epochs)
    published = time.monotonic()
    with story.step(f"version {number} arrives by itself") as step:
        arrived = await _first_answer(seen, number)
        step.note = f"{arrived - published:.1f} s after publication; {seen.account()}"


async def _first_answer(seen: Traffic, version: int) -> float:
    try:
        async with asyncio.timeout(ARRIVAL_TIMEOUT):
            return await seen.first_answer(version)
    except TimeoutError:
        said = f"; the last request that failed said: {seen.failures[-1]}" if seen.failures else ""
        raise UnavailableError(
            f"version {version} did not answer within {ARRIVAL_TIMEOUT:.0f} s; kubectl describe mdl says why{said}"
        ) from None


async def _scale(story: Story, kubectl: Kubectl, still_well: Callable[[], None], seen: Traffic, count: int) -> None:
    """Scale the server through ``/scale`` and wait until every replica answers.

    In threads, one look at a time: the requests go on, and whoever interrupts need not wait long.
    """
    command = partial(story.command, kubectl, "scale", f"isrv/{SERVER}", f"--replicas={count}")
    await asyncio.to_thread(command, f"--namespace={NAMESPACE}")
    look = partial(kubectl.items, "isrv", SERVER, f"--namespace={NAMESPACE}")
    with story.step(f"{count} replicas are ready") as step:
        deadline = time.monotonic() + ARRIVAL_TIMEOUT
        while True:
            [server] = await asyncio.to_thread(look)
            ready = server.get("status", {}).get("readyReplicas")
            if ready == count:
                break
            still_well()
            if time.monotonic() > deadline:
                raise UnavailableError(f"{SERVER} has {ready} of {count} replicas ready")
            await asyncio.sleep(0.3)
        step.note = f"{', '.join(await asyncio.to_thread(_names, kubectl))}; {seen.account()}"


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
def swept(story: Story, kubectl: Kubectl, manifests: Manifests) -> Iterator[None]:
    """Leave nothing behind when the block is interrupted or fails; when it ends well it has deleted all itself."""
    try:
        yield
    except BaseException:
        with first_error_counts(story, "what examples/ describes"), story.step("clean up"):
            kubectl("delete", "--ignore-not-found", "--filename=-", stdin=_references(manifests))
        raise


def serve_on_cluster(
    story: Story,
    lab: Lab,
    kubectl: Kubectl,
    fit: Fitted,
    url: str,
    *,
    still_well: Callable[[], None],
    hold: Callable[[], None] | None = None,
) -> None:
    """All of the second half, on the cluster that ``kubectl`` reaches, with what ``fit`` says that it can run.

    An operator runs there already; ``still_well`` raises when it does no more. ``url`` is the repository as the
    cluster's nodes see it; ``hold`` is called before everything is taken away.
    """
    apply_examples(story, kubectl, fit, url, still_well)
    infer(story, lab, kubectl, title="the test set through the operator's server")
    asyncio.run(change_under_load(story, lab, kubectl, still_well, epochs=20, count=2))
    infer(story, lab, kubectl, title="the test set through both replicas")
    if hold is not None:
        hold()
    delete(story, kubectl, fit.manifests)
