"""What the reconciler knows: of each desired model, and of each load in Triton. Plain data."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import datetime

from gravswell.serving.agent.health import Health
from gravswell.serving.agent.loadconfig import Loaded
from gravswell.serving.contracts import DesiredModel, ModelState, Reason, StartStage
from gravswell.serving.golden import Golden


@dataclass(frozen=True)
class Pace:
    """How often things happen, in seconds."""

    tick: float = 2.0
    """Between two looks at Triton."""
    probe: float = 5.0
    """Between two golden inferences on an idle model."""
    suspect: float = 1.0
    """Between two golden inferences after one that failed."""
    first_retry: float = 5.0
    longest_retry: float = 300.0

    def retry(self, attempts: int) -> float:
        """The wait after the ``attempts``-th failure in a row."""
        return float(min(self.first_retry * 2 ** min(attempts - 1, 16), self.longest_retry))


@dataclass
class Work:
    """One desired model on its way."""

    model: DesiredModel
    state: ModelState = ModelState.WAITING
    reason: Reason | None = None
    message: str = ""
    attempts: int = 0
    """Failures in a row."""
    retry_at: float = 0.0
    """Not before this time of the monotonic clock."""
    deaths: int = 0
    """How often Triton ended while it verified or loaded this version."""
    attempted: bool = False
    """It was tried once, with whatever result."""
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is no longer desired, or the agent stops: what is under way for it is given up."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took, the last time that it succeeded."""
    downloaded: int = 0
    """Bytes that its download brought."""
    stage: StartStage = StartStage.START
    """Of a start, what is under way for it."""


@dataclass
class Serving:
    """One load of one name in Triton."""

    loaded: Loaded
    since: datetime
    """When it was first looked at: it has been loaded since then at the latest, by the wall clock."""
    health: Health = field(default_factory=Health)
    proven: bool = False
    """It answered rightly under its own name."""
    trusted: bool = False
    """It may take traffic before it is proven: what it replaced was proven, or this Triton has verified it and is only
    too busy to answer. Lost with the first wrong answer."""
    tried: bool = False
    """That was tried, with whatever result."""
    dead: bool = False
    """Its probes prove that its backend process has ended."""
    probed_at: float = 0.0
    golden: Golden | None = None
    """Its smallest golden sample, once it was needed."""

    @property
    def good(self) -> bool:
        """Whether it counts for the pod's readiness."""
        return self.proven or self.trusted

    def probe_due(self, pace: Pace) -> bool:
        """Whether it is time to look after it again."""
        return time.monotonic() >= self.probed_at + (pace.suspect if self.health.suspicion else pace.probe)
