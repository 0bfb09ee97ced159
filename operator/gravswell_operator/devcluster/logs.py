"""Container logs of the detached cluster's local node, read from their files."""

import asyncio
from pathlib import Path
from typing import BinaryIO

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell_operator.devcluster.node.kubelet import read
from gravswell_operator.devcluster.state import ClusterState


def find(state: ClusterState, namespace: str, pod: str, container: str | None, *, previous: bool = False) -> Path:
    """Return the log file of ``container``, which may be left out where the pod has one only.

    Raises:
        NotFoundError: no such pod or container on the local node; the message names those that are there.
        InvalidInputError: the pod has several containers.
    """
    pods = Path(state.pods)
    folder = pods / namespace / pod
    known = sorted(str(path.parent.relative_to(pods)) for path in pods.glob("*/*/uid"))
    if str(folder.relative_to(pods)) not in known:
        raise NotFoundError(
            f"no pod {namespace}/{pod} is on the local node; there are: {', '.join(known) or 'none'} "
            "(--namespace chooses another namespace)"
        )
    ending = ".previous.log" if previous else ".log"
    names = sorted(
        path.name.removesuffix(ending)
        for path in folder.glob(f"*{ending}")
        if previous or not path.name.endswith(".previous.log")
    )
    if container is None:
        if len(names) > 1:
            raise InvalidInputError(f"pod {namespace}/{pod} has logs of {', '.join(names)}: choose with --container")
        container = names[0] if names else ""
    if container not in names:
        raise NotFoundError(
            f"pod {namespace}/{pod} has no {'previous ' if previous else ''}log of {container or 'any container'}; "
            f"there are: {', '.join(names) or 'none'}"
        )
    return folder / f"{container}{ending}"


def write(path: Path, out: BinaryIO, *, follow: bool, lines: int | None) -> None:
    """Write the log to ``out``; with ``follow``, until the pod is gone or the user interrupts."""

    async def copy() -> None:
        async for chunk in read(path, lines, lambda: follow and path.exists()):
            out.write(chunk)
            out.flush()

    asyncio.run(copy())
