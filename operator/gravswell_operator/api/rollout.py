"""``spec.rollout`` and ``status.rollout`` of a ``Model``: how a new version takes the place of the one that serves."""

import enum
import re
from fractions import Fraction
from typing import Annotated, ClassVar

from pydantic import Field

from gravswell import durations
from gravswell_operator.api.common import ApiModel, Duration
from gravswell_operator.api.rules import Rule, matching

MANUAL = "Manual"
MAX_STEPS = 16

_PERCENT = "([1-9][0-9]?|100)%"


def _is_share(replicas: int | str) -> bool:
    if isinstance(replicas, int):
        return replicas >= 1
    return re.fullmatch(_PERCENT, replicas) is not None


Percent = Annotated[
    str,
    Field(max_length=16),
    matching("[0-9]{1,4}([.][0-9]{1,4})?%", "must be a percentage such as 1% or 0.5%"),
]
"""A percentage, such as ``0.5%``; :func:`fraction` reads it."""


def fraction(percent: str) -> Fraction:
    """``percent`` as an exact number: ``0.5%`` is 1/200."""
    return Fraction(percent.removesuffix("%")) / 100


class Step(ApiModel):
    """A part of a canary: so many replicas serve the new version, and for so long."""

    replicas: Annotated[
        int | str,
        Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 4}),
        Rule(
            f"type(self) == int ? self >= 1 : self.matches('^({_PERCENT})$')",
            "replicas must be a number from 1, or a percentage from 1% to 100%",
            _is_share,
        ),
    ]
    """Replicas that serve the new version: a number, or a percentage of all, rounded up. The others keep the old."""
    pause: Annotated[
        str,
        Field(min_length=2, max_length=16),
        matching(
            f"{MANUAL}|{durations.PATTERN}",
            "pause must be hours, minutes and seconds, such as 45s or 1h30m, or Manual",
        ),
    ] = "10m"
    """How long they serve it before the next step, such as 10m. Manual: until rollout.promote names the version."""
    weight: (
        Annotated[
            str,
            Field(max_length=16),
            matching("([0-9]|[1-9][0-9]|100)%", "weight must be a whole percentage from 0% to 100%"),
        ]
        | None
    ) = None
    """Share of the requests through the server's Gateway (service.gateway) that these replicas get, such as 5%, however
    many they are. Absent: the Gateway, too, gives each replica the same."""

    @property
    def percent(self) -> int | None:
        """``weight`` as a number; None where there is none."""
        return int(self.weight.removesuffix("%")) if self.weight is not None else None


class Judge(ApiModel):
    """When a canary is good, and when it is not: the new version's requests beside the old one's, in the same time."""

    max_error_rate: Percent = "1%"
    """Share of the requests that the new version may fail beyond the share that the old one fails. A canary that fails
    more than that, of at least minRequests, is rolled back at once."""
    min_requests: Annotated[int, Field(ge=0, le=10**9)] = 20
    """Requests that the new version must have been asked in a step. With fewer, it waits for them beyond its pause."""
    max_latency_ratio: (
        Annotated[
            str,
            Field(max_length=16),
            matching("[1-9][0-9]{2,4}%", "maxLatencyRatio must be a percentage from 100% on, such as 150%"),
        ]
        | None
    ) = None
    """How long the new version may take for a request on average, as a percentage of the old one's, such as 150%. It
    is asked when both have answered minRequests. Absent: latency is not judged."""


