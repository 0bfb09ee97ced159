"""What the kinds share: the base models, names and quantities, conditions, and how a kind describes its CRD."""

import enum
import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gravswell import durations
from gravswell_operator.api.rules import EXTENSION, Rule, matching

GROUP = "gravswell.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_GPUS = 16
"""Of one replica: as many as the largest machines have."""


@dataclass(frozen=True)
class Column:
    """A printer column of ``kubectl get``. ``wide`` ones show with ``-o wide`` only."""

    name: str
    path: str
    type: str = "string"
    description: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Scale:
    """The ``/scale`` subresource: where replicas and the pods' selector are."""

    spec_replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True)
class Names:
    """Everything about a kind that is not in its fields."""

    kind: str
    plural: str
    short: tuple[str, ...]
    scope: Literal["Cluster", "Namespaced"]
    columns: tuple[Column, ...]
    scale: Scale | None = None
    selectable: tuple[str, ...] = ()
    """Paths of fields that ``kubectl get --field-selector`` takes."""
    categories: tuple[str, ...] = ("gravswell",)


_NOT_KEPT: set[str] = set()


class ApiModel(BaseModel):
    """Base of every object in the API: camelCase on the wire, immutable here, docstrings are descriptions.

    ``RULES`` are the CEL rules of the object; parsing checks them too, all but those on the earlier object.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        serialize_by_alias=True,
    )
    RULES: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        for rule in self.RULES:
            rule.check(self)
        # Which fields were given is asked by nobody, and was half of what a status takes in the operator's memory.
        object.__setattr__(self, "__pydantic_fields_set__", _NOT_KEPT)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        reference = handler(core)
        if cls.RULES:
            handler.resolve_ref_schema(reference)[EXTENSION] = [rule.schema() for rule in cls.RULES]
        return reference

    def to_dict(self) -> dict[str, Any]:
        """The object as JSON-able data, without what is unset or null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]
DnsName = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]
_NAME = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = f"([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?{_NAME}"
_ANNOTATION_KEY = f"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*/)?{_NAME}"
"""Kubernetes does not mind the case of an annotation's prefix."""
_MAX_KEY = 317


def _keys(pattern: str, of_what: str) -> Rule:
    """The rule on a map that every key is one of ``pattern``: a structural schema cannot bound keys."""
    compiled = re.compile(pattern)
    return Rule(
        f"self.all(key, key.size() <= {_MAX_KEY} && key.matches('^({pattern})$'))",
        f"the key of {of_what} must be NAME or PREFIX/NAME, such as example.com/team: the name of at most 63 letters, "
        "digits, '-', '_' and '.', the prefix a DNS name",
        lambda keys: all(len(key) <= _MAX_KEY and compiled.fullmatch(key) for key in keys),
    )


QualifiedName = Annotated[str, Field(pattern=f"^({_KEY})$", max_length=_MAX_KEY)]
"""A label's or a taint's key, such as ``nvidia.com/gpu``."""
LabelValue = Annotated[str, Field(pattern=r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$", max_length=63)]
LABEL_KEYS = _keys(_KEY, "a label")
Labels = Annotated[dict[str, LabelValue], Field(max_length=64), LABEL_KEYS]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=16384)]],
    Field(max_length=64),
    _keys(_ANNOTATION_KEY, "an annotation"),
]


def _text_of_integer(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(min_length=1, max_length=32, json_schema_extra={"x-kubernetes-int-or-string": True}),
    matching(
        "[0-9]+([.][0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?",
        "must be a quantity such as 4, 500m or 8Gi: a number, and at most one of m, k, M, G, T, P, Ki, Mi, Gi, Ti, Pi",
        value="string(self)",
    ),
    Rule(
        "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
        "must be above 0",
        lambda quantity: re.search("[1-9]", quantity) is not None,
    ),
    BeforeValidator(_text_of_integer),
]
"""A positive Kubernetes quantity, such as ``500m`` or ``8Gi``; a plain integer in a manifest is one too."""

Duration = Annotated[
    str,
    Field(min_length=2, max_length=16),
    matching(
        durations.PATTERN,
        "must be hours, minutes and seconds, in this order and each of at most 4 digits, such as 45s or 1h30m",
    ),
]
"""Hours, minutes and seconds, such as ``1h30m`` or ``45s``; :func:`gravswell.durations.seconds` reads it."""

ImageReference = Annotated[
    str,
    Field(max_length=512),
    matching(
        "[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
        "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[a-f0-9]{64})?",
        "image must be a reference such as registry.example.com/triton:24.08-custom",
    ),
]
"""A container image by name, with a tag or a digest."""

MAX_NAME = 50
"""Longest name of an object after which others are named: a Service takes 63 characters, and ours add an ending."""


def name_rule(kind: str) -> Rule:
    """The rule on ``metadata.name`` of a kind whose children are named after it."""
    return matching(
        f"[a-z]([-a-z0-9]{{0,{MAX_NAME - 2}}}[a-z0-9])?",
        f"the name of {kind} must be at most {MAX_NAME} lower-case letters, digits and '-', and begin with a letter: "
        "other objects and labels are made from it",
        ".metadata.name",
        "self.metadata.name",
    )


class LocalReference(ApiModel):
    """An object of the same namespace, by name."""

    name: DnsName
    """Name of the object."""


class ClusterReference(ApiModel):
    """An object without a namespace, by name."""

    name: DnsName
    """Name of the object."""


class ConditionStatus(enum.StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ApiModel):
    """One aspect of the object's state, in the form of metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """The aspect, such as Ready."""
    status: ConditionStatus
    """Whether it holds: True, False or Unknown."""
    reason: Annotated[str, Field(pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", min_length=1, max_length=1024)]
    """Why, in one CamelCase word for programs; each has an entry in the runbook."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in words, with the object and the way out."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status last changed."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation that this was decided on."""


Conditions = Annotated[
    tuple[Condition, ...],
    Field(
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    ),
]


class Status(ApiModel):
    """What every status has."""

    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation that this status answers."""
    conditions: Conditions = ()
    """The aspects of the object's state; Ready sums them up."""


class ObjectMeta(ApiModel):
    """The part of an object's metadata that is read."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    finalizers: tuple[str, ...] = ()
    creation_timestamp: str | None = None


class Resource(ApiModel):
    """Base of the kinds. ``NAMES`` says what the CRD is called and how it is printed.

    A kind's docstring is what ``kubectl explain`` shows first.
    """

    NAMES: ClassVar[Names]

    metadata: ObjectMeta
