"""The documents that the operator, the agents and the listers exchange through ConfigMaps.

``<server>-desired``      key ``desired.json``   operator → agents    :class:`Desired`
``<server>-report``       key ``<pod name>``     agent → operator     :class:`Report`
``<server>-report-<n>``   the same, where :attr:`Desired.reports` divides a server's reports: :func:`report_part`
``<repository>-listing``  key ``listing.json``   lister → operator    :class:`Listing`
``<repository>-listing``  key ``served.json``    operator → lister    :class:`Served`

The library owns the schemas and the operator imports them, so the two sides can be upgraded apart: unknown fields are
ignored on reading, a report may name states and stages that its reader does not know, and ``schema`` names the version
of the document.
"""

import enum
import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from gravswell.names import PROOF_PREFIX, why_reserved

DESIRED_KEY = "desired.json"
LISTING_KEY = "listing.json"
SERVED_KEY = "served.json"

PRIVATE_PREFIX = PROOF_PREFIX
"""Names of the private models under which golden proofs run: no desired model may have such a name."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Hexadecimal sha256. The digest of a version is that of its ``.manifest.json``, byte for byte."""


def is_text(name: str) -> bool:
    """Whether a document can carry ``name``: a folder's name can be any bytes, JSON is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


class Document(BaseModel):
    """Base of the documents: camelCase in JSON, immutable, unknown fields ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")

    def to_json(self) -> str:
        """The document as canonical JSON: the same content gives the same bytes."""
        return self.model_dump_json(by_alias=True)


class Verification(enum.StrEnum):
    """What must hold before a version may receive traffic."""

    GOLDEN = "Golden"
    """Every hash, and the golden tensors reproduced by the Triton that will serve them."""
    HASHES = "Hashes"
    """Every hash of the manifest."""
    NONE = "None"
    """Nothing: also versions that others wrote, without a manifest."""


def _not_private(name: str) -> str:
    if reserved := why_reserved(name):
        raise ValueError(f"{name!r} is no name of a model: {reserved}; rename the entry")
    return name


ModelName = Annotated[str, AfterValidator(_not_private)]
"""Name of an entry, as it is served."""

Version = Annotated[int, Field(ge=1, lt=10**18)]
"""Number of a version, within what Triton's 64 bits and a folder's name hold."""


def private_members(pipelines: Iterable[tuple[Iterable[str], bool]]) -> set[str]:
    """Entries that pipelines call and that none opens to clients.

    Of each pipeline is given which entries it calls, and whether it opens these.
    """
    closed: set[str] = set()
    opened: set[str] = set()
    for members, opens in pipelines:
        (opened if opens else closed).update(members)
    return closed - opened


class Canary(Document):
    """Another version of an entry, which some of the replicas serve in place of the one that the others do."""

    version: Version
    digest: Digest | None = None
    verification: Verification = Verification.GOLDEN
    pods: tuple[str, ...] = ()
    """The replicas that serve it, by their pods' names."""
    window: str
    """Name of the time in which all replicas count what the model is asked: another one, and they begin anew."""
    seconds: float = Field(default=5.0, gt=0)
    """Between two counts that a replica tells."""


class RankPart(Document):
    """A version of an entry that is a part of a partition, and the rank that computes it."""

    name: ModelName
    version: Version
    digest: Digest
    rank: int = Field(ge=0)


class DesiredModel(Document):
    """One entry that the servers shall serve, resolved to a number and a digest."""

    name: ModelName
    version: Version
    digest: Digest | None = None
    """None: a version without a manifest, served as ``unverified``."""
    verification: Verification = Verification.GOLDEN
    instances: int | None = Field(default=None, ge=1)
    """Instances per device, in place of what the version's own config says. None: as the config says."""
    gpus: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=1)
    """The replica's devices that the model runs on, in place of those in the version's own config, ascending. None: as
    the config says, which by default is every device."""
    parts: tuple[RankPart, ...] = Field(default=(), exclude_if=lambda parts: not parts)
    """Of a partition, on a server with ranks: each replica serves those of its rank in the model's place."""
    canary: Canary | None = Field(default=None, exclude_if=lambda canary: canary is None)
    """During a roll-out: what some of the replicas serve in place of ``version``."""

    def on(self, pod: str) -> "DesiredModel":
        """What one replica shall serve of the entry."""
        canary = self.canary
        if canary is None:
            return self
        own: dict[str, object] = {"canary": None}
        if pod in canary.pods:
            own |= {"version": canary.version, "digest": canary.digest, "verification": canary.verification}
        return self.model_copy(update=own)

    def of_rank(self, rank: int, gpus: tuple[int, ...] | None = None) -> "tuple[DesiredModel, ...]":
        """What the replica of a rank serves in the model's place: each part is loaded and verified as the model.

        On ``gpus``, where the model was not given devices.
        """
        own: dict[str, object] = {"parts": (), "gpus": self.gpus or gpus}
        return tuple(
            self.model_copy(update={**own, "name": part.name, "version": part.version, "digest": part.digest})
            for part in self.parts
            if part.rank == rank
        )


