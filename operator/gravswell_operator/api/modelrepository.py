"""``ModelRepository``: where versions are published, and how the cluster may read them."""

from typing import Annotated, ClassVar

from pydantic import Field

from gravswell.durations import PATTERN, seconds
from gravswell_operator.api.common import (
    ApiModel,
    Column,
    DnsName,
    Duration,
    LocalReference,
    Names,
    Resource,
    Status,
    name_rule,
)
from gravswell_operator.api.rules import Rule, matching

_CHARACTER = "([-A-Za-z0-9._~!&()*+,;=:@]|%(2[0-9A-Da-d]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e]|[89A-Fa-f][0-9A-Fa-f]))"
# Not "%2e" and "%2f", which would climb once decoded, nor "$", as "$(NAME)" is the kubelet's to replace.
_PATH = f"(/{_CHARACTER}+)+/?"


class ModelRepositorySpec(ApiModel):
    """Where the repository is and how it is read."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.credentialsSecretRef) && has(self.serviceAccountName))",
            "credentialsSecretRef and serviceAccountName exclude each other: name a Secret with keys, or a "
            "ServiceAccount with an identity of its own",
            lambda spec: spec.credentials_secret_ref is None or spec.service_account_name is None,
        ),
    )

    url: Annotated[
        str,
        Field(max_length=1024),
        matching(
            f"(file://|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?){_PATH}",
            "url must be pvc://CLAIM/PATH, or file:///PATH for the local node of a development cluster; PATH is names "
            "with one / between them, and what is no letter, digit or one of -._~!&()*+,;=:@ is written as %XX",
        ),
        Rule(
            "!self.matches('/[.][.]?(/|$)')",
            "url must not hold '.' or '..' as a folder: write the path without them",
            lambda url: not {".", ".."} & set(url.split("/")),
        ),
    ]
    """pvc://CLAIM/PATH: a folder in a PersistentVolumeClaim of this namespace. file:///PATH: a folder of the
    development cluster's local node."""
    credentials_secret_ref: LocalReference | None = None
    """Secret whose keys become the environment of what reads the repository (AWS_ACCESS_KEY_ID…). Only the pods see
    it, and they read it when they start: after a change, name another Secret here, or kubectl rollout restart them."""
    service_account_name: DnsName | None = None
    """ServiceAccount that what reads the repository runs as."""
    sync_interval: Annotated[
        Duration,
        Rule(
            f"!self.matches('^({PATTERN})$') || duration(self) >= duration('5s')",
            "syncInterval must be 5s or longer",
            lambda interval: seconds(interval) >= 5,
        ),
    ] = "30s"
    """How often the repository is listed, such as 45s or 1h30m."""
    suspend: bool = False
    """True: the operator leaves the repository and what belongs to it as they are."""


class EntryStatus(ApiModel):
    """One entry of the repository."""

    name: Annotated[str, Field(max_length=255)]
    """Name of the model."""
    latest: int
    """Number of its latest version."""
    versions: int
    """How many versions it has."""
    digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the latest version; absent: it has no manifest."""


class ModelRepositoryStatus(Status):
    """What the repository holds."""

    entries: int = 0
    """Models in the repository."""
    versions: int = 0
    """Published versions of all models."""
    digest: Annotated[str, Field(max_length=64)] = ""
    """Short digest of the whole listing; it changes with every publication."""
    last_sync: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When the repository was last listed with success."""
    models: Annotated[
        tuple[EntryStatus, ...],
        Field(
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = ()
    """The first 100 entries by name; the ConfigMap <name>-listing has all."""


class ModelRepository(Resource):
    """A repository of verified model versions, and how the cluster may read it."""

    RULES: ClassVar[tuple[Rule, ...]] = (name_rule("a ModelRepository"),)

    NAMES: ClassVar[Names] = Names(
        kind="ModelRepository",
        plural="modelrepositories",
        short=("mr",),
        scope="Namespaced",
        columns=(
            Column("URL", ".spec.url"),
            Column("Models", ".status.entries", "integer"),
            Column("Versions", ".status.versions", "integer"),
            Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Last Sync", ".status.lastSync", "date", wide=True),
            Column("Message", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
    )

    spec: ModelRepositorySpec
    status: ModelRepositoryStatus = ModelRepositoryStatus()
