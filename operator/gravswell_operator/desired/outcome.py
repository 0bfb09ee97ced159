"""What became of the wish that a Model is."""

from dataclasses import dataclass

from gravswell.serving.contracts import DesiredModel
from gravswell_operator.conditions import Reason


@dataclass(frozen=True)
class Outcome:
    """What became of one wish: the version to serve, or why there is none, or both (an earlier one stays)."""

    desired: DesiredModel | None
    reason: Reason | None = None
    """None: resolved as asked."""
    message: str = ""

    @property
    def resolved(self) -> bool:
        """Whether ``desired`` is what was asked for."""
        return self.reason is None

    @property
    def numbers(self) -> set[int]:
        """The versions to serve: two during a roll-out, on different replicas."""
        wanted = (self.desired, self.desired.canary) if self.desired is not None else ()
        return {one.version for one in wanted if one is not None}
