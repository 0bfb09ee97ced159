"""How pods reach a repository: the URL that they are told, and the volumes, environment and node that it takes.

The operator reads no Secret, so what is in one is asked for key by key, each optional; only that the Secret is there is
demanded, by the environment that is made of all of it.
"""

from dataclasses import dataclass, field

from gravswell_operator import names
from gravswell_operator.api import ModelRepository
from gravswell_operator.api.modelrepository import ModelRepositorySpec
from gravswell_operator.desired.objects import CREDENTIALS_FOLDER, REPOSITORY_FOLDER, Manifest

PVC = "pvc://"

CREDENTIALS_FILE = "credentials.json"
"""Key of a Secret, and name of the file in the pods: who asks at Google."""

SECRET_KEYS = {
    "gs": "credentials.json (the key file of a service account), or endpoint for an emulator",
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
}
"""By kind of bucket: the keys of the Secret by which its readers are let in."""

_SETTINGS = {
    "gs": {"endpoint": "STORAGE_EMULATOR_HOST"},
    "s3": {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"},
    "az": {"endpoint": "AZURE_STORAGE_ENDPOINT"},
}
"""By kind of bucket: the keys of ours in a Secret, and the variables by which its library knows them."""

_IDENTITY_LABELS = {"az": {"azure.workload.identity/use": "true"}}
_IDENTITY_ANNOTATIONS = {
    "eks.amazonaws.com/skip-containers": "triton,key",
    "azure.workload.identity/skip-containers": "triton;key",
}
"""Of a pod with Triton in it: what has no business in the bucket gets no identity. GKE's is the whole pod's. Both stand
wherever an account is named, whatever the url: the account may have an identity of either cloud."""


@dataclass(frozen=True)
class Source:
    """A repository as a pod sees it: what its readers get, and nobody else in the pod."""

    url: str
    volumes: list[Manifest] = field(default_factory=list)
    mounts: list[Manifest] = field(default_factory=list)
    env: list[Manifest] = field(default_factory=list)
    env_from: list[Manifest] = field(default_factory=list)
    node_selector: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """Of the pod: by them a cloud's webhook knows that it wants an identity."""
    annotations: dict[str, str] = field(default_factory=dict)
    """Of a pod with Triton in it: by them a cloud's webhook knows who in it does not."""


def source(repository: ModelRepository) -> Source:
    """How the pods of this repository's namespace reach it. Everything is read only."""
    spec = repository.spec
    env_from: list[Manifest] = []
    if spec.credentials_secret_ref is not None:
        env_from.append({"secretRef": {"name": spec.credentials_secret_ref.name}})
    if spec.url.startswith(PVC):
        claim, _, path = spec.url.removeprefix(PVC).partition("/")
        return Source(
            url=f"file://{REPOSITORY_FOLDER}/{path.strip('/')}",
            volumes=[{"name": "repository", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}],
            mounts=[{"name": "repository", "mountPath": REPOSITORY_FOLDER, "readOnly": True}],
            env_from=env_from,
            annotations=_identity_annotations(spec),
        )
    if spec.bucket is None:
        return Source(
            url=spec.url,
            env_from=env_from,
            node_selector={names.LABEL_LOCAL_NODE: "true"},
            annotations=_identity_annotations(spec),
        )
    return _bucket(spec, spec.bucket, env_from)


def _bucket(spec: ModelRepositorySpec, kind: str, env_from: list[Manifest]) -> Source:
    env: list[Manifest] = []
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    said = {"AWS_REGION": spec.region, "AZURE_STORAGE_ACCOUNT": spec.storage_account}
    if spec.credentials_secret_ref is not None:
        secret = spec.credentials_secret_ref.name
        settings = _SETTINGS[kind].items()
        env += [_optional(variable, secret, key) for key, variable in settings if said.get(variable) is None]
        if kind == "gs":
            env.append({"name": "GOOGLE_APPLICATION_CREDENTIALS", "value": f"{CREDENTIALS_FOLDER}/{CREDENTIALS_FILE}"})
            volumes.append(_key_file(secret))
            mounts.append({"name": "credentials", "mountPath": CREDENTIALS_FOLDER, "readOnly": True})
    env += [{"name": variable, "value": value} for variable, value in said.items() if value is not None]
    has_identity = spec.service_account_name is not None
    return Source(
        url=spec.url,
        volumes=volumes,
        mounts=mounts,
        env=env,
        env_from=env_from,
        labels=_IDENTITY_LABELS.get(kind, {}) if has_identity else {},
        annotations=_identity_annotations(spec),
    )


def _identity_annotations(spec: ModelRepositorySpec) -> dict[str, str]:
    return dict(_IDENTITY_ANNOTATIONS) if spec.service_account_name is not None else {}


def _optional(variable: str, secret: str, key: str) -> Manifest:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}


def _key_file(secret: str) -> Manifest:
    items = [{"key": CREDENTIALS_FILE, "path": CREDENTIALS_FILE}]
    return {
        "name": "credentials",
        "secret": {"secretName": secret, "items": items, "defaultMode": 0o440, "optional": True},
    }
