"""``Model``: one entry of the repository, at one version, on one server."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from gravswell.serving.contracts import ModelState, Verification
from gravswell_operator.api.common import MAX_GPUS, ApiModel, Column, LocalReference, Names, Resource, Status
from gravswell_operator.api.rollout import Rollout, RolloutStatus
from gravswell_operator.api.rules import Rule, matching

ALIAS_PATTERN = "[a-z][a-z0-9-]{0,62}"
"""Names for versions. ``latest`` is one of them that is always there."""


class Placement(ApiModel):
    """How the model is laid out on each replica."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.start) || has(self.devices)",
            "start is where the devices begin: say how many, in devices",
            lambda placement: placement.start is None or placement.devices is not None,
            ".start",
        ),
        Rule(
            "!has(self.shared) || !self.shared || has(self.devices)",
            "shared is about the model's devices: say how many, in devices; without, it runs on every device anyway",
            lambda placement: not placement.shared or placement.devices is not None,
            ".shared",
        ),
        Rule(
            f"!has(self.start) || !has(self.devices) || self.start + self.devices <= {MAX_GPUS}",
            f"start + devices must not be above {MAX_GPUS}, which is the most that a replica has",
            lambda placement: (placement.start or 0) + (placement.devices or 0) <= MAX_GPUS,
            ".devices",
        ),
    )

    devices: Annotated[int, Field(ge=1, le=MAX_GPUS)] | None = None
    """GPUs of each replica that the model runs on, in a row, and that no other Model with devices gets. Models get
    theirs in the order of their age, and keep them. Absent: every GPU of the replica, beside whatever else is there."""
    instances: Annotated[int, Field(ge=1, le=64)] | None = None
    """Instances on each device, in place of what the version's own config says."""
    start: Annotated[int, Field(ge=0, le=MAX_GPUS - 1)] | None = None
    """The first of the devices, counted from 0. Absent: the first that are free."""
    shared: bool = False
    """True: the devices may be those of other Models with shared: true, too. They run side by side, and must fit into
    the devices' memory together."""


class PlacedStatus(ApiModel):
    """The devices that the model was given."""

    devices: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(max_length=MAX_GPUS, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = ()
    """Numbers of the GPUs of each replica, from 0."""


def _is_version(version: int | str) -> bool:
    if isinstance(version, int):
        return 1 <= version < 10**18
    return re.fullmatch(ALIAS_PATTERN, version) is not None


class ModelSpec(ApiModel):
    """Which version of which entry is served where."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.serverRef.name == oldSelf.serverRef.name",
            "serverRef is immutable; make a new Model for the other server",
            field_path=".serverRef",
        ),
        Rule(
            "self.entry == oldSelf.entry",
            "entry is immutable; make a new Model for the other entry",
            field_path=".entry",
        ),
    )

    server_ref: LocalReference
    """The InferenceServer that serves the model."""
    entry: Annotated[
        str,
        Field(max_length=255),
        matching(
            "[A-Za-z0-9_][A-Za-z0-9._-]*",
            "entry must be the name of a model, without a path: letters, digits, '.', '_' and '-', and the first one "
            "a letter, a digit or '_'",
        ),
    ]
    """Name of the entry in the server's repository."""
    version: Annotated[
        int | str,
        Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 63}),
        Rule(
            f"type(self) == int ? self >= 1 && self < {10**18} : self.matches('^{ALIAS_PATTERN}$')",
            "version must be a number from 1, of at most 18 digits, latest, or the name of an alias (lower-case "
            "letters, digits and '-', the first one a letter)",
            _is_version,
        ),
    ] = "latest"
    """A number, latest, or an alias of the entry."""
    placement: Placement = Placement()
    """How the model is laid out on each replica."""
    rollout: Rollout = Rollout()
    """How a new version takes the place of the one that serves."""
    verification: Verification = Verification.GOLDEN
    """What must hold before a version takes traffic. Golden: every hash, and the golden tensors reproduced by the
    replica. Hashes: every hash. None: nothing; versions that others wrote, without a manifest, are served too."""
    suspend: bool = False
    """True: the server keeps what the operator last resolved for this model, whatever is published."""


class ReplicaStatus(ApiModel):
    """The model on one replica."""

    pod: Annotated[str, Field(max_length=253)]
    """The replica's pod."""
    state: ModelState
    """Where the model is on its way."""
    version: int | None = None
    """Version that takes traffic there."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """Why it is not served, in words."""
    seconds: dict[str, float] | None = None
    """How long the replica took to download it, to verify it (load it beside and ask it its golden tensors), to load it
    for traffic, and to prove it there; without what was done already when its agent came."""
    downloaded: Annotated[int, Field(ge=0)] | None = None
    """Bytes that the download brought."""


class ModelStatus(Status):
    """What is served of the model."""

    desired_version: int | None = None
    """The version that the replicas shall serve: the one that spec.version stands for, or the one before while that is
    a canary or was rolled back."""
    desired_digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of that version."""
    loaded_version: int | None = None
    """The version that every replica serves; absent while they differ."""
    loaded_digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the version that every replica serves."""
    placement: PlacedStatus | None = None
    """The devices that the model was given; absent where it runs on all of them."""
    rollout: RolloutStatus | None = None
    """The last change of the version; absent before the first."""
    replicas: Annotated[
        tuple[ReplicaStatus, ...],
        Field(
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["pod"]},
        ),
    ] = ()
    """The model on each of the first 100 replicas."""


class Model(Resource):
    """One entry of a repository, at one version, served by one InferenceServer."""

    NAMES: ClassVar[Names] = Names(
        kind="Model",
        plural="models",
        short=("mdl",),
        scope="Namespaced",
        columns=(
            Column("Server", ".spec.serverRef.name"),
            Column("Entry", ".spec.entry"),
            Column("Version", ".spec.version"),
            Column("Desired", ".status.desiredVersion", "integer"),
            Column("Loaded", ".status.loadedVersion", "integer"),
            Column("Rollout", ".status.rollout.progress"),
            Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
            Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Devices", ".status.placement.devices", wide=True),
            Column("Message", ".status.conditions[?(@.type=='Ready')].message", wide=True),
        ),
        selectable=(".spec.serverRef.name", ".spec.entry"),
    )

    spec: ModelSpec
    status: ModelStatus = ModelStatus()