MOST_REPORTS = 128
"""ConfigMaps of reports of one server. A desired state that asks for more is none: who may write to it must not have
the operator, which serves all namespaces, look for any number of them."""


def report_part(pod: str, parts: int) -> int:
    """Into which of so many ConfigMaps the report of ``pod`` goes, counted from 0."""
    return int.from_bytes(hashlib.sha256(pod.encode()).digest()[:8]) % parts


def report_configmap(first: str, part: int) -> str:
    """The name of a ConfigMap of reports, of which ``first`` is part 0."""
    return first if part == 0 else f"{first}-{part}"


class Desired(Document):
    """What every replica of one ``InferenceServer`` shall serve. Models that are not named here are unloaded."""

    schema_: Literal["gravswell.dev/desired/v1"] = Field(default="gravswell.dev/desired/v1", alias="schema")
    repository: str
    """URL of the repository, as its user gave it."""
    models: tuple[DesiredModel, ...] = ()
    """Each name once."""
    gpus: int = Field(default=0, ge=0, exclude_if=lambda gpus: not gpus)
    """Of each replica, where these are ranks: a part runs on all of its own rank's, whatever its config says of the
    devices of a server that has all the parts."""
    reports: int = Field(default=1, ge=1, le=MOST_REPORTS, exclude_if=lambda reports: reports == 1)
    """Among how many ConfigMaps the replicas divide their reports: one holds 1 MiB. An agent of an earlier release that
    does not know of this writes into the first."""

    @field_validator("models")
    @classmethod
    def _names_each_once(cls, models: tuple[DesiredModel, ...]) -> tuple[DesiredModel, ...]:
        twice = sorted(name for name, count in Counter(model.name for model in models).items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(map(repr, twice))} is named more than once")
        return models

    def of_rank(self, rank: int) -> "Desired":
        """What the replica of a rank serves: of each partition the parts of that rank, and nothing else."""
        models = (part for model in self.models for part in model.of_rank(rank, tuple(range(self.gpus)) or None))
        return self.model_copy(update={"models": tuple(models)})

    @property
    def revision(self) -> str:
        """Short digest of the content; a report names the revision that it answers."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:12]

    def on(self, pod: str) -> "Desired":
        """What one replica shall serve: itself, where no roll-out is under way."""
        if not self.canaries:
            return self
        return self.model_copy(update={"models": tuple(model.on(pod) for model in self.models)})

    @property
    def canaries(self) -> dict[str, Canary]:
        """The roll-outs that are under way, by entry."""
        return {model.name: model.canary for model in self.models if model.canary is not None}


class ModelState(enum.StrEnum):
    """Where a desired model is on its way into one Triton."""

    WAITING = "Waiting"
    DOWNLOADING = "Downloading"
    VERIFYING = "Verifying"
    LOADING = "Loading"
    SERVING = "Serving"
    """The desired digest is loaded and takes traffic."""
    FAILED = "Failed"
    """The desired digest is not served; ``reason`` and ``message`` say why. What was loaded before still is."""


class Reason(enum.StrEnum):
    """Why a model is not (yet) served as desired: the values of ``ModelReport.reason`` and ``Listing.reason``."""

    REPOSITORY_UNAVAILABLE = "RepositoryUnavailable"
    """The repository does not answer. Retried."""
    REPOSITORY_NOT_FOUND = "RepositoryNotFound"
    """There is nothing at the repository's URL. Retried."""
    ACCESS_DENIED = "AccessDenied"
    """The repository refuses the credentials. Retried."""
    NOT_A_REPOSITORY = "NotARepository"
    """The URL names something that is no repository: a file, or a store that this release cannot open."""
    VERSION_NOT_FOUND = "VersionNotFound"
    """The repository holds no such entry or version. Retried."""
    DIGEST_MISMATCH = "DigestMismatch"
    """The version's manifest is not the one that is desired: somebody replaced a published version."""
    MANIFEST_INVALID = "ManifestInvalid"
    """The version's manifest cannot be read."""
    UNVERIFIED = "Unverified"
    """The version has no manifest or no golden tensors, and the model demands them."""
    HASH_MISMATCH = "HashMismatch"
    """A file's bytes are not those that the manifest names. Retried: an upload may still be under way."""
    NO_SPACE = "NoSpace"
    """The models folder has no room for the version. Retried."""
    NO_MEMORY = "NoMemory"
    """The version is larger than all the memory that its Triton could get. Retried."""
    LOAD_FAILED = "LoadFailed"
    """Triton refused to load it; the message is Triton's own. Retried."""
    GOLDEN_MISMATCH = "GoldenMismatch"
    """This Triton answers the golden inputs with other outputs than the framework did. It takes no traffic."""
    INFERENCE_FAILED = "InferenceFailed"
    """Triton answers the golden inputs with an error: the backend process is dead, or the graph cannot run."""
    NO_ANSWER = "NoAnswer"
    """Triton gave no answer to the golden inputs, or to the load, in time. Retried, ever more rarely."""
    TRITON_UNAVAILABLE = "TritonUnavailable"
    """The Triton beside the agent does not answer: starting, restarting or stuck. No failure of the model."""
    AGENT_ERROR = "AgentError"
    """A fault of the agent itself; its log has the details. Retried."""


