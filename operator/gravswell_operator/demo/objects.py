"""What the demo applies and what it watches: the manifests of ``examples/``, their conditions, and their children."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from gravswell.errors import NotFoundError, UnavailableError
from gravswell_operator.api.crd import crds
from gravswell_operator.demo.view import Story
from gravswell_operator.devcluster.kubectl import Kubectl
from gravswell_operator.names import OWNER_LABELS

NAMESPACE = "default"
"""Where the examples are."""
CHILDREN = (
    "deployments",
    "daemonsets",
    "services",
    "configmaps",
    "serviceaccounts",
    "roles",
    "rolebindings",
    "poddisruptionbudgets",
    "pods",
)
READY_TIMEOUT = 180.0
"""Seconds for the applied objects to become Ready; a few are usual."""
GONE_TIMEOUT = 120.0
"""Seconds for everything to be gone after the deletion: pods may drain their connections first."""
_POLL = 0.3
_HERE = Path(__file__).resolve()


Manifests = list[dict[str, Any]]


def examples() -> Manifests:
    """The manifests of ``examples/``: from the source tree, or from where the wheel carries them."""
    for folder in (_HERE.parent / "examples", _HERE.parents[3] / "examples"):
        files = sorted(folder.glob("*.yaml"))
        if files:
            return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]
    raise NotFoundError("the example manifests are missing from this installation; install gravswell again")


def with_repository(manifests: Manifests, url: str, entry: str) -> Manifests:
    """The manifests with the one thing replaced that the examples leave open: where the repository is."""
    for manifest in manifests:
        if manifest["kind"] == "ModelRepository":
            manifest["spec"]["url"] = url
    assert any(m["kind"] == "Model" and m["spec"]["entry"] == entry for m in manifests), "the examples serve the demo"
    return manifests


@dataclass
class Watched:
    """One applied object on its way to Ready."""

    kind: str
    name: str
    ready: bool = False
    reason: str = ""
    message: str = ""
    seconds: float | None = None
    """From apply to Ready."""
    account: str = ""
    """Of a server: where the time of its replica's start went."""


@dataclass
class Watch:
    """Follows applied objects by their ``Ready`` condition."""

    kubectl: Kubectl
    objects: list[Watched]
    started: float = field(default_factory=time.monotonic)

    def poll(self) -> bool:
        """Look once at every object; True when all are Ready."""
        wanted = {(watched.kind, watched.name): watched for watched in self.objects}
        for item in applied(self.kubectl):
            watched = wanted.get((item["kind"], item["metadata"]["name"]))
            if watched is not None:
                self._note(watched, item)
        return all(watched.ready for watched in self.objects)

    def _note(self, watched: Watched, item: dict[str, Any]) -> None:
        condition = next(
            (c for c in item.get("status", {}).get("conditions", []) if c["type"] == "Ready"),
            {"status": "Unknown", "reason": "", "message": "not seen by the operator yet"},
        )
        watched.ready = condition["status"] == "True"
        watched.reason, watched.message = condition["reason"], condition["message"]
        startup = item.get("status", {}).get("startup") or {}
        if startup.get("stage") == "Ready":
            spent = (f"{one['name']} {one['seconds']:g} s" for one in startup["stages"] if one["seconds"])
            watched.account = f"its replica's {startup['seconds']:g} s: {', '.join(spent)}"
        if watched.ready and watched.seconds is None:
            watched.seconds = time.monotonic() - self.started

    def table(self) -> Table:
        """The objects as they are now."""
        table = Table(show_edge=False, pad_edge=False)
        for column in ("kind", "name", "Ready", "reason"):
            table.add_column(column, no_wrap=column != "reason")  # on a narrow terminal the reason takes more lines
        table.add_column("seconds", justify="right")
        for watched in self.objects:
            mark = "[green]True[/]" if watched.ready else "[yellow]False[/]"
            seconds = f"{watched.seconds:.1f}" if watched.seconds is not None else ""
            words = watched.reason if watched.ready else f"{watched.reason} [dim]{watched.message[:70]}[/]"
            table.add_row(watched.kind, watched.name, mark, words, seconds)
        return table

    def until_ready(self, story: Story, *, still_well: Callable[[], None]) -> None:
        """Show the table live until every object is Ready.

        ``still_well`` is called between looks and raises if what they wait for has died. Raises
        :class:`UnavailableError` that names what is not Ready, and why, after :data:`READY_TIMEOUT`.
        """
        with story.live(self.table) as refresh:
            while not self.poll():
                refresh()
                still_well()
                if time.monotonic() - self.started > READY_TIMEOUT:
                    late = next(w for w in self.objects if not w.ready)
                    raise UnavailableError(
                        f"{late.kind} {late.name} was not Ready after {READY_TIMEOUT:.0f} s: "
                        f"{late.reason}: {late.message}"
                    )
                time.sleep(_POLL)
            refresh()


def applied(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Every object of our kinds in the examples' namespace, and the cluster-scoped ones."""
    # By their names: for the category kubectl believes what it has cached, which may be older than the definitions.
    items = kubectl.items(",".join(document["metadata"]["name"] for document in crds()), "--all-namespaces")
    return [item for item in items if item["metadata"].get("namespace", NAMESPACE) == NAMESPACE]


def children(kubectl: Kubectl, manifests: Manifests) -> Counter[str]:
    """How many objects of each kind the operator has made for ``manifests``, their pods included."""
    owners = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    labels = [f"{OWNER_LABELS[kind]}={name}" for kind, name in sorted(owners) if kind in OWNER_LABELS]

    def of(owner: str) -> dict[str, str]:
        selector = f"--selector=app.kubernetes.io/managed-by=gravswell,{owner}"
        items = kubectl.items(",".join(CHILDREN), "--all-namespaces", selector)
        return {item["metadata"]["uid"]: item["kind"] for item in items}

    with ThreadPoolExecutor(len(labels)) as pool:  # a kubectl asks for one kind after the other
        found = {uid: kind for each in pool.map(of, labels) for uid, kind in each.items()}
    return Counter(found.values())


def until_gone(kubectl: Kubectl, manifests: Manifests) -> None:
    """Wait until nothing is left of what the operator made for ``manifests``.

    Raises :class:`UnavailableError` that counts what stayed.
    """
    deadline = time.monotonic() + GONE_TIMEOUT
    while left := children(kubectl, manifests):
        if time.monotonic() > deadline:
            counts = ", ".join(f"{count} {kind}" for kind, count in left.items())
            raise UnavailableError(f"still there {GONE_TIMEOUT:.0f} s after the deletion: {counts}")
        time.sleep(_POLL)
