"""What a container becomes on this machine: its argument list, environment and working folder."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gravswell.cache import CACHE_ENV, cache_dir
from gravswell_operator.devcluster.node.environment import Sources, expand, variables
from gravswell_operator.devcluster.node.images import Image, command_line
from gravswell_operator.devcluster.node.rewriting import rewriter

MARK = "GRAVSWELL_CONTAINER"
"""Environment variable of every process of a pod: ``<node folder>#<pod uid>``; by it strays are found."""

ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


@dataclass(frozen=True)
class Launch:
    """How one container is started. ``rewrite`` turns a path in the container into one of this machine."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    rewrite: Callable[[str], str]


@dataclass(frozen=True)
class Place:
    """What is the same for every container of a pod.

    ``scratch`` is the pod's own folder for what containers write outside of volumes; ``triton`` the folder with the
    embedded Triton's ``tritonserver``; ``server`` the API server's host and port.
    """

    scratch: Path
    mark: str
    triton: Path | None
    server: tuple[str, str]


def prepare(image: Image, sources: Sources, mounts: Mapping[str, Path], place: Place) -> Launch:
    """Resolve everything that a container's spec leaves open.

    Variables are expanded by their values as the container's author wrote them, and mount paths rewritten once, at the
    end, so that nothing is rewritten twice. As on a real node, ``$(NAME)`` means a variable that the pod declares or
    that names the API server; what an image or its engine brings (``PATH``, ``HOME``, ...) stays for a shell.
    """
    container = sources.container
    rewrite = rewriter({path: str(folder) for path, folder in mounts.items()})
    home = place.scratch / container["name"]
    home.mkdir(parents=True, exist_ok=True)
    values = variables(sources, _services(place.server))
    argv = command_line(image, container.get("command"), container.get("args"))
    work = container.get("workingDir")
    moved = Path(rewrite(work)) if work else home
    return Launch(
        argv=tuple(rewrite(expand(part, values)) for part in argv),
        environment=_engines(image, sources.pod, mounts, place, home)
        | {name: rewrite(value) for name, value in values.items()},
        directory=moved if moved.is_dir() else home,
        rewrite=rewrite,
    )


def _services(server: tuple[str, str]) -> dict[str, str]:
    """Return the variables that a kubelet adds to every container's."""
    host, port = server
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "KUBERNETES_SERVICE_PORT_HTTPS": port,
    }


def _engines(
    image: Image, pod: Mapping[str, Any], mounts: Mapping[str, Path], place: Place, home: Path
) -> dict[str, str]:
    """Return what elsewhere the image and the container engine bring."""
    own = Path(sys.executable).parent
    path = [str(own), *(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if p)]
    if place.triton is not None and image.needs_triton:
        path.insert(0, str(place.triton))
    temporary = mounts.get("/tmp")  # noqa: S108  a mount path of the container, not a path of ours
    base = {
        "PATH": os.pathsep.join(path),
        "HOME": str(home),
        "TMPDIR": str(temporary or home),
        "HOSTNAME": pod["metadata"]["name"],
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "PYTHONUNBUFFERED": "1",  # logs are files here; they should show what happens when it happens
        CACHE_ENV: str(cache_dir()),
        "GRAVSWELL_SIMULATED_GPUS": "1",
        MARK: place.mark,
    }
    account = mounts.get(ACCOUNT_FOLDER)
    if account is not None:
        base["GRAVSWELL_SERVICEACCOUNT"] = str(account)
    return base