class Traffic(Document):
    """What clients asked of one version on one replica in a window, by Triton's own count."""

    window: str
    """:attr:`Canary.window`"""
    succeeded: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    """Requests that Triton accepted and the model failed."""
    seconds: float = Field(default=0.0, ge=0)
    """Sum of the time that Triton took for those that succeeded, their wait in its queue included."""


class ModelReport(Document):
    """One desired model on one replica."""

    name: str
    state: ModelState
    desired_version: int
    desired_digest: Digest | None = None
    loaded_version: int | None = None
    """What takes traffic now: during a roll-out, or after a failed one, still the earlier version."""
    loaded_digest: Digest | None = None
    verified: bool = False
    """The loaded version reproduced its golden tensors on this Triton, and none that was wanted before replaces it."""
    reason: str = ""
    """One of :class:`Reason`; empty when there is nothing to say."""
    message: str = ""
    loaded_at: datetime | None = Field(default=None, exclude_if=lambda moment: moment is None)
    """Since when what is loaded is known to be, by the agent's clock: a Triton that was started later has lost it."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """How long each of ``download``, ``verify`` (loaded beside, and asked its golden tensors), ``load`` and ``prove``
    (asked under its own name) of the desired version took, the last time that it succeeded; none where this agent found
    it done."""
    downloaded: int = Field(default=0, ge=0, exclude_if=lambda size: not size)
    """Bytes that came with ``download``."""
    traffic: Traffic | None = Field(default=None, exclude_if=lambda traffic: traffic is None)
    """Of the loaded version, while a roll-out asks for it."""

    @field_validator("state", mode="before")
    @classmethod
    def _of_a_later_agent(cls, state: Any) -> Any:
        """One that we do not know is on its way: what is loaded, and why that is all, is told beside it."""
        return ModelState.WAITING if isinstance(state, str) and state not in list(ModelState) else state

    def has_loaded(self, wanted: DesiredModel | Canary) -> bool:
        """Whether exactly this version takes traffic there."""
        return (self.loaded_version, self.loaded_digest) == (wanted.version, wanted.digest)

    def is_about(self, wanted: DesiredModel | Canary) -> bool:
        """Whether the state and the reason are of this version: what was said of an earlier wish says nothing of it."""
        return (self.desired_version, self.desired_digest) == (wanted.version, wanted.digest)


class StartStage(enum.StrEnum):
    """What a replica's start waits for, from its agent's beginning on."""

    START = "Start"
    """For Triton to answer, for the desired state, or for a model's turn."""
    DOWNLOAD = "Download"
    LOAD = "Load"
    """Triton loads a version: beside what serves, for its proof, or for traffic."""
    WARM_UP = "WarmUp"
    """Golden tensors are inferred."""


class Start(Document):
    """How a replica came up, until it was first ready. Each moment counts for one stage: the earliest one that a model
    is in which was not tried yet. A restart of its containers changes nothing of one that is over."""

    began: datetime
    """When its agent began, by the clock of its node, as all times here."""
    stage: StartStage | None = StartStage.START
    """The present one; None when it is over."""
    since: datetime
    """When the present stage began, or the replica was first ready."""
    seconds: dict[StartStage, float] = Field(default_factory=dict)
    """Of every stage but ``Start``, up to ``since``."""
    downloaded: int = Field(default=0, ge=0)
    """Bytes, up to ``since``."""

    @field_validator("stage", mode="before")
    @classmethod
    def _of_a_later_agent(cls, stage: Any) -> Any:
        """One that we do not know is part of what the known ones leave."""
        return StartStage.START if isinstance(stage, str) and stage not in list(StartStage) else stage

    @field_validator("seconds", mode="before")
    @classmethod
    def _of_later_agents(cls, seconds: Any) -> Any:
        """Those of stages that we do not know count for ``Start``, as what the known ones leave does."""
        if not isinstance(seconds, Mapping):
            return seconds
        return {stage: value for stage, value in seconds.items() if stage in list(StartStage)}


