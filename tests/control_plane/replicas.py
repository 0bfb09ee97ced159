"""What a field of an object was over time, by a watch; and so every number of replicas that a Deployment had."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gravswell_operator.devcluster import ensure_binaries


@contextmanager
def seen_over_time(world, log: Path, kind: str, name: str, field: str) -> Iterator[list[str]]:
    """What the JSONPath ``field`` of the object was during the block, one after the other; filled when it has ended."""
    mark = uuid.uuid4().hex
    columns = f"jsonpath={field} {{.metadata.annotations.seen}}{{'\\n'}}"
    kubectl = [ensure_binaries(names=["kubectl"])["kubectl"], f"--kubeconfig={world.cluster.kubeconfig}"]
    watch = [*kubectl, "-n", world.namespace, "get", kind, name, "--watch", f"--output={columns}"]
    seen: list[str] = []
    with log.open("w") as output:
        process = subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        world.until(log.read_text)
        yield seen
        # Events come in order: when the watch shows the mark, it has shown all that was before.
        world.kubectl("annotate", kind, name, f"seen={mark}", "--overwrite")
        world.until(lambda: mark in log.read_text())
    finally:
        process.terminate()
        process.wait(timeout=30)
    values = [line.split()[0] for line in log.read_text().splitlines()]
    seen += [value for before, value in zip(["", *values], values, strict=False) if value != before]


@contextmanager
def replicas_over_time(world, log: Path, name: str = "server") -> Iterator[set[int]]:
    """Every number of replicas that the Deployment is asked for during the block; filled when it has ended."""
    seen: set[int] = set()
    with seen_over_time(world, log, "deployment", name, "{.spec.replicas}") as values:
        yield seen
    seen |= {int(value) for value in values}
