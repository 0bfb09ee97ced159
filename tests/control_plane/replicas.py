"""Every number of replicas that a Deployment was asked for, by a watch."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gravswell_operator.devcluster import ensure_binaries


@contextmanager
def replicas_over_time(world, log: Path, name: str = "server") -> Iterator[set[int]]:
    """Every number of replicas that the Deployment is asked for during the block; filled when it has ended."""
    mark = uuid.uuid4().hex
    columns = "jsonpath={.spec.replicas} {.metadata.annotations.seen}{'\\n'}"
    kubectl = [ensure_binaries(names=["kubectl"])["kubectl"], f"--kubeconfig={world.cluster.kubeconfig}"]
    watch = [*kubectl, "-n", world.namespace, "get", "deployment", name, "--watch", f"--output={columns}"]
    seen: set[int] = set()
    with log.open("w") as output:
        process = subprocess.Popen(watch, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        world.until(log.read_text)
        yield seen
        # Events come in order: when the watch shows the mark, it has shown all that was before.
        world.kubectl("annotate", "deployment", name, f"seen={mark}", "--overwrite")
        world.until(lambda: mark in log.read_text())
    finally:
        process.terminate()
        process.wait(timeout=30)
    seen |= {int(line.split()[0]) for line in log.read_text().splitlines()}