class Report(Document):
    """What one replica says of itself, under its pod's name."""

    schema_: Literal["gravswell.dev/report/v1"] = Field(default="gravswell.dev/report/v1", alias="schema")
    pod: str
    uid: str = Field(default="", exclude_if=lambda uid: not uid)
    """The pod's, where names come again: what its predecessor of the same name said is not true of it."""
    revision: str = ""
    """:attr:`Desired.revision` of what this replica shall serve (:meth:`Desired.on`); empty before the first."""
    ready: bool = False
    triton: str = ""
    """Version of the Triton beside the agent; empty while it does not answer."""
    simulated_gpus: bool = False
    """The pod runs on a development node whose GPUs are simulated: models run on the CPU."""
    start: Start | None = Field(default=None, exclude_if=lambda start: start is None)
    """How this replica came up; None of an agent of an earlier release."""
    models: tuple[ModelReport, ...] = ()

    def of(self, entry: str) -> ModelReport | None:
        """What is said of one entry; None where nothing is."""
        return next((model for model in self.models if model.name == entry), None)


class ListedVersion(Document):
    """One version of an entry. ``digest`` is None for a version that others wrote, without a manifest."""

    number: Version
    digest: Digest | None = None
    size: int = Field(default=0, ge=0)
    """Bytes of all its files."""
    created: datetime | None = None
    parts: tuple[RankPart, ...] = Field(default=(), exclude_if=lambda parts: not parts)
    """Of a partition: what each of its ranks computes."""
    opset: int | None = Field(default=None, ge=1, exclude_if=lambda opset: opset is None)
    """The newest of ONNX's own operators that its graph needs; None where nothing says so."""
    ir_version: int | None = Field(default=None, ge=1, exclude_if=lambda ir_version: ir_version is None)
    """In which its graph is written; None where nothing says so."""
    members: tuple[str, ...] = Field(default=(), exclude_if=lambda members: not members)
    """Entries that it calls, where it is a pipeline."""
    opens_members: bool = Field(default=False, exclude_if=lambda opens: not opens)
    """Clients may call these by themselves, too."""


class ListedEntry(Document):
    """One entry: its versions, newest first, and the names that point at them."""

    name: ModelName
    versions: tuple[ListedVersion, ...] = ()
    aliases: dict[str, int] = Field(default_factory=dict)
    omitted: int = Field(default=0, ge=0)
    """Older versions left out to keep the document below a ConfigMap's size; aliased versions never are."""

    @model_validator(mode="before")
    @classmethod
    def _as_listed_before(cls, entry: Any) -> Any:
        """A lister of an earlier release told the members of the newest version alone, beside the versions: as long as
        it runs, they must not be taken for entries of their own."""
        match entry:
            case {"members": [*members], "versions": [{**newest}, *older]}:
                told = {"members": members, "opensMembers": entry.get("opensMembers", False)}
                return {**entry, "versions": [{**told, **newest}, *older]}
        return entry


class Listing(Document):
    """What a repository holds, as its lister last saw it."""

    schema_: Literal["gravswell.dev/listing/v1"] = Field(default="gravswell.dev/listing/v1", alias="schema")
    repository: str
    """URL of the repository, as its user gave it."""
    observed_at: datetime
    """When the repository was last listed with success, or first tried in vain."""
    accessible: bool
    reason: str = ""
    message: str = ""
    """Why it is not accessible, in words that a user can act on."""
    entries: tuple[ListedEntry, ...] = ()
    """While the repository is not accessible: the last that was seen."""

    def private(self, served: Mapping[str, Collection[int]] | None = None) -> set[str]:
        """Entries that are parts of pipelines only: servers call them by names of their own, and no client does.

        What counts of a pipeline are its versions that are ``served``, by entry; where none is, its newest.
        """
        pipelines: list[tuple[Iterable[str], bool]] = []
        for entry in self.entries:
            numbers = (served or {}).get(entry.name, ())
            counting = [version for version in entry.versions if version.number in numbers] or entry.versions[:1]
            pipelines += [(version.members, version.opens_members) for version in counting]
        return private_members(pipelines)

    @property
    def digest(self) -> str:
        """Short digest of what is listed, whenever it was seen."""
        content = "\n".join(entry.to_json() for entry in self.entries)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


class Served(Document):
    """What the servers of one ``ModelRepository`` serve or shall serve: its lister pins it, and nobody prunes it."""

    schema_: Literal["gravswell.dev/served/v1"] = Field(default="gravswell.dev/served/v1", alias="schema")
    repository: str
    """URL of the repository, as its user gave it."""
    entries: dict[str, tuple[Version, ...]] = Field(default_factory=dict)
    """By entry: the versions, ascending."""
