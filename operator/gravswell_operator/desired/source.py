"""How pods reach a repository: the URL that they are told, and the volumes, environment and node that it takes."""

from dataclasses import dataclass, field
from typing import Any

from gravswell_operator import names
from gravswell_operator.api import ModelRepository
from gravswell_operator.desired.objects import REPOSITORY_FOLDER, Manifest

PVC = "pvc://"


@dataclass(frozen=True)
class Source:
    """A repository as a pod sees it."""

    url: str
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    env_from: list[Manifest] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)


def source(repository: ModelRepository) -> Source:
    """How the pods of this repository's namespace reach it. Everything is read only."""
    spec = repository.spec
    env_from: list[dict[str, Any]] = []
    if spec.credentials_secret_ref is not None:
        env_from.append({"secretRef": {"name": spec.credentials_secret_ref.name}})
    if spec.url.startswith(PVC):
        claim, _, path = spec.url.removeprefix(PVC).partition("/")
        return Source(
            url=f"file://{REPOSITORY_FOLDER}/{path.strip('/')}",
            volumes=[{"name": "repository", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
            mounts=[{"name": "repository", "mountPath": REPOSITORY_FOLDER, "readOnly": True}],
            env_from=env_from,
        )
    local = {names.LABEL_LOCAL_NODE: "true"} if spec.url.startswith("file://") else {}
    return Source(url=spec.url, env_from=env_from, node_selector=local)
