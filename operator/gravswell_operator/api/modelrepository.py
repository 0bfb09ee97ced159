"""``ModelRepository``: where versions are published, and how the cluster may read them."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from gravswell.durations import PATTERN, seconds
from gravswell.serving.contracts import Verification
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
_BUCKETS = "(gs|s3|az)://"
# As open_store reads it: nothing is decoded, and slashes at both ends do not count. Printable, without "$" and what no
# class of both languages holds as it is.
_IN_KEYS = "[ -#%-.0-Z^-~\u00a1-\ud7a3]"
_BUCKET_URL = f"{_BUCKETS}[-A-Za-z0-9._]+(/+{_IN_KEYS}+(/{_IN_KEYS}+)*)?/*"
_ANYTHING = "(.|[^.])*"
_StorageAccount = Annotated[
    str,
    Field(max_length=24),
    matching("[a-z0-9]{3,24}", "storageAccount must be 3 to 24 lower-case letters and digits"),
]
_Region = Annotated[
    str,
    Field(max_length=63),
    matching("[A-Za-z0-9]([-A-Za-z0-9_]*[A-Za-z0-9])?", "region must be the name of one, such as eu-central-1"),
]


class ModelRepositorySpec(ApiModel):
    """Where the repository is and how it is read."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!(has(self.credentialsSecretRef) && has(self.serviceAccountName))",
            "credentialsSecretRef and serviceAccountName exclude each other: name a Secret with keys, or a "
            "ServiceAccount with an identity of its own",
            lambda spec: spec.credentials_secret_ref is None or spec.service_account_name is None,
        ),
        Rule(
            "!has(self.storageAccount) || self.url.startsWith('az://')",
            "storageAccount is Azure's, and only an az:// url has one",
            lambda spec: spec.storage_account is None or spec.url.startswith("az://"),
            field_path=".storageAccount",
        ),
        Rule(
            "has(self.storageAccount) || has(self.credentialsSecretRef) || !self.url.startsWith('az://')",
            "an az:// url without credentialsSecretRef needs storageAccount: nothing else says which account the "
            "container is in",
            lambda spec: bool(spec.storage_account or spec.credentials_secret_ref) or not spec.url.startswith("az://"),
            field_path=".storageAccount",
        ),
        Rule(
            "!has(self.region) || self.url.startsWith('s3://')",
            "region is Amazon's, and only an s3:// url has one",
            lambda spec: spec.region is None or spec.url.startswith("s3://"),
            field_path=".region",
        ),
    )

    url: Annotated[
        str,
        Field(max_length=1024),
        matching(
            f"{_BUCKETS}{_ANYTHING}|(file://|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?){_PATH}",
            "url must be pvc://CLAIM/PATH, or file:///PATH for the local node of a development cluster, or a bucket's, "
            "such as gs://BUCKET/FOLDER; of the first two, PATH is names with one / between them, and what is no "
            "letter, digit or one of -._~!&()*+,;=:@ is written as %XX",
        ),
        Rule(
            f"!self.matches('^{_BUCKETS}') || self.matches('^({_BUCKET_URL})$')",
            "url must be gs://BUCKET, s3://BUCKET or az://CONTAINER, alone or with a /FOLDER, which is written as the "
            "keys of its objects are: names with one / between them, without $, [, ] or backslash, and %XX stands for "
            "nothing else",
            lambda url: not re.match(_BUCKETS, url) or re.fullmatch(_BUCKET_URL, url) is not None,
        ),
        Rule(
            "!self.matches('/[.][.]?(/|$)')",
            "url must not hold '.' or '..' as a folder: write the path without them",
            lambda url: not {".", ".."} & set(url.split("/")),
        ),
    ]
    """gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, az://CONTAINER/FOLDER: a bucket, or a folder in it. pvc://CLAIM/PATH: a
    folder in a PersistentVolumeClaim of this namespace. file:///PATH: a folder of the development cluster's local
    node."""
    credentials_secret_ref: LocalReference | None = None
    """Secret whose keys become the environment of what reads the repository, by the names of the clouds' own libraries:
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY…; AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with
    AZURE_STORAGE_KEY…. For gs:// the key credentials.json holds the key file of a service account. The key endpoint
    names another server than the cloud's (an emulator, MinIO: http://HOST:PORT), and region the region of s3://. Only
    the pods see it, and they read it when they start: after a change, name another Secret here, or kubectl rollout
    restart them."""
    service_account_name: DnsName | None = None
    """ServiceAccount that what reads the repository runs as: the cloud's identity that is bound to it is asked for
    (GKE's and Azure's workload identity, EKS's IRSA or pod identity)."""
    storage_account: _StorageAccount | None = None
    """Azure's storage account of an az:// container, where no Secret names it (AZURE_STORAGE_ACCOUNT)."""
    region: _Region | None = None
    """Amazon's region of an s3:// bucket, where no Secret names it (AWS_REGION). Absent: the cluster's, where EKS gives
    the ServiceAccount an identity, and us-east-1 everywhere else."""
    sync_interval: Annotated[
        Duration,
        Rule(
            f"!self.matches('^({PATTERN})$') || duration(self) >= duration('5s')",
            "syncInterval must be 5s or longer",
            lambda interval: seconds(interval) >= 5,
        ),
    ] = "30s"
    """How often the repository is listed, such as 45s or 1h30m."""
    verification: Verification = Verification.GOLDEN
    """What must hold before a version takes traffic on a server with models: All, where no Model says it for the entry.
    Golden: every hash, and the golden tensors reproduced by the replica. Hashes: every hash. None: nothing; versions
    that others wrote, without a manifest, are served too."""
    suspend: bool = False
    """True: the operator leaves the repository and what belongs to it as they are."""

    @property
    def bucket(self) -> str | None:
        """The kind of bucket that the url names, ``gs``, ``s3`` or ``az``; None where it names a folder."""
        return self.url.partition("://")[0] if re.match(_BUCKETS, self.url) else None


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