class Canary(ApiModel):
    """A new version on a growing share of the replicas, each step judged before the next."""

    steps: Annotated[
        tuple[Step, ...],
        Field(min_length=1, max_length=MAX_STEPS, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
    ] = (Step(replicas="25%"), Step(replicas="50%"))
    """The steps, in their order. After the last one, every replica serves the new version."""
    judge: Judge = Judge()
    """When a step is good enough for the next one, and when the roll-out ends with the old version."""
    progress_deadline: Duration = "30m"
    """How long the replicas of a step may take until they serve the new version, and the Gateway until it gives them
    the step's weight. Above that, it is rolled back."""

    @property
    def weighted(self) -> bool:
        """Whether it needs the routes of its server."""
        return any(step.weight is not None for step in self.steps)


class Strategy(enum.StrEnum):
    """How a new version takes the place of the old one."""

    IMMEDIATE = "Immediate"
    CANARY = "Canary"


class Rollout(ApiModel):
    """How a new version takes the place of the one that serves."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.canary) || self.strategy == 'Canary'",
            "canary is about the strategy Canary: set strategy: Canary, or remove it",
            lambda rollout: rollout.canary is None or rollout.strategy is Strategy.CANARY,
            ".canary",
        ),
        Rule(
            "!has(self.promote) || !has(self.abort) || self.promote != self.abort",
            "promote and abort name the same version: keep the one that you mean",
            lambda rollout: rollout.promote is None or rollout.promote != rollout.abort,
            ".abort",
        ),
    )

    strategy: Strategy = Strategy.IMMEDIATE
    """Immediate: every replica verifies the new version beside the old one and then switches; one on which it fails
    keeps the old one. Canary: first a few replicas, then more, and back to the old version if it is worse."""
    canary: Canary | None = None
    """The steps of a Canary and what they are judged by. Absent, with that strategy: 25%, then 50%, each for 10m."""
    promote: Annotated[int, Field(ge=1, lt=10**18)] | None = None
    """Number of a version that shall be served everywhere now, whatever step its canary is at and whatever is judged.
    gravswell rollout promote writes it; of no effect on other versions."""
    abort: Annotated[int, Field(ge=1, lt=10**18)] | None = None
    """Number of a version that shall not be rolled out: a canary of it ends, and the old version serves. gravswell
    rollout abort writes it; of no effect on other versions."""
    attempt: Annotated[int, Field(ge=0, lt=10**9)] = 0
    """Raise it to try a version again that was rolled back. gravswell rollout retry does."""

    @property
    def plan(self) -> Canary:
        """The canary as it is carried out."""
        return self.canary or Canary()


class RolloutState(enum.StrEnum):
    """Where a roll-out stands."""

    WAITING = "Waiting"
    """A canary with weights has not begun: it waits for its server's routes, or for the canary that has them."""
    PROGRESSING = "Progressing"
    """Replicas are on their way to the new version, or are judged."""
    PAUSED = "Paused"
    """A step with pause: Manual is good so far, and waits for somebody."""
    PROMOTED = "Promoted"
    """Every replica shall serve the new version; some do not yet."""
    COMPLETE = "Complete"
    """Every replica serves the new version."""
    ROLLED_BACK = "RolledBack"
    """Every replica shall serve the old version, and the new one is not tried again until the spec changes."""


UNDER_WAY = (RolloutState.PROGRESSING, RolloutState.PAUSED)
"""The states of a canary that is judged."""


class RolloutStatus(ApiModel):
    """The last change of the version."""

    strategy: Strategy
    """How it is done."""
    state: RolloutState
    """Waiting, Progressing, Paused, Promoted, Complete or RolledBack."""
    from_version: Annotated[int | None, Field(alias="from")] = None
    """The version that served before."""
    from_digest: Annotated[str, Field(max_length=64)] | None = None
    """Digest of the version that served before. Ranks go back to it where one of them refuses the new one."""
    to: int
    """The new version."""
    to_digest: Annotated[str, Field(max_length=64)] | None = None
    """Its digest. A version that was rolled back is known by it."""
    step: Annotated[int, Field(ge=0)] = 0
    """The step of a canary that is under way, or was last; the first is 1."""
    steps: Annotated[int, Field(ge=0)] = 0
    """How many there are."""
    replicas_updated: Annotated[int, Field(ge=0)] = 0
    """Replicas that serve the new version."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Replicas that shall serve it now."""
    weight: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent of the requests through the server's Gateway that go to those that serve the new version, by what its
    routes say now; absent while they make no difference between replicas."""
    progress: Annotated[str, Field(max_length=64)] = ""
    """All of it in a few words, such as 1/4 Paused, weight 10%: the replicas that serve the new version, of all, the
    state, and the weight where there is one."""
    started: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it began."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the present step or state began."""
    loading_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when the replicas of the step have been told the new version: progressDeadline is counted from here. It
    moves on by the time for which all of them served it."""
    serving_since: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """Since when every replica of the step serves the new version: the pause is counted from here."""
    generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation at which a version was rolled back: a later one is another try."""
    message: Annotated[str, Field(max_length=1024)] = ""
    """What it waits for, or why it ended, in words."""
